//! The flake, and what the documentation says of it.

use std::{fs, process::Command};

use crate::evaluate::{self, Nix, workspace};

#[test]
fn the_flake_evaluates_without_a_network() {
    let Some(nix) = Nix::new() else { return };
    // What the flake is made of, without the build's own files.
    let dir = tempfile::tempdir().unwrap();
    for path in [
        "flake.nix",
        "Cargo.toml",
        "Cargo.lock",
        "nix-modules",
        "systemd",
        "tests/nix-stub",
        "tests/Cargo.toml",
        "tests/fleet",
        "tests/src",
        "launchd",
        "crates",
        "benches",
    ] {
        let to = dir.path().join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        assert!(
            Command::new("cp")
                .arg("-r")
                .arg(workspace().join(path))
                .arg(to)
                .status()
                .unwrap()
                .success()
        );
    }
    let mut check = Command::new("nix");
    check
        .args([
            "--extra-experimental-features",
            "nix-command flakes",
            "flake",
            "check",
            "--all-systems",
        ])
        .args([
            "--no-build",
            "--no-write-lock-file",
            "--override-input",
            "nixpkgs",
        ])
        .arg(format!(
            "path:{}",
            dir.path().join("tests/nix-stub").display()
        ))
        .arg(format!("path:{}", dir.path().display()));
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    drop(nix);
}

#[test]
fn the_examples_of_the_documentation_evaluate() {
    let Some(nix) = Nix::new() else { return };
    let manual = fs::read_to_string(workspace().join("docs/nix.md")).unwrap();
    nix.file("flake.nix", evaluate::block(&manual, "nix flake"));
    nix.file("machine.nix", evaluate::block(&manual, "nix nixos"));
    nix.file("clan.nix", evaluate::block(&manual, "nix clan"));
    nix.file("parts.nix", evaluate::block(&manual, "nix flake-parts"));
    let flake = nix.flake().display();
    // clan takes an `inventory.json` beside its flake for its own, so its flake has a folder without one.
    let inputs = format!(
        "inputs = import {}/tests/nix-stub/inputs.nix {{ self = {{ outPath = \"{flake}/vars\"; inherit inputs; }}; mesh = mesh; }};",
        workspace().display()
    );
    let seen = nix.json(&format!(
        r#"let {inputs}
             plain = (import {flake}/flake.nix).outputs inputs;
             part = module: inputs.flake-parts.lib.mkFlake {{ inherit inputs; }} {{ systems = [ "x86_64-linux" ]; imports = [ module ]; }};
             clan = part {flake}/clan.nix;
             parts = part {flake}/parts.nix;
             address = machine: machine.config.services.mesh.address;
           in {{
             server = address plain.nixosConfigurations.cinnabar;
             mac = lib.attrNames plain.darwinConfigurations.stibnite.json.plists;
             board = (nixos [ {flake}/machine.nix ]).json.units."board.service";
             clan = address clan.nixosConfigurations.cinnabar;
             clanMac = address clan.darwinConfigurations.stibnite;
             parts = address parts.nixosConfigurations.cinnabar;
             inventory = parts.mesh.inventory.version;
           }}"#
    ));
    let address = "fdc3:582e:db61:0:f785:d658:d2e9:df7d";
    assert_eq!(seen["server"], address);
    assert_eq!(seen["clan"], address);
    assert_eq!(seen["parts"], address);
    assert_eq!(seen["mac"], serde_json::json!(["org.mesh.agent.plist"]));
    assert_eq!(seen["inventory"], "mesh/v1");
    let board = seen["board"].as_str().unwrap();
    assert!(
        board.contains(&format!("--listen [{address}]:8080")),
        "{board}"
    );
}

/// The manual says to call the mesh's inventory otherwise.
#[test]
fn clan_takes_an_inventory_beside_its_flake_for_its_own() {
    let Some(nix) = Nix::new() else { return };
    let manual = fs::read_to_string(workspace().join("docs/nix.md")).unwrap();
    nix.file("clan.nix", evaluate::block(&manual, "nix clan"));
    let said = nix.fails(&format!(
        r#"let
             inputs = import {root}/tests/nix-stub/inputs.nix {{ self.outPath = "{flake}"; mesh = mesh; }};
             clan = inputs.flake-parts.lib.mkFlake {{ inherit inputs; }} {{ systems = [ "x86_64-linux" ]; imports = [ {flake}/clan.nix ]; }};
           in clan.nixosConfigurations.cinnabar.config.services.mesh.address"#,
        root = workspace().display(),
        flake = nix.flake().display(),
    ));
    assert!(said.contains("clan.inventory.network"), "{said}");
}

#[test]
fn every_option_has_a_type_a_description_a_default_and_an_example() {
    let Some(nix) = Nix::new() else { return };
    let lacking = nix.json(&format!(
        "(import {}/nix-modules/reference.nix {{ inherit lib; }}).lacking",
        workspace().display()
    ));
    assert_eq!(lacking, serde_json::json!([]));
}

#[test]
fn the_reference_of_the_options_is_up_to_date() {
    let Some(nix) = Nix::new() else { return };
    let made = nix.json(&format!(
        "(import {root}/nix-modules/reference.nix {{ lib = import {root}/tests/nix-stub/lib.nix; }}).text",
        root = workspace().display()
    ));
    let written = fs::read_to_string(workspace().join("docs/nix-options.md")).unwrap();
    assert!(made == written.as_str(), "run `cargo xtask nix-options`");
}

#[test]
fn every_nix_file_parses() {
    let Some(nix) = Nix::new() else { return };
    let files = ["flake.nix", "nix-modules", "tests/nix-stub"].map(|path| workspace().join(path));
    let found = Command::new("find")
        .args(files)
        .args([
            "-name",
            "*.nix",
            "-exec",
            "nix-instantiate",
            "--parse",
            "{}",
            "+",
        ])
        .output()
        .unwrap();
    assert!(found.status.success(), "{found:?}");
    drop(nix);
}
