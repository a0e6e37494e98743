//! Every reason that the engine gives, in worlds in which it holds, on virtual time.

use std::time::Duration;

use mesh_core::{PathChange, Protocol, Reach, Reason, Stamp};
use mesh_testkit::{
    Network,
    world::{Families, Fleet, HostId, NatBehaviour, Passage, Talk, Underlay},
};
use mesh_wire::tunnel::RelayRefused;

const TICK: Duration = Duration::from_millis(50);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two nodes behind NATs, who have not spoken, and so many moons.
fn pair(moons: usize, a: NatBehaviour, b: NatBehaviour) -> (Fleet, HostId, HostId) {
    let mut fleet = Fleet::new(17);
    for _ in 0..moons {
        fleet.moon();
    }
    let (a, b) = (fleet.node_behind(a), fleet.node_behind(b));
    fleet.publish(&[]);
    fleet.run_for(seconds(30));
    (fleet, a, b)
}

fn talk(fleet: &mut Fleet, a: HostId, b: HostId, time: Duration) {
    Talk::between(fleet, a, b).go_on(fleet, TICK, time);
}

#[track_caller]
fn code(fleet: &Fleet, host: HostId, other: HostId) -> &'static str {
    fleet.reason(host, other).expect("a peer").code()
}

/// How many straight ways the two know of each other.
fn straight(fleet: &Fleet, a: HostId, b: HostId) -> usize {
    let ways = |host, other| fleet.paths(host, other);
    let ways = [ways(a, b), ways(b, a)].concat();
    ways.iter().filter(|way| !way.via.is_relay()).count()
}

#[test]
fn a_pair_of_the_inventorys_stays_relayed_and_tries_nothing_else() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::HOME, NatBehaviour::HOME);
    let other = fleet.node_behind(NatBehaviour::HOME);
    fleet.set_relay_only(b, true);
    fleet.publish(&[]);
    fleet.run_for(seconds(30));
    let before = fleet.traffic.into_the_blue();
    talk(&mut fleet, a, b, seconds(90));
    assert_eq!(
        (code(&fleet, a, b), code(&fleet, b, a)),
        ("relay-only", "relay-only")
    );
    assert_eq!(
        fleet.traffic.into_the_blue(),
        before,
        "no probe leaves for a NAT"
    );
    assert_eq!(
        straight(&fleet, a, b),
        0,
        "neither is told where the other is"
    );
    // Others are none of its business.
    talk(&mut fleet, a, other, seconds(5));
    assert_eq!(code(&fleet, a, other), "direct");
}

#[test]
fn a_pair_becomes_relayed_and_straight_again_with_the_roster() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::HOME, NatBehaviour::HOME);
    talk(&mut fleet, a, b, seconds(5));
    assert_eq!(code(&fleet, a, b), "direct");
    for _ in 0..2 {
        fleet.set_relay_only(a, true);
        fleet.publish(&[]);
        assert_eq!(
            (code(&fleet, a, b), code(&fleet, b, a)),
            ("relay-only", "relay-only")
        );
        let before = fleet.traffic.into_the_blue();
        let mut relayed = Talk::between(&fleet, a, b);
        relayed.go_on(&mut fleet, TICK, seconds(5));
        assert!(
            relayed.longest_gap(&fleet) < seconds(1),
            "the session goes on"
        );
        assert_eq!(relayed.direct(&fleet), None);
        assert_eq!(fleet.traffic.into_the_blue(), before);
        fleet.set_relay_only(a, false);
        fleet.publish(&[]);
        talk(&mut fleet, a, b, seconds(1));
        assert_eq!(code(&fleet, a, b), "direct");
    }
}

#[test]
fn a_pair_that_can_be_direct_is_searched_for_and_found() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::HOME, NatBehaviour::HOME);
    assert_eq!(code(&fleet, a, b), "no-traffic");
    let mut seen = vec!["no-traffic"];
    for _ in 0..3_000 {
        let mut talk = Talk::between(&fleet, a, b);
        talk.go_on(
            &mut fleet,
            Duration::from_millis(1),
            Duration::from_millis(1),
        );
        let code = code(&fleet, a, b);
        if seen.last() != Some(&code) {
            seen.push(code);
        }
    }
    assert_eq!(seen, ["no-traffic", "handshake", "searching", "direct"]);
    let history: Vec<_> = fleet
        .story(a, b)
        .history
        .into_iter()
        .map(|event| event.what)
        .collect();
    assert!(
        matches!(
            history.as_slice(),
            [PathChange::Handshake(moon), .., PathChange::Taken(straight)]
                if moon.is_relay() && !straight.is_relay()
        ),
        "{history:?}"
    );
    fleet.run_for(seconds(40));
    assert_eq!(code(&fleet, a, b), "no-traffic");
}

#[test]
fn nats_are_named_as_far_as_the_moons_tell() {
    let (home, symmetric) = (NatBehaviour::HOME, NatBehaviour::SYMMETRIC);
    for (moons, a, b, expected) in [
        (
            2,
            symmetric,
            symmetric,
            ["both-nats-vary", "both-nats-vary"],
        ),
        (2, home, symmetric, ["peer-nat-varies", "own-nat-varies"]),
        (2, symmetric, home, ["own-nat-varies", "peer-nat-varies"]),
        // One moon cannot tell what a NAT does for others.
        (1, symmetric, symmetric, ["no-answer", "no-answer"]),
    ] {
        let (mut fleet, a, b) = pair(moons, a, b);
        talk(&mut fleet, a, b, seconds(10));
        let seen = [code(&fleet, a, b), code(&fleet, b, a)];
        assert_eq!(seen, expected, "{moons} moons");
        // A search that comes again every minute does not hide it.
        talk(&mut fleet, a, b, seconds(200));
        assert_eq!([code(&fleet, a, b), code(&fleet, b, a)], expected);
    }
}

#[test]
fn two_sides_without_a_common_ip_version_are_told_so() {
    let mut fleet = Fleet::new(18);
    fleet.moon();
    let a = fleet.node(Underlay::INTERNET, Families::V4);
    let b = fleet.node(Underlay::INTERNET, Families::V6);
    fleet.publish(&[]);
    fleet.run_for(seconds(30));
    talk(&mut fleet, a, b, seconds(5));
    assert_eq!(
        [code(&fleet, a, b), code(&fleet, b, a)],
        ["no-common-family", "no-common-family"]
    );
}

#[test]
fn a_straight_way_that_falls_silent_is_named_until_it_answers_again() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::HOME, NatBehaviour::HOME);
    talk(&mut fleet, a, b, seconds(5));
    assert_eq!(code(&fleet, a, b), "direct");
    fleet.underlay.sever(a, b);
    fleet.underlay.sever(b, a);
    talk(&mut fleet, a, b, seconds(5));
    assert_eq!(code(&fleet, a, b), "straight-silent");
    let story = fleet.story(a, b);
    assert!(story.ways.iter().any(|way| way.left.is_some()));
    fleet.underlay.mend_all();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..400 {
        talk(&mut fleet, a, b, TICK);
        seen.insert(code(&fleet, a, b));
    }
    assert_eq!(code(&fleet, a, b), "direct");
    assert!(seen.contains("straight-owes"), "{seen:?}");
}

#[test]
fn who_is_off_is_not_there_and_who_is_cut_off_has_no_moon_or_no_network() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::SYMMETRIC, NatBehaviour::SYMMETRIC);
    fleet.set_running(b, false);
    // Longer than the moon keeps the address of a client that does not ask.
    fleet.run_for(seconds(90));
    talk(&mut fleet, a, b, Duration::from_millis(500));
    assert_eq!(code(&fleet, a, b), "handshake");
    talk(&mut fleet, a, b, seconds(15));
    assert_eq!(code(&fleet, a, b), "not-there");

    let moon = fleet.moons().next().expect("one");
    fleet.underlay.sever(a, moon);
    fleet.underlay.sever(moon, a);
    talk(&mut fleet, a, b, seconds(60));
    assert_eq!(code(&fleet, a, b), "no-moon-answers");
    fleet.underlay.mend_all();

    fleet.underlay.detach(a);
    fleet.notice(a);
    talk(&mut fleet, a, b, seconds(1));
    assert_eq!(code(&fleet, a, b), "no-network");
}

#[test]
fn without_moons_and_endpoints_there_is_no_way() {
    let (mut fleet, a, b) = pair(0, NatBehaviour::HOME, NatBehaviour::HOME);
    talk(&mut fleet, a, b, Duration::from_millis(100));
    assert_eq!(code(&fleet, a, b), "no-way");
}

#[test]
fn a_dead_moon_is_named_as_far_as_it_matters() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::SYMMETRIC, NatBehaviour::SYMMETRIC);
    let moon = fleet.moons().next().expect("a moon");
    talk(&mut fleet, a, b, seconds(5));
    fleet.set_running(moon, false);
    talk(&mut fleet, a, b, seconds(60));
    assert_eq!(code(&fleet, a, b), "no-moon-answers");
    // The moon itself has no other moon: it does not answer.
    assert_eq!(code(&fleet, a, moon), "silent");
}

#[test]
fn a_removed_member_hears_that_the_moon_does_not_let_them_talk() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::SYMMETRIC, NatBehaviour::SYMMETRIC);
    talk(&mut fleet, a, b, seconds(5));
    assert_eq!(fleet.reason(a, b).map(Reason::reach), Some(Reach::Relayed));
    // The moon and `a` have the newer roster, which `b` does not get.
    fleet.set_member(b, false);
    talk(&mut fleet, a, b, seconds(60));
    assert_eq!(fleet.reason(a, b), None, "no peer any more");
    assert_eq!(
        fleet.reason(b, a).map(Reason::reach),
        Some(Reach::Unreachable)
    );
}

#[test]
fn a_firewall_on_both_sides_leaves_unanswered_candidates() {
    let mut fleet = Fleet::new(19);
    fleet.moon();
    fleet.moon();
    let [a, b] = [0, 1].map(|_| {
        let site = fleet.site(NatBehaviour::HOME);
        fleet.underlay.gateway_mut(site).v6 = Passage::Closed;
        fleet.node(site, Families::V4)
    });
    fleet.publish(&[]);
    fleet.run_for(seconds(30));
    fleet.underlay.sever(a, b);
    talk(&mut fleet, a, b, seconds(10));
    let Some(Reason::NoAnswer { candidates, probes }) = fleet.reason(a, b) else {
        panic!("{:?}", fleet.reason(a, b));
    };
    assert!(candidates > 0 && probes > 0);
}

#[test]
fn a_disk_that_takes_no_stamps_is_named() {
    let mut network = Network::pair(20);
    let now = network.now;
    network.nodes[0].disk_works = false;
    network.nodes[0].stamps = Stamp::ZERO;
    network.nodes[0].restart(now);
    network.introduce_all_to(0, true, Protocol::Wireguard);
    network.tell_endpoint(0, 1);
    network.send(0, 1);
    network.run_for(seconds(15));
    assert_eq!(reason(&network, 0, 1).code(), "needs-disk");
}

#[test]
fn a_moon_that_refuses_is_named_once_a_peer_does_not_answer() {
    let mut network = Network::new(21, 3);
    for i in 0..3 {
        network.introduce_all_to(i, true, Protocol::Wireguard);
    }
    network.tell_endpoint(0, 1);
    network.tell_endpoint(0, 2);
    // By its own roster it is no moon.
    let (moon, now) = (network.key(2), network.now);
    network.nodes[0].engine.set_moons(&[moon], now);
    network.run_for(seconds(5));
    network.set_connected(1, false);
    network.send(0, 1);
    network.run_for(seconds(20));
    let seen = reason(&network, 0, 1);
    assert!(
        matches!(seen, Reason::MoonsRefuse { refused, .. } if refused == RelayRefused::NoMoon),
        "{seen:?}"
    );
    let moons = network.nodes[0].engine.moon_views();
    assert_eq!(
        (moons[0].key, moons[0].token.is_some(), moons[0].refused),
        (moon, false, Some(RelayRefused::NoMoon))
    );
}

#[test]
fn a_peer_that_falls_silent_on_a_session_is_silent_and_then_unanswered() {
    let mut network = Network::pair(22);
    assert!(network.reaches(0, 1, seconds(5)));
    assert_eq!(reason(&network, 0, 1).code(), "direct");
    network.set_connected(1, false);
    network.send(0, 1);
    network.run_for(seconds(15));
    assert_eq!(reason(&network, 0, 1).code(), "silent");
    // The session ends after three minutes.
    network.run_for(seconds(185));
    assert_eq!(reason(&network, 0, 1).code(), "unanswered");
}

fn reason(network: &Network, i: usize, j: usize) -> Reason {
    let view = network.nodes[i].engine.peer(&network.key(j), network.now);
    view.expect("a peer").reason
}
