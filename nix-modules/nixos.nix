# `services.mesh` on NixOS.
{ config, lib, ... }:
let
  cfg = config.services.mesh;
  units = ../systemd;
  inherit (import ./unit.nix { inherit lib; }) unitOf;

  unit =
    name: edit: unitOf (units + "/${name}") (section: edit (lib.mapAttrs (_: ofPackage) section));
  # The repository's units of a kind whose names begin so, without the ending.
  shipped =
    prefix: kind:
    map (lib.removeSuffix ".${kind}") (
      lib.filter (name: lib.hasPrefix prefix name && lib.hasSuffix ".${kind}" name) (
        lib.attrNames (builtins.readDir units)
      )
    );
  # The repository's units name the program where a package puts it.
  ofPackage =
    value:
    if lib.isList value then
      map ofPackage value
    else
      lib.replaceStrings [ "/usr/bin/mesh " ] [ "${cfg.package}/bin/mesh " ] value;
  # What the daemons of this machine's configuration need beside the unit's own text.
  asConfigured =
    identityFile: section:
    section
    // {
      LoadCredential = "identity:${toString identityFile}";
      # A pause that grows. The unit itself must do without: systemd before 254 warns of these keys.
      RestartSec = "500ms";
      RestartSteps = 8;
      RestartMaxDelaySec = "60s";
    }
    // lib.optionalAttrs (cfg.group != "mesh") {
      SupplementaryGroups = lib.toList (section.SupplementaryGroups or [ ]) ++ [ cfg.group ];
    };
  etc = name: config.environment.etc."mesh/${name}".source;
in
{
  _class = "nixos";
  imports = [ ./options.nix ];

  config = lib.mkMerge [
    (lib.mkIf (cfg.enable || cfg.controller.enable) {
      users.users.mesh = {
        isSystemUser = true;
        group = "mesh";
        description = "Mesh agent";
      };
      users.groups = lib.genAttrs [ "mesh" cfg.group ] (_: { });
      # Both daemons put their sockets here; sticky, so that neither replaces the other's.
      systemd.tmpfiles.settings."10-mesh"."/run/mesh".d = {
        mode = "1775";
        user = "root";
        group = "mesh";
      };
    })

    (lib.mkIf cfg.enable {
      systemd.services.mesh-agent = lib.mkMerge [
        (unit "mesh-agent.service" (asConfigured cfg.identityFile))
        {
          # A switch that is made over the mesh must not cut it. `mesh-agent-upgrade` brings the new program
          # in and keeps the sessions.
          restartIfChanged = false;
          reloadTriggers = [ (etc "agent.toml") ];
        }
      ];
      systemd.targets.mesh-online = unit "mesh-online.target" lib.id;
      systemd.services.mesh-agent-upgrade = {
        description = "Hand the Mesh Agent Over to a New Program";
        after = [ "mesh-agent.service" ];
        wantedBy = [ "multi-user.target" ];
        restartTriggers = [ cfg.package ];
        stopIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${cfg.package}/bin/mesh agent upgrade";
        };
      };
      boot.kernelModules = [ "tun" ];

      # The agent gives its interface addresses and routes; nobody else may.
      networking.networkmanager.unmanaged = [ "interface-name:${cfg.interface}" ];
      networking.dhcpcd.denyInterfaces = [ cfg.interface ];
      systemd.network.networks."05-mesh" = {
        matchConfig.Name = cfg.interface;
        linkConfig.Unmanaged = true;
      };

      networking.firewall = {
        allowedUDPPorts = lib.mkIf cfg.openFirewall [ cfg.port ];
        # Agents hand rosters to each other inside the mesh, on the controller's port.
        interfaces.${cfg.interface}.allowedUDPPorts = lib.mkIf cfg.openFirewall [ 4194 ];
        trustedInterfaces = lib.mkIf cfg.trustInterface [ cfg.interface ];
      };
    })

    (lib.mkIf (cfg.enable && cfg.resolver == "hosts") {
      # The hosts file is a link into the store: it is written here, not while the agent runs.
      services.mesh.settings.resolver = "none";
      networking.hosts = (import ./lib.nix).hostsFor {
        network = {
          id = cfg.network;
          inherit (cfg) domain;
        };
        inherit (cfg) members;
      };
    })

    (lib.mkIf (cfg.enable && cfg.dns && cfg.settings.resolver != "none") {
      # Not undone and done again by a switch: names stay while the agent is upgraded.
      systemd.services = lib.genAttrs (shipped "mesh-resolver" "service") (
        name: unit "${name}.service" lib.id // { restartIfChanged = false; }
      );
      systemd.paths = lib.genAttrs (shipped "mesh-resolver" "path") (name: unit "${name}.path" lib.id);
    })

    (lib.mkIf cfg.controller.enable {
      users.users.mesh-controller = {
        isSystemUser = true;
        group = "mesh-controller";
        extraGroups = [ "mesh" ];
        description = "Mesh controller";
      };
      users.groups.mesh-controller = { };
      systemd.services.mesh-controller = lib.mkMerge [
        (unit "mesh-controller.service" (asConfigured cfg.controller.identityFile))
        {
          reloadTriggers = map etc (
            [ "controller.toml" ]
            ++ lib.filter (name: config.environment.etc ? "mesh/${name}") [
              "inventory.json"
              "roster.json"
            ]
          );
        }
      ];
      networking.firewall.allowedUDPPorts = lib.mkIf cfg.controller.openFirewall [ cfg.controller.port ];
    })
  ];
}
