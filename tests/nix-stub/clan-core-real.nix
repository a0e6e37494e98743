# clan-core as its own flake puts it together, from its sources, without the inputs that only its tests use.
# Needs the real flake-parts and nixpkgs' real `lib`. Macs get all of clan's module but sops; servers, whose NixOS
# is a model, get what the vars and the inventory need.
{ stub, inputs }:
let
  inherit (stub) lib;
  root = stub.sources.clan-core;
  clanLib = lib.fix (
    lib.extends (_: _: {
      clan = import (root + "/lib/clan") {
        inherit lib;
        clan-core = self;
      };
    }) (import (root + "/lib") { inherit lib; }).__unfix__
  );
  sops = {
    darwinModules.sops = ./sops.nix;
    nixosModules.sops = ./sops.nix;
  };
  modules =
    (import (root + "/nixosModules/flake-module.nix") {
      inputs = inputs // {
        sops-nix = sops;
      };
      inherit self;
    }).flake;
  self = {
    outPath = root;
    inherit clanLib inputs;
    lib = clanLib;
    clan = {
      modules.zerotier = root + "/clanServices/zerotier/default.nix";
      templates = { };
      deprecatedModules = [ ];
    };
    packages = { };
    inherit (modules) darwinModules;
    nixosModules.clanCore.imports =
      map (name: root + "/nixosModules/clanCore/${name}") [
        "clanPkgs.nix"
        "dependencies.nix"
        "options.nix"
        "settings.nix"
        "vars"
      ]
      ++ [ sops.nixosModules.sops ];
    modules.clan.default = lib.modules.importApply (root + "/modules/clan/default.nix") { clan-core = self; };
    flakeModules.default = lib.modules.importApply (root + "/flakeModules/clan.nix") {
      inherit clanLib;
      coreInputs = inputs;
      coreModules = self.modules;
      flake-parts-lib = inputs.flake-parts.lib;
    };
  };
in
self
