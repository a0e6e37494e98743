{ config, ... }:
{
  flake.modules.darwin.argentum = {
    imports = [ config.flake.modules.darwin.base ];
    networking.hostName = "argentum";
    nixpkgs.hostPlatform = "aarch64-darwin";
  };
}
