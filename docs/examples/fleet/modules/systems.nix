{ inputs, ... }:
{
  # The option `flake.modules`, to which the other files add.
  imports = [ inputs.flake-parts.flakeModules.modules ];

  systems = [
    "x86_64-linux"
    "aarch64-linux"
    "aarch64-darwin"
  ];
}
