# The mesh's inventory (docs/inventory.md) from an instance of the clan service.
{ lib, publicKeyOf }:
{
  instance,
  meta,
  known,
}:
let
  settingsOf = import ./clan-settings.nix;
  network = settingsOf.networkOf lib instance;
  role = name: instance.roles.${name}.machines or { };
  withoutNulls = lib.filterAttrs (_: value: value != null);

  machineNames = lib.unique (
    lib.concatMap (name: lib.attrNames (role name)) [
      "controller"
      "moon"
      "peer"
    ]
  );

  machine =
    name:
    let
      settings = settingsOf.peerOf lib instance name;
    in
    {
      machineClass = known.${name}.machineClass or "nixos";
      # `all` and the class are added by the mesh itself.
      tags = lib.subtractLists [ "all" "nixos" "darwin" ] (known.${name}.tags or [ ]);
      publicKey = publicKeyOf name;
      inherit (settings) enabled sshHostKeys;
      mesh = withoutNulls {
        inherit (settings)
          address
          aliases
          ciphers
          endpoints
          ipv4
          routes
          ;
      };
    };

  server =
    { settings, ... }:
    {
      settings = withoutNulls {
        endpoints = settings.endpoints ++ map (settingsOf.endpointOf lib) (settings.stableEndpoints or [ ]);
        inherit (settings) relay relayRateLimit;
      };
    };
  peer =
    { settings, ... }:
    {
      settings = withoutNulls { inherit (settings) relayOnly; };
    };

  others = lib.foldl' (all: one: all // one.settings.machines) { } (
    lib.attrValues (role "controller")
  );
in
{
  version = "mesh/v1";
  network = {
    inherit (network) id ipv4;
    name = if network.name != null then network.name else meta.name or "clan";
    domain =
      if network.domain != null then
        network.domain
      else if meta.domain or null != null then
        meta.domain
      else
        "mesh";
    # By default the controllers sign what they were deployed with.
    signers =
      if network.signers != [ ] then
        network.signers
      else
        lib.filter (key: key != null) (map publicKeyOf (lib.attrNames (role "controller")));
  };
  machines = lib.genAttrs machineNames machine // others;
  instances.mesh.roles = {
    controller.machines = lib.mapAttrs (_: server) (role "controller");
    moon.machines = lib.mapAttrs (_: server) (role "moon");
    peer.machines = lib.mapAttrs (_: peer) (role "peer") // lib.mapAttrs (_: _: { }) others;
  };
}
