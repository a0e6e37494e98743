//! Engines joined by a simulated network: faults of it, and what users notice of them.

use std::{net::SocketAddr, time::Duration};

use mesh_core::{Event, PeerState, Protocol, Stamp};
use mesh_testkit::{LinkQuality, Network};
use proptest::prelude::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const SHORT: Duration = Duration::from_millis(200);

/// A pair with a session that both sides have used.
fn connected(seed: u8) -> Network {
    let mut network = Network::pair(seed);
    assert!(network.reaches(0, 1, SHORT));
    assert!(network.reaches(1, 0, SHORT));
    network
}

/// Starts machine `i` anew: nothing is left but its roster.
fn restart(network: &mut Network, i: usize, speaks_mesh: bool) {
    let now = network.now;
    network.nodes[i].restart(now);
    network.introduce_all_to(i, speaks_mesh, Protocol::Wireguard);
}

#[test]
fn a_lost_initiation_towards_a_mesh_peer_costs_a_second() {
    let mut network = Network::pair(3);
    network.set_connected(1, false);
    let packet = network.send(0, 1);
    network.run_for(SHORT);
    network.set_connected(1, true);
    network.run_for(seconds(2));
    assert!(network.has_delivered(1, &packet));
}

#[test]
fn a_dead_peer_is_noticed_within_fifteen_seconds_and_found_again_within_six() {
    for speaks_mesh in [true, false] {
        let mut network = Network::with_peers(9, 2, speaks_mesh, Protocol::Wireguard);
        network.tell_endpoint(0, 1);
        assert!(network.reaches(0, 1, SHORT));
        assert!(network.reaches(1, 0, SHORT));
        network.take_events(0);
        let key = network.key(1);
        network.set_connected(1, false);
        let died = network.now.instant;
        for _ in 0..16 {
            network.send(0, 1);
            network.run_for(seconds(1));
        }
        let (at, _) = network.nodes[0]
            .events
            .iter()
            .find(
                |(_, event)| matches!(event, Event::PeerUnresponsive { peer, .. } if *peer == key),
            )
            .expect("the dead peer is noticed");
        assert!(at.saturating_since(died) <= seconds(15));
        assert!(matches!(
            network.nodes[0].state_of(&key, network.now),
            PeerState::Unanswered { .. }
        ));
        // An outage of many minutes with traffic that goes on.
        for _ in 0..900 {
            network.send(0, 1);
            network.run_for(seconds(1));
        }
        network.set_connected(1, true);
        let mut waited = 0;
        while !network.reaches(0, 1, seconds(1)) {
            waited += 1;
            assert!(waited <= 6, "found again within six seconds");
        }
        assert_eq!(
            network.nodes[0].state_of(&key, network.now),
            PeerState::Established
        );
    }
}

#[test]
fn a_mesh_peer_that_restarted_is_found_again_within_four_seconds() {
    let mut network = connected(10);
    restart(&mut network, 1, true);
    let packet = network.send(0, 1);
    assert!(!network.has_delivered(1, &packet));
    network.run_for(seconds(4));
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn a_peer_that_restarted_and_remembers_where_others_are_is_found_again_by_their_next_packet() {
    for speaks_mesh in [true, false] {
        let mut network = connected(10);
        restart(&mut network, 1, speaks_mesh);
        network.tell_endpoint(1, 0);
        // Lost: it comes in the session that is gone.
        let before = network.datagrams;
        network.send(0, 1);
        network.run_for(SHORT);
        assert!(network.reaches(0, 1, SHORT));
        assert!(network.reaches(1, 0, SHORT));
        // That packet, a handshake, and what confirms it; two packets with what the path agents have to say.
        assert!(
            network.datagrams - before < 20,
            "{}",
            network.datagrams - before
        );
    }
}

#[test]
fn a_packet_that_comes_before_the_first_stamps_is_answered_when_they_are_there() {
    let mut network = connected(10);
    network.nodes[1].disk_works = false;
    network.nodes[1].stamps = Stamp::ZERO;
    restart(&mut network, 1, true);
    network.tell_endpoint(1, 0);
    network.take_events(1);
    network.send(0, 1);
    network.run_for(SHORT);
    let key = network.key(0);
    let state = |network: &Network| network.nodes[1].state_of(&key, network.now);
    assert_ne!(state(&network), PeerState::Established);
    let now = network.now;
    let until = Stamp::from_nanos(u64::MAX);
    network.nodes[1].engine.stamps_reserved(until, now);
    // Whatever comes makes the shell send what waits.
    network.inject(1, SocketAddr::from(([198, 51, 100, 9], 9)), vec![0]);
    network.run_for(SHORT);
    assert_eq!(state(&network), PeerState::Established);
}

#[test]
fn data_of_no_session_brings_one_handshake_in_five_seconds_and_no_more() {
    let mut network = connected(10);
    restart(&mut network, 1, true);
    network.tell_endpoint(1, 0);
    network.set_connected(0, false);
    network.trace = Some(Vec::new());
    let own = network.nodes[1].endpoint;
    let count = |network: &Network| {
        let trace = network.trace.iter().flatten();
        trace.filter(|(from, _)| *from == own).count()
    };
    let mut data = vec![0; 64];
    (data[0], data[4]) = (4, 77);
    for _ in 0..1_000 {
        let unknown = SocketAddr::from(([198, 51, 100, 9], 9));
        network.inject(1, unknown, data.clone());
        network.run_for(Duration::from_millis(10));
    }
    assert_eq!(count(&network), 0, "nobody is known to be there");
    for _ in 0..1_000 {
        let known = network.nodes[0].endpoint;
        network.inject(1, known, data.clone());
        network.run_for(Duration::from_millis(10));
    }
    assert_eq!(count(&network), 2, "in ten seconds");
}

#[test]
fn a_session_with_a_process_that_is_gone_gives_way_to_the_new_process() {
    // The answer of a process that ended at once arrives while its successor asks.
    let mut network = Network::pair(80);
    network.send(0, 1);
    network.run_for(Duration::from_millis(10));
    restart(&mut network, 1, true);
    network.tell_endpoint(1, 0);
    assert!(network.reaches(1, 0, SHORT));
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn a_restarted_node_connects_at_once_in_spite_of_a_clock_that_went_back() {
    let mut network = connected(11);
    network.nodes[0].clock_ahead_millis = -3_000_000_000;
    restart(&mut network, 0, true);
    network.tell_endpoint(0, 1);
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn two_that_are_introduced_and_cannot_reach_each_other_fall_silent() {
    let mut network = connected(31);
    network.run_for(seconds(30));
    network.set_connected(1, false);
    network.send(0, 1);
    let mut before_the_end = 0;
    for second in 0..1_200 {
        network.run_for(seconds(1));
        if second == 900 {
            before_the_end = network.datagrams;
        }
        // As a controller does that both can reach.
        for i in [0, 1] {
            let asks = |event: &Event| matches!(event, Event::NeedEndpoints { .. });
            if network.take_events(i).iter().any(asks) {
                let (key, endpoint) = (network.key(i), network.nodes[i].endpoint);
                let now = network.now;
                let other = &mut network.nodes[1 - i];
                let clock = other.clock(now);
                other.engine.introduce(&key, vec![endpoint], clock);
            }
        }
    }
    assert_eq!(network.datagrams, before_the_end);
}

#[test]
fn an_unreachable_peer_nobody_wants_is_left_alone_in_the_end() {
    let mut network = connected(13);
    network.run_for(seconds(30));
    network.set_connected(1, false);
    network.send(0, 1);
    network.run_for(seconds(90));
    let after_full_pace = network.datagrams;
    network.run_for(seconds(450));
    let slow = network.datagrams - after_full_pace;
    assert!((10..=20).contains(&slow), "{slow} datagrams in 450 s");
    network.run_for(seconds(60));
    let datagrams = network.datagrams;
    network.run_for(seconds(3600));
    assert_eq!(network.datagrams, datagrams);
    assert_eq!(network.nodes[0].engine.poll_timeout(), None);
    let key = network.key(1);
    assert_eq!(
        network.nodes[0].state_of(&key, network.now),
        PeerState::Idle
    );
    network.set_connected(1, true);
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn stamps_that_have_to_be_reserved_do_not_count_as_traffic() {
    let mut network = connected(14);
    // The first reservation lasts for 600 s: another is made while the peer is tried in vain.
    network.run_for(seconds(200));
    network.set_connected(1, false);
    network.send(0, 1);
    network.run_for(seconds(600));
    let datagrams = network.datagrams;
    network.run_for(seconds(3600));
    assert_eq!(network.datagrams, datagrams);
}

#[test]
fn a_peer_that_died_as_its_session_ended_does_not_stay_unanswered_for_ever() {
    for speaks_mesh in [true, false] {
        let mut network = Network::with_peers(17, 2, speaks_mesh, Protocol::Wireguard);
        network.tell_endpoint(0, 1);
        assert!(network.reaches(0, 1, SHORT) && network.reaches(1, 0, SHORT));
        // The responder of the session does not ask for another while this one lasts.
        network.run_for(seconds(178) + Duration::from_millis(500));
        network.set_connected(0, false);
        network.send(1, 0);
        let key = network.key(0);
        network.run_for(seconds(30));
        let state = network.nodes[1].state_of(&key, network.now);
        assert!(matches!(state, PeerState::Unanswered { .. }));
        network.run_for(seconds(3600));
        let state = network.nodes[1].state_of(&key, network.now);
        assert_eq!(state, PeerState::Idle);
        assert_eq!(network.nodes[1].engine.poll_timeout(), None);
    }
}

#[test]
fn traffic_in_the_slow_phase_brings_the_full_pace_back() {
    let mut network = connected(14);
    network.set_connected(1, false);
    network.send(0, 1);
    network.run_for(seconds(110));
    network.set_connected(1, true);
    // Found within six seconds of the first packet, whatever the slow pace would have been.
    network.send(0, 1);
    network.run_for(seconds(6));
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn a_probe_of_a_dead_peer_is_noticed_and_probes_are_bounded() {
    let mut network = connected(21);
    network.set_connected(1, false);
    network.take_events(0);
    let probes = (0..40).filter_map(|_| network.probe(0, 1)).count();
    assert_eq!(probes, 16);
    network.run_for(seconds(15));
    let events = network.take_events(0);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::PeerUnresponsive { .. }))
    );
    network.run_for(seconds(30));
    assert!(network.probe(0, 1).is_some(), "the old ones have expired");
}

/// One thing that happens on a network of three.
#[derive(Clone, Debug)]
enum Step {
    Send(usize, usize),
    Probe(usize, usize),
    Wait(u64),
    Cut(usize),
    Mend(usize),
    Restart(usize),
    Move(usize, u8),
    NetworkChanged(usize),
    Clock(usize, i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let node = 0usize..3;
    prop_oneof![
        6 => (node.clone(), node.clone()).prop_map(|(i, j)| Step::Send(i, j)),
        2 => (node.clone(), node.clone()).prop_map(|(i, j)| Step::Probe(i, j)),
        6 => prop_oneof![1u64..2_000, 1u64..200_000].prop_map(Step::Wait),
        1 => node.clone().prop_map(Step::Cut),
        1 => node.clone().prop_map(Step::Mend),
        1 => node.clone().prop_map(Step::Restart),
        1 => (node.clone(), 10u8..250).prop_map(|(i, host)| Step::Move(i, host)),
        1 => node.clone().prop_map(Step::NetworkChanged),
        1 => (node, -10_000_000i64..10_000_000).prop_map(|(i, ahead)| Step::Clock(i, ahead)),
    ]
}

fn tell_all(network: &mut Network) {
    for i in 0..3 {
        for j in 0..3 {
            if i != j {
                network.tell_endpoint(i, j);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_happened_all_converge_once_the_network_is_quiet(
        seed in any::<u8>(),
        aes in any::<bool>(),
        loss_percent in 0u32..60,
        duplicate_percent in 0u32..30,
        jitter_millis in 0u64..800,
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let protocol = if aes { Protocol::MeshAes } else { Protocol::Wireguard };
        let mut network = Network::with_peers(seed, 3, true, protocol);
        tell_all(&mut network);
        network.quality = LinkQuality {
            jitter: Duration::from_millis(jitter_millis),
            loss_percent,
            duplicate_percent,
            ..LinkQuality::default()
        };
        for step in steps {
            let now = network.now;
            match step {
                Step::Send(i, j) if i != j => {
                    network.send(i, j);
                }
                Step::Probe(i, j) if i != j => {
                    network.probe(i, j);
                }
                Step::Send(..) | Step::Probe(..) => {}
                Step::Wait(millis) => network.run_for(Duration::from_millis(millis)),
                Step::Cut(i) => network.set_connected(i, false),
                Step::Mend(i) => network.set_connected(i, true),
                Step::Restart(i) => {
                    network.nodes[i].restart(now);
                    network.introduce_all_to(i, true, protocol);
                }
                Step::Move(i, host) => {
                    network.nodes[i].endpoint = SocketAddr::from(([198, 51, 100, host], 1 + u16::try_from(i).unwrap()));
                }
                Step::NetworkChanged(i) => network.nodes[i].engine.network_changed(now),
                Step::Clock(i, ahead) => network.nodes[i].clock_ahead_millis = ahead,
            }
        }
        // Everything a machine was sent came from the peer whose address it bears.
        for i in 0..3 {
            for delivered in &network.nodes[i].delivered {
                let sender = (0..3).find(|j| network.key(*j) == delivered.peer).unwrap();
                prop_assert_eq!(&delivered.packet[8..24], &network.nodes[sender].address.octets());
                prop_assert_eq!(&delivered.packet[24..40], &network.nodes[i].address.octets());
            }
            // No packet twice.
            let mut packets: Vec<_> = network.nodes[i].delivered.iter().map(|d| &d.packet).collect();
            packets.sort();
            let all = packets.len();
            packets.dedup();
            prop_assert_eq!(packets.len(), all);
        }
        // The network turns good, and with traffic all find each other within seconds.
        network.quality = LinkQuality::default();
        for i in 0..3 {
            network.set_connected(i, true);
        }
        tell_all(&mut network);
        for _ in 0..8 {
            for i in 0..3 {
                for j in 0..3 {
                    if i != j {
                        network.send(i, j);
                    }
                }
            }
            network.run_for(seconds(1));
        }
        for i in 0..3 {
            for j in 0..3 {
                if i != j {
                    prop_assert!(network.reaches(i, j, SHORT), "{} to {}", i, j);
                }
            }
        }
        // And without traffic they fall silent.
        network.run_for(seconds(900));
        let datagrams = network.datagrams;
        network.run_for(seconds(3600));
        prop_assert_eq!(network.datagrams, datagrams);
        for node in &network.nodes {
            prop_assert_eq!(node.engine.poll_timeout(), None);
        }
    }
}
