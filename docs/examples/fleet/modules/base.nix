# What every machine has.
{ config, inputs, ... }:
let
  inherit (config) fleet;
  knownHosts = inputs.mesh.lib.knownHostsFor fleet;
  # The same home on every machine: every other one by its name.
  home = {
    home.stateVersion = "26.05";
    programs.ssh.enable = true;
    programs.ssh.matchBlocks."*.${fleet.network.domain}".user = "admin";
  };
in
{
  flake.modules.nixos.base = {
    imports = [
      inputs.srvos.nixosModules.server
      inputs.home-manager.nixosModules.home-manager
    ];
    users.users.admin.isNormalUser = true;
    users.users.admin.group = "users";
    home-manager.users.admin = home;
    programs.ssh = { inherit knownHosts; };
    services.openssh.enable = true;
    system.stateVersion = "26.05";
  };

  flake.modules.darwin.base = {
    imports = [ inputs.home-manager.darwinModules.home-manager ];
    users.users.admin.home = "/Users/admin";
    home-manager.users.admin = home;
    programs.ssh = { inherit knownHosts; };
    system.stateVersion = 6;
  };
}
