//! One process of a node hands its sessions on to the next. That no number is used twice under one key is
//! checked by the simulated network, for every packet of every test.

use std::{collections::BTreeMap, time::Duration};

use mesh_core::{Handover, PeerState, Protocol, Refusal, TakeOverError, TakenOver};
use mesh_testkit::{LinkQuality, Network};
use proptest::prelude::*;

const SHORT: Duration = Duration::from_millis(200);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A pair with a session that both sides have used.
fn connected(seed: u8, speaks_mesh: bool, protocol: Protocol) -> Network {
    let mut network = Network::pair_with(seed, speaks_mesh, protocol);
    assert!(network.reaches(0, 1, SHORT));
    assert!(network.reaches(1, 0, SHORT));
    network
}

/// How many of the datagrams sent were handshakes.
fn handshakes(network: &mut Network) -> usize {
    let trace = network.trace.replace(Vec::new()).expect("traced");
    trace.iter().filter(|(_, sent)| sent.data[0] != 4).count()
}

#[test]
fn a_conversation_goes_on_over_a_hand_over_without_a_handshake() {
    for protocol in [Protocol::Wireguard, Protocol::MeshAes] {
        let mut network = connected(1, true, protocol);
        network.trace = Some(Vec::new());
        for i in [0, 1] {
            let under_way = [network.send(0, 1), network.send(1, 0)];
            network.hand_over(i);
            let waiting = [network.send(0, 1), network.send(1, 0)];
            network.run_for(SHORT);
            let taken = network.take_over(i).unwrap();
            assert_eq!((taken.peers, taken.sessions, taken.dropped), (1, 1, 0));
            network.run_for(SHORT);
            for [there, back] in [under_way, waiting] {
                assert!(network.has_delivered(1, &there));
                assert!(network.has_delivered(0, &back));
            }
        }
        assert_eq!(handshakes(&mut network), 0);
        let key = network.key(1);
        let view = network.nodes[0].engine.peer(&key, network.now).unwrap();
        assert_eq!(view.state, PeerState::Established);
        assert_eq!(view.protocol, Some(protocol));
        assert_eq!(view.rtt, Some(millis(20)));
        assert!(view.sent_bytes >= 5 * 32 && view.last_handshake.is_some());
    }
}

#[test]
fn nothing_that_was_seen_before_is_taken_again_after() {
    let mut network = connected(2, true, Protocol::Wireguard);
    network.trace = Some(Vec::new());
    for _ in 0..100 {
        network.send(0, 1);
    }
    network.run_for(SHORT);
    let trace = network.trace.take().unwrap();
    let delivered = network.nodes[1].delivered.len();
    network.hand_over(1);
    network.take_over(1).unwrap();
    network.nodes[1].refusals.clear();
    for (from, sent) in &trace {
        network.inject(1, *from, sent.data.clone());
    }
    assert_eq!(network.nodes[1].delivered.len(), delivered);
    let refusals = &network.nodes[1].refusals;
    assert_eq!(refusals.len(), trace.len());
    assert!(refusals.iter().all(|refusal| *refusal == Refusal::Replayed));
}

#[test]
fn an_initiation_seen_before_is_not_answered_after() {
    let mut network = Network::pair(3);
    network.trace = Some(Vec::new());
    assert!(network.reaches(0, 1, SHORT));
    let (from, initiation) = network.trace.take().unwrap()[0].clone();
    network.hand_over(1);
    network.take_over(1).unwrap();
    network.nodes[1].refusals.clear();
    network.inject(1, from, initiation.data);
    assert_eq!(network.nodes[1].refusals, [Refusal::Replayed]);
}

#[test]
fn a_session_keeps_its_age() {
    let mut network = connected(4, true, Protocol::Wireguard);
    network.trace = Some(Vec::new());
    // To 100 s, with a hand-over of each.
    network.run_for(seconds(99));
    for i in [0, 1] {
        network.hand_over(i);
        assert_eq!(network.take_over(i).unwrap().sessions, 1);
    }
    assert!(network.reaches(0, 1, SHORT));
    assert_eq!(handshakes(&mut network), 0);
    network.run_for(seconds(21));
    assert!(network.reaches(0, 1, SHORT));
    assert_eq!(
        handshakes(&mut network),
        2,
        "it is renewed at 120 s as ever"
    );

    // One that nobody renews ends at 180 s, whoever holds it.
    network.run_for(seconds(170));
    network.hand_over(1);
    network.run_for(seconds(20));
    let taken = network.take_over(1).unwrap();
    let none = TakenOver {
        peers: 1,
        sessions: 0,
        dropped: taken.dropped,
    };
    assert_eq!(taken, none);
    assert!(network.reaches(1, 0, seconds(5)));
}

#[test]
fn a_handshake_under_way_begins_anew() {
    let mut network = Network::pair(5);
    network.trace = Some(Vec::new());
    network.send(0, 1);
    network.run_for(millis(15));
    // The response is on its way to a process that will be gone.
    network.hand_over(0);
    network.run_for(SHORT);
    network.take_over(0).unwrap();
    network.tell_endpoint(0, 1);
    network.run_for(SHORT);
    let key = network.key(1);
    let state = network.nodes[0].state_of(&key, network.now);
    assert_eq!(state, PeerState::Established);
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn a_session_that_the_peer_has_not_used_yet_is_handed_on() {
    let mut network = Network::pair(6);
    let packet = network.send(0, 1);
    // The initiation has come, and the response is under way.
    network.run_for(millis(11));
    network.hand_over(1);
    network.run_for(millis(100));
    assert_eq!(network.take_over(1).unwrap().sessions, 1);
    network.run_for(SHORT);
    assert!(network.has_delivered(1, &packet));
    assert!(network.reaches(1, 0, SHORT));
}

#[test]
fn data_that_came_before_is_answered_by_a_keepalive_after() {
    let mut network = connected(7, false, Protocol::Wireguard);
    network.run_for(seconds(30));
    assert!(network.reaches(0, 1, seconds(5)));
    network.hand_over(1);
    network.take_over(1).unwrap();
    network.trace = Some(Vec::new());
    network.run_for(millis(5_500));
    let trace = network.trace.take().unwrap();
    assert_eq!(trace.len(), 1, "ten seconds after the data");
    assert_eq!(trace[0].0, network.nodes[1].endpoint);
    assert_eq!(trace[0].1.data.len(), 32);
}

#[test]
fn who_left_the_roster_or_changed_its_kind_is_not_taken_over() {
    for speaks_mesh in [true, false] {
        let mut network = connected(8, speaks_mesh, Protocol::Wireguard);
        let handover = network.hand_over(0);
        let now = network.now;
        let other = network.nodes[1].as_peer(!speaks_mesh, Protocol::Wireguard);
        for peers in [Vec::new(), vec![other]] {
            let node = &mut network.nodes[0];
            node.restart(now);
            node.engine.set_peers(peers, now);
            let handover = Handover::parse(&handover).unwrap();
            let taken = node.engine.take_over(handover, now).unwrap();
            assert_eq!((taken.peers, taken.sessions, taken.dropped), (0, 0, 1));
        }
    }
}

#[test]
fn another_identitys_sessions_and_those_from_before_a_boot_are_refused() {
    let mut network = connected(9, true, Protocol::Wireguard);
    let handover = network.hand_over(0);
    let parse = || Handover::parse(&handover).unwrap();
    network.hand_over(1);
    let refused = network.take_over_from(1, parse()).unwrap_err();
    assert_eq!(refused, TakeOverError::Identity);
    network.now.instant = mesh_types::Instant::from_micros(5);
    let refused = network.take_over_from(0, parse()).unwrap_err();
    assert_eq!(refused, TakeOverError::Clock);
}

#[test]
fn what_was_handed_over_ends_here() {
    let mut network = connected(10, true, Protocol::Wireguard);
    let forwarding = network.nodes[0].forwarding.clone();
    let packet = network.send(0, 1);
    let route = forwarding.route(&packet).unwrap();
    network.hand_over(0);
    let mut frame = vec![0; 200];
    let now = network.now;
    assert!(route.seal(&mut frame, 40, now.instant).is_err());
    assert!(forwarding.route(&packet).is_none());
    let peer = network.nodes[1].as_peer(true, Protocol::Wireguard);
    network.nodes[0].engine.set_peers(vec![peer], now);
    let key = network.key(1);
    assert_eq!(network.nodes[0].engine.peer(&key, now), None);
}

/// One step of a conversation.
#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    HandOver(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..2).prop_map(Step::Send),
        1 => (0usize..2).prop_map(Step::HandOver),
        4 => (0u64..60).prop_map(Step::Wait),
        // Long enough for renewals and ends of sessions in between.
        1 => (1_000u64..70_000).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn at_any_moment_of_a_conversation_a_hand_over_loses_nothing(
        seed in any::<u8>(),
        aes in any::<bool>(),
        gap_millis in 20u64..500,
        steps in steps(),
    ) {
        let protocol = if aes { Protocol::MeshAes } else { Protocol::Wireguard };
        let mut network = connected(seed, true, protocol);
        // Packets overtake each other; the gap is longer than that, see `docs/upgrade.md`.
        network.quality = LinkQuality {
            jitter: millis(9),
            duplicate_percent: 20,
            ..LinkQuality::default()
        };
        let mut expected = [Vec::new(), Vec::new()];
        for step in steps {
            match step {
                Step::Send(i) => {
                    let packet = network.send(i, 1 - i);
                    expected[1 - i].push(packet);
                }
                Step::Wait(time) => network.run_for(millis(time)),
                Step::HandOver(i) => {
                    // What waits for a first session is lost with the process, as with any restart.
                    network.run_for(millis(80));
                    network.hand_over(i);
                    for j in [0, 1] {
                        let packet = network.send(j, 1 - j);
                        expected[1 - j].push(packet);
                        network.run_for(millis(gap_millis / 2));
                    }
                    network.take_over(i).unwrap();
                    network.tell_endpoint(i, 1 - i);
                }
            }
        }
        network.run_for(seconds(5));
        for (j, expected) in expected.iter().enumerate() {
            for packet in expected {
                let times = network.nodes[j].delivered.iter().filter(|d| d.packet == *packet).count();
                prop_assert_eq!(times, 1, "a packet to {}: {:x?} refused {:?}", j, packet, network.nodes[j].refusals);
            }
        }
    }

    #[test]
    fn under_loss_a_hand_over_never_repeats_a_packet_and_both_find_each_other_again(
        seed in any::<u8>(),
        loss_percent in 0u32..40,
        steps in steps(),
    ) {
        let mut network = connected(seed, true, Protocol::MeshAes);
        network.quality = LinkQuality {
            jitter: millis(40),
            loss_percent,
            duplicate_percent: 30,
            ..LinkQuality::default()
        };
        for step in steps {
            match step {
                Step::Send(i) => drop(network.send(i, 1 - i)),
                Step::Wait(time) => network.run_for(millis(time)),
                Step::HandOver(i) => {
                    network.hand_over(i);
                    network.run_for(millis(3));
                    network.take_over(i).unwrap();
                    network.tell_endpoint(i, 1 - i);
                }
            }
        }
        network.quality = LinkQuality::default();
        network.run_for(seconds(10));
        prop_assert!(network.reaches(0, 1, seconds(10)));
        prop_assert!(network.reaches(1, 0, seconds(10)));
        for node in &network.nodes {
            let mut times = BTreeMap::new();
            for delivered in &node.delivered {
                *times.entry(&delivered.packet).or_insert(0u32) += 1;
            }
            prop_assert!(times.values().all(|times| *times == 1));
        }
    }
}
