//! What a moon sends to addresses because a client asked for it, and what a client does whose moon cannot.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_core::{Event, Opened, Refusal, RelayLimits, RelayServer, Remote};
use mesh_testkit::{Network, packets};
use mesh_wire::{
    reflect::{Heard, KNOCK_BYTES, ReflectRequest},
    tunnel::{self, TunnelMessage},
    wireguard::{DATA_HEADER_BYTES, data_message_bytes},
};

const SHORT: Duration = Duration::from_millis(200);

const CLIENT: usize = 0;
const MOON: usize = 1;

/// Another socket of the client.
fn socket() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5_000))
}

/// A third party's.
fn elsewhere() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], 5_000))
}

/// A client and its moon.
fn client_and_moon(seed: u8) -> (Network, Arc<RelayServer>) {
    let mut network = Network::new(seed, 2);
    let server = Arc::new(RelayServer::new(RelayLimits::default()));
    server.set_members([network.key(CLIENT), network.key(MOON)]);
    let (now, moon) = (network.now, network.key(MOON));
    network.nodes[MOON]
        .engine
        .set_relay_server(Some(server.clone()));
    network.nodes[CLIENT].engine.set_moons(&[moon], now);
    network.tell_endpoint(CLIENT, MOON);
    network.run_for(Duration::from_secs(2));
    network.take_events(CLIENT);
    network.trace = Some(Vec::new());
    (network, server)
}

/// What shows the moon that the client reads what comes to that socket.
fn proof(network: &Network, server: &RelayServer, at: SocketAddr) -> u64 {
    let token = network.nodes[CLIENT].engine.moon_views()[0].token.unwrap();
    let request = ReflectRequest { token, id: 7 }.emit();
    let answer = server
        .reflect(Remote::Udp(at), &request, network.now.instant)
        .unwrap();
    match Heard::parse(&answer) {
        Some(Heard::Reflection(reflection)) => reflection.proof,
        other => panic!("{other:?}"),
    }
}

/// Puts a message of one machine's agent into the session with the other.
fn say(network: &mut Network, from: usize, packet: &[u8]) {
    let [source, destination] = [from, 1 - from].map(|i| network.nodes[i].address);
    let route = network.nodes[from]
        .forwarding
        .route(&packets::ipv6(source, destination, &[]))
        .unwrap();
    let mut frame = vec![0; data_message_bytes(packet.len())];
    frame[DATA_HEADER_BYTES..][..packet.len()].copy_from_slice(packet);
    route
        .seal(&mut frame, packet.len(), network.now.instant)
        .unwrap();
    // As after any packet of a data thread's: a timer begins.
    let now = network.now;
    network.nodes[from].engine.handle_timeout(now);
    let endpoint = network.nodes[from].endpoint;
    network.inject(1 - from, endpoint, frame);
}

fn ask(network: &mut Network, id: u64, after_seconds: u16, to: SocketAddr, proof: u64) {
    let request = TunnelMessage::KnockRequest {
        id,
        after_seconds,
        from_other_port: false,
        to,
        proof,
    };
    let packet = tunnel::emit(request, Network::agent_address());
    say(network, CLIENT, &packet);
}

/// What the moon answered, one after the other.
fn answers(network: &mut Network) -> Vec<bool> {
    network.run_for(SHORT);
    let events = network.take_events(CLIENT).into_iter();
    events
        .filter_map(|event| {
            if let Event::KnockAnswered { agreed, .. } = event {
                Some(agreed)
            } else {
                None
            }
        })
        .collect()
}

/// The knocks that the moon has sent since this was last asked, each with where to.
fn knocks(network: &mut Network) -> Vec<(Remote, u64)> {
    let sent = network.trace.replace(Vec::new()).unwrap();
    let moon = network.nodes[MOON].endpoint;
    sent.into_iter()
        .filter(|(from, transmit)| *from == moon && transmit.data.len() == KNOCK_BYTES)
        .filter_map(|(_, transmit)| match Heard::parse(&transmit.data)? {
            Heard::Knock(id) => Some((transmit.to, id)),
            Heard::Reflection(_) => None,
        })
        .collect()
}

#[test]
fn a_knock_goes_where_the_client_has_shown_to_be() {
    let (mut network, server) = client_and_moon(1);
    let proof = proof(&network, &server, socket());
    ask(&mut network, 5, 0, socket(), proof);
    assert_eq!(answers(&mut network), [true]);
    assert_eq!(knocks(&mut network), [(Remote::Udp(socket()), 5)]);
}

#[test]
fn without_a_proof_for_that_address_nobody_is_knocked_at() {
    let (mut network, server) = client_and_moon(2);
    let proof = proof(&network, &server, socket());
    for (id, to, proof) in [
        (1, socket(), proof ^ 1),
        (2, socket(), 0),
        (3, elsewhere(), proof),
        (4, elsewhere(), 0),
    ] {
        ask(&mut network, id, 0, to, proof);
        assert_eq!(answers(&mut network), [false]);
    }
    // A proof is forgotten after two minutes.
    network.run_for(Duration::from_secs(120));
    network.take_events(CLIENT);
    ask(&mut network, 5, 0, socket(), proof);
    assert_eq!(answers(&mut network), [false]);
    assert_eq!(knocks(&mut network), []);
}

#[test]
fn a_machine_that_does_not_relay_knocks_at_nobody() {
    let (mut network, server) = client_and_moon(3);
    let proof = proof(&network, &server, socket());
    ask(&mut network, 5, 10, socket(), proof);
    assert_eq!(answers(&mut network), [true]);
    // Neither what was agreed nor anything more.
    network.nodes[MOON].engine.set_relay_server(None);
    ask(&mut network, 6, 0, socket(), proof);
    assert_eq!(answers(&mut network), [false]);
    network.run_for(Duration::from_secs(11));
    assert_eq!(knocks(&mut network), []);
}

#[test]
fn eight_knocks_wait_and_no_more_than_sixteen_are_given_at_once() {
    let (mut network, server) = client_and_moon(4);
    // Whatever a client did not ask for yet adds nothing to the sixteen.
    network.run_for(Duration::from_secs(30));
    network.take_events(CLIENT);
    let proof = proof(&network, &server, socket());
    for id in 0..20 {
        ask(&mut network, id, 2, socket(), proof);
    }
    let agreed = |answers: &[bool]| answers.iter().filter(|agreed| **agreed).count();
    assert_eq!(agreed(&answers(&mut network)), 8);
    network.run_for(Duration::from_secs(2));
    let ids: Vec<u64> = knocks(&mut network).iter().map(|knock| knock.1).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6, 7]);
    for id in 20..60 {
        ask(&mut network, id, 0, socket(), proof);
    }
    // Eight are left, and none has come back within these seconds.
    assert_eq!(agreed(&answers(&mut network)), 8);
    assert_eq!(knocks(&mut network).len(), 8);
    // One in five seconds comes back.
    network.run_for(Duration::from_secs(10));
    network.take_events(CLIENT);
    for id in 60..70 {
        ask(&mut network, id, 0, socket(), proof);
    }
    let given = agreed(&answers(&mut network));
    assert!((2..=3).contains(&given), "{given}");
    assert_eq!(knocks(&mut network).len(), given);
}

#[test]
fn a_knock_waits_for_five_minutes_at_most() {
    let (mut network, server) = client_and_moon(5);
    let proof = proof(&network, &server, socket());
    ask(&mut network, 5, u16::MAX, socket(), proof);
    network.run_for(Duration::from_secs(299));
    assert_eq!(knocks(&mut network), []);
    network.run_for(Duration::from_secs(2));
    assert_eq!(knocks(&mut network), [(Remote::Udp(socket()), 5)]);
}

#[test]
fn a_request_that_is_repeated_or_replayed_brings_one_knock() {
    let (mut network, server) = client_and_moon(6);
    let proof = proof(&network, &server, socket());
    for _ in 0..3 {
        // As one does whose answer was lost.
        ask(&mut network, 5, 2, socket(), proof);
    }
    assert_eq!(answers(&mut network), [true; 3]);
    network.run_for(Duration::from_secs(3));
    assert_eq!(knocks(&mut network), [(Remote::Udp(socket()), 5)]);
    // What the client itself sends, seen by somebody on the way.
    let (now, moon) = (network.now, network.key(MOON));
    let engine = &mut network.nodes[CLIENT].engine;
    let id = engine.request_knock(&moon, socket(), proof, false, now);
    network.tell_endpoint(CLIENT, MOON);
    let from = network.nodes[CLIENT].endpoint;
    let sent = network.trace.as_ref().unwrap();
    let mut sent = sent.iter().filter(|sent| sent.0 == from);
    let request = sent.next_back().unwrap().1.data.clone();
    assert_eq!(answers(&mut network), [true]);
    assert_eq!(knocks(&mut network), [(Remote::Udp(socket()), id.unwrap())]);
    network.nodes[MOON].refusals.clear();
    for _ in 0..3 {
        network.inject(MOON, from, request.clone());
    }
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.nodes[MOON].refusals, [Refusal::Replayed; 3]);
    assert_eq!(knocks(&mut network), []);
}

/// A client that its moon sees by both families, and where it is by IPv6.
struct Dual {
    network: Network,
    server: Arc<RelayServer>,
    client: SocketAddr,
    moon: SocketAddr,
}

impl Dual {
    fn new() -> Self {
        let (mut network, server) = client_and_moon(8);
        // By IPv6 nothing arrives but what is carried here.
        let [client, moon] =
            [1, 2].map(|last| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 4193)));
        let known = vec![network.nodes[MOON].endpoint, moon];
        network.introduce(CLIENT, MOON, known);
        Self {
            network,
            server,
            client,
            moon,
        }
    }

    /// The seconds, from the first on, in which the moon is asked by IPv6 around one renewal, if it answers the one with
    /// this number.
    fn renew(&mut self, answered: Option<usize>) -> Vec<u64> {
        let mut asked = Vec::new();
        // The next renewal is 20 s after the one before.
        while asked.first().is_none_or(|first| {
            self.network.now.instant.saturating_since(*first) < Duration::from_secs(19)
        }) {
            self.network.run_for(Duration::from_millis(250));
            for (_, transmit) in self.network.trace.replace(Vec::new()).unwrap() {
                let asks = ReflectRequest::parse(&transmit.data).is_some();
                if !asks || transmit.to != Remote::Udp(self.moon) {
                    continue;
                }
                let now = self.network.now.instant;
                if answered == Some(asked.len()) {
                    let from = Remote::Udp(self.client);
                    let answer = self.server.reflect(from, &transmit.data, now).unwrap();
                    self.network.inject(CLIENT, self.moon, answer.to_vec());
                }
                asked.push(now);
            }
        }
        let after = asked.iter().map(|at| at.saturating_since(asked[0]));
        after.map(|after| after.as_secs()).collect()
    }

    /// Where the moon sees the client by IPv6, as the client knows.
    fn observed(&self) -> Option<SocketAddr> {
        let [_, observed] = self.network.nodes[CLIENT].engine.moon_views()[0].observed;
        observed
    }
}

#[test]
fn a_reflection_that_does_not_come_is_asked_for_three_more_times() {
    let seconds = [0, 1, 3, 7];
    let mut dual = Dual::new();
    dual.renew(Some(0));
    for answered in 0..seconds.len() {
        assert_eq!(dual.renew(Some(answered)), seconds[..=answered]);
        assert_eq!(dual.observed(), Some(dual.client));
    }
    assert_eq!(dual.renew(None), seconds);
}

#[test]
fn a_moon_that_never_saw_this_node_by_a_family_is_asked_there_once() {
    let mut dual = Dual::new();
    for _ in 0..3 {
        assert_eq!(dual.renew(None), [0]);
    }
    assert_eq!(dual.observed(), None);
}

/// What a moon of a release without reflections and knocks grants: without its last two bytes.
fn old_grant(id: u64, observed: SocketAddr) -> Vec<u8> {
    let grant = TunnelMessage::RelayGrant {
        id,
        token: id,
        observed: Some(observed),
        lasts_seconds: 0,
    };
    let mut packet = tunnel::emit(grant, Network::agent_address());
    assert_eq!(packet.split_off(packet.len() - 2), [0, 0]);
    // The length stands in both headers and counts in the checksum twice.
    let checksum = u16::from_be_bytes([packet[46], packet[47]]);
    let (sum, carried) = checksum.overflowing_add(4);
    let sum = sum + u16::from(carried);
    packet[46..48].copy_from_slice(&sum.to_be_bytes());
    for at in [4, 44] {
        let length = u16::from_be_bytes([packet[at], packet[at + 1]]) - 2;
        packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
    assert!(tunnel::parse(&packet, Network::agent_address()).is_ok());
    packet
}

#[test]
fn a_moon_of_an_earlier_release_is_asked_every_twenty_seconds_and_nothing_else() {
    let mut network = Network::new(7, 2);
    let moon = network.key(MOON);
    let now = network.now;
    network.nodes[CLIENT].engine.set_moons(&[moon], now);
    network.trace = Some(Vec::new());
    // What is on the way is carried by hand, so that this test answers for the moon.
    network.set_connected(MOON, false);
    network.set_connected(CLIENT, false);
    network.tell_endpoint(CLIENT, MOON);
    let [client_at, moon_at] = [CLIENT, MOON].map(|i| network.nodes[i].endpoint);
    let mut asked = Vec::new();
    for _ in 0..60 * 60 * 4 {
        for (from, transmit) in network.trace.replace(Vec::new()).unwrap() {
            let mut data = transmit.data;
            if from == moon_at {
                network.inject(CLIENT, from, data);
                continue;
            }
            assert!(data[0] <= 4, "{data:x?}: no message of WireGuard");
            let now = network.now;
            let forwarding = network.nodes[MOON].forwarding.clone();
            let original = data.clone();
            match forwarding.open(Remote::Udp(from), &mut data, now.instant) {
                Opened::Agent { peer, via, packet } => {
                    let message = tunnel::parse(packet, Network::agent_address());
                    if let Ok(TunnelMessage::RelayRequest { id, .. }) = message {
                        asked.push(now.instant);
                        // Its first packet is what confirms the session to the moon.
                        network.tell_endpoint(MOON, CLIENT);
                        say(&mut network, MOON, &old_grant(id, client_at));
                        continue;
                    }
                    assert!(
                        !matches!(message, Ok(TunnelMessage::KnockRequest { .. })),
                        "{message:?}"
                    );
                    let engine = &mut network.nodes[MOON].engine;
                    engine.handle_agent_packet(&peer, via, packet, now);
                    network.tell_endpoint(MOON, CLIENT);
                }
                Opened::ForEngine => network.inject(MOON, from, original),
                Opened::Packet { .. }
                | Opened::Keepalive { .. }
                | Opened::Denied { .. }
                | Opened::Stray
                | Opened::Refused(_) => {}
            }
        }
        network.run_for(Duration::from_millis(250));
    }
    assert!(asked.len() >= 3_600 / 20, "{} requests", asked.len());
    // The token counts for 60 s there.
    let gaps = asked
        .windows(2)
        .map(|pair| pair[1].saturating_since(pair[0]));
    let longest = gaps.max().unwrap();
    let usual = Duration::from_secs(20);
    assert!(
        (usual..=usual + Duration::from_secs(1)).contains(&longest),
        "{longest:?}"
    );
    let engine = &network.nodes[CLIENT].engine;
    let view = &engine.moon_views()[0];
    assert!(view.token.is_some() && !view.reflects);
    let keeping = engine.keeping(false);
    assert_eq!((keeping.seen, keeping.interval), (None, usual));
    let events = network.take_events(CLIENT);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Measure { .. })),
        "nothing is measured"
    );
}
