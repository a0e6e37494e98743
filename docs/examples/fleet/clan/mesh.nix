# What clan's service leaves to the machine: the admin signs, and pushes with `mesh inventory push`.
{
  flake.modules.nixos.base = {
    services.mesh.controller.inventory = null;
  };
}
