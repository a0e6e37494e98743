//! Which cipher two agents have between them, whatever their rosters say and whoever is on the way.

use std::{net::SocketAddr, time::Duration};

use mesh_core::{Protocol, Refusal};
use mesh_testkit::Network;
use mesh_wire::wireguard::INITIATION_BYTES;

const SHORT: Duration = Duration::from_millis(200);

/// Two agents, of which each begins with the protocol that its own roster gives it.
fn agents(seed: u8, protocols: [Protocol; 2]) -> Network {
    let mut network = Network::pair(seed);
    for (i, protocol) in protocols.into_iter().enumerate() {
        network.introduce_all_to(i, true, protocol);
    }
    network
}

/// What the session in use speaks, at each end.
fn spoken(network: &Network) -> [Option<Protocol>; 2] {
    [0, 1].map(|i| {
        let view = network.nodes[i]
            .engine
            .peer(&network.key(1 - i), network.now);
        view.and_then(|view| view.protocol)
    })
}

#[test]
fn rosters_of_different_age_cost_no_packet() {
    let (old, new) = (Protocol::Wireguard, Protocol::MeshAes);
    for (seed, protocols) in [(1, [old, new]), (2, [new, old]), (3, [new, new])] {
        let mut network = agents(seed, protocols);
        for round in 0..300_u32 {
            for from in [0, 1] {
                let lasts = match round {
                    0 => SHORT,
                    _ => Duration::from_millis(500),
                };
                assert!(network.reaches(from, 1 - from, lasts), "round {round}");
            }
            let [a, b] = spoken(&network);
            assert_eq!(a, b);
            assert!(protocols.map(Some).contains(&a), "{a:?}");
        }
        // A new roster counts from the next session on, and takes none away.
        network.introduce_all_to(0, true, new);
        network.introduce_all_to(1, true, new);
        for _ in 0..300 {
            assert!(network.reaches(0, 1, Duration::from_millis(500)));
        }
        assert_eq!(spoken(&network), [Some(new); 2]);
    }
}

#[test]
fn who_drops_handshakes_gets_no_other_cipher_for_it() {
    let mut network = agents(4, [Protocol::MeshAes; 2]);
    network.trace = Some(Vec::new());
    // What node 0 says comes to node 1 by the attacker's hand, and no answer comes back, for ten minutes.
    network.set_connected(0, false);
    let mut initiations = 0;
    for _ in 0..600 {
        network.send(0, 1);
        network.run_for(Duration::from_secs(1));
        let from = network.nodes[0].endpoint;
        for (sender, transmit) in network.trace.replace(Vec::new()).unwrap_or_default() {
            if sender == from && transmit.data.len() == INITIATION_BYTES {
                initiations += 1;
                network.inject(1, from, transmit.data);
            }
        }
        assert!([None, Some(Protocol::MeshAes)].contains(&spoken(&network)[1]));
    }
    assert!(initiations > 20, "{initiations}");
    network.set_connected(0, true);
    network.run_for(Duration::from_secs(60));
    assert!(network.reaches(0, 1, Duration::from_secs(10)));
    assert_eq!(spoken(&network), [Some(Protocol::MeshAes); 2]);
}

#[test]
fn a_recorded_handshake_of_another_cipher_changes_nothing() {
    let attacker = SocketAddr::from(([203, 0, 113, 66], 666));
    let mut network = agents(5, [Protocol::Wireguard; 2]);
    network.trace = Some(Vec::new());
    assert!(network.reaches(0, 1, SHORT));
    let recorded = network.trace.take().unwrap_or_default();
    for i in [0, 1] {
        network.introduce_all_to(i, true, Protocol::MeshAes);
    }
    for _ in 0..300 {
        assert!(network.reaches(0, 1, Duration::from_secs(1)));
    }
    assert_eq!(spoken(&network), [Some(Protocol::MeshAes); 2]);
    network.nodes[1].refusals.clear();
    let count = recorded.len();
    for (_, transmit) in recorded {
        network.inject(1, attacker, transmit.data);
    }
    assert_eq!(network.nodes[1].refusals.len(), count);
    assert!(network.nodes[1].refusals.contains(&Refusal::Replayed));
    assert_eq!(spoken(&network), [Some(Protocol::MeshAes); 2]);
    assert!(network.reaches(0, 1, SHORT) && network.reaches(1, 0, SHORT));
}
