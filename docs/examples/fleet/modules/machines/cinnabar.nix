{ config, ... }:
{
  flake.modules.nixos.cinnabar = {
    imports = with config.flake.modules.nixos; [
      base
      disk
      kanban
      laptops-only
    ];
    networking.hostName = "cinnabar";
    nixpkgs.hostPlatform = "x86_64-linux";
  };
}
