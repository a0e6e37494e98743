# Macs ask their own agent for the fleet's names. Where Nix does not say so, the agent writes this file.
{ inputs, config, ... }:
let
  inherit (config.fleet) network;
in
{
  flake.modules.darwin.base =
    { config, ... }:
    {
      services.mesh.resolver = "none";
      environment.etc."resolver/${network.domain}".text =
        inputs.mesh.lib.resolverFileFor config.services.mesh.address;
    };
}
