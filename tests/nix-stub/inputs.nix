# Stand-ins for the inputs of a flake that configures machines, to call its `outputs` with:
#   (import ./flake.nix).outputs (import ./tests/nix-stub/inputs.nix { inherit self; mesh = …; })
# Modules of others are empty: their options are in the models of nixos.nix and darwin.nix.
{
  self,
  mesh,
}:
let
  stub = import ./. { };
  inherit (stub) lib;
  empty = class: { _class = class; };
  inputs = import ./flake-parts.nix { inherit lib; } // {
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
      darwinModules.home-manager = empty "darwin";
    };
    disko.nixosModules.disko = empty "nixos";
    srvos.nixosModules.server = empty "nixos";
    clan-core.flakeModules.default = import ./clan-core.nix { inherit stub; };
    terranix.lib.terranixConfiguration =
      { system, modules }:
      (stub.pkgsFor system).writeText "config.tf.json" (
        builtins.toJSON
          (lib.evalModules {
            modules = modules ++ [ { freeformType = lib.types.lazyAttrsOf lib.types.anything; } ];
          }).config
      );
  };
in
inputs
