//! Whole-system tests: real processes, namespaces and peers.
//!
//! One behaviour a test, each with a fleet of its own. They run the program that `MESH_BIN` names, need
//! root or user namespaces, and say so where they are skipped.

pub mod nix;
pub mod page;

use std::time::Duration;

use mesh_api::PeerStatus;
use mesh_lab::{Fleet, program_under_test, sandbox};

/// How long what is expected may take, where no budget is asserted.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long is waited for what must not come.
pub const SHORT: Duration = Duration::from_millis(500);

/// A fleet of `names`, of which the first is the controller too, with nothing started. `None`: this
/// system cannot run it, and the test is skipped.
///
/// # Panics
///
/// If the fleet cannot be made although it should.
pub fn fleet(names: &[&str]) -> Option<Fleet> {
    sandbox::enter_test().then(|| {
        let program = program_under_test().expect("a program to test");
        Fleet::of(&program, names).expect("a fleet")
    })
}

/// As [`fleet`], with controller and agents started and all agents admitted.
///
/// # Panics
///
/// If that does not succeed.
pub fn running(names: &[&str]) -> Option<Fleet> {
    let mut fleet = fleet(names)?;
    start(&mut fleet);
    Some(fleet)
}

/// The reference fleet, started and admitted.
///
/// # Panics
///
/// As [`running`].
pub fn reference() -> Option<Fleet> {
    let mut fleet = sandbox::enter_test().then(|| {
        let program = program_under_test().expect("a program to test");
        Fleet::reference(&program).expect("a fleet")
    })?;
    start(&mut fleet);
    Some(fleet)
}

/// Pings until there is an answer.
///
/// # Panics
///
/// If there is none within [`PATIENCE`].
pub fn assert_reaches(fleet: &Fleet, from: &str, to: &str) {
    let answer = fleet.ping(from, to, PATIENCE).expect("a working socket");
    assert!(
        answer.is_some(),
        "{from} does not reach {to} within {PATIENCE:?}:\n{}",
        logs(fleet, from, to)
    );
}

/// Pings for a while.
///
/// # Panics
///
/// If there is an answer.
pub fn assert_does_not_reach(fleet: &Fleet, from: &str, to: &str) {
    let answer = fleet.ping(from, to, SHORT).expect("a working socket");
    assert_eq!(answer, None, "{from} reaches {to}");
}

/// What `of` says of its peer `name`.
///
/// # Panics
///
/// It does not answer, or has no such peer.
pub fn peer(fleet: &Fleet, of: &str, name: &str) -> PeerStatus {
    let status = fleet.status(of).expect("a status");
    let found = status
        .peers
        .into_iter()
        .find(|peer| peer.name.as_str() == name);
    found.expect("a peer of this name")
}

/// Starts controller and agents, and waits until all agents are admitted.
///
/// # Panics
///
/// If that does not succeed.
pub fn start(fleet: &mut Fleet) {
    fleet.start().expect("a fleet that starts");
    fleet
        .wait_admitted(PATIENCE)
        .expect("agents that are admitted");
}

fn logs(fleet: &Fleet, from: &str, to: &str) -> String {
    [from, to]
        .iter()
        .filter_map(|name| {
            let path = fleet.files(name).ok()?.log_path("agent");
            let log = std::fs::read_to_string(path).ok()?;
            Some(format!("--- {name}\n{log}"))
        })
        .collect()
}
