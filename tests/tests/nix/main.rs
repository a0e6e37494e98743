//! The Nix modules, evaluated and built with Nix itself and a stand-in for nixpkgs.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests and their helpers, which say why one is skipped"
)]

mod activation;
mod boot;
mod clan;
mod evaluate;
mod flake;
mod package;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use evaluate::{Nix, workspace};
use serde_json::Value;

#[test]
fn nixos_runs_the_units_of_the_repository() {
    let Some(nix) = Nix::new() else { return };
    let rendered =
        nix.json("(nixos [ machine { services.mesh.controller.enable = true; } ]).json.units");
    let mut compared = 0;
    for entry in fs::read_dir(workspace().join("systemd")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let Some(unit) = rendered.get(&name) else {
            assert!(name.ends_with(".conf"), "NixOS has no `{name}`");
            continue;
        };
        let mut shipped = sections(&fs::read_to_string(entry.path()).unwrap());
        let mut made = sections(unit.as_str().unwrap());
        // What a configuration changes: where the program is, and the PATH that NixOS gives every unit.
        let program = format!("{}/bin/mesh ", nix.package());
        for line in shipped
            .values_mut()
            .flat_map(BTreeMap::values_mut)
            .flatten()
        {
            *line = line.replace("/usr/bin/mesh ", &program);
        }
        // Keys that the systemd of Debian 12 does not know, and NixOS' does.
        if ["mesh-agent.service", "mesh-controller.service"].contains(&name.as_str()) {
            let service = shipped.get_mut("Service").unwrap();
            let growing = [
                ("RestartSec", "500ms"),
                ("RestartSteps", "8"),
                ("RestartMaxDelaySec", "60s"),
            ];
            for (key, value) in growing {
                service.insert(key.to_owned(), vec![value.to_owned()]);
            }
        }
        if let Some(service) = made.get_mut("Service") {
            let variables = service.entry("Environment".to_owned()).or_default();
            variables.retain(|variable| !variable.contains("PATH="));
            if variables.is_empty() {
                service.remove("Environment");
            }
        }
        assert_eq!(made, shipped, "{name}");
        compared += 1;
    }
    assert!(compared >= 3, "{compared}");
}

#[test]
fn systemd_takes_the_units_of_nixos() {
    let Some(nix) = Nix::new() else { return };
    if !Path::new("/opt/systemd-debian-trixie").exists() && !nix::unistd::Uid::effective().is_root()
    {
        println!("skipped: verify-units.sh has to install systemd, as root");
        return;
    }
    for (what, module) in [
        ("an agent", "{ }"),
        (
            "a controller beside it",
            "{ services.mesh.controller.enable = true; }",
        ),
        (
            "everything set",
            r#"{ services.mesh = {
              controller = { enable = true; port = 443; httpListen = "127.0.0.1:4195"; identityFile = "/run/secrets/controller"; };
              identityFile = "/run/secrets/mesh"; interface = "mesh1"; group = "wheel"; port = 51820;
              dns = false; trustInterface = true; minSerial = 7;
            }; }"#,
        ),
    ] {
        let units = nix.build(&format!("(nixos [ machine {module} ]).units"));
        let files: Vec<_> = fs::read_dir(&units)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        // All are right, and the daemons are as confined as the repository's own units.
        let is_daemon = |file: &&PathBuf| {
            file.ends_with("mesh-agent.service") || file.ends_with("mesh-controller.service")
        };
        let verified = Command::new("bash")
            .arg(workspace().join("tests/setup/verify-units.sh"))
            .args(&files)
            .output()
            .unwrap();
        assert!(verified.status.success(), "{what}: {verified:?}");
        let verified = Command::new("bash")
            .arg(workspace().join("tests/setup/verify-units.sh"))
            .args(["-t", "2.0"])
            .args(files.iter().filter(is_daemon))
            .output()
            .unwrap();
        assert!(verified.status.success(), "{what}: {verified:?}");
    }
}

#[test]
fn nix_darwin_loads_the_property_lists_of_the_repository() {
    let Some(nix) = Nix::new() else { return };
    let plists =
        nix.json("(darwin [ mac { services.mesh.controller.enable = true; } ]).json.plists");
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in plists.as_object().unwrap() {
        let made = dir.path().join(name);
        fs::write(&made, text.as_str().unwrap()).unwrap();
        let shipped = workspace().join("launchd").join(name);
        assert_eq!(plist(&made), plist(&shipped), "{name}");
        let lint = Command::new("python3")
            .arg(workspace().join("tests/setup/lint-launchd.py"))
            .arg(&made)
            .output()
            .unwrap();
        assert!(lint.status.success(), "{lint:?}");
    }
    assert_eq!(plists.as_object().unwrap().len(), 2);
}

/// Building the file has the program read it, so this is what a user's build does.
#[test]
fn the_program_reads_what_the_modules_write() {
    let Some(nix) = Nix::new() else { return };
    let agent = nix.build(r#"(nixos [ machine ]).config.environment.etc."mesh/agent.toml".source"#);
    let text = fs::read_to_string(agent).unwrap();
    assert!(
        text.contains("\"network\" = \"000102030405060708090a0b0c0d0e0f\""),
        "{text}"
    );
    // What follows from the platform, or is passed on by the service manager, is not said.
    assert!(
        !text.contains("identity_file") && !text.contains("resolver"),
        "{text}"
    );

    let mac = nix.build(r#"(darwin [ mac ]).config.environment.etc."mesh/agent.toml".source"#);
    let text = fs::read_to_string(mac).unwrap();
    assert!(text.contains("\"203.0.113.7:4194\""), "{text}");
    assert!(
        text.contains("\"identity_file\" = \"/etc/mesh/identity\""),
        "{text}"
    );

    let all = r#"{ services.mesh = {
        controller.enable = true; controller.httpListen = "127.0.0.1:4195"; controller.port = 443;
        signers = [ identity ];
        interface = "mesh1"; group = "wheel"; port = 51820; minSerial = 7;
        settings = { user = "mesh"; state_dir = "/var/lib/mesh/agent"; };
      }; }"#;
    nix.build(&format!(
        r#"(nixos [ machine {all} ]).config.environment.etc."mesh/agent.toml".source"#
    ));
    let controller = nix.build(&format!(
        r#"(nixos [ machine {all} ]).config.environment.etc."mesh/controller.toml".source"#
    ));
    let text = fs::read_to_string(controller).unwrap();
    assert!(
        text.contains("\"inventory\" = \"/etc/mesh/inventory.json\""),
        "{text}"
    );
    assert!(text.contains("\"listen\" = \"[::]:443\""), "{text}");

    let refused = nix.fails_to_build(
        r#"(nixos [ machine { services.mesh.settings.lissten = "x"; } ]).config.environment.etc."mesh/agent.toml".source"#,
    );
    assert!(refused.contains("did you mean `listen`"), "{refused}");
}

#[test]
fn a_machine_built_with_a_roster_takes_no_older_one() {
    let Some(nix) = Nix::new() else { return };
    let seen = nix.json(
        r#"let c = (nixos [ {
             networking.hostName = "cinnabar";
             services.mesh = { enable = true; inherit roster; signers = [ identity ]; controller.enable = true; };
           } ]).config; in {
             inherit (c.services.mesh) minSerial network address fqdn settings;
             roster = c.services.mesh.controller.settings.roster;
             bad = failed c;
           }"#,
    );
    assert_eq!(seen["minSerial"], 1);
    assert_eq!(seen["settings"]["min_serial"], 1);
    assert_eq!(seen["roster"], "/etc/mesh/roster.json");
    assert_eq!(seen["address"], "fdc3:582e:db61:0:f785:d658:d2e9:df7d");
    assert_eq!(seen["fqdn"], "cinnabar.mesh");
    assert_eq!(seen["bad"], serde_json::json!([]));
}

#[test]
fn the_modules_know_every_key_of_the_files() {
    let Some(nix) = Nix::new() else { return };
    for daemon in ["agent", "controller"] {
        let settings = if daemon == "agent" {
            "settings"
        } else {
            "controller.settings"
        };
        let known = nix.json(&format!(
            "lib.attrNames (nixos [ machine ]).config.services.mesh.{settings}"
        ));
        let known = known.as_array().unwrap().iter();
        let known: BTreeSet<_> = known.map(|key| key.as_str().unwrap()).collect();
        let file = nix.file("unknown.toml", "an_unknown_key_that_is_like_no_other = 1\n");
        let refused = Command::new(evaluate::program())
            .args([daemon, "check", "--config"])
            .arg(file)
            .output()
            .unwrap();
        let message = String::from_utf8(refused.stderr).unwrap();
        let (_, listed) = message.split_once("the keys are ").unwrap();
        let line = listed.lines().next().unwrap();
        let taken: BTreeSet<_> = line.split('`').skip(1).step_by(2).collect();
        assert_eq!(known, taken, "{daemon}");
    }
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    let Some(nix) = Nix::new() else { return };
    let in_store = format!("identityFile = \"{}/identity\";", nix.package());
    let cases: Vec<(&str, String, &str)> = vec![
        (
            "failed",
            "inventory = lib.mkForce null;".into(),
            "`services.mesh.network` is not set. Set `services.mesh.inventory`",
        ),
        (
            "failed",
            "signers = lib.mkForce [ ];".into(),
            "List the SSH public keys",
        ),
        (
            "failed",
            in_store,
            "as a string: `mesh keygen --out /etc/mesh/identity` makes one",
        ),
        (
            "failed",
            r#"name = "Cinnabar";"#.into(),
            "such as `cinnabar`",
        ),
        (
            "failed",
            r#"name = "gold";"#.into(),
            "set `services.mesh.name` to one of `cinnabar`",
        ),
        (
            "failed",
            "inherit roster;".into(),
            "are both set. Keep `roster`",
        ),
        (
            "failed",
            "signers = [ identity ]; controller.roster = \"/srv/roster.json\";".into(),
            "a controller watches one file",
        ),
        (
            "failed",
            "controller.enable = true; controller.port = 4193;".into(),
            "Set one of them to another port",
        ),
        (
            "warned",
            "controllers = [ ];".into(),
            "Give the controller's machine `mesh.endpoints`",
        ),
        (
            "warned",
            r#"name = lib.mkForce "scheelite";"#.into(),
            "is switched off in the inventory",
        ),
        (
            "warned",
            r#"name = lib.mkForce "stibnite";"#.into(),
            "Run `mesh keygen --machine stibnite",
        ),
        (
            "warned",
            r#"name = lib.mkForce "stibnite"; controller.enable = true;"#.into(),
            "Add `roles.controller.machines.stibnite",
        ),
        (
            "warned",
            String::new(),
            "Set `services.mesh.controller.enable = true`",
        ),
    ];
    for (kind, settings, expected) in cases {
        let said = nix.json(&format!(
            "{kind} (nixos [ machine {{ services.mesh = {{ {settings} }}; }} ]).config"
        ));
        assert!(said.to_string().contains(expected), "{settings}: {said}");
    }
    let mistaken = nix.fails(
        "failed (nixos [ machine { services.mesh = { inventory = lib.mkForce null; roster = inventory; }; } ]).config",
    );
    assert!(
        mistaken.contains("what `mesh inventory sign --out` wrote"),
        "{mistaken}"
    );

    let fine = nix.json(
        "let c = (nixos [ machine { services.mesh.controller.enable = true; } ]).config; in [ (failed c) (warned c) ]",
    );
    assert_eq!(fine, serde_json::json!([[], []]));
}

#[test]
fn the_firewall_lets_the_ports_in_and_the_interface_is_left_alone() {
    let Some(nix) = Nix::new() else { return };
    let seen = nix.json(
        r#"let c = module: (nixos [ machine module ]).config; open = c { services.mesh.controller.enable = true; }; shut = c { services.mesh.openFirewall = false; services.mesh.trustInterface = true; }; in {
             open = open.networking.firewall.allowedUDPPorts;
             inside = open.networking.firewall.interfaces.mesh0.allowedUDPPorts;
             shut = shut.networking.firewall.allowedUDPPorts;
             trusted = shut.networking.firewall.trustedInterfaces;
             networkd = open.systemd.network.networks."05-mesh".linkConfig.Unmanaged;
             agent = { inherit (open.systemd.services.mesh-agent) restartIfChanged; reloads = lib.length open.systemd.services.mesh-agent.reloadTriggers; };
             upgrade = map toString open.systemd.services.mesh-agent-upgrade.restartTriggers;
             hosts = (c { services.mesh.resolver = "hosts"; }).networking.hosts."fdc3:582e:db61:0:f785:d658:d2e9:df7d";
           }"#,
    );
    assert_eq!(seen["open"], serde_json::json!([4193, 4194]));
    assert_eq!(seen["inside"], serde_json::json!([4194]));
    assert_eq!(seen["shut"], serde_json::json!([]));
    assert_eq!(seen["trusted"], serde_json::json!(["mesh0"]));
    assert_eq!(seen["networkd"], true);
    assert_eq!(
        seen["agent"],
        serde_json::json!({ "restartIfChanged": false, "reloads": 1 })
    );
    assert_eq!(seen["upgrade"], serde_json::json!([nix.package()]));
    assert!(seen["hosts"].to_string().contains("cinnabar.zt"), "{seen}");
}

/// A unit file as sections, keys and values; words of an ordering are values of their own, as NixOS and
/// systemd do not mind whether they share a line.
fn sections(text: &str) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    const ORDERINGS: [&str; 9] = [
        "After",
        "Before",
        "Wants",
        "Requires",
        "BindsTo",
        "PartOf",
        "Conflicts",
        "WantedBy",
        "Documentation",
    ];
    let mut sections: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            current = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let values = sections
                .entry(current.clone())
                .or_default()
                .entry(key.to_owned())
                .or_default();
            if ORDERINGS.contains(&key) {
                values.extend(value.split_whitespace().map(str::to_owned));
            } else {
                values.push(value.to_owned());
            }
        }
    }
    sections
}

/// A property list as JSON.
fn plist(path: &Path) -> Value {
    let read = Command::new("python3")
        .args([
            "-c",
            "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))",
        ])
        .arg(path)
        .output()
        .unwrap();
    assert!(read.status.success(), "{read:?}");
    serde_json::from_slice(&read.stdout).unwrap()
}
