# The same fleet by clan: `./clan` in place of `./plain` in flake.nix. clan makes the machines and their
# identities, and gives each its part in the mesh.
{
  config,
  inputs,
  lib,
  ...
}:
let
  inherit (config.flake) inventory;
  isMachine = machine: machine.machineClass or "nixos" != "external";
  machines = lib.filterAttrs (_: isMachine) inventory.machines;
  others = lib.filterAttrs (_: machine: !isMachine machine) inventory.machines;
  inherit (inventory.instances.mesh) roles;
in
{
  imports = [ inputs.clan-core.flakeModules.default ];

  clan = {
    meta = {
      inherit (inventory.network) name domain;
    };

    inventory.machines = lib.mapAttrs (_: machine: {
      inherit (machine) tags;
      machineClass = machine.machineClass or "nixos";
    }) machines;

    inventory.instances.mesh = {
      module = {
        name = "mesh";
        input = "mesh";
      };
      roles.controller = {
        inherit (roles.controller) machines;
        settings = {
          inherit (inventory) network;
          # Members of the mesh that are no machines of the clan.
          machines = others;
        };
      };
      roles.moon = roles.moon;
      roles.peer = {
        inherit (roles.peer) tags;
        machines = lib.mapAttrs (_: machine: {
          settings = {
            enabled = machine.enabled or true;
            sshHostKeys = machine.sshHostKeys or [ ];
          }
          // machine.mesh or { };
        }) machines;
      };
    };

    machines = lib.mapAttrs (
      name: machine: config.flake.modules.${machine.machineClass or "nixos"}.${name}
    ) machines;
  };
}
