//! What one process of a node hands on to the next: peers and sessions, as bytes.
//!
//! ```text
//! header   0  8  "MESHHAND"
//!          8  4  format, 3
//!         12  4  number of peers
//!         16  8  when it was written (monotonic clock, microseconds)
//!         24  8  the last stamp sent (nanoseconds since 1970)
//!         32 32  the node's own public key
//! peer     0 32  public key
//!         32  1  flags: 1 speaks mesh, 2 a session is wanted
//!         33 23  endpoint: family (0, 4 or 6), address (4 or 16 used), port, scope
//!         56 13  highest stamp received: 1 and TAI64N, or zeros
//!         69 80  ten numbers, see `PeerRecord::numbers`
//!        149  …  next, current and three previous sessions: 0 for none, or 1 and a session
//! session  0  8  our index, the peer's index
//!          8  2  protocol (1 WireGuard, 2 AES), flags: 1 we asked for it, 2 confirmed
//!         10 24  made at (microseconds), send counter, end of the replay window
//!         34 64  sending key, receiving key
//!         98  …  the replay window's words
//! flows    0 16  the key of their hashes, behind the last peer
//!         16  4  number of flows that this node began
//!         20  …  each: hash (8), when something was last seen of it (4, seconds)
//!          …  4  number of flows that peers began, and those
//! ```
//! Numbers are big-endian, and a time of all ones is none. There is no padding, and what is not used is zero.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use mesh_types::Instant;
use zeroize::Zeroizing;

use crate::{
    Now, Protocol, Stamp, WallTime,
    noise::TransportKeys,
    replay::{ReplayWindow, WORDS},
    rules::{FLOWS_MAX, FlowsRecord},
    session::SESSIONS_MAX,
};

const MAGIC: [u8; 8] = *b"MESHHAND";

/// The format that this release writes, and the only one that it reads: another release's sessions are
/// made anew, which costs a round trip.
pub const HANDOVER_FORMAT: u32 = 3;

/// The most bytes of a handover: all sessions with 11 000 peers. Peers beyond get new handshakes.
pub const HANDOVER_BYTES_MAX: usize = 64 << 20;

const HEADER_BYTES: usize = 64;
const PEER_BYTES: usize = 149;
const SESSION_BYTES: usize = 98 + WORDS_USED * 8;

/// Words of a replay window.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a kilobyte of words, which every target can count"
)]
const WORDS_USED: usize = WORDS as usize;

/// A point in time that is not there.
const NONE: u64 = u64::MAX;

/// What another process of this node was when it stopped: read and checked, and not yet in force.
pub struct Handover {
    pub(crate) written: Instant,
    pub(crate) last_stamp: Stamp,
    pub(crate) own: [u8; 32],
    pub(crate) peers: Vec<PeerRecord>,
    pub(crate) flows: FlowsRecord,
}

/// Why bytes are no handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseHandoverError {
    /// Of a release with another format.
    #[error("it has format {0}; this release reads {HANDOVER_FORMAT}")]
    Format(u32),
    /// Cut short, too long, or not what any release writes.
    #[error("it is damaged")]
    Malformed,
}

/// A peer.
#[derive(Debug, Default)]
pub(crate) struct PeerRecord {
    pub(crate) key: [u8; 32],
    pub(crate) speaks_mesh: bool,
    pub(crate) wants_session: bool,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) highest_stamp: Option<[u8; 12]>,
    pub(crate) wanted: Option<Instant>,
    pub(crate) last_data_sent: Option<Instant>,
    pub(crate) last_data_received: Option<Instant>,
    pub(crate) unanswered: Option<Instant>,
    pub(crate) owes: Option<Instant>,
    pub(crate) last_handshake: Option<Now>,
    pub(crate) rtt_micros: Option<u64>,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Next, current, previous.
    pub(crate) sessions: [Option<SessionRecord>; SESSIONS_MAX],
}

/// A session.
pub(crate) struct SessionRecord {
    pub(crate) local_index: u32,
    pub(crate) remote_index: u32,
    pub(crate) protocol: Protocol,
    pub(crate) initiator: bool,
    pub(crate) confirmed: bool,
    pub(crate) established: Instant,
    /// The number that the next packet would have had.
    pub(crate) counter: u64,
    pub(crate) keys: TransportKeys,
    pub(crate) window: ReplayWindow,
}

impl Handover {
    /// Reads what [`Engine::hand_over`](crate::Engine::hand_over) wrote.
    ///
    /// # Errors
    ///
    /// [`ParseHandoverError`]: go on without it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseHandoverError> {
        let mut reader = Reader(bytes);
        let malformed = ParseHandoverError::Malformed;
        if reader.array().ok_or(malformed)? != MAGIC || bytes.len() > HANDOVER_BYTES_MAX {
            return Err(malformed);
        }
        let format = reader.u32().ok_or(malformed)?;
        if format != HANDOVER_FORMAT {
            return Err(ParseHandoverError::Format(format));
        }
        let handover = Self::parse_body(&mut reader).ok_or(malformed)?;
        let sound = reader.0.is_empty() && handover.is_consistent();
        sound.then_some(handover).ok_or(malformed)
    }

    /// Writes it. The buffer has its final size from the start, so that no copy of a key stays behind.
    pub(crate) fn emit(&self) -> Zeroizing<Vec<u8>> {
        let peers = self.peers.iter().map(PeerRecord::bytes);
        let size = HEADER_BYTES + peers.sum::<usize>() + self.flows.bytes();
        let mut out = Zeroizing::new(Vec::with_capacity(size));
        out.extend(MAGIC);
        out.extend(HANDOVER_FORMAT.to_be_bytes());
        let peers = u32::try_from(self.peers.len()).expect("each is bytes of a bounded buffer");
        out.extend(peers.to_be_bytes());
        out.extend(self.written.as_micros().to_be_bytes());
        out.extend(self.last_stamp.as_nanos().to_be_bytes());
        out.extend(self.own);
        for peer in &self.peers {
            peer.emit(&mut out);
        }
        self.flows.emit(&mut out);
        debug_assert_eq!(out.len(), size);
        out
    }

    /// Leaves out what does not fit, peers without a session first.
    pub(crate) fn bound(&mut self) {
        self.peers
            .sort_by_key(|peer| peer.sessions.iter().all(Option::is_none));
        let mut size = HEADER_BYTES + self.flows.bytes();
        self.peers.retain(|peer| {
            size += peer.bytes();
            size <= HANDOVER_BYTES_MAX
        });
    }

    fn parse_body(reader: &mut Reader<'_>) -> Option<Self> {
        let count = usize::try_from(reader.u32()?).ok()?;
        let mut handover = Self {
            written: Instant::from_micros(reader.u64()?),
            last_stamp: Stamp::from_nanos(reader.u64()?),
            own: reader.array()?,
            peers: Vec::new(),
            flows: FlowsRecord::default(),
        };
        // Grown as they are read, so that a false count reserves nothing.
        for _ in 0..count {
            handover.peers.push(PeerRecord::parse(reader)?);
        }
        handover.flows = FlowsRecord::parse(reader)?;
        Some(handover)
    }

    /// Whether what is said twice is said alike, and nothing comes from the future.
    fn is_consistent(&self) -> bool {
        let mut keys = BTreeSet::new();
        let mut indices = BTreeSet::new();
        let written_seconds = self.written.as_micros() / 1_000_000;
        let [ours, theirs] = [&self.flows.ours, &self.flows.theirs];
        let flows = ours.iter().chain(theirs);
        let of_the_past = flows
            .map(|(_, seen)| *seen)
            .all(|seen| u64::from(seen) <= written_seconds);
        of_the_past
            && self.peers.iter().all(|peer| {
                let moments = [
                    peer.wanted,
                    peer.last_data_sent,
                    peer.last_data_received,
                    peer.unanswered,
                    peer.owes,
                    peer.last_handshake.map(|at| at.instant),
                ];
                let sessions = peer.sessions.iter().flatten();
                keys.insert(peer.key)
                    && moments.into_iter().flatten().all(|at| at <= self.written)
                    && sessions
                        .clone()
                        .all(|session| session.established <= self.written)
                    && sessions
                        .clone()
                        .all(|session| indices.insert(session.local_index))
            })
    }
}

impl PeerRecord {
    fn bytes(&self) -> usize {
        let sessions = self.sessions.iter().flatten().count();
        PEER_BYTES + self.sessions.len() + sessions * SESSION_BYTES
    }

    fn numbers(&self) -> [u64; 10] {
        let micros = |at: Option<Instant>| at.map_or(NONE, Instant::as_micros);
        [
            micros(self.wanted),
            micros(self.last_data_sent),
            micros(self.last_data_received),
            micros(self.unanswered),
            micros(self.owes),
            micros(self.last_handshake.map(|at| at.instant)),
            self.last_handshake.map_or(0, |at| at.wall.as_nanos()),
            self.rtt_micros.unwrap_or(NONE),
            self.sent_bytes,
            self.received_bytes,
        ]
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.key);
        out.push(u8::from(self.speaks_mesh) | u8::from(self.wants_session) << 1);
        out.extend(emit_endpoint(self.endpoint));
        out.push(u8::from(self.highest_stamp.is_some()));
        out.extend(self.highest_stamp.unwrap_or_default());
        for number in self.numbers() {
            out.extend(number.to_be_bytes());
        }
        for session in &self.sessions {
            out.push(u8::from(session.is_some()));
            if let Some(session) = session {
                session.emit(out);
            }
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let key = reader.array()?;
        let [speaks_mesh, wants_session] = reader.flags()?;
        let endpoint = parse_endpoint(reader.array()?)?;
        let has_stamp = reader.flag()?;
        let stamp: [u8; 12] = reader.array()?;
        if !has_stamp && stamp != [0; 12] {
            return None;
        }
        let mut numbers = [0; 10];
        for number in &mut numbers {
            *number = reader.u64()?;
        }
        let [
            wanted,
            last_data_sent,
            last_data_received,
            unanswered,
            owes,
            handshake,
            handshake_wall,
            rtt,
            sent_bytes,
            received_bytes,
        ] = numbers;
        if handshake == NONE && handshake_wall != 0 {
            return None;
        }
        let moment = |micros: u64| (micros != NONE).then(|| Instant::from_micros(micros));
        let mut sessions = [const { None }; SESSIONS_MAX];
        for session in &mut sessions {
            if reader.flag()? {
                *session = Some(SessionRecord::parse(reader)?);
            }
        }
        Some(Self {
            key,
            speaks_mesh,
            wants_session,
            endpoint,
            highest_stamp: has_stamp.then_some(stamp),
            wanted: moment(wanted),
            last_data_sent: moment(last_data_sent),
            last_data_received: moment(last_data_received),
            unanswered: moment(unanswered),
            owes: moment(owes),
            last_handshake: moment(handshake).map(|instant| Now {
                instant,
                wall: WallTime::from_nanos(handshake_wall),
            }),
            rtt_micros: (rtt != NONE).then_some(rtt),
            sent_bytes,
            received_bytes,
            sessions,
        })
    }
}

impl SessionRecord {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.local_index.to_be_bytes());
        out.extend(self.remote_index.to_be_bytes());
        out.push(match self.protocol {
            Protocol::Wireguard => 1,
            Protocol::MeshAes => 2,
        });
        out.push(u8::from(self.initiator) | u8::from(self.confirmed) << 1);
        out.extend(self.established.as_micros().to_be_bytes());
        out.extend(self.counter.to_be_bytes());
        let (end, words) = self.window.parts();
        out.extend(end.to_be_bytes());
        out.extend(self.keys.send.as_slice());
        out.extend(self.keys.receive.as_slice());
        for word in words {
            out.extend(word.to_be_bytes());
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let (local_index, remote_index) = (reader.u32()?, reader.u32()?);
        let protocol = match reader.u8()? {
            1 => Protocol::Wireguard,
            2 => Protocol::MeshAes,
            _ => return None,
        };
        let [initiator, confirmed] = reader.flags()?;
        let established = Instant::from_micros(reader.u64()?);
        let (counter, end) = (reader.u64()?, reader.u64()?);
        let keys = TransportKeys {
            send: Zeroizing::new(reader.array()?),
            receive: Zeroizing::new(reader.array()?),
        };
        let mut words = [0; WORDS_USED];
        for word in &mut words {
            *word = reader.u64()?;
        }
        Some(Self {
            local_index,
            remote_index,
            protocol,
            initiator,
            confirmed,
            established,
            counter,
            keys,
            window: ReplayWindow::from_parts(end, words),
        })
    }
}

impl FlowsRecord {
    fn bytes(&self) -> usize {
        const FLOW_BYTES: usize = 12;
        24 + (self.ours.len() + self.theirs.len()) * FLOW_BYTES
    }

    fn emit(&self, out: &mut Vec<u8>) {
        for key in self.keys {
            out.extend(key.to_be_bytes());
        }
        for flows in [&self.ours, &self.theirs] {
            let count = u32::try_from(flows.len()).expect("there are so many and no more");
            out.extend(count.to_be_bytes());
            for (hash, seen) in flows {
                out.extend(hash.to_be_bytes());
                out.extend(seen.to_be_bytes());
            }
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let keys = [reader.u64()?, reader.u64()?];
        let mut flows = || {
            let count = usize::try_from(reader.u32()?).ok()?;
            if count > FLOWS_MAX {
                return None;
            }
            (0..count)
                .map(|_| Some((reader.u64()?, reader.u32()?)))
                .collect::<Option<Vec<_>>>()
        };
        Some(Self {
            keys,
            ours: flows()?,
            theirs: flows()?,
        })
    }
}

fn emit_endpoint(endpoint: Option<SocketAddr>) -> [u8; 23] {
    let mut bytes = [0; 23];
    match endpoint {
        None => {}
        Some(SocketAddr::V4(v4)) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&v4.ip().octets());
            bytes[17..19].copy_from_slice(&v4.port().to_be_bytes());
        }
        Some(SocketAddr::V6(v6)) => {
            bytes[0] = 6;
            bytes[1..17].copy_from_slice(&v6.ip().octets());
            bytes[17..19].copy_from_slice(&v6.port().to_be_bytes());
            bytes[19..].copy_from_slice(&v6.scope_id().to_be_bytes());
        }
    }
    bytes
}

/// `None` if it is no endpoint; `Some(None)` if it is none.
fn parse_endpoint(bytes: [u8; 23]) -> Option<Option<SocketAddr>> {
    let mut reader = Reader(&bytes);
    let family = reader.u8()?;
    let address: [u8; 16] = reader.array()?;
    let port = u16::from_be_bytes(reader.array()?);
    let scope = reader.u32()?;
    let endpoint = match family {
        0 => None,
        4 => {
            let [a, b, c, d, ..] = address;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port))
        }
        6 => Some(SocketAddr::V6(SocketAddrV6::new(
            Ipv6Addr::from(address),
            port,
            0,
            scope,
        ))),
        _ => return None,
    };
    // What is not used is zero.
    (emit_endpoint(endpoint) == bytes).then_some(endpoint)
}

/// Takes fields off the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Two flags in one byte, the lower bit first.
    fn flags(&mut self) -> Option<[bool; 2]> {
        let flags = self.u8()?;
        (flags < 4).then_some([flags & 1 != 0, flags & 2 != 0])
    }
}

impl std::fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionRecord({:08x}, redacted)", self.local_index)
    }
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handover({} peers, redacted)", self.peers.len())
    }
}

#[cfg(test)]
mod tests;
