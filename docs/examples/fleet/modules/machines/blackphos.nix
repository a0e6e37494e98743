{ config, ... }:
{
  flake.modules.darwin.blackphos = {
    imports = [ config.flake.modules.darwin.base ];
    networking.hostName = "blackphos";
    nixpkgs.hostPlatform = "aarch64-darwin";
  };
}
