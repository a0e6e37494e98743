# `services.mesh`: the options that NixOS and nix-darwin share, what follows from them, and what is wrong
# with them. `nixos.nix` and `darwin.nix` add how daemons are run there.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkEnableOption mkOption types;
  meshLib = import ./lib.nix;
  cfg = config.services.mesh;
  toml = pkgs.formats.toml { };

  # What the machines are, from the roster or the inventory: { network, members }, or null.
  fleet =
    if cfg.roster != null then
      signed (lib.importJSON cfg.roster)
    else if cfg.inventory != null then
      meshLib.resolve cfg.inventory
    else
      null;
  signed =
    roster:
    if roster ? head && roster ? members then
      roster
    else
      throw "`services.mesh.roster` is no roster: give it what `mesh inventory sign --out` wrote, or set `services.mesh.inventory`.";
  fromFleet = value: default: if fleet == null then default else value fleet;
  self = fromFleet (known: known.members.${toString cfg.name} or null) null;

  # Who signs by hand pushes rosters; a controller that may sign them itself has all that it needs.
  maySign = self != null && lib.elem (self.publicKey or null) cfg.signers;

  # The controller beside this agent is reached whatever the machine's public address is.
  ownController = lib.optional cfg.controller.enable "127.0.0.1:${toString cfg.controller.port}";
  otherControllers = fromFleet (
    known:
    meshLib.controllersOf (known // { members = removeAttrs known.members [ (toString cfg.name) ]; })
  ) [ ];

  # What is known while the configuration is evaluated is put beside it, at a constant path, so that a change
  # is a change of the file; a path that only the machine knows is left as it is.
  isEvaluated =
    source:
    lib.isAttrs source || lib.isPath source || lib.hasPrefix builtins.storeDir (toString source);
  watched =
    kind:
    let
      source = cfg.controller.${kind};
    in
    {
      text = "the path of `services.mesh.controller.${kind}`";
      value =
        if source == null then
          null
        else if isEvaluated source then
          "/etc/mesh/${kind}.json"
        else
          source;
    };
  keys = import ./keys.nix { inherit lib cfg watched; };

  # One of the daemons' files, read by the program while it is built: a key that it does not know fails the
  # build, not the next start.
  checkedFile =
    daemon: settings:
    let
      name = "${daemon}.toml";
      file = toml.generate name (lib.filterAttrs (_: value: value != null) settings);
    in
    if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then
      pkgs.runCommand name { } ''
        ${cfg.package}/bin/mesh ${daemon} check --config ${file}
        cp ${file} "$out"
      ''
    else
      file;
in
{
  options.services.mesh = {
    enable = mkEnableOption "the mesh agent, which makes this machine a member of the fleet's network";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      example = lib.literalExpression "inputs.mesh.packages.\${pkgs.stdenv.hostPlatform.system}.default";
      description = "The package that has `bin/mesh`.";
    };

    inventory = mkOption {
      type = types.nullOr (types.either types.path (types.attrsOf types.anything));
      default = null;
      example = lib.literalExpression "./inventory.json";
      description = ''
        The fleet's inventory: a JSON or TOML file, or an attribute set of the same form. Read while the
        configuration is evaluated; `network`, `signers`, `controllers` and `domain` follow from it.
      '';
    };

    roster = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./roster.json";
      description = ''
        A signed roster, in place of `inventory`. Its serial becomes `minSerial`, so that this machine never
        takes an older one.
      '';
    };

    name = mkOption {
      type = types.nullOr types.str;
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      example = "cinnabar";
      description = ''
        This machine's name in the inventory. Its address derives from it, so it is there before any roster.
      '';
    };

    network = mkOption {
      type = types.nullOr (types.strMatching "[0-9a-f]{32}");
      default = fromFleet (known: known.network.id) null;
      defaultText = lib.literalMD "the network's id in `roster` or `inventory`";
      example = "000102030405060708090a0b0c0d0e0f";
      description = "The network's id, 32 lower-case hex digits.";
    };

    signers = mkOption {
      type = types.listOf types.singleLineStr;
      default = fromFleet (known: known.network.signers) [ ];
      defaultText = lib.literalMD "the signers in `roster` or `inventory`";
      example = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4 admin"
      ];
      description = ''
        Who may sign rosters: SSH public keys or `mesh1` identities. Nothing else is trusted, and no roster
        adds one.
      '';
    };

    controllers = mkOption {
      type = types.listOf types.singleLineStr;
      default = ownController ++ otherControllers;
      defaultText = lib.literalMD ''
        the endpoints of the controllers in `roster` or `inventory`, with port 4194; on a controller's machine
        its own one first
      '';
      example = [ "mesh.example.org:4194" ];
      description = "`host:port` of each controller: where rosters and endpoints come from.";
    };

    minSerial = mkOption {
      type = types.nullOr types.ints.positive;
      default = if cfg.roster == null then null else fleet.head.serial;
      defaultText = lib.literalMD "the serial of `roster`, else none";
      example = 7;
      description = "The least serial of a roster to take.";
    };

    identityFile = mkOption {
      type = types.path;
      default = "/etc/mesh/identity";
      example = "/run/secrets/mesh-identity";
      description = ''
        Where this machine's identity is when the agent starts: what `mesh keygen --out` wrote. A path on the
        machine, never in the Nix store, which everyone can read. On NixOS systemd reads it as root and passes
        it on as a credential.
      '';
    };

    interface = mkOption {
      type = types.strMatching "[A-Za-z0-9._-]{1,15}";
      default = "mesh0";
      example = "mesh1";
      description = "The name of the mesh's interface. macOS gives its own, `utun` and a number.";
    };

    domain = mkOption {
      type = types.strMatching "[a-z0-9]([a-z0-9.-]*[a-z0-9])?";
      default = fromFleet (known: known.network.domain) "mesh";
      defaultText = lib.literalMD "the domain in `roster` or `inventory`, else `mesh`";
      example = "zt";
      description = ''
        The domain of the fleet's names, for `services.mesh.fqdn`. What the agent answers for is in the signed
        roster.
      '';
    };

    group = mkOption {
      type = types.strMatching "[a-z_][a-z0-9_-]*";
      default = "mesh";
      example = "wheel";
      description = "Whose members may use `mesh status` and the other commands that ask the agent.";
    };

    dns = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether the agent answers the fleet's names on the mesh address, port 53.";
    };

    resolver = mkOption {
      type = types.enum [
        "auto"
        "resolved"
        "resolvconf"
        "hosts"
        "none"
      ];
      default = "auto";
      example = "none";
      description = ''
        How this machine's own programs find the fleet's names: by systemd-resolved, by resolvconf, by
        `/etc/resolver` on macOS; `auto` takes what is there. `hosts` writes the names into the hosts file, on
        NixOS while the configuration is evaluated. `none` leaves the resolver alone.
      '';
    };

    port = mkOption {
      type = types.port;
      default = 4193;
      example = 51820;
      description = "The agent's UDP port.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = ''
        Whether to let the agent's UDP port through NixOS' firewall, and on the mesh's interface the port at
        which agents hand rosters to each other. Without it this machine is reached only where it spoke first.
      '';
    };

    trustInterface = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether NixOS' firewall lets everything through that comes by the mesh. To open single ports to the
        mesh alone, use `networking.firewall.interfaces.<interface>.allowedTCPPorts`.
      '';
    };

    settings = mkOption {
      default = { };
      example = lib.literalExpression ''{ listen = "192.0.2.1:4193"; }'';
      description = "What `agent.toml` says, key by key; null leaves a key out.";
      type = types.submodule {
        freeformType = toml.type;
        options = keys.agent;
      };
    };

    controller = {
      enable = mkEnableOption "the controller on this machine, as a machine with that role needs it";

      inventory = mkOption {
        type = types.nullOr (types.either types.path (types.attrsOf types.anything));
        default = if maySign then cfg.inventory else null;
        defaultText = lib.literalMD "`services.mesh.inventory`, where this machine is among the `signers`";
        example = "/srv/mesh/inventory.json";
        description = ''
          The inventory that the controller watches and signs, for which its own identity must be among
          `signers`; null: rosters are pushed to it. A path outside the Nix store is read by the controller alone,
          when it runs.
        '';
      };

      roster = mkOption {
        type = types.nullOr types.path;
        default = cfg.roster;
        defaultText = lib.literalExpression "config.services.mesh.roster";
        example = "/srv/mesh/roster.json";
        description = "The signed roster that the controller watches. Without either, rosters are pushed to it.";
      };

      identityFile = mkOption {
        type = types.path;
        default = cfg.identityFile;
        defaultText = lib.literalExpression "config.services.mesh.identityFile";
        example = "/run/secrets/mesh-controller-identity";
        description = "Where the controller's identity is; by default it is this machine's. Never in the Nix store.";
      };

      port = mkOption {
        type = types.port;
        default = 4194;
        example = 443;
        description = "The controller's UDP port.";
      };

      openFirewall = mkOption {
        type = types.bool;
        default = true;
        example = false;
        description = "Whether to let the controller's UDP port through NixOS' firewall.";
      };

      httpListen = mkOption {
        type = types.nullOr types.singleLineStr;
        default = null;
        example = "127.0.0.1:4195";
        description = "Where the JSON API answers beside the local socket: on loopback or inside the mesh.";
      };

      settings = mkOption {
        default = { };
        example = lib.literalExpression ''{ group = "wheel"; }'';
        description = "What `controller.toml` says, key by key; null leaves a key out.";
        type = types.submodule {
          freeformType = toml.type;
          options = keys.controller;
        };
      };
    };

    # What follows from the fleet, for other modules to use.

    members = mkOption {
      type = types.attrsOf types.anything;
      readOnly = true;
      default = fromFleet (known: known.members) { };
      defaultText = lib.literalMD "the members in `roster` or `inventory`";
      example = lib.literalExpression "config.services.mesh.members.cinnabar.address";
      description = "The machines of the fleet with their addresses, tags and roles, by name.";
    };

    address = mkOption {
      type = types.nullOr types.str;
      readOnly = true;
      default =
        if self != null then
          self.address
        else if cfg.network != null && meshLib.isName (toString cfg.name) then
          meshLib.addressFor cfg.network cfg.name
        else
          null;
      defaultText = lib.literalMD "derived from `network` and `name`, unless pinned";
      example = "fdc3:582e:db61:0:f785:d658:d2e9:df7d";
      description = "This machine's IPv6 address in the mesh, for services to bind.";
    };

    fqdn = mkOption {
      type = types.nullOr types.str;
      readOnly = true;
      default = if cfg.name == null then null else "${cfg.name}.${cfg.domain}";
      defaultText = lib.literalExpression ''"\''${services.mesh.name}.\''${services.mesh.domain}"'';
      example = "cinnabar.zt";
      description = "This machine's name in the mesh.";
    };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.enable {
      environment.etc."mesh/agent.toml".source = checkedFile "agent" cfg.settings;
    })
    (lib.mkIf cfg.controller.enable {
      environment.etc = {
        "mesh/controller.toml".source = checkedFile "controller" cfg.controller.settings;
      }
      // lib.optionalAttrs (isEvaluated cfg.controller.inventory) {
        "mesh/inventory.json".source = pkgs.writeText "inventory.json" (
          builtins.toJSON (meshLib.readInventory cfg.controller.inventory)
        );
      }
      // lib.optionalAttrs (isEvaluated cfg.controller.roster) {
        "mesh/roster.json".source = cfg.controller.roster;
      };
    })
    (lib.mkIf (cfg.enable || cfg.controller.enable) (
      {
        environment.systemPackages = [ cfg.package ];
      }
      // import ./checks.nix {
        inherit
          lib
          meshLib
          cfg
          fleet
          self
          ;
      }
    ))
  ];
}
