# What follows from the inventory, for the other files: no address is typed anywhere.
{
  config,
  inputs,
  lib,
  ...
}:
{
  options.fleet = lib.mkOption {
    type = lib.types.raw;
    readOnly = true;
    description = "The inventory, resolved: `network`, and `members` with their addresses.";
  };

  config.fleet = inputs.mesh.lib.resolve config.flake.inventory;
}
