//! Moving over from ZeroTier, step by step as `docs/moving/from-zerotier.md` has it.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use mesh_lab::program_under_test;
use mesh_tests::{PATIENCE, running};
use serde_json::{Value, json};

/// What ZeroTier's own API says of a network of two, one of them not authorised any more.
const NETWORK: &str = r#"{
  "network": { "id": "8056c2e21c000001", "name": "fleet", "v6AssignMode": { "rfc4193": true } },
  "members": [
    { "id": "8056c2e21c", "authorized": true, "ipAssignments": ["10.147.20.1"] },
    { "id": "efcc1b0947", "authorized": true, "ipAssignments": ["10.147.20.2"] },
    { "id": "0000000001", "authorized": false, "ipAssignments": [] }
  ]
}"#;

fn mesh(room: &Path, arguments: &[&str]) -> Output {
    Command::new(program_under_test().unwrap())
        .args(arguments)
        .current_dir(room)
        .output()
        .unwrap()
}

#[test]
fn a_zerotier_network_becomes_an_inventory_and_its_addresses_are_found() {
    let room = tempfile::tempdir().unwrap();
    let room = room.path();
    fs::write(room.join("zerotier.json"), NETWORK).unwrap();
    // The names, as a clan's vars tell them.
    for (name, address) in [
        ("cinnabar", "fd80:56c2:e21c:0:199:9380:56c2:e21c"),
        ("stibnite", "fd80:56c2:e21c:0:199:93ef:cc1b:947"),
    ] {
        let var = room
            .join("vars/per-machine")
            .join(name)
            .join("zerotier/zerotier-ip");
        fs::create_dir_all(&var).unwrap();
        fs::write(var.join("value"), address).unwrap();
    }
    let made = mesh(
        room,
        &[
            "import",
            "zerotier",
            "--file",
            "zerotier.json",
            "--vars",
            "vars",
            "--class",
            "stibnite=darwin",
            "--domain",
            "zt",
            "--map",
            "map.json",
            "--out",
            "inventory.json",
        ],
    );
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    assert!(said.contains("left out 0000000001"), "{said}");
    assert!(
        mesh(room, &["inventory", "check", "inventory.json"])
            .status
            .success()
    );
    let inventory: Value =
        serde_json::from_slice(&fs::read(room.join("inventory.json")).unwrap()).unwrap();
    assert_eq!(
        inventory["machines"]["stibnite"],
        json!({ "machineClass": "darwin" })
    );
    assert_eq!(
        inventory["instances"]["mesh"]["roles"]["controller"]["machines"],
        json!({ "cinnabar": {} })
    );

    fs::create_dir(room.join("repository")).unwrap();
    let file = room.join("repository/hosts.nix");
    fs::write(
        &file,
        "{ url = \"http://[fd80:56c2:e21c:0:199:9380:56c2:e21c]:8080/\"; listen = \"10.147.20.2\"; }\n",
    )
    .unwrap();
    let lint = ["lint", "addresses", "repository", "--map", "map.json"];
    assert_eq!(mesh(room, &lint).status.code(), Some(1));
    let fixed = mesh(room, &[&lint[..], &["--fix", "--json"]].concat());
    assert_eq!(fixed.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&fixed.stdout).unwrap();
    assert_eq!(answer["findings"].as_array().unwrap().len(), 2);
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "{ url = \"http://cinnabar.zt:8080/\"; listen = \"10.147.20.2\"; }\n"
    );
    // What a name cannot replace is left to the admin, who writes what was proposed.
    fs::write(
        &file,
        "{ listen = mesh.addressFor networkId \"stibnite\"; }\n",
    )
    .unwrap();
    assert_eq!(mesh(room, &lint).status.code(), Some(0));
}

#[test]
fn a_clans_inventory_resolves_to_the_same_when_it_is_imported() {
    let room = tempfile::tempdir().unwrap();
    let clan = Path::new(env!("CARGO_MANIFEST_DIR")).join("fleet/inventory-clan.json");
    let clan = clan.to_str().unwrap();
    let made = mesh(
        room.path(),
        &["import", "clan", clan, "--out", "inventory.toml"],
    );
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let resolved = |file: &str| -> Value {
        let answer = mesh(room.path(), &["inventory", "resolve", file]);
        serde_json::from_slice(&answer.stdout).unwrap()
    };
    let (mut imported, mut own) = (resolved("inventory.toml"), resolved(clan));
    // The admin's own key becomes the signer where there is none.
    imported["network"]["signers"].take();
    own["network"]["signers"].take();
    assert_eq!(imported, own);
}

#[test]
fn a_machine_answers_to_the_address_that_it_had() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    fleet
        .edit_inventory(|inventory| {
            inventory["machines"]["galena"]["mesh"]["routes"] = json!(["fd80:56c2:e21c::1/128"]);
        })
        .unwrap();
    for name in ["galena", "pyrite"] {
        fleet
            .wait_status(
                name,
                PATIENCE,
                "the roster with the old address",
                |status| {
                    status
                        .roster
                        .as_ref()
                        .is_some_and(|roster| roster.serial.get() > 1)
                },
            )
            .unwrap();
    }
    let ping = ["-6", "-c", "1", "-W", "10", "fd80:56c2:e21c::1"];
    let answer = fleet
        .run_on("pyrite", Command::new("ping").args(ping))
        .unwrap();
    assert!(
        answer.status.success(),
        "{}",
        String::from_utf8_lossy(&answer.stdout)
    );
}
