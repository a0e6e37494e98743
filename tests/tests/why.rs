//! `mesh why`: what the command tells of machines that are not reached straight, or not at all.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{process::Command, time::Duration};

use mesh_api::{Nat, WayChange, WayOrigin, Why};
use mesh_lab::{Fleet, Router, wait_until};
use mesh_tests::{assert_reaches, fleet, running, start};

/// A peer that does not answer is noticed within 15 s.
const NOTICED: Duration = Duration::from_secs(30);

/// All but what goes through the mesh itself.
const NO_UDP: &str = "
table inet underlay {
  chain out { type filter hook output priority 0; oifname != \"mesh0\" meta l4proto udp drop; }
  chain in { type filter hook input priority 0; iifname != \"mesh0\" meta l4proto udp drop; }
}
";

fn ask(fleet: &Fleet, of: &str, about: &str, more: &[&str]) -> std::process::Output {
    let socket = fleet.files(of).unwrap().agent_socket();
    let mut arguments = vec!["why", about, "--socket", socket.to_str().unwrap()];
    arguments.extend(more);
    fleet.mesh(of, &arguments).unwrap()
}

fn why(fleet: &Fleet, of: &str, about: &str) -> Why {
    let output = ask(fleet, of, about, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until that reason holds, with traffic, without which nothing is expected.
fn wait_for(fleet: &Fleet, of: &str, about: &str, code: &str) -> Why {
    wait_for_any(fleet, of, about, &[code])
}

fn wait_for_any(fleet: &Fleet, of: &str, about: &str, codes: &[&str]) -> Why {
    let found = wait_until(NOTICED, || {
        fleet
            .ping_once(of, about, Duration::from_millis(200))
            .unwrap();
        let why = why(fleet, of, about);
        if codes.contains(&why.peer.reason_code.as_str()) {
            Ok(why)
        } else {
            Err(Box::new(why))
        }
    });
    found.unwrap_or_else(|last| panic!("not {codes:?} but {last:#?}"))
}

fn drop_udp(fleet: &Fleet, name: &str) {
    let nft = fleet.run_on(name, Command::new("nft").arg(NO_UDP));
    let nft = nft.unwrap();
    assert!(nft.status.success(), "{nft:?}");
}

fn behind_random_nats() -> Option<Fleet> {
    let mut fleet = fleet(&["cinnabar", "galena", "pyrite"])?;
    for name in ["galena", "pyrite"] {
        fleet
            .lab()
            .put_behind(name, Router::MasqueradeRandom)
            .unwrap();
    }
    start(&mut fleet);
    Some(fleet)
}

#[test]
fn a_pair_behind_random_nats_is_told_what_was_tried_and_what_would_help() {
    let Some(fleet) = behind_random_nats() else {
        return;
    };
    assert_reaches(&fleet, "pyrite", "galena");
    let why = wait_for(&fleet, "pyrite", "galena", "no-answer");
    assert_eq!(why.peer.relay.unwrap().as_str(), "cinnabar");
    assert!(why.helps.unwrap().contains("UDP 4193"));
    // One moon sees that there is a NAT, and no more.
    assert_eq!(why.nat_ipv4, Nat::Translated);
    let (moons, straight): (Vec<_>, Vec<_>) = why
        .ways
        .iter()
        .partition(|way| way.origin == WayOrigin::Moon);
    assert!(moons[0].in_use && moons[0].last_answer_seconds.is_some());
    assert!(!straight.is_empty());
    for way in straight {
        assert!(way.probes > 0, "{way:?}");
        assert_eq!((way.last_answer_seconds, way.in_use), (None, false));
    }
    assert_eq!(why.history[0].what, WayChange::Handshake);
    let text = ask(&fleet, "pyrite", "galena", &[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.starts_with("galena is relayed by cinnabar: no answer to "),
        "{text}"
    );
}

#[test]
fn a_machine_that_is_switched_off_or_unknown_or_oneself_is_told_so() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    fleet
        .edit_inventory(|inventory| inventory["machines"]["galena"]["enabled"] = false.into())
        .unwrap();
    let why = wait_for(&fleet, "pyrite", "galena", "switched-off");
    assert!(why.helps.unwrap().contains("enabled"));
    wait_for(&fleet, "pyrite", "pyrite", "this-machine");
    let unknown = ask(&fleet, "pyrite", "galina", &[]);
    assert_eq!(unknown.status.code(), Some(1));
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(error.contains("did you mean `galena`?"), "{error}");
}

#[test]
fn a_killed_agent_is_silent_and_its_own_command_finds_nobody() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_reaches(&fleet, "pyrite", "galena");
    let straight = wait_for(&fleet, "pyrite", "galena", "direct");
    assert_eq!((straight.helps, straight.peer.reason), (None, None));
    fleet.agent_process("galena").unwrap().kill().unwrap();
    // Whether the moon says so depends on whether it relayed for galena before.
    let why = wait_for_any(
        &fleet,
        "pyrite",
        "galena",
        &["silent", "unanswered", "not-there"],
    );
    assert!(why.helps.unwrap().contains("`galena` is on"));
    let asked = ask(&fleet, "galena", "pyrite", &["--json"]);
    assert_eq!(asked.status.code(), Some(3), "{asked:?}");
}

#[test]
fn a_machine_whose_udp_is_dropped_finds_that_no_moon_answers() {
    let Some(fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_reaches(&fleet, "galena", "pyrite");
    drop_udp(&fleet, "galena");
    let why = wait_for(&fleet, "galena", "pyrite", "no-moon-answers");
    assert!(why.moons.iter().all(|moon| !moon.relays));
    assert!(why.moons[0].unanswered_seconds.is_some());
    assert!(why.helps.unwrap().contains("let UDP 4193 out"));
}

#[test]
fn a_dead_moon_is_named() {
    let Some(mut fleet) = behind_random_nats() else {
        return;
    };
    assert_reaches(&fleet, "pyrite", "galena");
    fleet.agent_process("cinnabar").unwrap().kill().unwrap();
    let dead = wait_for(&fleet, "pyrite", "galena", "no-moon-answers");
    assert_eq!(dead.moons[0].name.as_ref().unwrap().as_str(), "cinnabar");
    assert!(
        dead.history
            .iter()
            .any(|event| event.what == WayChange::Closed && event.relay.is_some()),
        "{:?}",
        dead.history
    );
    fleet.start_agent("cinnabar").unwrap();
    assert_reaches(&fleet, "pyrite", "galena");
    let back = why(&fleet, "pyrite", "galena");
    assert!(back.peer.relay.is_some(), "{back:?}");
}
