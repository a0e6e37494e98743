//! Sealing and opening of packets, through the session that a handshake made.

use std::sync::Arc;

use anyhow::ensure;
use mesh_core::{
    Access, Forwarding, Grant, Opened, PeerConfig, Protocol, Remote, Route, RuleCounts, Run,
};
use mesh_types::Instant;
use mesh_wire::wireguard::{DATA_HEADER_BYTES, PADDING_BYTES, data_message_bytes};

use super::{CALLS, Rounds};
use crate::pair::{Pair, tcp};

/// Rounds on one session: a million packets, far below what any cipher allows. Its counters stay those of a young
/// session.
const ROUNDS_MAX: u32 = (1 << 20) / CALLS;

/// The packets that are held against rules: small ones, beside which that shows most.
pub(super) const RULED_BYTES: usize = 64;

/// A session with a round's packets on their way through it.
struct Tunnel {
    protocol: Protocol,
    /// How many rules the receiver holds packets against, each of another flow; `None`: it has none.
    rules: Option<u16>,
    pair: Pair,
    /// The sender's way to the receiver.
    route: Route,
    /// Where the sender is.
    from: Remote,
    /// The receiver's.
    forwarding: Arc<Forwarding>,
    rounds: u32,
    packet: Vec<u8>,
    /// The frames of a round, one behind the other.
    frames: Vec<u8>,
}

impl Tunnel {
    fn new(protocol: Protocol, packet_bytes: usize, rules: Option<u16>) -> anyhow::Result<Self> {
        let frame_bytes = data_message_bytes(packet_bytes);
        let mut pair = Pair::with_wide_way(protocol, packet_bytes.next_multiple_of(PADDING_BYTES))?;
        if let Some(rules) = rules {
            let peer = PeerConfig {
                access: Arc::new(access(rules)),
                ..pair.peer(0, protocol)
            };
            pair.ends[1].engine.set_peers(vec![peer], pair.now);
        }
        let [sender, receiver] = &pair.ends;
        Ok(Self {
            protocol,
            rules,
            route: pair.route(0)?,
            from: Remote::Udp(sender.at),
            forwarding: receiver.engine.forwarding(),
            pair,
            rounds: 0,
            packet: tcp(0, 1, packet_bytes, &[]),
            frames: vec![0; frame_bytes * usize::try_from(CALLS)?],
        })
    }

    /// Writes the packets of a round.
    fn fill(&mut self) -> anyhow::Result<()> {
        if self.rounds == ROUNDS_MAX {
            *self = Self::new(self.protocol, self.packet.len(), self.rules)?;
        }
        self.rounds += 1;
        let frame_bytes = self.frame_bytes();
        for (number, frame) in (0_u16..).zip(self.frames.chunks_exact_mut(frame_bytes)) {
            if self.rules.is_some() {
                self.packet[SOURCE_PORT].copy_from_slice(&number.to_be_bytes());
            }
            frame[DATA_HEADER_BYTES..][..self.packet.len()].copy_from_slice(&self.packet);
        }
        Ok(())
    }

    /// Seals them. Returns how many became datagrams that fill their frames.
    fn seal(&mut self) -> u32 {
        let frame_bytes = self.frame_bytes();
        let now = self.now();
        let mut done = 0;
        for frame in self.frames.chunks_exact_mut(frame_bytes) {
            let sealed = self.route.seal(frame, self.packet.len(), now);
            done += u32::from(sealed == Ok(frame_bytes));
        }
        done
    }

    /// Opens them. Returns how many became packets for the TUN.
    fn open(&mut self) -> u32 {
        let frame_bytes = self.frame_bytes();
        let now = self.now();
        let mut done = 0;
        let mut run = Run::default();
        for datagram in self.frames.chunks_exact_mut(frame_bytes) {
            let opened = self.forwarding.open_in(&mut run, self.from, datagram, now);
            let is_whole = matches!(
                opened,
                Opened::Packet { packet, .. } if packet.len() == self.packet.len()
            );
            done += u32::from(is_whole);
        }
        done
    }

    fn frame_bytes(&self) -> usize {
        data_message_bytes(self.packet.len())
    }

    fn now(&self) -> Instant {
        self.pair.now.instant
    }
}

/// Where an IPv6 packet has its TCP's.
const SOURCE_PORT: std::ops::Range<usize> = 40..42;

/// The port that [`tcp`] sends to.
const PORT: u16 = 0x2002;

/// So many rules, of which the last accepts what is sent and the others what is not.
fn access(rules: u16) -> Access {
    let grant = |rule: u16| Grant {
        rule: rule.into(),
        protocol: Some(6),
        // Every other port, so that none of them are one range.
        ports: Some(match rule + 1 == rules {
            true => PORT..=PORT,
            false => 2 * rule + 1..=2 * rule + 1,
        }),
    };
    let grants: Vec<_> = (0..rules).map(grant).collect();
    let counts = RuleCounts::new((0..rules).map(|_| 0));
    Access::of(&grants, &Arc::new(counts))
}

/// Packets from the TUN become datagrams.
pub(super) struct Seal(Tunnel);

impl Seal {
    pub(super) fn new(protocol: Protocol, packet_bytes: usize) -> anyhow::Result<Self> {
        Tunnel::new(protocol, packet_bytes, None).map(Self)
    }
}

impl Rounds for Seal {
    fn prepare(&mut self) -> anyhow::Result<()> {
        self.0.fill()
    }

    fn run(&mut self) -> u32 {
        self.0.seal()
    }
}

/// Datagrams become packets for the TUN.
pub(super) struct Open(Tunnel);

impl Open {
    pub(super) fn new(protocol: Protocol, packet_bytes: usize) -> anyhow::Result<Self> {
        Tunnel::new(protocol, packet_bytes, None).map(Self)
    }

    /// Each packet of another flow, so that each is held against so many rules.
    pub(super) fn with_rules(rules: u16) -> anyhow::Result<Self> {
        Tunnel::new(Protocol::MeshAes, RULED_BYTES, Some(rules)).map(Self)
    }
}

impl Rounds for Open {
    fn prepare(&mut self) -> anyhow::Result<()> {
        self.0.fill()?;
        let sealed = self.0.seal();
        ensure!(sealed == CALLS, "only {sealed} packets were sealed");
        Ok(())
    }

    fn run(&mut self) -> u32 {
        self.0.open()
    }
}
