//! Engines joined by a simulated network: the life of a session, on a virtual clock.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one event among all"
)]

use std::{net::SocketAddr, time::Duration};

use mesh_core::{Event, PeerState, Protocol, Refusal};
use mesh_testkit::{LinkQuality, Network, packets};

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

fn established(events: &[Event]) -> usize {
    events
        .iter()
        .filter(|event| matches!(event, Event::SessionEstablished { .. }))
        .count()
}

#[test]
fn the_first_packet_makes_a_session_and_arrives() {
    for protocol in [Protocol::Wireguard, Protocol::MeshAes] {
        let mut network = Network::with_peers(1, 2, true, protocol);
        network.tell_endpoint(0, 1);
        let (a, b) = (network.key(0), network.key(1));
        assert_eq!(network.nodes[0].state_of(&b, network.now), PeerState::Never);
        let packet = network.send(0, 1);
        let connecting = network.nodes[0].state_of(&b, network.now);
        assert!(matches!(connecting, PeerState::Connecting { .. }));
        network.run_for(Duration::from_millis(30));
        assert!(
            network.has_delivered(1, &packet),
            "one and a half round trips"
        );
        assert_eq!(network.nodes[1].delivered[0].peer, a);
        let view = network.nodes[0].engine.peer(&b, network.now).unwrap();
        assert_eq!(view.state, PeerState::Established);
        assert_eq!(view.protocol, Some(protocol));
        assert_eq!(view.via, Some((network.nodes[1].endpoint).into()));
        assert_eq!(view.rtt, Some(Duration::from_millis(20)));
        assert!(view.sent_bytes > 0 && view.received_bytes > 0);
        assert!(
            network.reaches(1, 0, SHORT),
            "and the way back needs nothing more"
        );
        assert_eq!(established(&network.take_events(0)), 1);
        assert_eq!(established(&network.take_events(1)), 1);
    }
}

#[test]
fn a_handshake_without_a_known_endpoint_asks_for_one_and_goes_on_when_told() {
    let mut network = Network::new(2, 2);
    let key = network.key(1);
    let packet = network.send(0, 1);
    assert!(
        network
            .take_events(0)
            .contains(&Event::NeedEndpoints { peer: key })
    );
    network.run_for(seconds(3));
    assert_eq!(network.datagrams, 0);
    network.tell_endpoint(0, 1);
    network.run_for(SHORT);
    assert!(
        network.has_delivered(1, &packet),
        "what was held back is sent"
    );
}

#[test]
fn idle_peers_are_silent_and_schedule_nothing() {
    for speaks_mesh in [true, false] {
        let mut network = Network::with_peers(4, 2, speaks_mesh, Protocol::Wireguard);
        network.tell_endpoint(0, 1);
        assert!(network.reaches(0, 1, SHORT));
        assert!(network.reaches(1, 0, SHORT));
        network.run_for(seconds(60));
        let datagrams = network.datagrams;
        network.run_for(seconds(3600));
        assert_eq!(network.datagrams, datagrams, "nothing is sent");
        for node in &network.nodes {
            assert_eq!(node.engine.poll_timeout(), None, "nothing is awaited");
        }
        let key = network.key(1);
        assert_eq!(
            network.nodes[0].state_of(&key, network.now),
            PeerState::Idle
        );
        assert!(network.reaches(0, 1, SHORT), "and the first packet works");
    }
}

#[test]
fn traffic_in_one_direction_is_answered_by_a_keepalive_after_ten_seconds() {
    let mut network = Network::with_peers(5, 2, false, Protocol::Wireguard);
    network.tell_endpoint(0, 1);
    assert!(network.reaches(0, 1, SHORT));
    network.run_for(seconds(30));
    network.trace = Some(Vec::new());
    let start = network.now.instant;
    assert!(network.reaches(0, 1, seconds(9)));
    assert_eq!(network.trace.as_ref().unwrap().len(), 1);
    network.run_for(seconds(20));
    let trace = network.trace.take().unwrap();
    assert_eq!(trace.len(), 2);
    assert_eq!(trace[1].0, network.nodes[1].endpoint);
    assert_eq!(trace[1].1.data.len(), 32);
    assert!(network.now.instant > start);
}

#[test]
fn sessions_are_renewed_every_two_minutes_under_traffic_without_a_gap() {
    for speaks_mesh in [true, false] {
        let mut network = Network::with_peers(6, 2, speaks_mesh, Protocol::Wireguard);
        network.tell_endpoint(0, 1);
        for second in 0..600 {
            let there = network.send(0, 1);
            let back = network.send(1, 0);
            network.run_for(seconds(1));
            assert!(network.has_delivered(1, &there), "second {second}");
            assert!(network.has_delivered(0, &back), "second {second}");
        }
        let sessions = established(&network.take_events(0));
        assert!((5..=7).contains(&sessions), "{sessions} sessions in 600 s");
    }
}

#[test]
fn a_busy_peer_wakes_the_engine_a_few_times_a_second_at_most() {
    let mut network = connected(28);
    let before: Vec<u64> = network.nodes.iter().map(|node| node.attentions).collect();
    // Ten seconds of questions and answers.
    for _ in 0..2_000 {
        network.send(0, 1);
        network.send(1, 0);
        network.run_for(Duration::from_millis(5));
    }
    for (node, before) in network.nodes.iter().zip(before) {
        let wakes = node.attentions - before;
        assert!(wakes <= 30, "{wakes} wakes in ten seconds");
    }
}

#[test]
fn a_side_that_only_receives_keeps_its_session_renewed_too() {
    let mut network = connected(7);
    // Node 0 asked for the session, and only node 1 sends.
    for _ in 0..400 {
        assert!(network.reaches(1, 0, seconds(1)));
    }
}

#[test]
fn both_sides_asking_at_once_understand_each_other_and_do_not_ask_more_often() {
    let mut network = Network::pair(8);
    let there = network.send(0, 1);
    let back = network.send(1, 0);
    network.run_for(SHORT);
    assert!(network.has_delivered(1, &there) && network.has_delivered(0, &back));
    for _ in 0..300 {
        assert!(network.reaches(0, 1, Duration::from_millis(500)));
        assert!(network.reaches(1, 0, Duration::from_millis(500)));
    }
    let sessions = established(&network.take_events(0));
    assert!(sessions <= 6, "{sessions} sessions in 300 s");
}

#[test]
fn sessions_of_handshakes_that_crossed_are_renewed_before_they_end() {
    for seed in 0..8 {
        let mut network = Network::pair(seed);
        network.send(0, 1);
        network.send(1, 0);
        network.run_for(SHORT);
        for second in 0..400 {
            for (from, to) in [(0, 1), (1, 0)] {
                // On its way it is for half of this; a handshake would come on top.
                let in_time = network.reaches(from, to, Duration::from_millis(20));
                assert!(in_time, "seed {seed}: {from} waits in second {second}");
            }
            network.run_for(seconds(1));
        }
    }
}

#[test]
fn what_is_under_way_when_sessions_are_renewed_arrives_also_where_two_crossed() {
    for seed in 0..8 {
        let mut network = Network::pair(seed);
        network.send(0, 1);
        network.send(1, 0);
        network.run_for(seconds(166));
        // The first one calls for another session; the others go on one that it takes the place of.
        let packets: Vec<_> = (0..50)
            .map(|_| {
                network.run_for(Duration::from_millis(1));
                [network.send(0, 1), network.send(1, 0)]
            })
            .collect();
        network.run_for(SHORT);
        for (i, [there, back]) in packets.iter().enumerate() {
            assert!(network.has_delivered(1, there), "seed {seed}: {i}");
            assert!(network.has_delivered(0, back), "seed {seed}: {i}");
        }
    }
}

#[test]
fn nothing_is_sent_on_a_session_that_the_peer_may_have_ended() {
    for millis in (179_900..180_100).step_by(5) {
        let mut network = Network::pair(1);
        network.send(0, 1);
        network.run_for(Duration::from_millis(millis));
        let packets = [network.send(0, 1), network.send(1, 0)];
        network.run_for(SHORT);
        assert!(network.has_delivered(1, &packets[0]), "{millis}");
        assert!(network.has_delivered(0, &packets[1]), "{millis}");
    }
}

#[test]
fn no_handshake_begins_before_its_stamp_is_on_disk() {
    let mut network = Network::pair(12);
    let now = network.now;
    network.take_events(0);
    network.nodes[0].disk_works = false;
    network.nodes[0].stamps = mesh_core::Stamp::ZERO;
    network.nodes[0].restart(now);
    network.introduce_all_to(0, true, Protocol::Wireguard);
    network.tell_endpoint(0, 1);
    let packet = network.send(0, 1);
    network.run_for(seconds(30));
    assert_eq!(network.datagrams, 0);
    let asked: Vec<_> = network
        .take_events(0)
        .into_iter()
        .filter_map(|event| match event {
            Event::ReserveStamps { until } => Some(until),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 1, "asked once");
    let now = network.now;
    network.nodes[0].engine.stamps_reserved(asked[0], now);
    network.run_for(SHORT);
    assert!(network.reaches(0, 1, SHORT));
    assert!(network.has_delivered(1, &packet), "held back meanwhile");
}

#[test]
fn a_roaming_peer_keeps_its_session() {
    let mut network = connected(15);
    network.take_events(0);
    network.nodes[1].endpoint = SocketAddr::from(([198, 51, 100, 7], 999));
    assert!(network.reaches(1, 0, SHORT));
    // The way in use has to fail first: two probes, 200 ms apart.
    network.run_for(Duration::from_millis(400));
    assert!(network.reaches(0, 1, SHORT), "answers follow it");
    assert_eq!(established(&network.take_events(0)), 0);
    let key = network.key(1);
    let view = network.nodes[0].engine.peer(&key, network.now).unwrap();
    assert_eq!(view.via, Some((network.nodes[1].endpoint).into()));
}

#[test]
fn a_changed_network_is_told_to_peers_at_once() {
    let mut network = connected(16);
    network.nodes[0].endpoint = SocketAddr::from(([198, 51, 100, 8], 999));
    let now = network.now;
    network.nodes[0].engine.network_changed(now);
    network.tell_endpoint(0, 1);
    network.run_for(SHORT);
    let key = network.key(0);
    let view = network.nodes[1].engine.peer(&key, network.now).unwrap();
    assert_eq!(view.via, Some((network.nodes[0].endpoint).into()));
    assert!(network.reaches(1, 0, SHORT));
}

#[test]
fn a_handshake_is_fanned_out_and_the_first_answer_wins() {
    let mut network = Network::new(17, 2);
    let key = network.key(1);
    let right = network.nodes[1].endpoint;
    let mut candidates: Vec<SocketAddr> = (1..=15)
        .map(|n| SocketAddr::from(([203, 0, 113, n], 4193)))
        .collect();
    candidates.push(right);
    candidates.push(SocketAddr::from(([203, 0, 113, 99], 4193)));
    let now = network.now;
    network.nodes[0]
        .engine
        .set_candidates(&key, candidates, now);
    let packet = network.send(0, 1);
    assert_eq!(network.datagrams, 16, "bounded");
    network.run_for(SHORT);
    assert!(network.has_delivered(1, &packet));
    let view = network.nodes[0].engine.peer(&key, network.now).unwrap();
    assert_eq!(view.via, Some((right).into()));
}

#[test]
fn a_removed_peer_never_gets_a_packet_through_again() {
    let mut network = Network::new(18, 3);
    for (i, j) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        network.tell_endpoint(i, j);
    }
    assert!(network.reaches(1, 0, SHORT) && network.reaches(2, 0, SHORT));
    let (from_removed, to_removed) = {
        let source = network.nodes[1].address;
        let target = network.nodes[0].address;
        (
            packets::ipv6(source, target, b"late"),
            packets::ipv6(target, source, b"late"),
        )
    };
    // What a data thread holds across the removal.
    let held = network.nodes[0].forwarding.route(&to_removed).unwrap();
    // Under way while the roster changes.
    network.send_packet(1, &from_removed);
    let kept = network.nodes[2].as_peer(true, Protocol::Wireguard);
    let now = network.now;
    network.nodes[0].engine.set_peers(vec![kept], now);
    let mut frame = [0; 128];
    assert!(held.seal(&mut frame, 40, now.instant).is_err());
    assert!(network.nodes[0].forwarding.route(&to_removed).is_none());
    let key = network.key(1);
    assert!(network.nodes[0].engine.peer(&key, now).is_none());
    for _ in 0..60 {
        network.send_packet(1, &from_removed);
        network.run_for(seconds(1));
    }
    assert!(!network.has_delivered(0, &from_removed));
    assert!(network.nodes[0].refusals.contains(&Refusal::UnknownSession));
    assert!(network.nodes[0].refusals.contains(&Refusal::UnknownPeer));
    assert!(network.reaches(2, 0, SHORT), "the others are not touched");
    // Back in the roster, it is a peer like any other.
    network.introduce_all_to(0, true, Protocol::Wireguard);
    network.send(1, 0);
    network.run_for(seconds(6));
    assert!(network.reaches(1, 0, SHORT));
}

#[test]
fn an_unchanged_roster_keeps_the_sessions() {
    let mut network = connected(19);
    network.take_events(0);
    network.introduce_all_to(0, true, Protocol::Wireguard);
    assert!(network.reaches(0, 1, SHORT));
    assert_eq!(established(&network.take_events(0)), 0);
    // Now a guest instead of an agent: everything starts afresh.
    network.introduce_all_to(0, false, Protocol::Wireguard);
    network.tell_endpoint(0, 1);
    assert!(network.reaches(0, 1, SHORT));
    assert_eq!(established(&network.take_events(0)), 1);
}

#[test]
fn a_probe_makes_a_session_if_needed_and_tells_the_round_trip() {
    let mut network = Network::pair(20);
    let key = network.key(1);
    for _ in 0..2 {
        network.take_events(0);
        let id = network.probe(0, 1).unwrap();
        network.run_for(SHORT);
        let events = network.take_events(0);
        let reply = Event::ProbeReply {
            peer: key,
            id,
            rtt_micros: 20_000,
            via: network.nodes[1].endpoint.into(),
        };
        assert!(events.contains(&reply), "{events:?}");
    }
    assert!(
        network.nodes[1].delivered.is_empty(),
        "nothing goes to the TUN"
    );
    network.run_for(seconds(60));
    let datagrams = network.datagrams;
    network.run_for(seconds(600));
    assert_eq!(
        network.datagrams, datagrams,
        "an answered probe leaves nothing behind"
    );
}

#[test]
fn a_guest_is_never_probed_nor_notified() {
    let mut network = Network::with_peers(22, 2, false, Protocol::Wireguard);
    network.tell_endpoint(0, 1);
    assert!(network.reaches(0, 1, SHORT));
    assert_eq!(network.probe(0, 1), None);
    let datagrams = network.datagrams;
    let key = network.key(1);
    let now = network.now;
    network.nodes[0]
        .engine
        .send_epoch_notice(&key, 7, [1; 32], now);
    network.run_for(SHORT);
    assert_eq!(network.datagrams, datagrams);
}

#[test]
fn an_epoch_notice_arrives_with_its_sender_named() {
    let mut network = connected(23);
    let (a, b) = (network.key(0), network.key(1));
    let now = network.now;
    network.nodes[0]
        .engine
        .send_epoch_notice(&b, 7, [1; 32], now);
    network.send(0, 1);
    network.run_for(SHORT);
    assert!(network.take_events(1).contains(&Event::EpochNotice {
        peer: a,
        serial: 7,
        head_hash: [1; 32]
    }));
}

#[test]
fn clocks_that_differ_are_told_once_with_the_side_that_is_ahead() {
    let mut network = Network::pair(24);
    network.nodes[1].clock_ahead_millis = 9 * 60_000;
    for _ in 0..3 {
        network.probe(0, 1);
        network.run_for(seconds(1));
    }
    let told = |network: &mut Network, i: usize| -> Vec<i64> {
        network
            .take_events(i)
            .iter()
            .filter_map(|event| match event {
                Event::ClockDiffers { ahead_millis, .. } => Some(*ahead_millis),
                _ => None,
            })
            .collect()
    };
    let (a, b) = (told(&mut network, 0), told(&mut network, 1));
    assert_eq!(a.len(), 1);
    assert!((a[0] - 540_000).abs() < 100, "{a:?}");
    assert_eq!(b.len(), 1);
    assert!((b[0] + 540_000).abs() < 100, "{b:?}");
}

#[test]
fn what_is_held_back_is_bounded_and_the_newest_stays() {
    let mut network = Network::new(25, 2);
    let sent: Vec<Vec<u8>> = (0..1000).map(|_| network.send(0, 1)).collect();
    network.tell_endpoint(0, 1);
    network.run_for(seconds(1));
    assert_eq!(network.nodes[1].delivered.len(), 64);
    assert!(network.has_delivered(1, &sent[999]));
    assert!(!network.has_delivered(1, &sent[935]));
}

#[test]
fn a_peer_without_an_agent_may_not_use_the_second_protocol() {
    let mut network = Network::pair(26);
    network.introduce_all_to(0, false, Protocol::Wireguard);
    network.introduce_all_to(1, true, Protocol::MeshAes);
    network.tell_endpoint(1, 0);
    assert!(!network.reaches(1, 0, seconds(3)));
    assert!(network.nodes[0].refusals.contains(&Refusal::UnknownPeer));
}

#[test]
fn the_same_seed_gives_the_same_run_byte_for_byte() {
    let run = || {
        let mut network = Network::new(27, 4);
        network.trace = Some(Vec::new());
        network.quality = LinkQuality {
            jitter: Duration::from_millis(30),
            loss_percent: 20,
            duplicate_percent: 20,
            ..LinkQuality::default()
        };
        for i in 0..4 {
            for j in 0..4 {
                if i != j {
                    network.tell_endpoint(i, j);
                    network.send(i, j);
                    network.run_for(Duration::from_millis(700));
                }
            }
        }
        network.run_for(seconds(300));
        network.trace.take().unwrap()
    };
    let one = run();
    assert!(one.len() > 50);
    assert_eq!(one, run());
}
