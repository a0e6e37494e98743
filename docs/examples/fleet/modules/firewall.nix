# SSH from the mesh alone; a service for laptops alone, by rules whose addresses follow from the inventory.
{
  config,
  lib,
  inputs,
  ...
}:
let
  laptops = inputs.mesh.lib.membersWhere (member: lib.elem "laptop" member.tags) config.fleet;
  addresses = lib.mapAttrsToList (_: member: member.address) laptops;
in
{
  flake.modules.nixos.base =
    { config, ... }:
    {
      services.openssh.openFirewall = false;
      networking.nftables.enable = true;
      networking.firewall.interfaces.${config.services.mesh.interface}.allowedTCPPorts = [ 22 ];
    };

  flake.modules.nixos.laptops-only = {
    networking.firewall.extraInputRules = ''
      ip6 saddr { ${lib.concatStringsSep ", " addresses} } tcp dport 80 accept
    '';
  };
}
