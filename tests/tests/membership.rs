//! The inventory decides who is a member, at once.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::time::{Duration, Instant};

use mesh_lab::{Fleet, wait_until};
use mesh_tests::{PATIENCE, assert_does_not_reach, assert_reaches, fleet, reference, running};

/// How long a removed machine may go on anywhere.
const CUT_OFF_BUDGET: Duration = Duration::from_secs(2);

#[test]
fn a_removed_machine_is_cut_off_everywhere_within_2_s_and_comes_back_when_put_back() {
    let Some(mut fleet) = reference() else {
        return;
    };
    let names = fleet.names();
    fleet.ping_all(&names, PATIENCE).unwrap();
    let entry = fleet.inventory()["machines"]["rosegold"].clone();

    let removed = Instant::now();
    remove(&mut fleet, "rosegold");
    wait_cut_off(&fleet, "rosegold");
    let took = removed.elapsed();
    assert!(took < CUT_OFF_BUDGET, "{took:?}");
    for name in names.iter().filter(|name| *name != "rosegold") {
        let answer = fleet
            .ping_once("rosegold", name, Duration::from_millis(100))
            .unwrap();
        assert_eq!(answer, None, "rosegold reaches {name}");
    }
    let status = fleet
        .wait_status("rosegold", PATIENCE, "knows that it is out", |s| {
            !s.node.admitted
        })
        .unwrap();
    assert!(status.node.reason.is_some());

    fleet
        .edit_inventory(|inventory| inventory["machines"]["rosegold"] = entry)
        .unwrap();
    for name in names.iter().filter(|name| *name != "rosegold") {
        assert_reaches(&fleet, "rosegold", name);
        assert_reaches(&fleet, name, "rosegold");
    }
}

#[test]
fn a_machine_that_is_switched_off_is_cut_off_and_named_so() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_reaches(&fleet, "pyrite", "galena");
    fleet
        .edit_inventory(|inventory| inventory["machines"]["galena"]["enabled"] = false.into())
        .unwrap();
    fleet
        .wait_status(
            "pyrite",
            CUT_OFF_BUDGET,
            "calls it switched off",
            |status| {
                status.peers.iter().any(|peer| {
                    peer.name.as_str() == "galena" && peer.reason.as_deref() == Some("switched off")
                })
            },
        )
        .unwrap();
    assert_does_not_reach(&fleet, "pyrite", "galena");
    assert_does_not_reach(&fleet, "galena", "pyrite");
}

#[test]
fn a_broken_inventory_does_not_replace_a_good_roster() {
    let Some(mut fleet) = running(&["cinnabar", "galena"]) else {
        return;
    };
    let before = fleet.status("galena").unwrap().roster.unwrap().serial;
    std::fs::write(fleet.inventory_path(), "{ \"version\": ").unwrap();
    // The next good one is seen after the broken one was.
    wait_until(PATIENCE, || {
        let log = fleet.controller_process().unwrap().log();
        if log.contains("inventory.json:1:") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .unwrap();
    assert_reaches(&fleet, "galena", "cinnabar");
    assert_eq!(
        fleet.status("galena").unwrap().roster.unwrap().serial,
        before
    );
    fleet
        .edit_inventory(|inventory| inventory["machines"]["galena"]["tags"] = vec!["x"].into())
        .unwrap();
    fleet
        .wait_status("galena", PATIENCE, "has the next roster", |status| {
            status
                .roster
                .as_ref()
                .is_some_and(|roster| roster.serial > before)
        })
        .unwrap();
}

#[test]
fn an_unknown_key_is_refused_and_listed_until_it_is_added() {
    let Some(mut fleet) = fleet(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    let entry = fleet.inventory()["machines"]["pyrite"].clone();
    remove(&mut fleet, "pyrite");
    fleet.start().unwrap();
    let status = fleet
        .wait_status("pyrite", PATIENCE, "knows that it is refused", |status| {
            !status.node.admitted
                && status
                    .controllers
                    .iter()
                    .any(|controller| controller.reason.is_some())
        })
        .unwrap();
    assert!(status.node.reason.is_some(), "{status:?}");
    assert_does_not_reach(&fleet, "galena", "pyrite");

    let socket = fleet.files("cinnabar").unwrap().controller_socket();
    let socket = socket.to_str().unwrap();
    let output = fleet
        .mesh("cinnabar", &["pending", "--json", "--socket", socket])
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let pending: mesh_api::Pending = serde_json::from_slice(&output.stdout).unwrap();
    let key = pending
        .pending
        .iter()
        .find(|key| entry["publicKey"] == key.key);
    let key = key.unwrap_or_else(|| panic!("{pending:?}"));
    let address = fleet.lab().address("pyrite").unwrap();
    assert_eq!(
        key.source.ip().to_canonical(),
        std::net::IpAddr::V4(address)
    );
    assert!(key.attempts >= 1);

    fleet
        .edit_inventory(|inventory| inventory["machines"]["pyrite"] = entry)
        .unwrap();
    assert_reaches(&fleet, "pyrite", "galena");
    let left = fleet.pending().unwrap();
    assert!(left.pending.is_empty(), "{left:?}");
}

#[test]
fn a_pushed_roster_takes_effect_and_a_forged_one_does_not() {
    let Some(mut fleet) = fleet(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    let key_path = fleet.sign_as_admin().unwrap();
    fleet.start().unwrap();
    fleet.wait_admitted(PATIENCE).unwrap();
    assert_reaches(&fleet, "pyrite", "galena");

    let previous = fleet.dir().join("previous.json");
    std::fs::copy(fleet.dir().join("roster.json"), &previous).unwrap();
    remove(&mut fleet, "pyrite");
    let next = fleet.dir().join("next.json");
    fleet.sign_next(&key_path, &previous, &next).unwrap();

    let forged = fleet.dir().join("forged.json");
    let text = std::fs::read_to_string(&next).unwrap();
    std::fs::write(&forged, text.replace("\"galena\"", "\"forged\"")).unwrap();
    let refused = fleet.push("galena", &forged).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_reaches(&fleet, "pyrite", "galena");

    let pushed = Instant::now();
    let accepted = fleet.push("galena", &next).unwrap();
    assert!(accepted.status.success(), "{accepted:?}");
    wait_cut_off(&fleet, "pyrite");
    let took = pushed.elapsed();
    assert!(took < CUT_OFF_BUDGET, "{took:?}");

    // The same again is a serial that is not higher.
    let again = fleet.push("galena", &previous).unwrap();
    assert_eq!(again.status.code(), Some(1), "{again:?}");
}

fn remove(fleet: &mut Fleet, name: &str) {
    fleet
        .edit_inventory(|inventory| {
            inventory["machines"].as_object_mut().unwrap().remove(name);
        })
        .unwrap();
}

/// Waits until no other agent knows the machine any more.
fn wait_cut_off(fleet: &Fleet, removed: &str) {
    for name in fleet.names().iter().filter(|name| *name != removed) {
        fleet
            .wait_status(name, PATIENCE, "forgets the removed machine", |status| {
                status
                    .peers
                    .iter()
                    .all(|peer| peer.name.as_str() != removed)
            })
            .unwrap();
    }
}
