# `services.mesh` on macOS, by nix-darwin.
{ config, lib, ... }:
let
  cfg = config.services.mesh;
  # The same in every release: launchd, the firewall and privacy settings know the program by its path.
  program = "/usr/local/libexec/mesh";

  # Equal to `launchd/*.plist` of the repository. A changed plist would have launchd stop the agent, and with
  # it the session that deploys it, so nothing in it depends on a version or an option.
  daemon = label: arguments: processType: logFile: {
    serviceConfig = {
      Label = label;
      ProgramArguments = [ program ] ++ arguments;
      EnvironmentVariables.MESH_LOG_FILE = logFile;
      RunAtLoad = true;
      KeepAlive = true;
      ThrottleInterval = 5;
      ExitTimeOut = 20;
      ProcessType = processType;
      SoftResourceLimits.NumberOfFiles = 4096;
    };
  };

  orWarn = command: what: "${command} || echo 'warning: mesh: ${what}; `${command}` failed' >&2";
in
{
  _class = "darwin";
  imports = [ ./options.nix ];

  config = lib.mkMerge [
    (lib.mkIf cfg.enable {
      services.mesh.settings.identity_file = lib.mkDefault (toString cfg.identityFile);
      launchd.daemons.mesh-agent = daemon "org.mesh.agent" [
        "agent"
        "supervise"
      ] "Interactive" "/var/log/mesh/agent.log";
    })

    (lib.mkIf cfg.controller.enable {
      services.mesh.controller.settings = {
        identity_file = lib.mkDefault (toString cfg.controller.identityFile);
        user = lib.mkDefault "mesh-controller";
      };
      users = {
        knownUsers = [ "mesh-controller" ];
        knownGroups = [ "mesh-controller" ];
        users.mesh-controller = {
          uid = 462;
          gid = 462;
          home = "/var/empty";
          shell = "/usr/bin/false";
          isHidden = true;
          description = "Mesh controller";
        };
        groups.mesh-controller = {
          gid = 462;
          description = "Mesh controller";
        };
      };
      launchd.daemons.mesh-controller = daemon "org.mesh.controller" [
        "controller"
        "run"
      ] "Standard" "/var/log/mesh/controller.log";
    })

    (lib.mkIf (cfg.enable || cfg.controller.enable) {
      # The agent stays root, as macOS lets nobody else set addresses and routes. Ids that no system has.
      users = {
        knownGroups = lib.optional (cfg.group == "mesh") "mesh";
        groups = lib.mkIf (cfg.group == "mesh") {
          mesh = {
            gid = 461;
            description = "Mesh agent";
          };
        };
      };

      # Before launchd's jobs are loaded, so that the first of them finds the program.
      system.activationScripts.extraActivation.text = ''
        install -d -m 755 /usr/local/libexec /usr/local/bin /var/log/mesh
        if ! [ -e ${program} ]; then
          install -m 755 ${cfg.package}/bin/mesh ${program}
        fi
        ln -sfn ${program} /usr/local/bin/mesh
      '';
      # A running daemon keeps the old file until it is told. What fails is said, and the activation goes on:
      # nix-darwin runs it with `set -e`, and has not made the new system the current one yet.
      system.activationScripts.postActivation.text = ''
        if ! cmp -s ${cfg.package}/bin/mesh ${program}; then
          install -m 755 ${cfg.package}/bin/mesh ${program}.new
          mv -f ${program}.new ${program}
          ${lib.concatStringsSep "\n  " (
            lib.optional cfg.enable (orWarn "${program} agent upgrade" "the agent runs the program of before")
            ++ lib.optional cfg.controller.enable (
              orWarn "launchctl kickstart -k system/org.mesh.controller" "the controller was not restarted"
            )
          )}
        fi
      '';
    })
  ];
}
