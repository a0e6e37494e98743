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
      services.mesh.controller.settings.identity_file = lib.mkDefault (
        toString cfg.controller.identityFile
      );
      launchd.daemons.mesh-controller = daemon "org.mesh.controller" [
        "controller"
        "run"
      ] "Standard" "/var/log/mesh/controller.log";
    })

    (lib.mkIf (cfg.enable || cfg.controller.enable) {
      # Before launchd's jobs are loaded, so that the first of them finds the program.
      system.activationScripts.extraActivation.text = ''
        install -d -m 755 /usr/local/libexec /usr/local/bin /var/log/mesh
        if ! [ -e ${program} ]; then
          install -m 755 ${cfg.package}/bin/mesh ${program}
        fi
        ln -sfn ${program} /usr/local/bin/mesh
      '';
      system.activationScripts.postActivation.text = ''
        ${cfg.package}/bin/mesh agent upgrade
      '';
    })
  ];
}
