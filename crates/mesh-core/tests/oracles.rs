//! The engine against other implementations: `snow` judges the handshake of both protocols, and
//! boringtun is a live WireGuard peer on a clock that the test moves.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a step that fails fails the test"
)]

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{Mac, consts::U16},
};
use boringtun::noise::{Tunn, TunnResult};
use mesh_core::{Engine, Event, Now, PeerConfig, Protocol, Received};
use mesh_testkit::{Node, packets};
use mesh_types::IdentitySeed;
use mesh_wire::wireguard::{
    DATA_HEADER_BYTES, DataHeader, INITIATION_BYTES, Initiation, Message, RESPONSE_BYTES, Response,
};
use mock_instant::MockClock;
use snow::{Builder, HandshakeState, StatelessTransportState};
use x25519_dalek::PublicKey;

const PEER: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::new(203, 0, 113, 1),
    51820,
));

fn start() -> Now {
    Now {
        instant: mesh_types::Instant::from_micros(1_000_000),
        wall: mesh_core::WallTime::from_millis(1_700_000_000_000),
    }
}

fn later(now: Now, time: Duration) -> Now {
    let nanos = u64::try_from(time.as_nanos()).unwrap();
    Now {
        instant: now.instant + time,
        wall: mesh_core::WallTime::from_nanos(now.wall.as_nanos() + nanos),
    }
}

/// An engine with one peer, whose identity is made of sevens, and that peer's address in the tunnel.
fn node_with_peer(speaks_mesh: bool, protocol: Protocol) -> (Node, IdentitySeed) {
    let mut node = Node::new(1, 1, start());
    let peer = IdentitySeed::from_bytes([77; 32]);
    let config = PeerConfig {
        key: peer.public().wireguard(),
        speaks_mesh,
        protocol,
        allowed_ips: vec![std::net::IpAddr::V6(peer_address()).into()],
        access: std::sync::Arc::default(),
        relay_only: false,
    };
    node.engine.set_peers(vec![config], start());
    store_stamps(&mut node.engine, start());
    (node, peer)
}

fn peer_address() -> std::net::Ipv6Addr {
    "fd00::77".parse().unwrap()
}

fn store_stamps(engine: &mut Engine, now: Now) {
    while let Some(event) = engine.poll_event() {
        if let Event::ReserveStamps { until } = event {
            engine.stamps_reserved(until, now);
        }
    }
}

fn sent(engine: &mut Engine) -> Vec<u8> {
    let transmit = engine.poll_transmit().expect("a datagram");
    assert_eq!(transmit.to, PEER.into());
    assert_eq!(engine.poll_transmit(), None);
    transmit.data
}

mod snow_oracle {
    use super::*;

    fn builder<'a>(protocol: Protocol, private: &'a [u8; 32]) -> Builder<'a> {
        Builder::new(protocol.name().parse().unwrap())
            .prologue(protocol.prologue().as_bytes())
            .unwrap()
            .psk(2, &[0; 32])
            .unwrap()
            .local_private_key(private)
            .unwrap()
    }

    fn mac1(receiver: &[u8; 32], message: &[u8]) -> [u8; 16] {
        let key = Blake2s256::new()
            .chain_update(b"mac1----")
            .chain_update(receiver)
            .finalize();
        let mut mac = <Blake2sMac<U16> as Mac>::new_from_slice(&key).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Data both ways between the engine and snow's transport, whose indices are given.
    fn exchange(node: &mut Node, oracle: &StatelessTransportState, engine_index: u32, first: u64) {
        let own = node.address;
        let outgoing = packets::ipv6(own, peer_address(), b"to the oracle");
        node.engine.handle_packet(&outgoing, start()).unwrap();
        let datagram = sent(&mut node.engine);
        let header = DataHeader::parse(&datagram).unwrap();
        let mut plain = vec![0; datagram.len()];
        let length = oracle
            .read_message(header.counter, &datagram[DATA_HEADER_BYTES..], &mut plain)
            .unwrap();
        assert_eq!(plain[..outgoing.len()], outgoing);
        assert_eq!(length, outgoing.len().next_multiple_of(16));

        let mut incoming = packets::ipv6(peer_address(), own, b"from the oracle");
        let unpadded = incoming.clone();
        incoming.resize(incoming.len().next_multiple_of(16), 0);
        let mut datagram = DataHeader {
            receiver: engine_index,
            counter: first,
        }
        .emit()
        .to_vec();
        datagram.resize(DATA_HEADER_BYTES + incoming.len() + 16, 0);
        oracle
            .write_message(first, &incoming, &mut datagram[DATA_HEADER_BYTES..])
            .unwrap();
        match node
            .engine
            .handle_datagram(PEER.into(), &mut datagram, start())
        {
            Received::Packet { packet, .. } => assert_eq!(packet, unpadded),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn snow_answers_our_initiation_in_both_protocols() {
        for protocol in [Protocol::Wireguard, Protocol::MeshAes] {
            let (mut node, peer) = node_with_peer(true, protocol);
            let key = peer.public().wireguard();
            node.engine.set_candidates(&key, vec![PEER], start());
            let held = packets::ipv6(node.address, peer_address(), b"held back");
            node.engine.handle_packet(&held, start()).unwrap();
            let bytes: [u8; INITIATION_BYTES] = sent(&mut node.engine).try_into().unwrap();
            let initiation = Initiation::parse(&bytes);
            assert_eq!(initiation.mac1, mac1(key.as_bytes(), &bytes[..116]));
            assert_eq!(initiation.mac2, [0; 16]);

            let private = peer.static_secret().to_bytes();
            let mut oracle = builder(protocol, &private).build_responder().unwrap();
            let mut stamp = [0; 64];
            let length = oracle.read_message(&bytes[8..116], &mut stamp).unwrap();
            assert_eq!(length, 12);
            assert_eq!(
                oracle.get_remote_static(),
                Some(node.key.as_bytes().as_slice())
            );
            let seconds = u64::from_be_bytes(stamp[..8].try_into().unwrap());
            assert_eq!(seconds, (1 << 62) + 10 + 1_700_000_000 - 1, "cut to 17 ms");

            let response = answer(&mut oracle, &initiation, node.key.as_bytes());
            let mut datagram = response.to_vec();
            let received = node
                .engine
                .handle_datagram(PEER.into(), &mut datagram, start());
            assert_eq!(received, Received::Consumed);
            let oracle = oracle.into_stateless_transport_mode().unwrap();
            let datagram = sent(&mut node.engine);
            let header = DataHeader::parse(&datagram).unwrap();
            assert_eq!((header.receiver, header.counter), (0x5555, 0));
            let mut plain = vec![0; datagram.len()];
            oracle
                .read_message(0, &datagram[DATA_HEADER_BYTES..], &mut plain)
                .unwrap();
            assert_eq!(plain[..held.len()], held);
            exchange(&mut node, &oracle, initiation.sender, 0);
        }
    }

    fn answer(
        oracle: &mut HandshakeState,
        initiation: &Initiation,
        initiator: &[u8; 32],
    ) -> [u8; RESPONSE_BYTES] {
        let mut noise = [0; 64];
        let length = oracle.write_message(&[], &mut noise).unwrap();
        assert_eq!(length, 48);
        let mut response = Response {
            sender: 0x5555,
            receiver: initiation.sender,
            ephemeral: noise[..32].try_into().unwrap(),
            sealed_nothing: noise[32..48].try_into().unwrap(),
            mac1: [0; 16],
            mac2: [0; 16],
        };
        response.mac1 = mac1(initiator, &response.emit()[..60]);
        response.emit()
    }

    #[test]
    fn we_answer_snows_initiation_in_both_protocols() {
        for protocol in [Protocol::Wireguard, Protocol::MeshAes] {
            // What we would begin with has no say in what we answer.
            let (mut node, peer) = node_with_peer(true, Protocol::Wireguard);
            let private = peer.static_secret().to_bytes();
            let mut oracle = builder(protocol, &private)
                .remote_public_key(node.key.as_bytes())
                .unwrap()
                .build_initiator()
                .unwrap();
            let mut noise = [0; 200];
            let length = oracle
                .write_message(&[0x40, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], &mut noise)
                .unwrap();
            assert_eq!(length, 108);
            let mut initiation = Initiation {
                sender: 0x6666,
                ephemeral: noise[..32].try_into().unwrap(),
                sealed_static: noise[32..80].try_into().unwrap(),
                sealed_stamp: noise[80..108].try_into().unwrap(),
                mac1: [0; 16],
                mac2: [0; 16],
            };
            initiation.mac1 = mac1(node.key.as_bytes(), &initiation.emit()[..116]);
            let mut datagram = initiation.emit();
            let received = node
                .engine
                .handle_datagram(PEER.into(), &mut datagram, start());
            assert_eq!(received, Received::Consumed);
            let bytes = sent(&mut node.engine);
            let Ok(Message::Response(response)) = Message::parse(&bytes) else {
                panic!("a response is expected");
            };
            let response = Response::parse(response);
            assert_eq!(response.receiver, 0x6666);
            assert_eq!(
                response.mac1,
                mac1(peer.public().wireguard().as_bytes(), &bytes[..60])
            );
            oracle.read_message(&bytes[12..60], &mut noise).unwrap();
            let oracle = oracle.into_stateless_transport_mode().unwrap();
            // Nothing is sent on the session before its initiator has used it.
            let mut keepalive = DataHeader {
                receiver: response.sender,
                counter: 0,
            }
            .emit()
            .to_vec();
            keepalive.resize(32, 0);
            oracle
                .write_message(0, &[], &mut keepalive[DATA_HEADER_BYTES..])
                .unwrap();
            let received = node
                .engine
                .handle_datagram(PEER.into(), &mut keepalive, start());
            assert_eq!(received, Received::Consumed);
            exchange(&mut node, &oracle, response.sender, 1);
        }
    }
}

mod boringtun_peer {
    use super::*;

    /// The engine and boringtun joined by a perfect link, one tenth of a second after the other.
    struct Pair {
        node: Node,
        tunn: Tunn,
        now: Now,
        /// Packets that came out of boringtun.
        at_boringtun: Vec<Vec<u8>>,
        at_node: Vec<Vec<u8>>,
        /// Handshake initiations seen, by their sender.
        initiations_ours: usize,
        initiations_theirs: usize,
    }

    impl Pair {
        fn new(we_know_where: bool) -> Self {
            let (mut node, peer) = node_with_peer(false, Protocol::Wireguard);
            let tunn = Tunn::new(
                peer.static_secret(),
                PublicKey::from(*node.key.as_bytes()),
                None,
                None,
                9,
                None,
            );
            if we_know_where {
                let key = peer.public().wireguard();
                node.engine.set_candidates(&key, vec![PEER], start());
            }
            Self {
                node,
                tunn,
                now: start(),
                at_boringtun: Vec::new(),
                at_node: Vec::new(),
                initiations_ours: 0,
                initiations_theirs: 0,
            }
        }

        /// Sends a packet from here to there and says whether it came out unchanged at once.
        fn we_send(&mut self, payload: &[u8]) -> bool {
            let packet = packets::ipv6(self.node.address, peer_address(), payload);
            self.node.engine.handle_packet(&packet, self.now).unwrap();
            self.settle();
            self.at_boringtun.contains(&packet)
        }

        fn they_send(&mut self, payload: &[u8]) -> bool {
            let packet = packets::ipv6(peer_address(), self.node.address, payload);
            let mut room = [0; 2048];
            let first = match self.tunn.encapsulate(&packet, &mut room) {
                TunnResult::WriteToNetwork(datagram) => Some(datagram.to_vec()),
                _ => None,
            };
            if let Some(datagram) = first {
                self.deliver_to_us(datagram);
            }
            self.settle();
            self.at_node.contains(&packet)
        }

        fn pass(&mut self, time: Duration) {
            let tenth = Duration::from_millis(100);
            for _ in 0..time.as_millis() / tenth.as_millis() {
                self.now = later(self.now, tenth);
                MockClock::advance(tenth);
                if self
                    .node
                    .engine
                    .poll_timeout()
                    .is_some_and(|at| at <= self.now.instant)
                {
                    self.node.engine.handle_timeout(self.now);
                }
                let mut room = [0; 2048];
                let theirs = match self.tunn.update_timers(&mut room) {
                    TunnResult::WriteToNetwork(datagram) => Some(datagram.to_vec()),
                    _ => None,
                };
                if let Some(datagram) = theirs {
                    self.deliver_to_us(datagram);
                }
                self.settle();
            }
        }

        fn settle(&mut self) {
            if self.node.forwarding.needs_attention() {
                self.node.engine.handle_timeout(self.now);
            }
            store_stamps(&mut self.node.engine, self.now);
            while let Some(transmit) = self.node.engine.poll_transmit() {
                self.deliver_to_them(transmit.data);
            }
        }

        fn deliver_to_us(&mut self, mut datagram: Vec<u8>) {
            if let Ok(Message::Initiation(_)) = Message::parse(&datagram) {
                self.initiations_theirs += 1;
            }
            if let Received::Packet { packet, .. } =
                self.node
                    .engine
                    .handle_datagram(PEER.into(), &mut datagram, self.now)
            {
                let packet: &[u8] = packet;
                self.at_node.push(packet.to_vec());
            }
        }

        fn deliver_to_them(&mut self, datagram: Vec<u8>) {
            if let Ok(Message::Initiation(_)) = Message::parse(&datagram) {
                self.initiations_ours += 1;
            }
            let mut answers = VecDeque::new();
            let mut input = datagram;
            loop {
                let mut room = [0; 2048];
                match self.tunn.decapsulate(None, &input, &mut room) {
                    TunnResult::WriteToNetwork(datagram) => answers.push_back(datagram.to_vec()),
                    TunnResult::WriteToTunnelV6(packet, _) => {
                        self.at_boringtun.push(packet.to_vec());
                        break;
                    }
                    TunnResult::Done => break,
                    other => panic!("boringtun refused a datagram: {other:?}"),
                }
                // boringtun gives out what it held back when it is asked again with nothing.
                input = Vec::new();
            }
            for answer in answers {
                self.deliver_to_us(answer);
            }
        }
    }

    #[test]
    fn boringtun_takes_our_handshake_and_data_flows_both_ways() {
        let mut pair = Pair::new(true);
        assert!(pair.we_send(b"first, held back meanwhile"));
        assert!(pair.they_send(b"answer"));
        assert!(pair.we_send(b"third"));
        assert_eq!((pair.initiations_ours, pair.initiations_theirs), (1, 0));
    }

    #[test]
    fn we_take_boringtuns_handshake_without_knowing_where_it_is() {
        let mut pair = Pair::new(false);
        assert!(pair.they_send(b"first"));
        assert!(pair.we_send(b"answer"));
        assert!(pair.they_send(b"third"));
        assert_eq!((pair.initiations_ours, pair.initiations_theirs), (0, 1));
    }

    #[test]
    fn sessions_with_boringtun_are_renewed_by_whichever_side_asked() {
        for ours in [true, false] {
            let mut pair = Pair::new(ours);
            for second in 0..500_u32 {
                let payload = second.to_be_bytes();
                if ours {
                    assert!(pair.we_send(&payload), "second {second}");
                    assert!(pair.they_send(&payload), "second {second}");
                } else {
                    assert!(pair.they_send(&payload), "second {second}");
                    assert!(pair.we_send(&payload), "second {second}");
                }
                pair.pass(Duration::from_secs(1));
            }
            let asked = if ours {
                pair.initiations_ours
            } else {
                pair.initiations_theirs
            };
            assert!((4..=6).contains(&asked), "{asked} handshakes in 500 s");
        }
    }

    #[test]
    fn boringtun_and_we_keep_a_quiet_receiver_alive() {
        let mut pair = Pair::new(true);
        for second in 0..60_u32 {
            assert!(pair.we_send(&second.to_be_bytes()));
            pair.pass(Duration::from_secs(1));
        }
        for second in 100..150_u32 {
            assert!(pair.they_send(&second.to_be_bytes()));
            pair.pass(Duration::from_secs(1));
        }
        assert_eq!((pair.initiations_ours, pair.initiations_theirs), (1, 0));
    }

    #[test]
    fn boringtun_restarted_is_found_again() {
        let mut pair = Pair::new(true);
        assert!(pair.we_send(b"before"));
        let fresh = Pair::new(true);
        pair.tunn = fresh.tunn;
        // Refused by the new process, which does not know the session.
        let packet = packets::ipv6(pair.node.address, peer_address(), b"lost");
        pair.node.engine.handle_packet(&packet, pair.now).unwrap();
        while pair.node.engine.poll_transmit().is_some() {}
        pair.pass(Duration::from_secs(16));
        assert!(pair.we_send(b"after"));
    }
}
