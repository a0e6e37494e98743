//! The real engine behind simulated NATs: what a user notices.

use std::time::Duration;

use mesh_testkit::world::{Fleet, HostId, NatBehaviour, Talk, Verdict};

const TICK: Duration = Duration::from_millis(20);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two nodes behind NATs and one moon, with whom both have a session.
fn pair(seed: u64, a: NatBehaviour, b: NatBehaviour) -> (Fleet, HostId, HostId) {
    let mut fleet = Fleet::new(seed);
    fleet.moon();
    let (a, b) = (fleet.node_behind(a), fleet.node_behind(b));
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    (fleet, a, b)
}

#[test]
fn two_homes_speak_through_the_moon_at_once_and_directly_within_a_second() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::HOME, NatBehaviour::HOME);
    assert_eq!(fleet.verdict(a, b), Verdict::Direct);
    let mut talk = Talk::between(&fleet, a, b);
    talk.go_on(&mut fleet, TICK, seconds(3));
    let reached = talk.reached(&fleet).expect("they reach each other");
    // Through the moon a round trip is 46 ms.
    assert!(reached <= Duration::from_millis(3 * 46 + 50), "{reached:?}");
    let direct = talk.direct(&fleet).expect("they find the direct path");
    assert!(direct <= seconds(1), "{direct:?}");
}

#[test]
fn two_symmetric_sides_stay_on_the_moon() {
    let (mut fleet, a, b) = pair(2, NatBehaviour::SYMMETRIC, NatBehaviour::SYMMETRIC);
    assert_eq!(fleet.verdict(a, b), Verdict::Impossible);
    let mut talk = Talk::between(&fleet, a, b);
    talk.go_on(&mut fleet, TICK, seconds(30));
    let reached = talk.reached(&fleet).expect("they reach each other");
    assert!(reached <= Duration::from_millis(3 * 46 + 50), "{reached:?}");
    assert_eq!(talk.direct(&fleet), None);
    assert!(talk.longest_gap(&fleet) <= Duration::from_millis(200));
}
