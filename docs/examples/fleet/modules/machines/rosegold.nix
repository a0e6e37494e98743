{ config, ... }:
{
  flake.modules.darwin.rosegold = {
    imports = [ config.flake.modules.darwin.base ];
    networking.hostName = "rosegold";
    nixpkgs.hostPlatform = "aarch64-darwin";
  };
}
