# The servers that are rented, with a toggle each. `nix build .#terraform` gives the configuration; after
# `terraform apply`, `terraform output -json servers > terraform/servers.json` tells the inventory.
{ inputs, ... }:
let
  servers = {
    cinnabar = {
      enabled = true;
      type = "cx33";
      location = "fsn1";
    };
    electrum = {
      enabled = true;
      type = "cx23";
      location = "nbg1";
    };
    galena = {
      enabled = true;
      type = "cpx41";
      location = "fsn1";
    };
    # Off: costs nothing, and keeps its place in the mesh.
    scheelite = {
      enabled = false;
      type = "ccx63";
      location = "fsn1";
    };
  };
in
{
  flake.modules.terranix.servers =
    { lib, ... }:
    {
      resource.hcloud_server = lib.mapAttrs (name: server: {
        inherit name;
        server_type = server.type;
        inherit (server) location;
        image = "debian-12";
      }) (lib.filterAttrs (_: server: server.enabled) servers);

      output.servers.value = lib.mapAttrs (name: server: {
        inherit (server) enabled;
        ipv4 = if server.enabled then "\${hcloud_server.${name}.ipv4_address}" else null;
        ipv6 = null;
      }) servers;
    };

  perSystem =
    { system, ... }:
    {
      packages.terraform = inputs.terranix.lib.terranixConfiguration {
        inherit system;
        modules = [ inputs.self.modules.terranix.servers ];
      };
    };
}
