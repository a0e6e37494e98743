//! What an attacker can send, and that nothing comes of it.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{net::SocketAddr, time::Duration};

use mesh_core::{Event, PeerState, Protocol, Received, Refusal};
use mesh_testkit::{LinkQuality, Network, packets};
use mesh_wire::wireguard::{
    CookieReply, DataHeader, INITIATION_BYTES, Initiation, Message, RESPONSE_BYTES, Response,
};
use proptest::prelude::*;

const SHORT: Duration = Duration::from_millis(200);

fn attacker() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 66], 666))
}

/// A connected pair whose datagrams were all seen by the attacker.
fn watched(seed: u8) -> (Network, Vec<(SocketAddr, Vec<u8>)>) {
    watched_by(Network::pair(seed))
}

fn watched_by(mut network: Network) -> (Network, Vec<(SocketAddr, Vec<u8>)>) {
    network.trace = Some(Vec::new());
    assert!(network.reaches(0, 1, SHORT));
    assert!(network.reaches(1, 0, SHORT));
    let trace = network.trace.take().unwrap();
    let seen = trace
        .into_iter()
        .map(|(from, transmit)| (from, transmit.data))
        .collect();
    (network, seen)
}

fn endpoint_of_other(network: &Network, i: usize) -> Option<SocketAddr> {
    let key = network.key(1 - i);
    network.nodes[i].engine.peer(&key, network.now)?.via?.udp()
}

#[test]
fn replayed_datagrams_change_nothing() {
    let (mut network, seen) = watched(1);
    let datagrams = network.datagrams;
    let delivered: Vec<usize> = network.nodes.iter().map(|n| n.delivered.len()).collect();
    for node in &mut network.nodes {
        node.events.clear();
        node.refusals.clear();
    }
    for (_, datagram) in &seen {
        for i in 0..2 {
            network.inject(i, attacker(), datagram.clone());
        }
    }
    network.run_for(SHORT);
    assert_eq!(network.datagrams, datagrams, "no answer to a replay");
    for (i, delivered) in delivered.into_iter().enumerate() {
        assert_eq!(network.nodes[i].delivered.len(), delivered);
        assert!(network.nodes[i].events.is_empty());
        assert_eq!(network.nodes[i].refusals.len(), seen.len());
        let other = network.nodes[1 - i].endpoint;
        assert_eq!(endpoint_of_other(&network, i), Some(other));
    }
    assert!(network.nodes[1].refusals.contains(&Refusal::Replayed));
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn an_initiation_replayed_after_a_restart_makes_no_session_and_moves_no_endpoint() {
    let (mut network, seen) = watched(2);
    let now = network.now;
    network.nodes[1].restart(now);
    network.introduce_all_to(1, true, Protocol::Wireguard);
    network.take_events(1);
    let initiation = seen
        .iter()
        .find(|(_, datagram)| datagram.len() == INITIATION_BYTES)
        .unwrap();
    // The stamps heard are in memory only, so this one is answered: with nothing the attacker can use.
    network.inject(1, attacker(), initiation.1.clone());
    network.run_for(SHORT);
    let key = network.key(0);
    let state = network.nodes[1].state_of(&key, network.now);
    assert_eq!(state, PeerState::Never);
    assert_eq!(endpoint_of_other(&network, 1), None);
    assert!(
        network
            .take_events(1)
            .iter()
            .all(|event| !matches!(event, Event::SessionEstablished { .. }))
    );
    // The real peer is let in all the same.
    network.tell_endpoint(1, 0);
    assert!(network.reaches(1, 0, SHORT));
    assert_eq!(
        endpoint_of_other(&network, 1),
        Some(network.nodes[0].endpoint)
    );
}

#[test]
fn a_copy_that_came_by_a_one_way_path_does_not_keep_the_answer_from_the_others() {
    let mut network = Network::pair(13);
    network.trace = Some(Vec::new());
    let packet = network.send(0, 1);
    let initiation = network.trace.take().unwrap().remove(0).1.data;
    // The first copies come from where no answer arrives, and no place is answered twice.
    for host in [66, 66, 67, 68, 68] {
        let nowhere = SocketAddr::from(([203, 0, 113, host], 666));
        network.inject(1, nowhere, initiation.clone());
    }
    assert_eq!(network.datagrams, 1 + 3);
    network.run_for(SHORT);
    assert!(network.has_delivered(1, &packet));
    assert_eq!(network.nodes[1].refusals, [Refusal::Replayed; 2]);
    // A fifth place, or any place once the session is used, gets nothing.
    let datagrams = network.datagrams;
    network.inject(1, attacker(), initiation.clone());
    assert_eq!(network.datagrams, datagrams);
}

#[test]
fn every_changed_bit_of_a_handshake_is_noticed() {
    for protocol in [Protocol::Wireguard, Protocol::MeshAes] {
        every_changed_bit_is_noticed(protocol);
    }
}

fn every_changed_bit_is_noticed(protocol: Protocol) {
    let (_, seen) = watched_by(Network::pair_with(3, true, protocol));
    for (length, target) in [(INITIATION_BYTES, 1), (RESPONSE_BYTES, 0)] {
        let (_, datagram) = seen.iter().find(|(_, d)| d.len() == length).unwrap();
        // Up to mac2, which is not looked at while there is no load.
        for bit in 0..(length - 16) * 8 {
            let mut network = Network::pair_with(3, true, protocol);
            if target == 0 {
                // The same seed makes the same initiation, which the response answers.
                network.send(0, 1);
            }
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            network.inject(target, attacker(), changed);
            assert_eq!(network.nodes[target].refusals.len(), 1, "bit {bit}");
            let key = network.key(1 - target);
            let now = network.now;
            let view = network.nodes[target].engine.peer(&key, now).unwrap();
            assert!(view.last_handshake.is_none());
        }
        // And the message itself would have been taken.
        let mut network = Network::pair_with(3, true, protocol);
        if target == 0 {
            network.send(0, 1);
        }
        network.inject(target, network.nodes[1 - target].endpoint, datagram.clone());
        assert!(network.nodes[target].refusals.is_empty());
    }
}

#[test]
fn keys_of_low_order_in_a_handshake_are_refused() {
    let (mut network, seen) = watched(4);
    let (_, datagram) = seen
        .iter()
        .find(|(_, d)| d.len() == INITIATION_BYTES)
        .unwrap();
    let bytes: [u8; INITIATION_BYTES] = datagram.as_slice().try_into().unwrap();
    let mut initiation = Initiation::parse(&bytes);
    initiation.ephemeral = [0; 32];
    initiation.mac1 = mac1(network.key(1).as_bytes(), &initiation.emit()[..116]);
    network.inject(1, attacker(), initiation.emit().to_vec());
    assert_eq!(network.nodes[1].refusals, [Refusal::NotAuthentic]);
}

#[test]
fn a_forged_cookie_is_not_taken_and_stops_nothing() {
    let mut network = Network::pair(5);
    network.trace = Some(Vec::new());
    network.send(0, 1);
    let trace = network.trace.take().unwrap();
    let bytes: [u8; INITIATION_BYTES] = trace[0].1.data.as_slice().try_into().unwrap();
    let sender = Initiation::parse(&bytes).sender;
    for receiver in [sender, sender ^ 1] {
        let forged = CookieReply {
            receiver,
            nonce: [1; 24],
            sealed_cookie: [2; 32],
        };
        network.inject(0, attacker(), forged.emit().to_vec());
    }
    assert_eq!(
        network.nodes[0].refusals,
        [Refusal::NotAuthentic, Refusal::UnknownSession]
    );
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn a_flood_of_initiations_is_met_with_cookies_and_honest_peers_still_get_in() {
    let mut network = Network::new(6, 3);
    for (i, j) in [(0, 1), (2, 1)] {
        network.tell_endpoint(i, j);
    }
    // Node 0 plays the flood with initiations that are right but for the stamp's being old.
    network.trace = Some(Vec::new());
    network.send(0, 1);
    let trace = network.trace.take().unwrap();
    let flood = trace[0].1.data.clone();
    network.trace = Some(Vec::new());
    let burst = |network: &mut Network| {
        for port in 1..200 {
            let from = SocketAddr::from(([198, 51, 100, 9], port));
            network.inject(1, from, flood.clone());
        }
    };
    burst(&mut network);
    let cookies = |network: &Network| {
        network
            .trace
            .as_ref()
            .unwrap()
            .iter()
            .filter(|(_, transmit)| {
                matches!(Message::parse(&transmit.data), Ok(Message::CookieReply(_)))
            })
            .count()
    };
    assert!(cookies(&network) >= 90);
    // Never more bytes than came.
    for (_, transmit) in network.trace.as_ref().unwrap() {
        assert!(transmit.data.len() <= INITIATION_BYTES);
    }
    // An honest peer connects while the flood goes on: it repeats at once, with the cookie it is given.
    burst(&mut network);
    let packet = network.send(2, 1);
    network.run_for(Duration::from_millis(60));
    assert!(network.has_delivered(1, &packet));
}

#[test]
fn datagrams_of_any_wrong_length_are_refused() {
    let (mut network, _) = watched(7);
    for message_type in 0..=5 {
        for length in [
            0, 1, 3, 4, 15, 16, 31, 63, 65, 91, 93, 147, 149, 1500, 65507,
        ] {
            let mut datagram = vec![0; length];
            if let Some(first) = datagram.first_mut() {
                *first = message_type;
            }
            network.inject(1, attacker(), datagram);
        }
    }
    assert_eq!(network.nodes[1].refusals.len(), 6 * 15);
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn inner_packets_that_lie_are_dropped() {
    let mut network = Network::new(8, 3);
    for (i, j) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        network.tell_endpoint(i, j);
    }
    assert!(network.reaches(0, 1, SHORT) && network.reaches(2, 1, SHORT));
    let (own, other, target) = (
        network.nodes[0].address,
        network.nodes[2].address,
        network.nodes[1].address,
    );
    let agents = Network::agent_address();
    let good = packets::ipv6(own, target, b"good");
    let mut too_long = good.clone();
    too_long[5] = 200;
    let mut version = good.clone();
    version[0] = 0x50;
    let lies = [
        (
            packets::ipv6(other, target, b"of another"),
            Refusal::WrongSource,
        ),
        (
            packets::ipv6("fd99::1".parse().unwrap(), target, b"of nobody"),
            Refusal::WrongSource,
        ),
        (
            packets::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), b"v4"),
            Refusal::WrongSource,
        ),
        (
            packets::ipv6(agents, target, b"agents' source"),
            Refusal::AgentAddress,
        ),
        (
            packets::ipv6(own, agents, b"agents' destination"),
            Refusal::AgentAddress,
        ),
        (too_long, Refusal::Malformed),
        (version, Refusal::Malformed),
        (vec![0x60; 39], Refusal::Malformed),
        (vec![0], Refusal::Malformed),
    ];
    let delivered = network.nodes[1].delivered.len();
    let route = network.nodes[0].forwarding.route(&good).unwrap();
    for (packet, refusal) in lies {
        let mut frame = vec![0; 200];
        frame[16..16 + packet.len()].copy_from_slice(&packet);
        let length = route
            .seal(&mut frame, packet.len(), network.now.instant)
            .unwrap();
        frame.truncate(length);
        let from = network.nodes[0].endpoint;
        network.inject(1, from, frame);
        assert_eq!(network.nodes[1].refusals.pop(), Some(refusal));
    }
    assert_eq!(network.nodes[1].delivered.len(), delivered);
    assert!(network.reaches(0, 1, SHORT), "the session goes on");
}

#[test]
fn packets_of_agents_are_not_taken_from_the_tun_nor_from_guests() {
    let mut network = Network::pair(9);
    assert!(network.reaches(0, 1, SHORT));
    let agents = Network::agent_address();
    let (own, target) = (network.nodes[0].address, network.nodes[1].address);
    let datagrams = network.datagrams;
    for packet in [
        packets::ipv6(agents, target, b"x"),
        packets::ipv6(own, agents, b"x"),
        packets::ipv6(agents, agents, b"x"),
    ] {
        assert!(network.nodes[0].forwarding.route(&packet).is_none());
        network.send_packet(0, &packet);
    }
    assert_eq!(network.datagrams, datagrams);

    // Node 0 believes that it talks to an agent; to node 1 it is a guest.
    let mut network = Network::pair(10);
    network.introduce_all_to(1, false, Protocol::Wireguard);
    network.probe(0, 1);
    network.run_for(SHORT);
    assert!(network.nodes[1].refusals.contains(&Refusal::AgentAddress));
    assert!(network.nodes[1].delivered.is_empty());
}

#[test]
fn no_tunnel_is_led_through_the_mesh_itself() {
    let mut network = Network::new(16, 3);
    let inside = SocketAddr::from((network.nodes[2].address, 4193));
    let (key, now) = (network.key(1), network.now);
    network.nodes[0]
        .engine
        .set_candidates(&key, vec![inside], now);
    network.send(0, 1);
    assert_eq!(network.datagrams, 0, "no candidate");
    network.tell_endpoint(0, 1);
    assert!(network.reaches(0, 1, SHORT));

    // What comes through another member's tunnel is the peer's, but not where the peer is.
    let (own, target) = (network.nodes[0].address, network.nodes[1].address);
    let packet = packets::ipv6(own, target, b"forwarded");
    let mut frame = vec![0; 200];
    frame[16..16 + packet.len()].copy_from_slice(&packet);
    let route = network.nodes[0].forwarding.route(&packet).unwrap();
    let length = route
        .seal(&mut frame, packet.len(), network.now.instant)
        .unwrap();
    frame.truncate(length);
    network.inject(1, inside, frame);
    assert!(network.has_delivered(1, &packet));
    let endpoint = network.nodes[0].endpoint;
    assert_eq!(endpoint_of_other(&network, 1), Some(endpoint));
    network.inject(1, inside, vec![1; INITIATION_BYTES]);
    assert_eq!(network.nodes[1].refusals, [Refusal::Inside]);
}

#[test]
fn a_key_that_becomes_a_guests_loses_the_sessions_it_had() {
    let (mut network, _) = watched(14);
    let packet = packets::ipv6(network.nodes[0].address, network.nodes[1].address, b"old");
    let route = network.nodes[0].forwarding.route(&packet).unwrap();
    network.introduce_all_to(1, false, Protocol::Wireguard);
    let mut frame = vec![0; 200];
    frame[16..16 + packet.len()].copy_from_slice(&packet);
    let length = route
        .seal(&mut frame, packet.len(), network.now.instant)
        .unwrap();
    frame.truncate(length);
    let from = network.nodes[0].endpoint;
    network.nodes[1].refusals.clear();
    network.inject(1, from, frame);
    assert_eq!(network.nodes[1].refusals, [Refusal::UnknownSession]);
    // Nothing of what it was is left in the timers either.
    assert_eq!(network.nodes[1].engine.poll_timeout(), None);
    network.run_for(Duration::from_secs(600));
    assert!(network.reaches(0, 1, SHORT));
}

#[test]
fn a_member_that_floods_with_notices_and_clocks_is_heard_a_few_times() {
    let (mut network, _) = watched(15);
    let key = network.key(1);
    network.take_events(1);
    for round in 0..500 {
        let sender = &mut network.nodes[0];
        sender.clock_ahead_millis = if round % 2 == 0 { 600_000 } else { -600_000 };
        let now = sender.clock(network.now);
        sender
            .engine
            .send_epoch_notice(&key, u64::MAX - round, [0; 32], now);
        sender.engine.probe(&key, now);
        network.run_for(Duration::from_millis(21));
    }
    // 10.5 s: two spans of ten notices each, and one word about the clock.
    let events = network.take_events(1);
    let notices = events
        .iter()
        .filter(|event| matches!(event, Event::EpochNotice { .. }));
    assert!((10..=20).contains(&notices.count()));
    let clocks = events
        .iter()
        .filter(|event| matches!(event, Event::ClockDiffers { .. }));
    assert_eq!(clocks.count(), 1);
}

#[test]
fn a_packet_overtaken_on_an_old_path_does_not_move_the_peer_back() {
    let (mut network, _) = watched(11);
    let old = network.nodes[1].endpoint;
    // Held up on the old path.
    let packet = packets::ipv6(network.nodes[1].address, network.nodes[0].address, b"late");
    let route = network.nodes[1].forwarding.route(&packet).unwrap();
    let mut late = vec![0; 200];
    late[16..16 + packet.len()].copy_from_slice(&packet);
    let length = route
        .seal(&mut late, packet.len(), network.now.instant)
        .unwrap();
    late.truncate(length);
    let new = SocketAddr::from(([198, 51, 100, 3], 3));
    network.nodes[1].endpoint = new;
    assert!(network.reaches(1, 0, SHORT));
    network.run_for(Duration::from_secs(1));
    assert_eq!(endpoint_of_other(&network, 0), Some(new));
    network.inject(0, old, late);
    assert!(
        network.has_delivered(0, &packet),
        "the packet itself is fine"
    );
    network.run_for(Duration::from_secs(1));
    assert_eq!(endpoint_of_other(&network, 0), Some(new));
}

#[test]
fn a_stranger_with_a_good_handshake_is_refused() {
    let mut network = Network::pair(12);
    let now = network.now;
    network.nodes[1].engine.set_peers(Vec::new(), now);
    assert!(!network.reaches(0, 1, SHORT));
    assert!(network.nodes[1].refusals.contains(&Refusal::UnknownPeer));
    assert_eq!(network.datagrams, 1, "and gets no answer");
}

fn mac1(receiver: &[u8; 32], message: &[u8]) -> [u8; 16] {
    use blake2::{
        Blake2s256, Blake2sMac, Digest,
        digest::{Mac, consts::U16},
    };
    let key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(receiver)
        .finalize();
    let mut mac = <Blake2sMac<U16> as Mac>::new_from_slice(&key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_sequence_of_damaged_datagrams_panics_or_gets_through(
        seed in any::<u8>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..=255, any::<bool>()), 1..60),
    ) {
        let (mut network, seen) = watched(seed);
        network.quality = LinkQuality::default();
        let delivered: Vec<usize> = network.nodes.iter().map(|n| n.delivered.len()).collect();
        for (which, at, xor, cut) in damage {
            let (_, mut datagram) = which.get(&seen).clone();
            let at = at.index(datagram.len());
            datagram[at] ^= xor;
            if cut {
                datagram.truncate(at);
            }
            for i in 0..2 {
                network.inject(i, attacker(), datagram.clone());
            }
        }
        network.run_for(SHORT);
        for (i, delivered) in delivered.into_iter().enumerate() {
            prop_assert_eq!(network.nodes[i].delivered.len(), delivered);
        }
        prop_assert!(network.reaches(0, 1, Duration::from_secs(1)));
    }

    #[test]
    fn an_engine_takes_any_bytes(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let mut network = Network::pair(1);
        for mut datagram in datagrams {
            if let Some(first) = datagram.first_mut() {
                *first %= 5;
            }
            let now = network.now;
            let received = network.nodes[0].engine.handle_datagram(attacker().into(), &mut datagram, now);
            prop_assert!(matches!(received, Received::Refused(_)));
            prop_assert!(network.nodes[0].engine.poll_transmit().is_none());
        }
    }

    #[test]
    fn data_for_indices_that_nobody_gave_is_refused(receiver in any::<u32>(), counter in any::<u64>()) {
        let (mut network, _) = watched(1);
        let mut datagram = DataHeader { receiver, counter }.emit().to_vec();
        datagram.resize(80, 7);
        network.inject(0, attacker(), datagram);
        prop_assert_eq!(network.nodes[0].refusals.len(), 1);
        let response = Response {
            sender: 1,
            receiver,
            ephemeral: [9; 32],
            sealed_nothing: [0; 16],
            mac1: [0; 16],
            mac2: [0; 16],
        };
        network.inject(0, attacker(), response.emit().to_vec());
        prop_assert_eq!(network.nodes[0].refusals.len(), 2);
    }
}
