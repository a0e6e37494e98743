# Every machine of the inventory has the module of its name.
{
  config,
  inputs,
  lib,
  ...
}:
let
  names =
    class: lib.attrNames (inputs.mesh.lib.membersWhere (member: member.class == class) config.fleet);
in
{
  flake.nixosConfigurations = lib.genAttrs (names "nixos") (
    name:
    inputs.nixpkgs.lib.nixosSystem {
      modules = [ config.flake.modules.nixos.${name} ];
    }
  );

  flake.darwinConfigurations = lib.genAttrs (names "darwin") (
    name:
    inputs.nix-darwin.lib.darwinSystem {
      modules = [ config.flake.modules.darwin.${name} ];
    }
  );
}
