//! What an introduction costs the engine: true ones, repeated ones, and such that are none.
//!
//! ```text
//! cargo run --release --package mesh-benches -- introductions
//! ```

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant as Clock},
};

use anyhow::Context as _;
use mesh_core::{
    Engine, EngineConfig, Event, Now, PeerConfig, Protocol, Received, Remote, Stamp, WallTime,
};
use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{
    tunnel::{self, TunnelMessage},
    wireguard::{DATA_HEADER_BYTES, INITIATION_BYTES, data_message_bytes},
};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use x25519_dalek::StaticSecret;

/// Introductions of a round, and of a second in the last column: what a flood is taken to be.
const INTRODUCTIONS: u32 = 100_000;
const ROUNDS: usize = 5;

/// Endpoints in one: as many as are taken.
const ENDPOINTS: u32 = 16;

/// The time between two.
const EACH: Duration = Duration::from_micros(10);

const AGENTS: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// A machine that is told where another is, and that other one, with a session.
struct Pair {
    ends: [End; 2],
    now: Now,
}

struct End {
    engine: Engine,
    key: WireguardPublicKey,
    at: SocketAddr,
}

pub(crate) fn run() -> anyhow::Result<()> {
    println!(
        "ns an introduction of {ENDPOINTS} endpoints, and of a core for {INTRODUCTIONS} a second:"
    );
    let print = |what: &str, nanos: u128| {
        let percent = nanos * u128::from(INTRODUCTIONS) / 10_000_000;
        println!("{nanos:>7} ns {percent:>4} %  {what}");
    };
    let told = |pair: &mut Pair, number| {
        let key = pair.ends[1].key;
        let now = pair.now;
        let told = &mut pair.ends[0].engine;
        told.set_candidates(&key, endpoints(number), now);
        told.probe(&key, now);
    };
    print("by a controller, other endpoints each time", measure(told)?);
    let repeated = |pair: &mut Pair, _| told(pair, 0);
    print("by a controller, the same again", measure(repeated)?);
    print(
        "by the peer in its session, other endpoints each time",
        measure_said(|number| number, as_it_is)?,
    );
    print(
        "by the peer in its session, the same again",
        measure_said(|_| 0, as_it_is)?,
    );
    let forge = |_: u32, datagram: &mut Vec<u8>| {
        if let Some(last) = datagram.last_mut() {
            *last ^= 1;
        }
    };
    print(
        "forged, with the index of the session",
        measure_said(|number| number, forge)?,
    );
    let mut first = None;
    let replay = move |_: u32, datagram: &mut Vec<u8>| {
        first
            .get_or_insert_with(|| datagram.clone())
            .clone_into(datagram);
    };
    print(
        "one of the peer's, replayed",
        measure_said(|number| number, replay)?,
    );
    let handshake = |_: u32, datagram: &mut Vec<u8>| {
        datagram.resize(INITIATION_BYTES, 7);
        datagram.truncate(INITIATION_BYTES);
        datagram[..4].copy_from_slice(&[1, 0, 0, 0]);
    };
    print(
        "a handshake of a stranger's",
        measure_said(|number| number, handshake)?,
    );
    Ok(())
}

fn as_it_is(_: u32, _: &mut Vec<u8>) {}

/// Nanoseconds an introduction, the engine's own work after each included.
fn measure(mut introduce: impl FnMut(&mut Pair, u32)) -> anyhow::Result<u128> {
    let round = || {
        let mut pair = Pair::new()?;
        let begin = Clock::now();
        for number in 0..INTRODUCTIONS {
            introduce(&mut pair, number);
            pair.run_timers();
        }
        Ok(begin.elapsed().as_nanos() / u128::from(INTRODUCTIONS))
    };
    median(round)
}

/// The same for datagrams that the peer, or somebody in its name, sends: of which number each is, and what
/// somebody changes on the way. Making them is not counted.
fn measure_said(
    number_of: impl Fn(u32) -> u32,
    mut change: impl FnMut(u32, &mut Vec<u8>),
) -> anyhow::Result<u128> {
    let round = || {
        let mut pair = Pair::new()?;
        let mut datagrams = Vec::new();
        for number in 0..INTRODUCTIONS {
            let mut datagram = pair.said(number_of(number))?;
            change(number, &mut datagram);
            datagrams.push(datagram);
        }
        let from = Remote::Udp(pair.ends[1].at);
        let begin = Clock::now();
        for mut datagram in datagrams {
            let now = pair.now;
            let received = pair.ends[0]
                .engine
                .handle_datagram(from, &mut datagram, now);
            anyhow::ensure!(!matches!(black_box(received), Received::Packet { .. }));
            pair.run_timers();
        }
        Ok(begin.elapsed().as_nanos() / u128::from(INTRODUCTIONS))
    };
    median(round)
}

fn median(mut round: impl FnMut() -> anyhow::Result<u128>) -> anyhow::Result<u128> {
    let mut rounds = (0..ROUNDS)
        .map(|_| round())
        .collect::<anyhow::Result<Vec<_>>>()?;
    rounds.sort_unstable();
    Ok(rounds[ROUNDS / 2])
}

/// Third parties, other ones with every number.
fn endpoints(number: u32) -> Vec<SocketAddr> {
    let first = number.wrapping_mul(ENDPOINTS);
    (first..first + ENDPOINTS)
        .map(|host| SocketAddr::from((Ipv4Addr::from(0x0800_0000 + host), 4193)))
        .collect()
}

impl Pair {
    /// Two machines that talk, so that ways are looked for.
    fn new() -> anyhow::Result<Self> {
        let mut rng = ChaCha20Rng::seed_from_u64(4193);
        let now = Now {
            instant: Instant::from_micros(1_000_000),
            wall: WallTime::from_millis(1_700_000_000_000),
        };
        let mut end = |number: u8| {
            let secret = StaticSecret::random_from_rng(&mut rng);
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            let config = EngineConfig {
                static_secret: secret,
                agent_address: AGENTS,
                seed,
                stamp_floor: Stamp::ZERO,
                large_packets: true,
            };
            let engine = Engine::new(config, now);
            let key =
                WireguardPublicKey::try_from(engine.public_key().as_slice()).context("a key")?;
            let at = SocketAddr::from(([192, 0, 2, number], 4193));
            anyhow::Ok(End { engine, key, at })
        };
        let mut pair = Self {
            ends: [end(1)?, end(2)?],
            now,
        };
        for (own, other) in [(0, 1), (1, 0)] {
            let End { key, at, .. } = pair.ends[other];
            let peer = PeerConfig {
                key,
                speaks_mesh: true,
                protocol: Protocol::Wireguard,
                allowed_ips: vec![address(other).into()],
                relay_only: false,
            };
            let engine = &mut pair.ends[own].engine;
            engine.set_peers(vec![peer], now);
            engine.set_candidates(&key, vec![at], now);
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let sent = pair.ends[from].engine.handle_packet(&packet(from, to), now);
            sent.context("a packet")?;
            pair.exchange();
        }
        Ok(pair)
    }

    /// Carries what the two send to each other until they are silent.
    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            for (from, to) in [(0, 1), (1, 0)] {
                let remote = Remote::Udp(self.ends[from].at);
                for mut datagram in drain(&mut self.ends[from].engine, self.now) {
                    quiet = false;
                    let engine = &mut self.ends[to].engine;
                    let _ = engine.handle_datagram(remote, &mut datagram, self.now);
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Lets time go on for the one that is told; what it sends goes nowhere.
    fn run_timers(&mut self) {
        self.now.instant = self.now.instant + EACH;
        let engine = &mut self.ends[0].engine;
        if engine
            .poll_timeout()
            .is_some_and(|at| at <= self.now.instant)
        {
            engine.handle_timeout(self.now);
        }
        black_box(drain(engine, self.now));
    }

    /// The other one says in the session where it is.
    fn said(&self, number: u32) -> anyhow::Result<Vec<u8>> {
        let message = TunnelMessage::Candidates {
            tell_yours: false,
            endpoints: endpoints(number),
        };
        let packet_bytes = tunnel::emit(message, AGENTS);
        let forwarding = self.ends[1].engine.forwarding();
        let route = forwarding.route(&packet(1, 0)).context("a session")?;
        let mut datagram = vec![0; data_message_bytes(packet_bytes.len())];
        datagram[DATA_HEADER_BYTES..][..packet_bytes.len()].copy_from_slice(&packet_bytes);
        let sealed = route.seal(&mut datagram, packet_bytes.len(), self.now.instant);
        sealed.context("a session that can be used")?;
        Ok(datagram)
    }
}

/// What an engine sends; its stamps are stored at once.
fn drain(engine: &mut Engine, now: Now) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    while let Some(event) = engine.poll_event() {
        if let Event::ReserveStamps { until } = event {
            engine.stamps_reserved(until, now);
        }
    }
    while let Some(transmit) = engine.poll_opener().or_else(|| engine.poll_transmit()) {
        sent.push(transmit.data);
    }
    sent
}

fn address(end: usize) -> std::net::IpAddr {
    let number = u16::try_from(end + 2).unwrap_or(u16::MAX);
    std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number).into()
}

/// An empty packet from one to the other.
fn packet(from: usize, to: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    for end in [from, to] {
        if let std::net::IpAddr::V6(address) = address(end) {
            packet.extend(address.octets());
        }
    }
    packet
}
