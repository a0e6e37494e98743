//! A moon's agent is upgraded, or a client's: the sessions go on, the tokens do not.

use std::time::Duration;

use mesh_testkit::world::{Fleet, HostId, NatBehaviour, Talk};

const EVERY: Duration = Duration::from_millis(10);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two machines that only a moon brings together, after a while of talk.
fn relayed(seed: u64) -> (Fleet, HostId, [HostId; 2]) {
    let mut fleet = Fleet::new(seed);
    let moon = fleet.moon();
    let [a, b] = [0; 2].map(|_| fleet.node_behind(NatBehaviour::SYMMETRIC));
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    Talk::between(&fleet, a, b).go_on(&mut fleet, EVERY, seconds(5));
    let (_, via) = fleet.view(a, b).expect("a peer");
    assert!(fleet.is_relay(via, moon), "{via:?}");
    (fleet, moon, [a, b])
}

/// From a client to its moon and back, as a ping would show it.
fn round_trip(fleet: &mut Fleet, a: HostId, moon: HostId) -> Duration {
    let mut talk = Talk::between(fleet, a, moon);
    talk.go_on(fleet, seconds(1), seconds(1));
    2 * talk.reached(fleet).expect("the moon is reached")
}

#[test]
fn clients_of_a_moon_that_is_upgraded_wait_four_round_trips_at_most() {
    for seed in 0..5 {
        for who in 0..2 {
            let (mut fleet, moon, [a, b]) = relayed(seed);
            let rtt = round_trip(&mut fleet, a, moon);
            let mut talk = Talk::between(&fleet, a, b);
            talk.go_on(&mut fleet, EVERY, seconds(1));
            let before = talk.longest_gap(&fleet);
            fleet.upgrade([moon, a][who]);
            let mut talk = Talk::between(&fleet, a, b);
            talk.go_on(&mut fleet, EVERY, seconds(3));
            let after = talk.longest_gap(&fleet);
            assert!(after <= before + 4 * rtt + EVERY, "{after:?} of {rtt:?}");
        }
    }
}

#[test]
fn who_only_listens_is_reached_through_an_upgraded_moon_at_once() {
    for seed in 0..5 {
        let (mut fleet, moon, [a, b]) = relayed(seed);
        // Both are idle by then, and ask their moon seldom.
        fleet.run_for(seconds(600));
        let rtt = round_trip(&mut fleet, a, moon);
        fleet.run_for(seconds(5));
        fleet.upgrade(moon);
        fleet.run_for(rtt * 3);
        let packet = fleet.send(a, b);
        fleet.run_for(rtt * 6);
        assert!(fleet.arrived(packet).is_some(), "seed {seed}");
    }
}
