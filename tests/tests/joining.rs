//! How machines come into the inventory and go: commands that change its file on the controller, which has each change in
//! force at once, and invitations.

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

/// Takes pyrite's key away, for the machine to join anew.
fn wants_key(fleet: &Fleet) {
    let known = serial(fleet, "galena");
    change(fleet, &["machine", "rekey", "pyrite"]);
    has_newer(fleet, "galena", known);
    assert_does_not_reach(fleet, "galena", "pyrite");
}

fn invite(fleet: &Fleet, more: &[&str]) -> std::process::Output {
    let socket = fleet.files("cinnabar").unwrap().controller_socket();
    let invite = ["invite", "pyrite", "--socket", socket.to_str().unwrap()];
    fleet
        .mesh("cinnabar", &[&invite[..], more].concat())
        .unwrap()
}

/// Joins on pyrite with an identity of that file; the exit code and what was said.
fn join(fleet: &Fleet, token: &str, identity: &str, config: &str) -> (Option<i32>, String) {
    let join = ["join", token, "--identity", identity, "--config", config];
    let output = fleet.mesh("pyrite", &join).unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn an_invited_machine_joins_once_and_is_admitted_at_once() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    let refused = invite(&fleet, &["--controller", "192.0.2.1:4194"]);
    assert_eq!(refused.status.code(), Some(1), "it has a key: {refused:?}");
    wants_key(&fleet);

    let server = fleet.lab().address("cinnabar").unwrap();
    let at = format!("{server}:4194");
    let invited = invite(&fleet, &["--controller", &at]);
    assert!(invited.status.success(), "{invited:?}");
    let token = String::from_utf8(invited.stdout).unwrap();
    let token = token.trim();

    let own = fleet.files("pyrite").unwrap().identity_path();
    let dir = tempfile::tempdir().unwrap();
    let [config, stranger] = ["agent.toml", "stranger"].map(|file| dir.path().join(file));
    let [own, config, stranger] = [&own, &config, &stranger].map(|path| path.to_str().unwrap());
    let known = serial(&fleet, "galena");
    let (code, said) = join(&fleet, token, own, config);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("`pyrite` is admitted"), "{said}");
    has_newer(&fleet, "galena", known);
    assert_reaches(&fleet, "galena", "pyrite");
    let written = fs::read_to_string(config).unwrap();
    assert!(written.contains(&at) && written.contains(own), "{written}");

    // Once more, as after an answer that was lost; and by somebody else, with an identity that is made for it.
    assert_eq!(join(&fleet, token, own, config).0, Some(0));
    let (code, said) = join(&fleet, token, stranger, config);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("used by another machine"), "{said}");
    assert!(
        fs::read_to_string(stranger)
            .unwrap()
            .starts_with("mesh1-seed-")
    );

    // It is admitted without its key in the file, also by a controller that was killed.
    fleet.controller_process().unwrap().kill().unwrap();
    fleet.start_controller().unwrap();
    assert_reaches(&fleet, "galena", "pyrite");
    let file = fleet.inventory_path();
    let key = fleet.mesh("pyrite", &["keygen", "--public", own]).unwrap();
    let key = String::from_utf8(key.stdout).unwrap();
    assert!(!fs::read_to_string(&file).unwrap().contains(key.trim()));
    // Written there, it counts by that, and what is taken back is the invitation alone.
    change(
        &fleet,
        &["inventory", "accept", "pyrite", "--public-key", key.trim()],
    );
    invite(&fleet, &["--revoke"]);
    assert_reaches(&fleet, "galena", "pyrite");
}

#[test]
fn an_invitation_that_is_taken_back_takes_the_key_with_it() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    wants_key(&fleet);
    let at = format!("{}:4194", fleet.lab().address("cinnabar").unwrap());
    let token = invite(&fleet, &["--controller", &at]).stdout;
    let token = String::from_utf8(token).unwrap();
    let own = fleet.files("pyrite").unwrap().identity_path();
    let config = fleet.dir().join("joined.toml");
    let [own, config] = [&own, &config].map(|path| path.to_str().unwrap());
    assert_eq!(join(&fleet, token.trim(), own, config).0, Some(0));
    assert_reaches(&fleet, "galena", "pyrite");

    let known = serial(&fleet, "galena");
    let said = String::from_utf8(invite(&fleet, &["--revoke"]).stdout).unwrap();
    assert_eq!(said, "took back 1 of `pyrite`\n");
    has_newer(&fleet, "galena", known);
    assert_does_not_reach(&fleet, "galena", "pyrite");
    let (code, said) = join(&fleet, token.trim(), own, config);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("taken back"), "{said}");
}
