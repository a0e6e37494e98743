# The settings of the mesh's roles in clan, with those of clan's `zerotier` service, which are taken with a
# warning that names what to write in their place.
let
  # `settings.network`: the same in every role, to be set in one of them.
  network =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
    in
    {
      options.network = {
        id = mkOption {
          type = types.nullOr (types.strMatching "[0-9a-f]{32}");
          default = null;
          example = "000102030405060708090a0b0c0d0e0f";
          description = "The network's id, made once by `mesh inventory init`. To be set in one of the roles.";
        };
        name = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "fleet";
          description = "The network's name, for people. By default clan's `meta.name`.";
        };
        domain = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "zt";
          description = "The DNS domain of the machines' names. By default clan's `meta.domain`.";
        };
        signers = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4 admin"
          ];
          description = ''
            Who may sign rosters: SSH public keys or `mesh1` identities. Empty: the controllers, which then sign
            the inventory that they were deployed with.
          '';
        };
        ipv4 = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "100.64.7.0/24";
          description = "The pool of IPv4 addresses; null: IPv6 alone.";
        };
      };
    };

  server =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
    in
    {
      imports = [ network ];
      options = {
        endpoints = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "203.0.113.7:4193" ];
          description = "Where the machine's agent can always be reached, `host:port`.";
        };
        relay = mkOption {
          type = types.nullOr types.bool;
          default = null;
          example = false;
          description = "Whether it relays for machines that cannot reach each other directly.";
        };
        relayRateLimit = mkOption {
          type = types.nullOr (types.either types.ints.positive types.str);
          default = null;
          example = "10MiB";
          description = "How much it relays for one machine, in bytes a second.";
        };
      };
    };

  # Settings of clan's `zerotier` service.
  former =
    lib: default: type: example: description:
    lib.mkOption {
      inherit
        default
        type
        example
        description
        ;
    };
in
rec {
  controller =
    { lib, ... }:
    {
      imports = [ server ];
      options = {
        machines = lib.mkOption {
          type = lib.types.attrsOf (lib.types.attrsOf lib.types.anything);
          default = { };
          example = lib.literalExpression ''
            { pixel = { machineClass = "external"; publicKey = "wireguard:…"; mesh.gateways = [ "cinnabar" ]; }; }
          '';
          description = "Members of the mesh that are no machines of the clan, as the mesh's inventory has them.";
        };
        allowedIps = former lib [ ] (lib.types.listOf lib.types.str) [
          "fd5d:bbe3:cbc5:fe6b:f699:935d:bbe3:cbc5"
        ] "Of the `zerotier` service, without effect: list the machine in `machines`.";
        allowedIds = former lib [ ] (lib.types.listOf lib.types.str) [
          "deadbeef00"
        ] "Of the `zerotier` service, without effect: list the machine in `machines`.";
        public =
          former lib false lib.types.bool true
            "Of the `zerotier` service, without effect: members are those of the signed inventory.";
      };
    };

  moon =
    { lib, ... }:
    {
      imports = [ server ];
      options.stableEndpoints = former lib [ ] (lib.types.listOf lib.types.str) [
        "203.0.113.7"
      ] "Of the `zerotier` service: addresses, taken as `endpoints` with the agent's port.";
    };

  peer =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
      list =
        example: description:
        mkOption {
          type = types.listOf types.str;
          default = [ ];
          inherit example description;
        };
      maybe =
        example: description:
        mkOption {
          type = types.nullOr types.str;
          default = null;
          inherit example description;
        };
    in
    {
      imports = [ network ];
      options = {
        enabled = mkOption {
          type = types.bool;
          default = true;
          example = false;
          description = "False: the machine is switched off; its place in the mesh is kept.";
        };
        relayOnly = mkOption {
          type = types.nullOr types.bool;
          default = null;
          example = true;
          description = "Whether its peers reach it by relays alone.";
        };
        endpoints = list [ "203.0.113.7:4193" ] "Where its agent can always be reached, `host:port`.";
        aliases = list [ "git" ] "Names of services that it answers to.";
        routes = list [ "192.168.7.0/24" ] "Subnets behind it.";
        ciphers = mkOption {
          type = types.nullOr (
            types.listOf (
              types.enum [
                "aes"
                "chacha"
              ]
            )
          );
          default = null;
          example = [ "chacha" ];
          description = "The ciphers that it takes, `chacha` among them; null: all.";
        };
        sshHostKeys = list [ "ssh-ed25519 AAAA…" ] "Its SSH host keys, for the others' known hosts.";
        address = maybe "fdc3:582e:db61::7" "Pins its IPv6 address, which else derives from its name.";
        ipv4 = maybe "100.64.7.9" "Pins its IPv4 address.";
        orbitMoons = former lib [ ] (types.listOf types.str) [
          "deadbeef00"
        ] "Of the `zerotier` service, without effect: every machine uses all moons of the inventory.";
      };
    };

  # What one machine's settings are, whether or not it is a peer.
  peerOf =
    lib: instance: name:
    instance.roles.peer.machines.${name}.settings or (lib.evalModules {
      modules = [ peer ];
    }).config;

  # The network's values: what the first role and machine say that say something.
  networkOf =
    lib: instance:
    let
      said =
        lib.concatMap
          (
            role:
            map (machine: machine.settings.network) (lib.attrValues (instance.roles.${role}.machines or { }))
          )
          [
            "controller"
            "moon"
            "peer"
          ];
      first = key: empty: lib.findFirst (value: value != empty) empty (map (values: values.${key}) said);
      id = first "id" null;
    in
    {
      id =
        if id != null then
          id
        else
          throw "The mesh has no network id: set `roles.controller.settings.network.id` to the one that `mesh inventory init` made.";
      name = first "name" null;
      domain = first "domain" null;
      signers = first "signers" [ ];
      ipv4 = first "ipv4" null;
    };

  # A stable endpoint of ZeroTier, `ADDRESS` or `ADDRESS/PORT`, as `HOST:4193`.
  endpointOf =
    lib: stable:
    let
      host = lib.head (lib.splitString "/" stable);
    in
    if lib.hasInfix ":" host then "[${host}]:4193" else "${host}:4193";

  # What to write in place of the former settings that a machine has.
  warnings =
    {
      lib,
      instance,
      machine,
    }:
    let
      settings = role: instance.roles.${role}.machines.${machine.name}.settings or { };
      warn =
        role: key: empty: instead:
        lib.optional (
          (settings role).${key} or empty != empty
        ) "`roles.${role}` of the mesh has the setting `${key}` of the `zerotier` service: ${instead}";
      members = "it has no effect. List the machine in `roles.controller.settings.machines`, with its public key.";
    in
    warn "controller" "allowedIps" [ ] members
    ++ warn "controller" "allowedIds" [ ] members
    ++
      warn "controller" "public" false
        "it has no effect. A member is who is in the signed inventory; nobody else can join."
    ++
      warn "moon" "stableEndpoints" [ ]
        "it is taken as `endpoints` with port 4193. Set `endpoints`, as `host:port`."
    ++
      warn "peer" "orbitMoons" [ ]
        "it has no effect. Give the role `moon` to a machine; every peer uses it.";
}
