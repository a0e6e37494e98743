use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_core::{
    Cut, Engine, EngineConfig, Event, Forwarding, Now, Opened, PacketRefused, PeerConfig,
    PeerState, Protocol, Received, Refusal, Remote, Route, Stamp, Transmit,
};
use mesh_types::{Instant, NetworkId, WireguardPublicKey};
use mesh_wire::wireguard::{DATA_HEADER_BYTES, data_message_bytes};

use crate::curve;

/// A simulated machine: an engine, its data path, and what came out of them.
pub struct Node {
    /// The engine, free to be used by a test.
    pub engine: Engine,
    /// Its data path.
    pub forwarding: Arc<Forwarding>,
    /// Its public key.
    pub key: WireguardPublicKey,
    /// Where it is on the underlay.
    pub endpoint: SocketAddr,
    /// Its address inside the tunnel.
    pub address: Ipv6Addr,
    /// Packets that would have gone to its TUN, those that came in pieces put together.
    pub delivered: Vec<Delivered>,
    /// When it was told that a packet of its own is too big for its way, and what that carries.
    pub too_big: Vec<(Instant, u16)>,
    /// How many packets it sent in pieces.
    pub cut: u64,
    /// What its engine told.
    pub events: Vec<(Instant, Event)>,
    /// What was refused.
    pub refusals: Vec<Refusal>,
    /// The highest reservation on its disk.
    pub stamps: Stamp,
    /// How often its data path asked for the engine.
    pub attentions: u64,
    /// Whether its disk takes reservations.
    pub disk_works: bool,
    /// How far its wall clock is ahead of the network's, in milliseconds.
    pub clock_ahead_millis: i64,
    pieces: Pieces,
    seed: u8,
    number: u8,
}

/// A packet that came out of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// When.
    pub at: Instant,
    /// From whose session.
    pub peer: WireguardPublicKey,
    /// The IP packet.
    pub packet: Vec<u8>,
}

impl Node {
    /// The machine with this number; its key and addresses follow from it.
    pub fn new(seed: u8, number: u8, now: Now) -> Self {
        let (engine, key) = make_engine(seed, number, Stamp::ZERO, now);
        Self {
            forwarding: engine.forwarding(),
            engine,
            key,
            endpoint: SocketAddr::from(([192, 0, 2, number], 4193)),
            address: address(number),
            delivered: Vec::new(),
            too_big: Vec::new(),
            cut: 0,
            pieces: Pieces::default(),
            events: Vec::new(),
            refusals: Vec::new(),
            stamps: Stamp::ZERO,
            attentions: 0,
            disk_works: true,
            clock_ahead_millis: 0,
            seed,
            number,
        }
    }

    /// This machine as a peer of others.
    pub fn as_peer(&self, speaks_mesh: bool, protocol: Protocol) -> PeerConfig {
        PeerConfig {
            key: self.key,
            speaks_mesh,
            protocol,
            allowed_ips: vec![std::net::IpAddr::V6(self.address).into()],
            access: Arc::default(),
            relay_only: false,
        }
    }

    /// Forgets everything but identity and disk, as a killed process does.
    pub fn restart(&mut self, now: Now) {
        // Another seed: a process never gets the same randomness twice.
        self.seed = self.seed.wrapping_add(101);
        let (engine, _) = make_engine(self.seed, self.number, self.stamps, now);
        self.forwarding = engine.forwarding();
        self.engine = engine;
    }

    /// What this machine's clocks show.
    pub fn clock(&self, now: Now) -> Now {
        let ahead = self.clock_ahead_millis.saturating_mul(1_000_000);
        Now {
            instant: now.instant,
            wall: mesh_core::WallTime::from_nanos(now.wall.as_nanos().saturating_add_signed(ahead)),
        }
    }

    /// The state in which this machine sees a peer.
    ///
    /// # Panics
    ///
    /// If it is none of its peers.
    pub fn state_of(&self, key: &WireguardPublicKey, now: Now) -> PeerState {
        self.engine
            .peer(key, now)
            .expect("a peer of this node")
            .state
    }

    /// Sends an IP packet as the data threads do: on the fast path if there is a way, else through the
    /// engine. Returns what goes to the network at once.
    pub(crate) fn send(&mut self, packet: &[u8], now: Now) -> Vec<Transmit> {
        let now = self.clock(now);
        if let Some(route) = self.forwarding.route(packet) {
            assert!(route.covers(packet));
            let pieces = if route.fits(packet.len()) {
                vec![packet.to_vec()]
            } else {
                self.cut += 1;
                let id = u32::try_from(self.cut).expect("a test is shorter");
                match route.cut(packet, id, now.instant) {
                    Cut::Pieces(pieces) => pieces,
                    Cut::TooBig(mtu) => {
                        self.tell_too_big(packet, mtu, now);
                        return Vec::new();
                    }
                }
            };
            let sealed: Option<Vec<_>> = pieces
                .iter()
                .map(|piece| seal(&route, piece, now.instant))
                .collect();
            if let Some(sealed) = sealed {
                return sealed;
            }
        }
        // A packet that is refused for another reason goes nowhere, as on a real machine.
        if let Err(PacketRefused::TooBig(mtu)) = self.engine.handle_packet(packet, now) {
            self.tell_too_big(packet, mtu, now);
        }
        Vec::new()
    }

    fn tell_too_big(&mut self, packet: &[u8], mtu: u16, now: Now) {
        let answer = mesh_core::too_big(packet, mtu).expect("tests send what may be answered");
        assert_eq!(answer[44..48], u32::from(mtu).to_be_bytes());
        self.too_big.push((now.instant, mtu));
    }

    /// Takes a datagram, on the fast path or through the engine alone. Returns why it was refused, if so.
    pub(crate) fn receive(
        &mut self,
        from: Remote,
        datagram: &mut [u8],
        fast: bool,
        now: Now,
    ) -> Option<Refusal> {
        let clock = self.clock(now);
        if fast {
            match self.forwarding.open(from, datagram, clock.instant) {
                Opened::Packet { peer, packet } => self.deliver(peer, packet, now),
                Opened::Keepalive { .. } => {}
                Opened::Agent { peer, via, packet } => {
                    self.engine.handle_agent_packet(&peer, via, packet, clock);
                }
                Opened::Stray => {
                    self.engine.handle_stray(from, clock);
                    return self.refuse(Refusal::UnknownSession);
                }
                Opened::Denied { .. } => return self.refuse(Refusal::Denied),
                Opened::Refused(refusal) => return self.refuse(refusal),
                Opened::ForEngine => return self.receive(from, datagram, false, now),
            }
            return None;
        }
        match self.engine.handle_datagram(from, datagram, clock) {
            Received::Packet { peer, packet } => self.deliver(peer, packet, now),
            Received::Consumed => {}
            Received::Refused(refusal) => return self.refuse(refusal),
        }
        None
    }

    /// Does what the shell does after every call: looks at the attention flag, stores reservations,
    /// takes events. Returns what goes to the network.
    pub(crate) fn drain(&mut self, now: Now) -> Vec<Transmit> {
        let clock = self.clock(now);
        if self.forwarding.needs_attention() {
            self.attentions += 1;
            self.engine.handle_timeout(clock);
        }
        while let Some(event) = self.engine.poll_event() {
            if let Event::ReserveStamps { until } = event
                && self.disk_works
            {
                self.stamps = self.stamps.max(until);
                self.engine.stamps_reserved(until, clock);
            }
            self.events.push((now.instant, event));
        }
        let mut transmits = Vec::new();
        // As where the system cannot limit how far they go.
        while let Some(opener) = self.engine.poll_opener() {
            transmits.push(opener);
        }
        while let Some(transmit) = self.engine.poll_transmit() {
            transmits.push(transmit);
        }
        transmits
    }

    fn refuse(&mut self, refusal: Refusal) -> Option<Refusal> {
        self.refusals.push(refusal);
        Some(refusal)
    }

    fn deliver(&mut self, peer: WireguardPublicKey, packet: &[u8], now: Now) {
        if let Some(packet) = self.pieces.take(packet) {
            self.delivered.push(Delivered {
                at: now.instant,
                peer,
                packet,
            });
        }
    }
}

/// Seals a packet; `None` if the session is over.
fn seal(route: &Route, packet: &[u8], now: Instant) -> Option<Transmit> {
    let mut frame = vec![0xa5; data_message_bytes(packet.len())];
    frame[DATA_HEADER_BYTES..DATA_HEADER_BYTES + packet.len()].copy_from_slice(packet);
    let length = route.seal(&mut frame, packet.len(), now).ok()?;
    frame.truncate(length);
    if let Some(header) = route.relay_header() {
        frame.splice(..0, header.iter().copied());
    }
    Some(Transmit {
        to: route.remote(),
        data: frame,
    })
}

/// Fragments of IPv6 packets, by source and identification, that wait for the rest; lost ones stay.
#[derive(Default)]
struct Pieces(BTreeMap<Vec<u8>, Vec<Vec<u8>>>);

impl Pieces {
    /// Takes a packet; gives it back if it is whole, or with the last of its fragments.
    fn take(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        const FRAGMENT: u8 = 44;
        if packet[0] >> 4 != 6 || packet[6] != FRAGMENT {
            return Some(packet.to_vec());
        }
        let key = [&packet[8..24], &packet[44..48]].concat();
        let pieces = self.0.entry(key.clone()).or_default();
        pieces.push(packet.to_vec());
        let place = |piece: &Vec<u8>| u16::from_be_bytes([piece[42], piece[43]]);
        pieces.sort_by_key(place);
        pieces.dedup_by_key(|piece| place(piece));
        let mut whole = pieces[0][..40].to_vec();
        whole[6] = pieces[0][40];
        for piece in pieces.iter() {
            if usize::from(place(piece) & 0xfff8) != whole.len() - 40 {
                return None;
            }
            whole.extend(&piece[48..]);
        }
        if place(pieces.last()?) & 1 == 1 {
            return None;
        }
        let payload = u16::try_from(whole.len() - 40).expect("a packet's length");
        whole[4..6].copy_from_slice(&payload.to_be_bytes());
        self.0.remove(&key);
        Some(whole)
    }
}

/// The identity of the machine with this number.
pub(crate) fn identity(number: u8) -> mesh_types::IdentitySeed {
    mesh_types::IdentitySeed::from_bytes([number; 32])
}

/// The network id of every simulated network.
pub(crate) const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);

fn address(number: u8) -> Ipv6Addr {
    let mut octets = NETWORK.prefix().net().network().octets();
    octets[15] = number;
    Ipv6Addr::from(octets)
}

fn make_engine(seed: u8, number: u8, floor: Stamp, now: Now) -> (Engine, WireguardPublicKey) {
    let mut seed_bytes = std::array::from_fn(|i| seed ^ u8::try_from(i).expect("32 bytes"));
    // Two machines never get the same randomness either: session indices tell them apart.
    seed_bytes[0] = number;
    let identity = identity(number);
    let key = identity.public().wireguard();
    let engine = Engine::new(
        EngineConfig {
            static_secret: identity.static_secret(),
            agent_address: NETWORK.prefix().agent_address(),
            seed: seed_bytes,
            stamp_floor: floor,
            large_packets: true,
        },
        now,
    );
    (engine.with_curve(curve::REMEMBERED), key)
}
