# The fleet, in one place. `nix eval --json .#inventory | mesh inventory check -` tells what is wrong with it.
{ lib, ... }:
let
  # What `terraform output -json servers` printed: which servers run, and their public addresses.
  servers = lib.importJSON ../terraform/servers.json;

  # A machine's public identity, where clan's vars keep it; without clan, put there what `mesh keygen` prints.
  # Null: not set up yet.
  publicKeyOf =
    name:
    let
      file = ../vars/per-machine + "/${name}/mesh-identity/identity.pub/value";
    in
    if builtins.pathExists file then lib.trim (lib.readFile file) else null;

  server =
    name: machine:
    let
      has = servers.${name};
      publicAddresses =
        lib.optional (has.ipv4 != null) has.ipv4 ++ lib.optional (has.ipv6 != null) "[${has.ipv6}]";
    in
    machine
    // {
      inherit (has) enabled;
      publicKey = publicKeyOf name;
      tags = [ "cloud" ] ++ machine.tags;
      mesh = machine.mesh or { } // {
        endpoints = map (address: "${address}:4193") publicAddresses;
      };
    };

  laptop =
    name: machine:
    machine
    // {
      publicKey = publicKeyOf name;
      machineClass = "darwin";
      tags = [
        "laptop"
        "workstation"
      ];
    };
in
{
  flake.inventory = {
    version = "mesh/v1";

    network = {
      id = "7d0c1f5e9a3b42868e6f4b1d2c907a35";
      name = "fleet";
      domain = "zt";
      signers = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC6VWmDdPIkzfMPEtbjfBsNQwQbFoD2XDsw2ciHku7xg admin"
      ];
    };

    machines =
      lib.mapAttrs server {
        cinnabar = {
          tags = [ "hetzner" ];
          sshHostKeys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBrmNjhc3y89WGQcAgT9CE6bKohE1VLqEytQ9LwnyRy6"
          ];
          mesh.aliases = [ "kanban" ];
        };
        electrum = {
          tags = [ "hetzner" ];
          sshHostKeys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE3p7hVFni3oYsB6Ru6xepxZzaQdLC7jgyzmTQYyDak8"
          ];
          mesh.aliases = [ "metrics" ];
        };
        galena = {
          tags = [ "gcp" ];
          sshHostKeys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMCtwYbRUxvM/8fD778Ti8TI1OqARob7Tin3YLI+WxNZ"
          ];
        };
        scheelite = {
          tags = [
            "gcp"
            "gpu"
          ];
          sshHostKeys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIyAnOu2yCCTTh4UjWlZKA8xFElTYTCyah5ZiicfwaRw"
          ];
        };
      }
      // lib.mapAttrs laptop {
        stibnite = {
          sshHostKeys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILURYOJnU/qKDegSxVirKQFmnPAZWSbiK34xrZXG9dcD"
          ];
        };
        blackphos = {
          sshHostKeys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJLQKq2OLN7WLye3GVYnexxCAIm2MnNfKjcFg4Rjq8w4"
          ];
        };
        rosegold = {
          sshHostKeys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKDJnOdsXQ34D1E7iVk52OCijTzMxDliR78XP4YokrH9"
          ];
        };
        # Ordered, not set up yet: it has its address and its name, and no keys.
        argentum = { };
      }
      // {
        # The phone runs the WireGuard app and joins through a moon.
        pixel = {
          machineClass = "external";
          tags = [ "phone" ];
          publicKey = "wireguard:Jlyg+H2ftB4Fywv7yb4bKwSSTpnPCw/bveoEVLWXd0w=";
          mesh.gateways = [ "cinnabar" ];
        };
      };

    instances.mesh.roles = {
      controller.machines.cinnabar = { };
      moon.machines = {
        cinnabar = { };
        electrum = { };
      };
      peer.tags.all = { };
    };
  };
}
