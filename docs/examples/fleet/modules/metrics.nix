# Who is measured follows from the inventory: a server that is switched off raises no alarm.
{ config, inputs, ... }:
let
  running = inputs.mesh.lib.membersWhere (
    member: member.enabled && member.class == "nixos"
  ) config.fleet;
  targets = map (member: "${inputs.mesh.lib.urlHost member.address}:9100") (
    builtins.attrValues running
  );
in
{
  flake.modules.nixos.metrics = {
    services.prometheus.enable = true;
    services.prometheus.scrapeConfigs = [
      {
        job_name = "node";
        static_configs = [ { inherit targets; } ];
      }
    ];
  };

  flake.modules.nixos.base =
    { config, ... }:
    {
      services.prometheus.exporters.node = {
        enable = true;
        listenAddress = inputs.mesh.lib.urlHost config.services.mesh.address;
      };
      # It binds the mesh's address, which must be there.
      systemd.services.prometheus-node-exporter = {
        after = [ "mesh-online.target" ];
        wants = [ "mesh-online.target" ];
      };
      networking.firewall.interfaces.${config.services.mesh.interface}.allowedTCPPorts = [ 9100 ];
    };
}
