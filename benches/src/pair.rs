//! Two engines that have a session with each other, and no network between them but function calls.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use mesh_core::{
    Engine, EngineConfig, Event, MTU_BASE, Now, PeerConfig, Protocol, Remote, Route, Stamp,
    Transmit, WallTime,
};
use mesh_types::{Instant, WireguardPublicKey};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use x25519_dalek::StaticSecret;

/// The address of every agent.
pub const AGENTS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// Two machines that talk, so that ways are looked for. All that is random about them has one seed.
pub struct Pair {
    /// The machines.
    pub ends: [End; 2],
    /// The time for both.
    pub now: Now,
}

/// A machine.
pub struct End {
    /// What it is made of.
    pub engine: Engine,
    /// Its public key.
    pub key: WireguardPublicKey,
    /// Where it is.
    pub at: SocketAddr,
}

impl Pair {
    /// Two machines with a session that both have used.
    ///
    /// # Errors
    ///
    /// The two did not come together.
    pub fn new(protocol: Protocol) -> anyhow::Result<Self> {
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
            let peer = pair.peer(other, protocol);
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

    /// The same, once both know that their way carries packets of `packet_bytes`.
    ///
    /// # Errors
    ///
    /// They did not come together, or find no way that is so wide.
    pub fn with_wide_way(protocol: Protocol, packet_bytes: usize) -> anyhow::Result<Self> {
        const STEP: Duration = Duration::from_millis(100);
        /// Far more than it takes to try all sizes.
        const STEPS: usize = 100;
        let mut pair = Self::new(protocol)?;
        let mut steps = 0;
        loop {
            let routes = [pair.route(0)?, pair.route(1)?];
            if routes.iter().all(|route| route.fits(packet_bytes)) {
                return Ok(pair);
            }
            steps += 1;
            ensure!(steps < STEPS, "no way carries {packet_bytes} bytes");
            pair.now.instant = pair.now.instant + STEP;
            for (from, to) in [(0, 1), (1, 0)] {
                let engine = &mut pair.ends[from].engine;
                engine.handle_timeout(pair.now);
                // Sizes are tried while there is traffic that they matter to.
                let sent = engine.handle_packet(&tcp(from, to, MTU_BASE.into(), &[]), pair.now);
                sent.context("a packet")?;
                pair.exchange();
            }
        }
    }

    /// What a machine is to the other one.
    pub fn peer(&self, end: usize, protocol: Protocol) -> PeerConfig {
        PeerConfig {
            key: self.ends[end].key,
            speaks_mesh: true,
            protocol,
            allowed_ips: vec![IpAddr::from(address(end)).into()],
            access: Arc::default(),
            relay_only: false,
        }
    }

    /// The way of packets from a machine to the other one.
    ///
    /// # Errors
    ///
    /// There is no session.
    pub fn route(&self, from: usize) -> anyhow::Result<Route> {
        let forwarding = self.ends[from].engine.forwarding();
        forwarding
            .route(&packet(from, 1 - from))
            .context("no session")
    }

    /// Carries what the two send to each other until they are silent.
    pub fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            for (from, to) in [(0, 1), (1, 0)] {
                let remote = Remote::Udp(self.ends[from].at);
                for mut transmit in drain(&mut self.ends[from].engine, self.now) {
                    quiet = false;
                    let engine = &mut self.ends[to].engine;
                    let _ = engine.handle_datagram(remote, &mut transmit.data, self.now);
                }
            }
            if quiet {
                return;
            }
        }
    }
}

/// What an engine sends; its stamps are stored at once.
pub fn drain(engine: &mut Engine, now: Now) -> Vec<Transmit> {
    let mut sent = Vec::new();
    while let Some(event) = engine.poll_event() {
        if let Event::ReserveStamps { until } = event {
            engine.stamps_reserved(until, now);
        }
    }
    while let Some(transmit) = engine.poll_opener().or_else(|| engine.poll_transmit()) {
        sent.push(transmit);
    }
    sent
}

/// An empty packet from one machine to the other.
pub fn packet(from: usize, to: usize) -> Vec<u8> {
    ipv6([address(from), address(to)], 59, &[])
}

/// A piece of a TCP connection from one machine to the other, of `packet_bytes` in all. Nobody has made its
/// checksum.
///
/// # Panics
///
/// If the headers alone are longer, or the packet is longer than 64 KiB.
pub fn tcp(from: usize, to: usize, packet_bytes: usize, options: &[u8]) -> Vec<u8> {
    const ACK: u8 = 0x10;
    let header_bytes = 20 + options.len();
    let words = u8::try_from(header_bytes / 4).expect("options are short");
    let mut segment = vec![0x10, 0x01, 0x20, 0x02, 0, 0, 0, 1, 0, 0, 0, 7];
    segment.extend([words << 4, ACK, 1, 0, 0, 0, 0, 0]);
    segment.extend(options);
    let payload_bytes = packet_bytes - 40 - header_bytes;
    segment.extend((0..=250).cycle().take(payload_bytes));
    ipv6([address(from), address(to)], 6, &segment)
}

/// An IPv6 packet from the first address to the second. A checksum in its payload is the caller's.
///
/// # Panics
///
/// If the payload is longer than 64 KiB.
pub fn ipv6(addresses: [Ipv6Addr; 2], next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a packet is no longer than 64 KiB");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next_header, 64]);
    for address in addresses {
        packet.extend(address.octets());
    }
    packet.extend(payload);
    packet
}

/// Inside the mesh.
fn address(end: usize) -> Ipv6Addr {
    let number = u16::try_from(end + 2).unwrap_or(u16::MAX);
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number)
}
