{ config, ... }:
{
  flake.modules.nixos.galena = {
    imports = with config.flake.modules.nixos; [
      base
      disk
    ];
    networking.hostName = "galena";
    nixpkgs.hostPlatform = "x86_64-linux";
  };
}
