//! `docs/examples/fleet`, evaluated with stand-ins for its inputs to every machine's configuration.
#![expect(clippy::unwrap_used, reason = "a failing unwrap fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use mesh_lab::program_under_test;
use mesh_tests::nix;
use serde_json::{Value, json};

const SERVERS: [&str; 4] = ["cinnabar", "electrum", "galena", "scheelite"];
const MACS: [&str; 4] = ["argentum", "blackphos", "rosegold", "stibnite"];

fn example() -> PathBuf {
    nix::root().join("docs/examples/fleet")
}

/// An expression in which `flake` is the example at `directory` with all its outputs.
fn within(directory: &Path, expression: &str) -> String {
    format!(
        "let
           root = {root};
           stub = import (root + \"/tests/nix-stub/inputs.nix\");
           nixpkgs = (stub {{ self = {{ }}; mesh = {{ }}; }}).nixpkgs;
           mesh = (import (root + \"/flake.nix\")).outputs {{ self = mesh; inherit nixpkgs; }};
           inputs = stub {{ self = flake; inherit mesh; }};
           source = import {directory}/flake.nix;
           flake = {{ outPath = \"{directory}\"; inherit inputs; }} // source.outputs inputs;
         in {expression}",
        root = nix::root().display(),
        directory = directory.display(),
    )
}

fn evaluate(directory: &Path, expression: &str) -> Option<Value> {
    nix::evaluate(&within(directory, expression))
}

/// What is looked at of every machine.
const MACHINES: &str = r#"
    builtins.mapAttrs
      (_: machine:
        let
          inherit (machine) config;
          texts = builtins.mapAttrs (_: file: file.text or null) config.environment.etc;
        in {
          inherit texts;
          inherit (config.services.mesh) address fqdn identityFile members;
          inherit (config.networking) hostName;
          inherit (config.programs.ssh) knownHosts;
          inherit (machine.json) warnings;
          units = machine.json.units or { };
          plists = machine.json.plists or { };
          firewall = machine.json.firewall or null;
          rules = config.networking.firewall.extraInputRules or "";
          services =
            if machine.json ? units then
              builtins.intersectAttrs { nginx = 1; prometheus = 1; } config.services
            else
              { };
          controller = config.services.mesh.controller.enable;
        })
      (flake.nixosConfigurations // flake.darwinConfigurations)
"#;

/// Every machine's `agent.toml`, in one folder.
const CONFIGURATIONS: &str = r#"
    let
      machines = flake.nixosConfigurations // flake.darwinConfigurations;
      names = builtins.attrNames machines;
    in
    derivation {
      name = "configurations";
      system = builtins.currentSystem;
      builder = "/bin/sh";
      PATH = "/usr/bin:/bin";
      inherit names;
      paths = map (name: machines.${name}.config.environment.etc."mesh/agent.toml".source) names;
      args = [ "-c" "mkdir $out; set -- $paths; for name in $names; do cp $1 $out/$name; shift; done" ];
    }
"#;

/// The example with `./clan` in place of `./plain`, as its README says.
fn by_clan() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("fleet");
    copy_tree(&example(), &copy);
    let flake = fs::read_to_string(copy.join("flake.nix")).unwrap();
    let changed = flake.replace(
        "(inputs.import-tree ./plain)",
        "(inputs.import-tree ./clan)",
    );
    assert_ne!(flake, changed);
    fs::write(copy.join("flake.nix"), changed).unwrap();
    (directory, copy)
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What the program makes of the example's inventory, given on its stdin.
fn by_the_program(command: &str, inventory: &Value) -> String {
    let mut child = Command::new(program_under_test().unwrap())
        .args(["inventory", command, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(inventory.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn keys(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn the_inventory_is_valid_and_resolves_to_what_the_configurations_use() {
    let Some(flake) = evaluate(
        &example(),
        "{ inherit (flake) inventory; resolution = mesh.lib.resolve flake.inventory; }",
    ) else {
        return;
    };
    by_the_program("check", &flake["inventory"]);
    let resolution: Value =
        serde_json::from_str(&by_the_program("resolve", &flake["inventory"])).unwrap();
    assert_eq!(flake["resolution"], resolution);
}

#[test]
fn every_machine_has_its_address_its_name_and_its_daemon() {
    for (way, directory, _guard) in ways() {
        let Some(all) = evaluate(
            &directory,
            &format!("{{ machines = {MACHINES}; inherit (flake) inventory; }}"),
        ) else {
            return;
        };
        let configurations = nix::build(&within(&directory, CONFIGURATIONS)).unwrap();
        let machines = &all["machines"];
        let mut expected: Vec<_> = SERVERS.into_iter().chain(MACS).collect();
        expected.sort_unstable();
        assert_eq!(keys(machines), expected, "{way}");
        let resolution: Value =
            serde_json::from_str(&by_the_program("resolve", &all["inventory"])).unwrap();
        for (name, machine) in machines.as_object().unwrap() {
            let whose = format!("{name} by {way}");
            let member = &resolution["members"][name];
            assert_eq!(machine["address"], member["address"], "{whose}");
            assert_eq!(machine["members"], resolution["members"], "{whose}");
            assert_eq!(machine["hostName"], json!(name), "{whose}");
            assert_eq!(machine["fqdn"], json!(format!("{name}.zt")), "{whose}");
            assert_config(&whose, name, &configurations.join(name), &resolution);
            match member["class"].as_str() {
                Some("nixos") => assert_server(&whose, name, machine),
                Some("darwin") => assert_mac(&whose, machine),
                _ => panic!("{whose} is configured and is no machine of ours"),
            }
            assert_known_hosts(&whose, machine, &resolution);
        }
    }
}

/// The example as it is, and by clan.
fn ways() -> Vec<(&'static str, PathBuf, Option<tempfile::TempDir>)> {
    let (guard, clan) = by_clan();
    vec![("nixpkgs", example(), None), ("clan", clan, Some(guard))]
}

/// The configuration is one that the program takes, and says what the inventory does.
fn assert_config(whose: &str, name: &str, path: &Path, resolution: &Value) {
    let checked = Command::new(program_under_test().unwrap())
        .args(["agent", "check", "--config"])
        .arg(path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{whose}: {errors}");
    let config: toml::Table = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(config["name"].as_str(), Some(name), "{whose}");
    assert_eq!(
        config["network"].as_str(),
        resolution["network"]["id"].as_str(),
        "{whose}"
    );
    assert_eq!(
        json!(config["signers"]),
        resolution["network"]["signers"],
        "{whose}"
    );
    let controllers = json!(config["controllers"]);
    if name == "cinnabar" {
        assert_eq!(controllers, json!(["127.0.0.1:4194"]), "{whose}");
    } else {
        assert_eq!(
            controllers,
            json!(["203.0.113.7:4194", "[2001:db8:7::1]:4194"]),
            "{whose}"
        );
    }
}

fn assert_server(whose: &str, name: &str, machine: &Value) {
    let unit = text(&machine["units"]["mesh-agent.service"]);
    assert!(unit.contains("/bin/mesh agent run\n"), "{whose}: {unit}");
    let credential = format!(
        "LoadCredential=identity:{}\n",
        text(&machine["identityFile"])
    );
    assert!(unit.contains(&credential), "{whose}: {unit}");
    let is_controller = name == "cinnabar";
    assert_eq!(machine["controller"], json!(is_controller), "{whose}");
    assert_eq!(
        machine["units"].get("mesh-controller.service").is_some(),
        is_controller,
        "{whose}"
    );
    let firewall = &machine["firewall"];
    assert_eq!(firewall["allowedTCPPorts"], json!([]), "{whose}");
    let open = &firewall["interfaces"]["mesh0"]["allowedTCPPorts"];
    assert_eq!(*open, json!([22, 9100]), "{whose}");
    let ports = if is_controller {
        json!([4193, 4194])
    } else {
        json!([4193])
    };
    assert_eq!(firewall["allowedUDPPorts"], ports, "{whose}");
}

fn assert_mac(whose: &str, machine: &Value) {
    assert_eq!(
        keys(&machine["plists"]),
        ["org.mesh.agent.plist"],
        "{whose}"
    );
    let plist = text(&machine["plists"]["org.mesh.agent.plist"]).replace('\t', "");
    let arguments = "<string>/usr/local/libexec/mesh</string>\n<string>agent</string>\n<string>supervise</string>";
    assert!(plist.contains(arguments), "{whose}: {plist}");
    let resolver = format!("nameserver {}\n", text(&machine["address"]));
    assert_eq!(text(&machine["texts"]["resolver/zt"]), resolver, "{whose}");
}

/// Every machine knows every other by its key, under its names and its address.
fn assert_known_hosts(whose: &str, machine: &Value, resolution: &Value) {
    let known = machine["knownHosts"].as_object().unwrap();
    let mut expected = 0;
    for (name, member) in resolution["members"].as_object().unwrap() {
        for key in member["sshHostKeys"].as_array().into_iter().flatten() {
            let entry = known.values().find(|entry| entry["publicKey"] == *key);
            let names = entry.unwrap()["hostNames"].as_array().unwrap();
            assert!(
                names.contains(&json!(format!("{name}.zt"))),
                "{whose}: {names:?}"
            );
            assert!(names.contains(&member["address"]), "{whose}: {names:?}");
            expected += 1;
        }
    }
    assert_eq!((known.len(), expected), (7, 7), "{whose}");
}

#[test]
fn services_take_their_addresses_from_the_inventory() {
    let Some(machines) = evaluate(&example(), MACHINES) else {
        return;
    };
    let address = |name: &str| text(&machines[name]["address"]).to_owned();
    let kanban = &machines["cinnabar"]["services"]["nginx"]["virtualHosts"]["kanban.zt"];
    assert_eq!(
        kanban["listen"][0]["addr"],
        json!(format!("[{}]", address("cinnabar")))
    );
    let nginx = text(&machines["cinnabar"]["units"]["nginx.service"]);
    assert!(nginx.contains("After=mesh-online.target\n"), "{nginx}");
    let rules = text(&machines["cinnabar"]["rules"]);
    for mac in MACS {
        assert!(rules.contains(&address(mac)), "{rules}");
    }
    for server in SERVERS {
        assert!(!rules.contains(&address(server)), "{rules}");
    }
    let names = machines["galena"]["knownHosts"]["cinnabar"]["hostNames"].to_string();
    assert!(names.contains("kanban.zt"), "{names}");
}

#[test]
fn a_server_that_is_switched_off_keeps_its_place_and_is_not_awaited() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("fleet");
    copy_tree(&example(), &copy);
    let expression = format!(
        "{{
           machines = {MACHINES};
           inherit (flake) inventory;
           servers = (builtins.fromJSON flake.packages.x86_64-linux.terraform.text).output.servers.value;
           rented = builtins.attrNames (builtins.fromJSON flake.packages.x86_64-linux.terraform.text).resource.hcloud_server;
         }}"
    );
    let Some(before) = evaluate(&copy, &expression) else {
        return;
    };
    let off = |flake: &Value| -> Vec<String> {
        let machines = flake["inventory"]["machines"].as_object().unwrap();
        let off = machines
            .iter()
            .filter(|(_, machine)| machine["enabled"] == json!(false));
        off.map(|(name, _)| name.clone()).collect()
    };
    let targets = |flake: &Value| {
        flake["machines"]["electrum"]["services"]["prometheus"]["scrapeConfigs"].to_string()
    };
    let address = |flake: &Value, name: &str| text(&flake["machines"][name]["address"]).to_owned();
    assert_eq!(off(&before), ["scheelite"]);
    // The toggles are those of which Terraform's output was made.
    let toggled: BTreeSet<_> = SERVERS
        .into_iter()
        .filter(|name| before["servers"][name]["enabled"] == json!(true))
        .collect();
    assert_eq!(json!(toggled), before["rented"]);
    assert!(!toggled.contains("scheelite"));
    assert!(!targets(&before).contains(&address(&before, "scheelite")));
    assert!(targets(&before).contains(&address(&before, "galena")));
    let warnings = before["machines"]["scheelite"]["warnings"].to_string();
    assert!(warnings.contains("switched off"), "{warnings}");

    let path = copy.join("terraform/servers.json");
    let mut servers: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    servers["galena"] = json!({ "enabled": false, "ipv4": null, "ipv6": null });
    servers["scheelite"] = json!({ "enabled": true, "ipv4": "198.51.100.31", "ipv6": null });
    fs::write(&path, servers.to_string()).unwrap();
    let after = evaluate(&copy, &expression).unwrap();
    assert_eq!(off(&after), ["galena"]);
    assert!(targets(&after).contains(&address(&after, "scheelite")));
    assert!(!targets(&after).contains(&address(&after, "galena")));
    for name in SERVERS {
        assert_eq!(address(&before, name), address(&after, name));
    }
}

#[test]
fn the_phone_is_a_guest_that_nothing_configures() {
    let Some(flake) = evaluate(
        &example(),
        "{ inherit (flake) inventory; names = builtins.attrNames (flake.nixosConfigurations // flake.darwinConfigurations); }",
    ) else {
        return;
    };
    let resolution: Value =
        serde_json::from_str(&by_the_program("resolve", &flake["inventory"])).unwrap();
    let phone = &resolution["members"]["pixel"];
    assert_eq!(phone["class"], "external");
    assert!(text(&phone["publicKey"]).starts_with("wireguard:"));
    assert_eq!(phone["gateways"], json!(["cinnabar"]));
    assert_eq!(phone["ciphers"], json!(["chacha"]));
    assert!(!flake["names"].as_array().unwrap().contains(&json!("pixel")));
}

#[test]
fn the_outputs_evaluate_for_every_system() {
    let expression = "{
      packages = builtins.mapAttrs (_: builtins.attrNames) flake.packages;
      inputs = builtins.attrNames source.inputs;
      standIns = builtins.attrNames (removeAttrs inputs [ \"self\" ]);
    }";
    let Some(flake) = evaluate(&example(), expression) else {
        return;
    };
    for system in ["x86_64-linux", "aarch64-linux", "aarch64-darwin"] {
        assert_eq!(flake["packages"][system], json!(["terraform"]), "{system}");
    }
    assert_eq!(flake["inputs"], flake["standIns"]);
}

#[test]
fn no_address_of_the_mesh_is_typed() {
    let Some(flake) = evaluate(
        &example(),
        "{ inherit (flake) inventory; inherit (mesh.lib.resolve flake.inventory) members; }",
    ) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let inventory = directory.path().join("inventory.json");
    fs::write(&inventory, flake["inventory"].to_string()).unwrap();
    let lint = |path: &Path| {
        let mut command = Command::new(program_under_test().unwrap());
        command.args(["lint", "addresses", "--inventory"]);
        command.arg(&inventory).arg(path).output().unwrap()
    };
    let clean = lint(&example());
    let found = String::from_utf8_lossy(&clean.stdout);
    assert!(clean.status.success(), "{found}");

    let copy = directory.path().join("fleet");
    copy_tree(&example(), &copy);
    let typed = format!(
        "{{ x = \"{}\"; }}",
        text(&flake["members"]["galena"]["address"])
    );
    fs::write(copy.join("modules/typed.nix"), typed).unwrap();
    let refused = lint(&copy);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}
