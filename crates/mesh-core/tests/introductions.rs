//! A hundred thousand introductions a second: from a controller that lies, and from members and moons that do.
//! What third parties get of it, what is kept of it, and whether the other peers notice.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mesh_core::{Protocol, Remote};
use mesh_testkit::Network;
use mesh_types::WireguardPublicKey;
use mesh_wire::tunnel::TunnelMessage;

const SHORT: Duration = Duration::from_millis(200);

/// Introductions in one second, and the time of each.
const INTRODUCTIONS: u32 = 100_000;
const EACH: Duration = Duration::from_micros(10);

/// Endpoints in one introduction: as many as are taken.
const ENDPOINTS: u32 = 16;

/// Of `docs/paths.md`: probes of ways that never answered, at once and then in each second.
const PROBES_AT_ONCE: usize = 160;
const PROBES_PER_SECOND: usize = 2;

/// Of `docs/paths.md`, too: what one handshake is sent to, and how often there is one.
const HANDSHAKE_TARGETS: usize = 32;
const HANDSHAKE_EVERY: Duration = Duration::from_secs(5);

/// Ways known of one peer.
const WAYS_MAX: usize = 32;

/// The longest datagram that an unanswered address gets.
const DATAGRAM_BYTES_MAX: usize = 200;

/// The machine that is lied to, the one that the lies are about or that tells them, and one that is honest.
const VICTIM: usize = 0;
const LIAR: usize = 1;
const HONEST: usize = 2;

/// Third parties, other ones with every number.
fn third_parties(number: u32) -> Vec<SocketAddr> {
    let first = number.wrapping_mul(ENDPOINTS);
    (first..first + ENDPOINTS)
        .map(|host| SocketAddr::from(((0x0800_0000 + host).to_be_bytes(), 4193)))
        .collect()
}

/// The victim talks with both, and is watched from then on.
fn watched(seed: u8, count: u8) -> Network {
    let mut network = Network::new(seed, count);
    for other in [LIAR, HONEST] {
        network.tell_endpoint(VICTIM, other);
        network.tell_endpoint(other, VICTIM);
        assert!(network.reaches(VICTIM, other, SHORT));
        assert!(network.reaches(other, VICTIM, SHORT));
    }
    network.trace = Some(Vec::new());
    network
}

/// Says something to the victim inside the liar's session.
fn say(network: &mut Network, message: TunnelMessage) {
    network.say(LIAR, VICTIM, message);
}

/// Datagrams that the victim sent to each address where nobody is, and their bytes.
fn sent_to_third_parties(network: &mut Network) -> BTreeMap<Remote, Vec<usize>> {
    let machines: BTreeSet<Remote> = network
        .nodes
        .iter()
        .map(|node| node.endpoint)
        .map(Remote::Udp)
        .collect();
    let mut sent: BTreeMap<Remote, Vec<usize>> = BTreeMap::new();
    for (_, transmit) in network.trace.replace(Vec::new()).unwrap() {
        if !machines.contains(&transmit.to) {
            sent.entry(transmit.to)
                .or_default()
                .push(transmit.data.len());
        }
    }
    for bytes in sent.values().flatten() {
        assert!(*bytes <= DATAGRAM_BYTES_MAX, "{bytes}");
    }
    sent
}

fn ways(network: &Network) -> usize {
    let key = network.key(LIAR);
    network.nodes[VICTIM].engine.paths(&key).len()
}

/// Lets a second of introductions pass, while the victim and the honest peer talk.
fn flood(network: &mut Network, mut introduce: impl FnMut(&mut Network, u32)) {
    let mut sent = Vec::new();
    for number in 0..INTRODUCTIONS {
        introduce(network, number);
        if number % 1_000 == 0 {
            sent.push((HONEST, network.send(VICTIM, HONEST)));
            sent.push((VICTIM, network.send(HONEST, VICTIM)));
            assert!(ways(network) <= WAYS_MAX);
        }
        network.run_for(EACH);
    }
    network.run_for(SHORT);
    for (at, packet) in sent {
        assert!(network.has_delivered(at, &packet), "the others go on");
    }
}

#[test]
fn a_controller_that_introduces_100_000_times_a_second_sends_few_packets_to_third_parties() {
    let mut network = watched(1, 3);
    // The liar is off, and somebody wants it: handshakes are what goes to endpoints then.
    network.set_connected(LIAR, false);
    let now = network.now;
    network.nodes[VICTIM].restart(now);
    network.introduce_all_to(VICTIM, true, Protocol::Wireguard);
    network.tell_endpoint(VICTIM, HONEST);
    assert!(network.reaches(VICTIM, HONEST, SHORT));
    network.send(VICTIM, LIAR);
    flood(&mut network, |network, number| {
        network.introduce(VICTIM, LIAR, third_parties(number));
        network.probe(VICTIM, LIAR);
    });
    let sent = sent_to_third_parties(&mut network);
    let datagrams: usize = sent.values().map(Vec::len).sum();
    assert!(datagrams >= 16, "the first ones were tried: {datagrams}");
    assert!(datagrams <= HANDSHAKE_TARGETS, "{datagrams}");
    // And the machine itself is found as soon as it is there.
    network.set_connected(LIAR, true);
    network.tell_endpoint(VICTIM, LIAR);
    assert!(network.reaches(VICTIM, LIAR, HANDSHAKE_EVERY * 3));
}

#[test]
fn a_controller_that_introduces_a_connected_peer_has_few_probes_sent() {
    let mut network = watched(2, 3);
    flood(&mut network, |network, number| {
        network.introduce(VICTIM, LIAR, third_parties(number));
    });
    let sent = sent_to_third_parties(&mut network);
    let datagrams: usize = sent.values().map(Vec::len).sum();
    let most = PROBES_AT_ONCE + 2 * PROBES_PER_SECOND;
    assert!(
        (ENDPOINTS as usize..=most).contains(&datagrams),
        "{datagrams}"
    );
    assert!(network.reaches(VICTIM, LIAR, SHORT), "the true way goes on");
}

#[test]
fn a_member_that_tells_100_000_lies_a_second_has_few_probes_sent() {
    let mut network = watched(3, 3);
    let answers = network.datagrams;
    flood(&mut network, |network, number| {
        let endpoints = third_parties(number);
        say(
            network,
            TunnelMessage::Candidates {
                tell_yours: true,
                endpoints,
            },
        );
    });
    let all = usize::try_from(network.datagrams - answers).unwrap();
    let sent = sent_to_third_parties(&mut network);
    let datagrams: usize = sent.values().map(Vec::len).sum();
    let most = PROBES_AT_ONCE + 2 * PROBES_PER_SECOND;
    assert!(
        (ENDPOINTS as usize..=most).contains(&datagrams),
        "{datagrams}"
    );
    // The talk with the honest peer is 200, and what is asked for by each lie is answered five times.
    assert!(all - datagrams <= 300, "{}", all - datagrams);
    assert!(network.reaches(VICTIM, LIAR, SHORT), "the true way goes on");
}

#[test]
fn who_told_lies_is_listened_to_again_after_a_while() {
    let mut network = watched(8, 3);
    let told = |network: &Network, endpoint: SocketAddr| {
        let ways = network.nodes[VICTIM].engine.paths(&network.key(LIAR));
        ways.iter().any(|way| way.via.udp() == Some(endpoint))
    };
    let tell = |network: &mut Network, endpoints| {
        let message = TunnelMessage::Candidates {
            tell_yours: false,
            endpoints,
        };
        say(network, message);
    };
    // Each takes time to judge: so many are judged at once, and the others are not looked at.
    for number in 1..=1_000 {
        tell(&mut network, third_parties(number));
    }
    let last = third_parties(1_000)[0];
    assert!(!told(&network, last));
    tell(&mut network, vec![last]);
    assert!(!told(&network, last));
    network.run_for(Duration::from_secs(60));
    tell(&mut network, vec![last]);
    assert!(told(&network, last));
}

#[test]
fn the_same_introduction_replayed_for_ever_gets_two_probes_a_second() {
    const MINUTES: usize = 10;
    let mut network = watched(4, 3);
    for _ in 0..MINUTES * 60 * 5 {
        // There is traffic all the time: without it nothing is probed at all.
        network.send(VICTIM, LIAR);
        network.send(LIAR, VICTIM);
        network.introduce(VICTIM, LIAR, third_parties(1));
        say(
            &mut network,
            TunnelMessage::Candidates {
                tell_yours: false,
                endpoints: third_parties(1),
            },
        );
        network.run_for(SHORT);
    }
    let sent = sent_to_third_parties(&mut network);
    let datagrams: usize = sent.values().map(Vec::len).sum();
    // The session is renewed every two minutes, by the way in use alone.
    let most = PROBES_AT_ONCE + MINUTES * 60 * PROBES_PER_SECOND;
    assert!(datagrams <= most, "{datagrams}");
    assert_eq!(sent.len(), ENDPOINTS as usize);
    // And nothing once nobody talks.
    network.run_for(Duration::from_secs(61));
    sent_to_third_parties(&mut network);
    for _ in 0..100 {
        network.introduce(VICTIM, LIAR, third_parties(1));
        network.run_for(SHORT);
    }
    assert!(sent_to_third_parties(&mut network).is_empty());
}

#[test]
fn a_member_that_falls_silent_after_its_lies_gets_third_parties_a_handshake_every_five_seconds() {
    const SECONDS: usize = 400;
    let mut network = watched(5, 3);
    say(
        &mut network,
        TunnelMessage::Candidates {
            tell_yours: false,
            endpoints: third_parties(1),
        },
    );
    network.set_connected(LIAR, false);
    for _ in 0..SECONDS {
        network.send(VICTIM, LIAR);
        network.run_for(Duration::from_secs(1));
    }
    let sent = sent_to_third_parties(&mut network);
    assert_eq!(sent.len(), ENDPOINTS as usize);
    let every = usize::try_from(HANDSHAKE_EVERY.as_secs()).unwrap();
    for to in sent.values() {
        let probes = (PROBES_AT_ONCE + SECONDS * PROBES_PER_SECOND) / ENDPOINTS as usize;
        assert!(to.len() <= probes + SECONDS / every + 1, "{}", to.len());
    }
}

#[test]
fn a_member_that_names_another_moon_100_000_times_has_one_asked_in_ten_seconds() {
    const MACHINES: u8 = 40;
    let mut network = watched(6, MACHINES);
    let moons: Vec<WireguardPublicKey> =
        (3..usize::from(MACHINES)).map(|i| network.key(i)).collect();
    let now = network.now;
    network.nodes[VICTIM].engine.set_moons(&moons, now);
    // None of them answers: until the victim has looked at all that are its homes, or the liar's.
    for _ in 0..60 {
        network.send(VICTIM, LIAR);
        network.run_for(Duration::from_secs(1));
    }
    let asked = |network: &Network| -> BTreeSet<WireguardPublicKey> {
        let engine = &network.nodes[VICTIM].engine;
        engine
            .moons(network.now.instant)
            .map(|(moon, _)| moon)
            .collect()
    };
    let before = asked(&network);
    let others: Vec<_> = moons.iter().filter(|moon| !before.contains(moon)).collect();
    assert!(others.len() >= 20, "{} of {}", others.len(), moons.len());
    let mut named = BTreeSet::new();
    let mut name = |network: &mut Network, number: usize| {
        let keys = vec![*others[number % others.len()].as_bytes()];
        say(network, TunnelMessage::Moons { keys });
        named.extend(asked(network).difference(&before).copied());
        named.len()
    };
    for number in 0..INTRODUCTIONS as usize {
        assert!(name(&mut network, number) <= 1);
        network.run_for(EACH);
    }
    assert_eq!(name(&mut network, 0), 1);
    for (seconds, most) in [(8, 1), (1, 2), (8, 2), (4, 3)] {
        for number in 0..seconds {
            network.send(VICTIM, LIAR);
            network.run_for(Duration::from_secs(1));
            let asked = name(&mut network, 7 * number + 1);
            assert!(asked <= most, "{asked} of {most}");
        }
    }
    assert!(
        name(&mut network, 0) >= 2,
        "it may move, and is heard again"
    );
}
