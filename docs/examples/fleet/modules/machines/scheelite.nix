{ config, ... }:
{
  flake.modules.nixos.scheelite = {
    imports = with config.flake.modules.nixos; [
      base
      disk
    ];
    networking.hostName = "scheelite";
    nixpkgs.hostPlatform = "x86_64-linux";
  };
}
