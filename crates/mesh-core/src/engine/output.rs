use std::{collections::VecDeque, net::SocketAddr};

use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::reflect::{KNOCK_BYTES, REFLECT_BYTES};

use crate::{Remote, Stamp, Via};

/// Datagrams and events that wait to be taken. The owner drains both after every call, so that this
/// many are there only if it does not; then the oldest give way.
const QUEUE_MAX: usize = 4096;

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Remote,
    /// The datagram.
    pub data: Vec<u8>,
}

/// What an [`Engine`](crate::Engine) has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A handshake is wanted, and no endpoint is known or none answers: find more and call
    /// [`Engine::set_candidates`](crate::Engine::set_candidates). Repeated with every attempt.
    NeedEndpoints {
        /// Whose.
        peer: WireguardPublicKey,
    },
    /// A peer is wanted, and no moon relays, or none to it: streams to moons are worth a try. Repeated with every attempt.
    MoonsWanted,
    /// There is a session to send on, where there was none or an older one.
    SessionEstablished {
        /// With whom.
        peer: WireguardPublicKey,
        /// The way that packets take to it.
        via: Via,
        /// Whether this side asked for it.
        initiator: bool,
    },
    /// Traffic, a probe or a handshake has been unanswered for 12 s. Attempts go on by themselves.
    PeerUnresponsive {
        /// Who.
        peer: WireguardPublicKey,
        /// Since when.
        since: Instant,
    },
    /// A probe was answered.
    ProbeReply {
        /// By whom.
        peer: WireguardPublicKey,
        /// As returned by [`Engine::probe`](crate::Engine::probe).
        id: u64,
        /// The round trip, in microseconds.
        rtt_micros: u64,
        /// The way that packets take to it.
        via: Via,
    },
    /// A peer tells which roster it holds: a reason to fetch, never a floor.
    EpochNotice {
        /// Who tells.
        peer: WireguardPublicKey,
        /// Serial of its roster, any number.
        serial: u64,
        /// SHA-256 of its head.
        head_hash: [u8; 32],
    },
    /// Store on disk that stamps up to `until` may be used, then call
    /// [`Engine::stamps_reserved`](crate::Engine::stamps_reserved). No handshake begins before that.
    ReserveStamps {
        /// The new bound, and the next process's [`EngineConfig::stamp_floor`](crate::EngineConfig).
        until: Stamp,
    },
    /// The way to a peer carries packets of another size than before, or another way is taken.
    MtuChanged {
        /// Whose.
        peer: WireguardPublicKey,
        /// The largest packet that is carried to it, in bytes; [`MTU_BASE`](crate::MTU_BASE) until one is
        /// proven, and before the first such event.
        mtu: u16,
    },
    /// Send this from a socket that is used for nothing else, and give what comes to it to
    /// [`Engine::handle_measured`](crate::Engine::handle_measured).
    Measure {
        /// Where to: a moon.
        to: SocketAddr,
        /// The datagram.
        data: [u8; REFLECT_BYTES],
        /// Whether from a new socket, on another port, in place of the one before.
        fresh: bool,
    },
    /// The socket of [`Event::Measure`] is not needed any more.
    Measured,
    /// Send this, as a moon, from the port of [`Engine::set_other_port`](crate::Engine::set_other_port).
    KnockFromOtherPort {
        /// Where to: a client's address.
        to: SocketAddr,
        /// The datagram.
        data: [u8; KNOCK_BYTES],
    },
    /// A moon answered [`Engine::request_knock`](crate::Engine::request_knock).
    KnockAnswered {
        /// Which moon.
        peer: WireguardPublicKey,
        /// As returned there.
        id: u64,
        /// Whether it will knock, if it has the port for it.
        agreed: bool,
        /// Its port beside the usual one; `None`: it has none, or does not tell.
        other_port: Option<u16>,
    },
    /// A peer's clock and ours differ by over a minute.
    ClockDiffers {
        /// Whose.
        peer: WireguardPublicKey,
        /// How far the peer's clock is ahead of ours, in milliseconds; negative: behind.
        ahead_millis: i64,
    },
}

#[derive(Default)]
pub(super) struct Output {
    transmits: VecDeque<Transmit>,
    openers: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Output {
    pub(super) fn transmit(&mut self, to: Remote, data: Vec<u8>) {
        push(&mut self.transmits, Transmit { to, data });
    }

    /// To be sent a few hops only.
    pub(super) fn open(&mut self, to: Remote, data: Vec<u8>) {
        push(&mut self.openers, Transmit { to, data });
    }

    pub(super) fn event(&mut self, event: Event) {
        push(&mut self.events, event);
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub(super) fn poll_opener(&mut self) -> Option<Transmit> {
        self.openers.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= QUEUE_MAX {
        queue.pop_front();
    }
    queue.push_back(item);
}
