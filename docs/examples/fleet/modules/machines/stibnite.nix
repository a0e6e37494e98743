{ config, ... }:
{
  flake.modules.darwin.stibnite = {
    imports = [ config.flake.modules.darwin.base ];
    networking.hostName = "stibnite";
    nixpkgs.hostPlatform = "aarch64-darwin";
  };
}
