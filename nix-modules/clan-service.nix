# The mesh as a service of clan, with the roles of clan's `zerotier` service.
#
#     inventory.instances.mesh = {
#       module = { name = "mesh"; input = "mesh"; };
#       roles.controller.machines.cinnabar.settings.endpoints = [ "203.0.113.7:4193" ];
#       roles.peer.tags.all.settings.network.id = "000102030405060708090a0b0c0d0e0f";
#     };
#
# Identities come from clan's vars. The mesh's inventory is put together from clan's and from the public
# identities, so a controller needs nothing but a new deployment to admit a machine.
{
  clanLib,
  config,
  directory,
  lib,
  ...
}:
let
  meshLib = import ./lib.nix;
  settingsOf = import ./clan-settings.nix;
  generator = "mesh-identity";

  publicKeyOf =
    machine:
    let
      value = clanLib.getPublicValue {
        flake = directory;
        inherit generator machine;
        file = "identity.pub";
        default = null;
      };
    in
    if value == null then null else lib.trim value;

  # The mesh's inventory for one instance; `known` are clan's own machines, with class and tags.
  inventoryOf = import ./clan-inventory.nix { inherit lib publicKeyOf; };

  perClass =
    {
      class,
      module,
      instance,
      machine,
      meta,
    }:
    { config, ... }:
    let
      inventory = inventoryOf {
        inherit instance meta;
        known = (config.clanConfig or { }).inventory.machines or { };
      };
      secret = config.clan.core.vars.generators.${generator}.files.identity;
      keyless = lib.filter (name: publicKeyOf name == null) (
        lib.attrNames (instance.roles.controller.machines or { })
      );
    in
    {
      imports = [ module ];
      config = {
        services.mesh = {
          enable = true;
          inherit inventory;
          name = lib.mkDefault machine.name;
          identityFile = lib.mkDefault secret.path;
          controller.enable = lib.mkDefault (lib.elem "controller" machine.roles);
        };
        clan.core.vars.generators.${generator} = {
          files.identity = lib.optionalAttrs (class == "nixos") {
            restartUnits = [
              "mesh-agent.service"
            ]
            ++ lib.optional config.services.mesh.controller.enable "mesh-controller.service";
          };
          files."identity.pub" = {
            secret = false;
            deploy = false;
          };
          runtimeInputs = [ config.services.mesh.package ];
          script = ''
            mesh keygen --out "$out/identity" > "$out/identity.pub"
          '';
        };
        assertions = [
          {
            assertion = inventory.network.signers != [ ];
            message = "The mesh has no signer: none is set, and the controller (${lib.concatStringsSep ", " keyless}) has no identity yet. Run `clan vars generate ${toString keyless}`, or list SSH keys in the role's `settings.network.signers`.";
          }
        ];
        warnings = settingsOf.warnings { inherit lib instance machine; };
      };
    };
in
{
  _class = "clan.service";
  manifest = {
    name = "mesh";
    description = "An encrypted network of all machines, NixOS and macOS, from one inventory";
    categories = [ "Network" ];
    readme = builtins.readFile ./clan-service.md;
    exports.out = [
      "networking"
      "peer"
    ];
    # One agent a machine, and one interface.
    constraints.maxInstances = 1;
    constraints.roles.controller.minMachines = 1;
  };

  # For clan's command line: reach machines by the mesh, before it tries ZeroTier (900).
  exports = lib.mapAttrs' (instanceName: _: {
    name = clanLib.buildScopeKey {
      inherit instanceName;
      serviceName = config.manifest.name;
    };
    value.networking = {
      priority = lib.mkDefault 950;
      module = "clan_lib.network.direct";
    };
  }) config.instances;

  roles.controller = {
    description = "Admits the machines of the inventory and tells them where to find each other.";
    interface = settingsOf.controller;
  };
  roles.moon = {
    description = "Relays for machines that cannot reach each other directly.";
    interface = settingsOf.moon;
  };
  roles.peer = {
    description = "A member of the mesh.";
    interface = settingsOf.peer;
  };

  perMachine =
    {
      instances,
      machine,
      meta,
      ...
    }:
    let
      # `constraints.maxInstances` has clan refuse more than one.
      instance = lib.head (lib.attrValues instances);
      member = (settingsOf.peerOf lib instance machine.name);
      inherit (settingsOf.networkOf lib instance) id;
      address = if member.address != null then member.address else meshLib.addressFor id machine.name;
    in
    {
      exports = lib.mapAttrs' (instanceName: _: {
        name = clanLib.buildScopeKey {
          inherit instanceName;
          machineName = machine.name;
          serviceName = config.manifest.name;
        };
        value.peer.hosts = [ { plain = address; } ];
      }) instances;
      nixosModule = perClass {
        class = "nixos";
        module = ./nixos.nix;
        inherit instance machine meta;
      };
      darwinModule = perClass {
        class = "darwin";
        module = ./darwin.nix;
        inherit instance machine meta;
      };
    };
}
