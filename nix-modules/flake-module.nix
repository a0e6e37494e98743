# The mesh in a flake of flake-parts: one inventory, to which any file of the flake may add, and modules for
# machines that already know it.
#
#     { inputs, config, ... }: {
#       imports = [ inputs.mesh.flakeModules.default ];
#       mesh.inventory.machines.cinnabar.tags = [ "cloud" ];
#       flake.nixosConfigurations.cinnabar = inputs.nixpkgs.lib.nixosSystem {
#         modules = [ config.mesh.modules.nixos { networking.hostName = "cinnabar"; services.mesh.enable = true; } ];
#       };
#     }
#
# `nix eval --json .#mesh.inventory` is what `mesh inventory` reads.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.mesh;
  part =
    example: description:
    mkOption {
      type = types.attrsOf types.anything;
      default = { };
      example = lib.literalExpression example;
      inherit description;
    };
  withFleet = module: {
    imports = [ module ];
    services.mesh =
      if cfg.roster != null then
        { roster = lib.mkDefault cfg.roster; }
      else
        { inventory = lib.mkDefault cfg.inventory; };
  };
in
{
  options.mesh = {
    inventory = mkOption {
      default = { };
      example = lib.literalExpression "lib.importJSON ./inventory.json";
      description = "The fleet's inventory (docs/inventory.md); definitions of all files are merged.";
      type = types.submodule {
        options = {
          version = mkOption {
            type = types.enum [ "mesh/v1" ];
            default = "mesh/v1";
            example = "mesh/v1";
            description = "The form of the inventory.";
          };
          network = part ''{ id = "000102030405060708090a0b0c0d0e0f"; name = "fleet"; domain = "zt"; }'' "The network: `id`, `name`, `domain`, `signers`, `ipv4`.";
          machines = part ''{ cinnabar.tags = [ "cloud" ]; }'' "The machines by name.";
          tags = part ''{ cloud = [ "cinnabar" ]; }'' "Machines by tag, beside the machines' own `tags`.";
          instances = part "{ mesh.roles.peer.tags.all = { }; }" "Services and who has which role in them; `mesh` is the mesh itself.";
        };
      };
    };

    roster = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./roster.json";
      description = "A signed roster, which machines are then built with in place of the inventory.";
    };

    modules = {
      nixos = mkOption {
        type = types.deferredModule;
        readOnly = true;
        defaultText = lib.literalMD "the module, with `mesh.inventory` or `mesh.roster`";
        example = lib.literalExpression "config.mesh.modules.nixos";
        description = "The NixOS module, with the inventory or roster set.";
      };
      darwin = mkOption {
        type = types.deferredModule;
        readOnly = true;
        defaultText = lib.literalMD "the module, with `mesh.inventory` or `mesh.roster`";
        example = lib.literalExpression "config.mesh.modules.darwin";
        description = "The nix-darwin module, with the inventory or roster set.";
      };
    };
  };

  config = {
    mesh.modules = {
      nixos = withFleet ./nixos.nix;
      darwin = withFleet ./darwin.nix;
    };
    flake.mesh = { inherit (cfg) inventory; };
  };
}
