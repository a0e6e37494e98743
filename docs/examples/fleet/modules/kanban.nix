# A service that listens on the mesh alone. It starts when the address is there, and answers to its alias.
{ config, inputs, ... }:
let
  inherit (config.fleet) network;
in
{
  flake.modules.nixos.kanban =
    { config, ... }:
    {
      services.nginx.enable = true;
      services.nginx.virtualHosts."kanban.${network.domain}".listen = [
        {
          addr = inputs.mesh.lib.urlHost config.services.mesh.address;
          # The mesh encrypts.
          port = 80;
        }
      ];
      systemd.services.nginx = {
        after = [ "mesh-online.target" ];
        wants = [ "mesh-online.target" ];
      };
    };
}
