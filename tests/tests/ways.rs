//! Machines behind the kernel's own NATs reach each other: through the moon at once, and
//! straight where the routers allow it.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::time::{Duration, Instant};

use mesh_api::{PathKind, PeerStatus};
use mesh_lab::{Fleet, Router, wait_until};
use mesh_tests::{PATIENCE, assert_reaches, fleet, start};

/// What a straight way may take after the first answer (issue: 1 s), and a moment for who looks.
const STRAIGHT: Duration = Duration::from_millis(1500);

/// Long enough for all probes of a burst, so that a pair still relayed after it stays so.
const BURST: Duration = Duration::from_secs(3);

/// galena and pyrite behind a router each, and cinnabar, which relays.
fn behind(galena: Router, pyrite: Router) -> Option<Fleet> {
    let mut fleet = fleet(&["cinnabar", "galena", "pyrite"])?;
    fleet.lab().put_behind("galena", galena).unwrap();
    fleet.lab().put_behind("pyrite", pyrite).unwrap();
    start(&mut fleet);
    Some(fleet)
}

fn peer(fleet: &Fleet, of: &str, name: &str) -> PeerStatus {
    let status = fleet.status(of).unwrap();
    let found = status
        .peers
        .into_iter()
        .find(|peer| peer.name.as_str() == name);
    found.unwrap()
}

fn becomes_straight(fleet: &Fleet) {
    assert_reaches(fleet, "pyrite", "galena");
    let answered = Instant::now();
    for (of, to) in [("pyrite", "galena"), ("galena", "pyrite")] {
        wait_until(PATIENCE, || {
            assert_reaches(fleet, "pyrite", "galena");
            let peer = peer(fleet, of, to);
            if peer.path == Some(PathKind::Direct) {
                Ok(())
            } else {
                Err(Box::new(peer))
            }
        })
        .unwrap();
    }
    let took = answered.elapsed();
    assert!(took < STRAIGHT, "straight only after {took:?}");
}

fn stays_relayed(fleet: &Fleet) {
    assert_reaches(fleet, "pyrite", "galena");
    let end = Instant::now() + BURST;
    while Instant::now() < end {
        assert_reaches(fleet, "pyrite", "galena");
        let galena = peer(fleet, "pyrite", "galena");
        assert_eq!(galena.path, Some(PathKind::Relayed), "{galena:?}");
        assert_eq!(galena.relay.unwrap().as_str(), "cinnabar");
        assert_eq!(galena.endpoint, None);
    }
}

#[test]
fn two_port_preserving_nats_are_opened_from_within() {
    let Some(fleet) = behind(Router::Masquerade, Router::Masquerade) else {
        return;
    };
    becomes_straight(&fleet);
}

#[test]
fn a_port_preserving_and_a_random_nat_are_crossed_by_the_moon() {
    let Some(fleet) = behind(Router::Masquerade, Router::MasqueradeRandom) else {
        return;
    };
    stays_relayed(&fleet);
}

#[test]
fn two_random_nats_are_crossed_by_the_moon() {
    let Some(fleet) = behind(Router::MasqueradeRandom, Router::MasqueradeRandom) else {
        return;
    };
    stays_relayed(&fleet);
}

#[test]
fn a_relayed_pair_falls_silent_with_its_moon_and_is_back_with_it() {
    let Some(mut fleet) = behind(Router::MasqueradeRandom, Router::MasqueradeRandom) else {
        return;
    };
    stays_relayed(&fleet);
    fleet.agent_process("cinnabar").unwrap().kill().unwrap();
    mesh_tests::assert_does_not_reach(&fleet, "pyrite", "galena");
    fleet.start_agent("cinnabar").unwrap();
    stays_relayed(&fleet);
}
