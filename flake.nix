{
  description = "mesh: an encrypted overlay network for a fleet that one inventory describes";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      perSystem = output: lib.genAttrs systems (system: output nixpkgs.legacyPackages.${system});
      packageOf = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system}.mesh;
    in
    {
      lib = import ./nix-modules/lib.nix;

      nixosModules.default = ./nix-modules/nixos.nix;
      nixosModules.mesh = ./nix-modules/nixos.nix;
      darwinModules.default = ./nix-modules/darwin.nix;
      darwinModules.mesh = ./nix-modules/darwin.nix;
      flakeModules.default = ./nix-modules/flake-module.nix;
      flakeModule = ./nix-modules/flake-module.nix;
      # Where clan looks for services; under `modules.clan` flake-parts would stamp it with another class.
      clan.modules.mesh = ./nix-modules/clan-service.nix;

      overlays.default = final: _: { mesh = final.callPackage ./nix-modules/package.nix { }; };

      packages = perSystem (pkgs: rec {
        mesh = pkgs.callPackage ./nix-modules/package.nix { };
        default = mesh;
      });

      apps = perSystem (pkgs: {
        default = {
          type = "app";
          program = lib.getExe (packageOf pkgs);
          meta.description = "The `mesh` command";
        };
      });

      devShells = perSystem (pkgs: {
        default = pkgs.mkShell {
          # rustup brings the toolchain that `rust-toolchain.toml` names.
          packages = [
            pkgs.rustup
            pkgs.cargo-deny
            pkgs.jq
            pkgs.just
            pkgs.nixfmt
            pkgs.deadnix
          ];
        };
      });

      formatter = perSystem (pkgs: pkgs.nixfmt-tree);

      # The tests need namespaces and TUN devices and are run by `cargo xtask test`.
      checks = perSystem (pkgs: {
        package = packageOf pkgs;
        nix-lint =
          pkgs.runCommand "nix-lint"
            {
              nativeBuildInputs = [
                pkgs.deadnix
                pkgs.nixfmt
              ];
              files = lib.fileset.toSource {
                root = ./.;
                fileset = lib.fileset.unions [
                  ./flake.nix
                  ./nix-modules
                ];
              };
            }
            ''
              find "$files" -name '*.nix' -exec nixfmt --check {} +
              deadnix --fail "$files"
              touch "$out"
            '';
      });
    };
}
