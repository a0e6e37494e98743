use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mesh_core::{
    Event, Handover, Now, Protocol, Remote, TakeOverError, TakenOver, Transmit, WallTime,
};
use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{
    tunnel::{self, TunnelMessage},
    wireguard::{DATA_HEADER_BYTES, DataHeader, data_message_bytes},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::{Node, node::NETWORK, packets};

/// What every payload begins with, so that it is recognised wherever it must not be.
const MARKER: &[u8; 16] = b"plaintext-marker";

/// How good the network is.
#[derive(Clone, Copy, Debug)]
pub struct LinkQuality {
    /// Time on the way, at least.
    pub latency: Duration,
    /// Added to it at random, up to this: more than the time between two datagrams reorders them.
    pub jitter: Duration,
    /// Datagrams lost, of a hundred.
    pub loss_percent: u32,
    /// Datagrams that arrive twice, of a hundred.
    pub duplicate_percent: u32,
}

/// What a machine has while one process of its has ended and the next has not begun: what the old one
/// handed over, and the kernel's queues.
struct Between {
    handover: Vec<u8>,
    tun: Vec<Vec<u8>>,
    socket: Vec<(SocketAddr, Vec<u8>)>,
}

impl Default for LinkQuality {
    /// 10 ms, and nothing goes wrong.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss_percent: 0,
            duplicate_percent: 0,
        }
    }
}

/// Machines on a network, at one moment of virtual time.
pub struct Network {
    /// The machines.
    pub nodes: Vec<Node>,
    /// How good the network is from here on.
    pub quality: LinkQuality,
    /// What both clocks of the network show.
    pub now: Now,
    /// Datagrams handed to the network so far.
    pub datagrams: u64,
    /// All datagrams ever sent, with their source and destination, if a test wants to see them.
    pub trace: Option<Vec<(SocketAddr, Transmit)>>,
    /// Datagrams on their way, by arrival and number.
    flying: BTreeMap<(Instant, u64), (SocketAddr, Transmit)>,
    /// Machines without a network.
    cut: BTreeSet<usize>,
    /// Machines between two processes.
    between: BTreeMap<usize, Between>,
    /// What every machine is to the others.
    speaks_mesh: bool,
    protocol: Protocol,
    /// Every number under which a machine sealed a packet, with the index of the session at its peer.
    sealed: BTreeSet<(SocketAddr, u32, u64)>,
    rng: ChaCha20Rng,
    payloads: u64,
    copies: u64,
}

impl Network {
    /// `count` machines that are all peers of each other and run our agent, without known endpoints.
    pub fn new(seed: u8, count: u8) -> Self {
        Self::with_peers(seed, count, true, Protocol::Wireguard)
    }

    /// The same with a choice of what the peers are to each other.
    pub fn with_peers(seed: u8, count: u8, speaks_mesh: bool, protocol: Protocol) -> Self {
        let now = Now {
            instant: Instant::from_micros(1_000_000),
            wall: WallTime::from_millis(1_700_000_000_000),
        };
        let nodes: Vec<Node> = (1..=count).map(|n| Node::new(seed, n, now)).collect();
        let mut network = Self {
            nodes,
            quality: LinkQuality::default(),
            now,
            datagrams: 0,
            trace: None,
            flying: BTreeMap::new(),
            cut: BTreeSet::new(),
            between: BTreeMap::new(),
            speaks_mesh,
            protocol,
            sealed: BTreeSet::new(),
            rng: ChaCha20Rng::from_seed([seed; 32]),
            payloads: 0,
            copies: 0,
        };
        for i in 0..network.nodes.len() {
            network.introduce_all_to(i, speaks_mesh, protocol);
        }
        network
    }

    /// Makes all other machines peers of machine `i`.
    pub fn introduce_all_to(&mut self, i: usize, speaks_mesh: bool, protocol: Protocol) {
        let configs = self
            .nodes
            .iter()
            .map(|node| node.as_peer(speaks_mesh, protocol))
            .collect();
        let now = self.now;
        let node = &mut self.nodes[i];
        node.engine.set_peers(configs, node.clock(now));
        self.drain(i);
    }

    /// Tells machine `i` where machine `j` is.
    pub fn tell_endpoint(&mut self, i: usize, j: usize) {
        self.introduce(i, j, vec![self.nodes[j].endpoint]);
    }

    /// Tells machine `i`, as a controller does, where machine `j` is said to be.
    pub fn introduce(&mut self, i: usize, j: usize, endpoints: Vec<SocketAddr>) {
        let (key, now) = (self.nodes[j].key, self.now);
        let node = &mut self.nodes[i];
        node.engine.set_candidates(&key, endpoints, node.clock(now));
        self.drain(i);
    }

    /// Two machines that know where the other is.
    pub fn pair(seed: u8) -> Self {
        Self::pair_with(seed, true, Protocol::Wireguard)
    }

    /// The same with a choice of what they are to each other.
    pub fn pair_with(seed: u8, speaks_mesh: bool, protocol: Protocol) -> Self {
        let mut network = Self::with_peers(seed, 2, speaks_mesh, protocol);
        network.tell_endpoint(0, 1);
        network.tell_endpoint(1, 0);
        network
    }

    /// Sends a packet with a payload of its own from machine `i` to machine `j`, and returns the whole
    /// packet, as it should arrive.
    pub fn send(&mut self, i: usize, j: usize) -> Vec<u8> {
        self.payloads += 1;
        let payload = [MARKER.as_slice(), &self.payloads.to_be_bytes()].concat();
        let packet = packets::ipv6(self.nodes[i].address, self.nodes[j].address, &payload);
        self.send_packet(i, &packet);
        packet
    }

    /// Sends any packet from machine `i`.
    pub fn send_packet(&mut self, i: usize, packet: &[u8]) {
        if let Some(between) = self.between.get_mut(&i) {
            between.tun.push(packet.to_vec());
            return;
        }
        for transmit in self.nodes[i].send(packet, self.now) {
            self.carry(i, transmit);
        }
        self.drain(i);
    }

    /// Probes machine `j` from machine `i`.
    pub fn probe(&mut self, i: usize, j: usize) -> Option<u64> {
        let key = self.nodes[j].key;
        let now = self.now;
        let node = &mut self.nodes[i];
        let id = node.engine.probe(&key, node.clock(now));
        self.drain(i);
        id
    }

    /// Whether a packet came out at machine `j`.
    pub fn has_delivered(&self, j: usize, packet: &[u8]) -> bool {
        self.nodes[j].delivered.iter().any(|d| d.packet == packet)
    }

    /// Sends a packet from `i` to `j`, lets `time` pass, and says whether it arrived.
    pub fn reaches(&mut self, i: usize, j: usize, time: Duration) -> bool {
        let packet = self.send(i, j);
        self.run_for(time);
        self.has_delivered(j, &packet)
    }

    /// Takes machine `i` off the network, or puts it back.
    pub fn set_connected(&mut self, i: usize, connected: bool) {
        if connected {
            self.cut.remove(&i);
        } else {
            self.cut.insert(i);
        }
    }

    /// Has machine `from` say something to machine `to` inside their session, whatever its engine would say.
    pub fn say(&mut self, from: usize, to: usize, message: TunnelMessage) {
        let packet = tunnel::emit(message, Self::agent_address());
        let (own, target) = (self.nodes[from].address, self.nodes[to].address);
        let any = packets::ipv6(own, target, b"any");
        let route = self.nodes[from].forwarding.route(&any).expect("a session");
        let mut frame = vec![0; data_message_bytes(packet.len())];
        frame[DATA_HEADER_BYTES..DATA_HEADER_BYTES + packet.len()].copy_from_slice(&packet);
        let length = route
            .seal(&mut frame, packet.len(), self.now.instant)
            .expect("a session in use");
        frame.truncate(length);
        self.inject(to, self.nodes[from].endpoint, frame);
    }

    /// Puts a datagram into machine `i` at once, as if it came from `from`.
    pub fn inject(&mut self, i: usize, from: SocketAddr, mut datagram: Vec<u8>) {
        if let Some(between) = self.between.get_mut(&i) {
            between.socket.push((from, datagram));
            return;
        }
        let fast = self.rng.gen_bool(0.5);
        self.nodes[i].receive(from.into(), &mut datagram, fast, self.now);
        self.drain(i);
    }

    /// Ends the process of machine `i` in good order and returns what it handed over. Packets and datagrams
    /// wait in the kernel until [`Network::take_over`].
    pub fn hand_over(&mut self, i: usize) -> Vec<u8> {
        let now = self.now;
        let node = &mut self.nodes[i];
        let handover = node.engine.hand_over(node.clock(now)).to_vec();
        // The old process may not seal any more, whatever comes.
        self.send(i, (i + 1) % self.nodes.len());
        assert_eq!(self.nodes[i].engine.poll_transmit(), None);
        assert_eq!(self.nodes[i].engine.poll_timeout(), None);
        let between = Between {
            handover: handover.clone(),
            tun: Vec::new(),
            socket: Vec::new(),
        };
        self.between.insert(i, between);
        handover
    }

    /// Starts the next process of machine `i`, with what the last one handed over.
    ///
    /// # Panics
    ///
    /// If there was no [`Network::hand_over`].
    pub fn take_over(&mut self, i: usize) -> Result<TakenOver, TakeOverError> {
        let handover = &self.between[&i].handover;
        let handover = Handover::parse(handover).expect("as it was written");
        self.take_over_from(i, handover)
    }

    /// As [`Network::take_over`], with another handover than that of the last process.
    ///
    /// # Panics
    ///
    /// If there was no [`Network::hand_over`].
    pub fn take_over_from(
        &mut self,
        i: usize,
        handover: Handover,
    ) -> Result<TakenOver, TakeOverError> {
        let between = self.between.remove(&i).expect("handed over before");
        let (now, speaks_mesh, protocol) = (self.now, self.speaks_mesh, self.protocol);
        self.nodes[i].restart(now);
        self.introduce_all_to(i, speaks_mesh, protocol);
        let node = &mut self.nodes[i];
        let taken = node.engine.take_over(handover, node.clock(now));
        self.drain(i);
        for (from, datagram) in between.socket {
            self.inject(i, from, datagram);
        }
        for packet in between.tun {
            self.send_packet(i, &packet);
        }
        taken
    }

    /// Lets time pass, from one arrival or timer to the next.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now.instant + time;
        loop {
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let timer = self
                .nodes
                .iter()
                .filter_map(|node| node.engine.poll_timeout())
                .min();
            let Some(next) = [arrival, timer].into_iter().flatten().min() else {
                break;
            };
            if next > end {
                break;
            }
            self.advance_to(next);
            self.run_timers();
            self.land_arrivals();
        }
        self.advance_to(end);
    }

    /// Takes the events of machine `i` seen so far.
    pub fn take_events(&mut self, i: usize) -> Vec<Event> {
        self.nodes[i]
            .events
            .drain(..)
            .map(|(_, event)| event)
            .collect()
    }

    /// The key of machine `i`.
    pub fn key(&self, i: usize) -> WireguardPublicKey {
        self.nodes[i].key
    }

    /// The address that the agents use among themselves.
    pub fn agent_address() -> std::net::Ipv6Addr {
        NETWORK.prefix().agent_address()
    }

    /// Whether anything is on its way.
    pub fn is_quiet(&self) -> bool {
        self.flying.is_empty()
    }

    fn advance_to(&mut self, instant: Instant) {
        let passed = instant.saturating_since(self.now.instant);
        let nanos = u64::try_from(passed.as_nanos()).expect("a test is shorter than 500 years");
        self.now = Now {
            instant: self.now.instant.max(instant),
            wall: WallTime::from_nanos(self.now.wall.as_nanos() + nanos),
        };
    }

    fn run_timers(&mut self) {
        for i in 0..self.nodes.len() {
            let due = |node: &Node, now: Now| {
                node.engine
                    .poll_timeout()
                    .is_some_and(|at| at <= now.instant)
            };
            if !due(&self.nodes[i], self.now) {
                continue;
            }
            let now = self.now;
            let node = &mut self.nodes[i];
            node.engine.handle_timeout(node.clock(now));
            self.drain(i);
            assert!(
                !due(&self.nodes[i], self.now),
                "after its timers have run, the next deadline is later"
            );
        }
    }

    fn land_arrivals(&mut self) {
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.now.instant
        {
            let (from, transmit) = entry.remove();
            let Some(i) = self
                .nodes
                .iter()
                .position(|node| Remote::Udp(node.endpoint) == transmit.to)
            else {
                continue;
            };
            if self.cut.contains(&i) {
                continue;
            }
            self.inject(i, from, transmit.data);
        }
    }

    fn drain(&mut self, i: usize) {
        for transmit in self.nodes[i].drain(self.now) {
            self.carry(i, transmit);
        }
    }

    /// Puts a datagram on its way, or not.
    fn carry(&mut self, i: usize, transmit: Transmit) {
        let leaks = transmit
            .data
            .windows(MARKER.len())
            .any(|window| window == MARKER);
        assert!(!leaks, "a payload is readable on the wire");
        self.datagrams += 1;
        let from = self.nodes[i].endpoint;
        if let Some(DataHeader { receiver, counter }) = DataHeader::parse(&transmit.data) {
            let fresh = self.sealed.insert((from, receiver, counter));
            assert!(fresh, "number {counter} was used twice under one key");
        }
        if let Some(trace) = &mut self.trace {
            trace.push((from, transmit.clone()));
        }
        if self.cut.contains(&i) || self.rng.gen_range(0..100) < self.quality.loss_percent {
            return;
        }
        let copies = 1 + u32::from(self.rng.gen_range(0..100) < self.quality.duplicate_percent);
        for _ in 0..copies {
            let jitter = u64::try_from(self.quality.jitter.as_micros()).expect("short");
            let jitter = Duration::from_micros(self.rng.gen_range(0..=jitter));
            let arrival = self.now.instant + self.quality.latency + jitter;
            self.copies += 1;
            self.flying
                .insert((arrival, self.copies), (from, transmit.clone()));
        }
    }
}
