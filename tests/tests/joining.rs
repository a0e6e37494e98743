//! The inventory's file is changed by commands on the controller, which has each change in force at once.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{fs, time::Duration};

use mesh_lab::{Fleet, wait_until};
use mesh_tests::{PATIENCE, assert_does_not_reach, assert_reaches, running};
use mesh_types::{MachineName, Serial};

/// How long a change may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(2);

/// Runs a command that changes the inventory, on the controller; returns what it says.
fn change(fleet: &Fleet, arguments: &[&str]) -> String {
    let inventory = fleet.inventory_path();
    let file = ["--inventory", inventory.to_str().unwrap()];
    let output = fleet
        .mesh("cinnabar", &[arguments, &file].concat())
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn serial(fleet: &Fleet, name: &str) -> Serial {
    fleet.status(name).unwrap().roster.unwrap().serial
}

/// Waits until a machine has a newer roster than it had.
fn has_newer(fleet: &Fleet, name: &str, before: Serial) {
    let newer = |status: &mesh_api::Status| {
        let roster = status.roster.as_ref();
        roster.is_some_and(|roster| roster.serial > before)
    };
    let what = "has the new roster";
    fleet.wait_status(name, IN_FORCE, what, newer).unwrap();
}

#[test]
fn a_machine_is_switched_off_and_on_gets_another_key_and_retires_by_commands() {
    let Some(fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_reaches(&fleet, "galena", "pyrite");
    let path = fleet.inventory_path();
    let before = fs::read_to_string(&path).unwrap();

    for (verb, reached) in [("disable", false), ("enable", true)] {
        let known = serial(&fleet, "galena");
        let said = change(&fleet, &["machine", verb, "pyrite"]);
        assert!(said.contains("~ pyrite: enabled"), "{said}");
        has_newer(&fleet, "galena", known);
        match reached {
            true => assert_reaches(&fleet, "galena", "pyrite"),
            false => assert_does_not_reach(&fleet, "galena", "pyrite"),
        }
    }
    let switched = fs::read_to_string(&path).unwrap();
    let added = r#", "enabled": true"#;
    assert_eq!(
        switched
            .split_whitespace()
            .collect::<String>()
            .replace(&added.replace(' ', ""), ""),
        before.split_whitespace().collect::<String>()
    );

    // Its key is taken away, and waits to be accepted.
    let known = serial(&fleet, "galena");
    change(&fleet, &["machine", "rekey", "pyrite"]);
    has_newer(&fleet, "galena", known);
    assert_does_not_reach(&fleet, "galena", "pyrite");
    let pyrite: MachineName = "pyrite".parse().unwrap();
    wait_until(PATIENCE, || {
        let pending = fleet.pending().unwrap();
        let claimed = |key: &mesh_api::PendingKey| key.name.as_ref() == Some(&pyrite);
        match pending.pending.iter().any(claimed) {
            true => Ok(()),
            false => Err(Box::new(pending)),
        }
    })
    .unwrap();
    let controller = fleet.files("cinnabar").unwrap().controller_socket();
    let socket = controller.to_str().unwrap();
    let known = serial(&fleet, "galena");
    // Nobody is asked where nobody sits.
    let inventory = path.to_str().unwrap();
    let accept = ["inventory", "accept", "pyrite", "--socket", socket];
    let asked = fleet
        .mesh(
            "cinnabar",
            &[&accept[..], &["--inventory", inventory]].concat(),
        )
        .unwrap();
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    change(&fleet, &[&accept[..], &["--yes"]].concat());
    has_newer(&fleet, "galena", known);
    assert_reaches(&fleet, "galena", "pyrite");

    let known = serial(&fleet, "galena");
    let said = change(&fleet, &["machine", "retire", "pyrite"]);
    assert!(said.contains("- pyrite"), "{said}");
    has_newer(&fleet, "galena", known);
    assert_does_not_reach(&fleet, "galena", "pyrite");
    assert!(!fs::read_to_string(&path).unwrap().contains("pyrite"));
}
