# Stand-ins for the inputs of a flake that configures machines, to call its `outputs` with:
#   (import ./flake.nix).outputs (import ./tests/nix-stub/inputs.nix { inherit self; mesh = …; })
# Modules of others are empty: their options are in the models of nixos.nix and darwin.nix.
{
  self,
  mesh,
}:
let
  stub = import ./. { };
  inherit (stub) lib sources;
  empty = class: { _class = class; };
  inputs = import ./flake-parts.nix { inherit lib; } // real // {
    inherit self mesh;
    nixpkgs = {
      lib = lib // {
        nixosSystem = stub.nixos;
      };
      legacyPackages = lib.genAttrs lib.systems.flakeExposed stub.pkgsFor;
    };
    nix-darwin.lib.darwinSystem = stub.darwin;
    home-manager = {
      nixosModules.home-manager = empty "nixos";
      darwinModules.home-manager.options.home-manager = lib.mkOption {
        type = lib.types.attrsOf lib.types.anything;
        default = { };
      };
    };
    disko.nixosModules.disko = empty "nixos";
    srvos.nixosModules.server = empty "nixos";
    clan-core =
      if sources ? clan-core then
        import ./clan-core-real.nix { inherit stub inputs; }
      else
        { flakeModules.default = import ./clan-core.nix { inherit stub; }; };
    terranix.lib.terranixConfiguration =
      { system, modules }:
      (stub.pkgsFor system).writeText "config.tf.json" (
        builtins.toJSON
          (lib.evalModules {
            modules = modules ++ [ { freeformType = lib.types.lazyAttrsOf lib.types.anything; } ];
          }).config
      );
  };
  # What was really fetched.
  real =
    lib.optionalAttrs (sources ? flake-parts) {
      flake-parts = (import (sources.flake-parts + "/flake.nix")).outputs { nixpkgs-lib = { inherit lib; }; };
    }
    // lib.optionalAttrs (sources ? import-tree) { import-tree = import sources.import-tree; };
in
inputs
