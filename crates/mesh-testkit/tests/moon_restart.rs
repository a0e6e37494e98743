//! A moon's process ends without a word and starts anew: clients that only listen are reached through it again.

use std::time::Duration;

use mesh_testkit::world::{Fleet, HostId, NatBehaviour};

const EVERY: Duration = Duration::from_millis(100);

/// What a restart of a moon may cost anybody.
const PROMISE: Duration = Duration::from_secs(2);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Nobody is let in whom the machine behind it did not send to, and that it remembers for long.
fn strict() -> NatBehaviour {
    NatBehaviour {
        timeout: seconds(300),
        ..NatBehaviour::SYMMETRIC
    }
}

/// A moon with clients that are idle and have found out how seldom they need to be heard of.
fn idle(seed: u64, clients: usize) -> (Fleet, HostId, Vec<HostId>) {
    let mut fleet = Fleet::new(seed);
    let moon = fleet.moon();
    let clients = (0..clients).map(|_| fleet.node_behind(strict())).collect();
    fleet.publish(&[]);
    (fleet, moon, clients)
}

/// Ends the moon's process, and starts it again a while later.
fn restart(fleet: &mut Fleet, moon: HostId, off: Duration) {
    fleet.set_running(moon, false);
    fleet.run_for(off);
    fleet.set_running(moon, true);
}

/// How long it takes until a packet of one gets through to the other, which sends nothing.
fn reached(fleet: &mut Fleet, from: HostId, to: HostId) -> Option<Duration> {
    let begin = fleet.now().instant;
    let mut packets = Vec::new();
    while fleet.now().instant < begin + PROMISE {
        packets.push(fleet.send(from, to));
        fleet.run_for(EVERY);
    }
    let arrived = packets
        .into_iter()
        .filter_map(|packet| fleet.arrived(packet));
    let first = arrived.map(|arrived| arrived.at).min()?;
    Some(first.saturating_since(begin))
}

#[test]
fn who_only_listens_is_reached_through_a_restarted_moon_within_two_seconds() {
    for seed in 0..5 {
        let (mut fleet, moon, clients) = idle(seed, 2);
        fleet.run_for(seconds(3_600));
        assert_eq!(fleet.keeping(clients[1]).interval, seconds(150));
        restart(&mut fleet, moon, seconds(1 + seed * 4));
        let reached = reached(&mut fleet, clients[0], clients[1]);
        assert!(
            reached.is_some_and(|time| time <= PROMISE),
            "seed {seed}: {reached:?}"
        );
    }
}

#[test]
fn who_is_sent_to_a_minute_after_the_restart_is_reached_as_soon() {
    let (mut fleet, moon, clients) = idle(7, 2);
    fleet.run_for(seconds(3_600));
    restart(&mut fleet, moon, seconds(2));
    fleet.run_for(seconds(60));
    let reached = reached(&mut fleet, clients[0], clients[1]);
    assert!(reached.is_some_and(|time| time <= PROMISE), "{reached:?}");
}

#[test]
fn a_moon_that_crashes_twice_in_a_row_still_knows_its_clients() {
    let (mut fleet, moon, clients) = idle(8, 2);
    fleet.run_for(seconds(3_600));
    restart(&mut fleet, moon, seconds(2));
    fleet.run_for(Duration::from_millis(20));
    restart(&mut fleet, moon, seconds(2));
    let reached = reached(&mut fleet, clients[0], clients[1]);
    assert!(reached.is_some_and(|time| time <= PROMISE), "{reached:?}");
}

#[test]
fn each_of_many_clients_is_reached_after_a_restart() {
    const CLIENTS: usize = 60;
    let (mut fleet, moon, clients) = idle(9, CLIENTS);
    fleet.run_for(seconds(100));
    restart(&mut fleet, moon, seconds(3));
    let begin = fleet.now().instant;
    let mut packets = vec![Vec::new(); CLIENTS];
    while fleet.now().instant < begin + PROMISE {
        for (to, packets) in (1..).zip(&mut packets) {
            packets.push(fleet.send(clients[0], clients[to % CLIENTS]));
        }
        fleet.run_for(EVERY);
    }
    for (to, packets) in (1..CLIENTS).zip(packets) {
        let arrived = packets
            .iter()
            .any(|packet| fleet.arrived(*packet).is_some());
        assert!(arrived, "client {to}");
    }
}
