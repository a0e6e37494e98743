# The mesh by its own modules: the same lines for both kinds of machines.
{
  config,
  inputs,
  lib,
  ...
}:
let
  inherit (config.flake) inventory;

  mesh =
    { config, ... }:
    let
      self = config.services.mesh.members.${config.networking.hostName};
    in
    {
      services.mesh = {
        enable = true;
        inherit inventory;
        # Made there once: `mesh keygen --out /etc/mesh/identity`.
        identityFile = "/etc/mesh/identity";

        controller = {
          enable = lib.elem "controller" self.roles;
          # The admin signs, and pushes: `mesh inventory push`.
          inventory = null;
        };
      };
    };
in
{
  flake.modules.nixos.base.imports = [
    inputs.mesh.nixosModules.default
    mesh
  ];
  flake.modules.darwin.base.imports = [
    inputs.mesh.darwinModules.default
    mesh
  ];
}
