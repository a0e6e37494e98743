//! Sealing and opening of packets, through the session that a handshake made.

use std::sync::Arc;

use anyhow::ensure;
use mesh_core::{Forwarding, Opened, Protocol, Remote, Route, Run};
use mesh_types::Instant;
use mesh_wire::wireguard::{DATA_HEADER_BYTES, PADDING_BYTES, data_message_bytes};

use super::{CALLS, Rounds};
use crate::pair::{Pair, tcp};

/// Rounds on one session: a million packets, far below what any cipher allows. Its counters stay those of a young
/// session.
const ROUNDS_MAX: u32 = (1 << 20) / CALLS;

/// A session with a round's packets on their way through it.
struct Tunnel {
    protocol: Protocol,
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
    fn new(protocol: Protocol, packet_bytes: usize) -> anyhow::Result<Self> {
        let frame_bytes = data_message_bytes(packet_bytes);
        let pair = Pair::with_wide_way(protocol, packet_bytes.next_multiple_of(PADDING_BYTES))?;
        let [sender, receiver] = &pair.ends;
        Ok(Self {
            protocol,
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
            *self = Self::new(self.protocol, self.packet.len())?;
        }
        self.rounds += 1;
        let frame_bytes = self.frame_bytes();
        for frame in self.frames.chunks_exact_mut(frame_bytes) {
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

/// Packets from the TUN become datagrams.
pub(super) struct Seal(Tunnel);

impl Seal {
    pub(super) fn new(protocol: Protocol, packet_bytes: usize) -> anyhow::Result<Self> {
        Tunnel::new(protocol, packet_bytes).map(Self)
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
        Tunnel::new(protocol, packet_bytes).map(Self)
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
