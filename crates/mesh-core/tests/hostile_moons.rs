//! What a moon can do to its client by lying, and that it is little.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{sync::Arc, time::Duration};

use mesh_core::{Refusal, RelayLimits, RelayServer, Remote};
use mesh_testkit::Network;
use mesh_wire::{
    relay::{Header, MemberTag, Notice, emit_notice},
    tunnel::{RelayRefused, TunnelMessage},
};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

const SHORT: Duration = Duration::from_millis(200);

const CLIENT: usize = 0;
const MOON: usize = 1;
const HONEST: usize = 2;

/// A client with sessions with its moon and another member.
fn connected(seed: u8) -> Network {
    let mut network = Network::new(seed, 3);
    for other in [MOON, HONEST] {
        network.tell_endpoint(CLIENT, other);
        network.tell_endpoint(other, CLIENT);
        assert!(network.reaches(CLIENT, other, SHORT));
        assert!(network.reaches(other, CLIENT, SHORT));
    }
    network
}

/// The client asks the moon to relay, which it does if it has a server.
fn ask(network: &mut Network) {
    let (moon, now) = (network.key(MOON), network.now);
    network.nodes[CLIENT].engine.set_moons(&[moon], now);
    network.run_for(Duration::from_secs(2));
}

/// The moon relays, and the token that it gave the client.
fn token(network: &mut Network) -> u64 {
    let server = Arc::new(RelayServer::new(RelayLimits::default()));
    server.set_members((0..3).map(|i| network.key(i)));
    let moon = &mut network.nodes[MOON].engine;
    moon.set_relay_server(Some(Arc::clone(&server)));
    ask(network);
    assert!(is_open(network));
    let (key, at) = (network.key(CLIENT), network.nodes[CLIENT].endpoint);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let now = network.now.instant;
    let granted = server.grant(&key, Remote::Udp(at), 0, Duration::ZERO, &mut rng, now);
    let granted = granted.unwrap();
    assert!(granted.proven, "the same address, so the same token");
    granted.token
}

/// Whether the client takes the moon for one that relays.
fn is_open(network: &Network) -> bool {
    let engine = &network.nodes[CLIENT].engine;
    engine
        .moons(network.now.instant)
        .any(|(_, remote)| remote.is_some())
}

/// Says something to the client inside the moon's session.
fn say(network: &mut Network, message: TunnelMessage) {
    network.say(MOON, CLIENT, message);
}

/// A frame to the client which says that it is of this machine.
fn frame(network: &Network, token: u64, of: usize, message: &[u8]) -> Vec<u8> {
    let member = MemberTag::of(network.key(of).as_bytes());
    [Header { token, member }.emit().as_slice(), message].concat()
}

#[test]
fn a_grant_or_refusal_that_nobody_asked_for_is_passed_over() {
    let mut network = connected(1);
    ask(&mut network);
    assert!(!is_open(&network), "it does not relay");
    for id in 0..1_000 {
        let grant = TunnelMessage::RelayGrant {
            id,
            token: 7,
            observed: None,
            lasts_seconds: 60,
        };
        say(&mut network, grant);
    }
    assert!(!is_open(&network));

    let mut network = connected(2);
    token(&mut network);
    for id in 0..1_000 {
        let reason = RelayRefused::Full;
        say(&mut network, TunnelMessage::RelayRefusal { id, reason });
    }
    assert!(is_open(&network));
}

#[test]
fn a_moon_that_floods_with_notices_is_asked_once_a_second() {
    let mut network = connected(3);
    let token = token(&mut network);
    network.run_for(Duration::from_secs(3));
    let moon = network.nodes[MOON].endpoint;
    network.trace = Some(Vec::new());
    for number in 0..100_000_u32 {
        let notice = match number % 3 {
            0 => Notice::UnknownToken,
            1 => Notice::NotHere,
            _ => Notice::NotAllowed,
        };
        let member = MemberTag::of(network.key(HONEST).as_bytes());
        let datagram = emit_notice(notice, Header { token, member });
        network.inject(CLIENT, moon, datagram.to_vec());
        network.run_for(Duration::from_micros(10));
    }
    network.run_for(SHORT);
    let trace = network.trace.take().unwrap();
    let client = network.nodes[CLIENT].endpoint;
    let sent = trace.iter().filter(|(from, _)| *from == client).count();
    // A handshake and a few requests with their confirmations, for two seconds that were begun.
    assert!((1..=16).contains(&sent), "{sent}");
    assert!(is_open(&network), "nothing is forgotten for it");
    assert!(network.reaches(CLIENT, HONEST, SHORT));
}

#[test]
fn frames_that_a_moon_makes_up_or_repeats_are_dropped_without_a_word() {
    let mut network = connected(4);
    let token = token(&mut network);
    let moon = network.nodes[MOON].endpoint;
    // What the honest member once sent, and what somebody else did, in its name.
    network.trace = Some(Vec::new());
    assert!(network.reaches(HONEST, CLIENT, SHORT));
    assert!(network.reaches(MOON, CLIENT, SHORT));
    let trace = network.trace.take().unwrap();
    let to_client = Remote::Udp(network.nodes[CLIENT].endpoint);
    let seen: Vec<Vec<u8>> = trace
        .into_iter()
        .filter(|(_, transmit)| transmit.to == to_client && transmit.data.len() >= 32)
        .map(|(_, transmit)| transmit.data)
        .collect();
    assert!(seen.len() >= 2);
    let delivered = network.nodes[CLIENT].delivered.len();
    network.nodes[CLIENT].refusals.clear();
    let datagrams = network.datagrams;
    let mut injected = 0;
    for message in &seen {
        for of in [HONEST, MOON, CLIENT] {
            let mut changed = message.clone();
            *changed.last_mut().unwrap() ^= 1;
            for message in [message, &changed] {
                let frame = frame(&network, token, of, message);
                network.inject(CLIENT, moon, frame);
                injected += 1;
            }
        }
    }
    assert_eq!(network.nodes[CLIENT].refusals.len(), injected);
    assert_eq!(network.nodes[CLIENT].delivered.len(), delivered);
    assert_eq!(network.datagrams, datagrams, "no answer");

    // And none at all with a token that is another's, or from where the moon is not.
    let stranger = ([203, 0, 113, 66], 666).into();
    for (token, from) in [(token ^ 1, moon), (token, stranger)] {
        let frame = frame(&network, token, HONEST, &seen[0]);
        network.nodes[CLIENT].refusals.clear();
        network.inject(CLIENT, from, frame);
        assert_eq!(network.nodes[CLIENT].refusals, [Refusal::NotRelayed]);
    }
    assert_eq!(network.datagrams, datagrams, "no answer");
    assert!(network.reaches(CLIENT, HONEST, SHORT));
}
