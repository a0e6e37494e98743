{ config, ... }:
{
  flake.modules.nixos.electrum = {
    imports = with config.flake.modules.nixos; [
      base
      disk
      metrics
    ];
    networking.hostName = "electrum";
    nixpkgs.hostPlatform = "x86_64-linux";
  };
}
