//! What agents say to each other inside the tunnel: ordinary IPv6/UDP packets from and to
//! `<prefix>:ffff::1`, so that a packet capture or a stock WireGuard peer sees nothing strange.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 40 | IPv6 header, no extension headers; source and destination are the agents' address |
//! | 40 | 8 | UDP header; source and destination port [`PORT`]; the checksum is required |
//! | 48 | 1 | version: [`VERSION`] |
//! | 49 | 1 | kind |
//! | 50 | 2 | zero; ignored by a reader |
//! | 52 | | body, big-endian |
//!
//! | kind | body |
//! |---|---|
//! | 1 echo request | 8 bytes id, 8 bytes the sender's wall clock in milliseconds since 1970 |
//! | 2 echo reply | 8 bytes id of the request, 8 bytes the replier's wall clock, 18 bytes endpoint |
//! | 3 epoch notice | 8 bytes serial of the sender's roster, 32 bytes SHA-256 of its head |
//! | 4 candidates | 1 byte 1 if the receiver's are asked for, 1 byte number, 2 bytes zero, 18 bytes each endpoint |
//! | 5 relay request | 8 bytes id, 2 bytes seconds until the next, 2 bytes seconds until a knock, 28 bytes zero: no shorter than its answer |
//! | 6 relay grant | 8 bytes id of the request, 8 bytes token, 18 bytes endpoint, 2 bytes seconds that it lasts |
//! | 7 relay refusal | 8 bytes id of the request, 1 byte reason |
//! | 9 knock request | 8 bytes id, 2 bytes seconds until the knock, 1 byte 1 if from another port, 1 byte zero, 18 bytes endpoint, 8 bytes proof |
//! | 10 knock answer | 8 bytes id of the request, 1 byte outcome, 1 byte zero, 2 bytes the other port |
//! | 11 ask again | nothing |
//! | 12 moons | 1 byte number, 3 bytes zero, 32 bytes the X25519 public key of each |
//! | 13 forecast | 8 bytes id, 1 byte 1 if the receiver's is asked for, 1 byte stride (two's complement), 2 bytes zero, 18 bytes endpoint |
//!
//! An endpoint is 16 bytes of IPv6 address, an IPv4 address mapped into it (RFC 4291 section 2.5.5.2), and 2
//! bytes of port. In the answers it is where the request came from, as the answerer sees it; all zero means
//! that this was no UDP endpoint of the sender's, and in a forecast that the sender has none.
//!
//! A longer body than a reader knows is allowed: the rest is ignored. Another version or an unknown kind
//! is passed over. The packets speak only for the peer whose session carried them.

use std::net::{Ipv6Addr, SocketAddr};

use mesh_types::InternetSum;

use crate::endpoint::{ENDPOINT_BYTES, emit_endpoint, parse_endpoint};

/// UDP port of both ends, the number of the agent's own port on the underlay.
pub const PORT: u16 = mesh_types::AGENT_PORT;

/// The version of the packets' body that this release writes and reads.
pub const VERSION: u8 = 1;

/// The longest packet that [`emit`] makes, in bytes.
pub const PACKET_BYTES_MAX: usize = BODY_OFFSET + 4 + CANDIDATES_MAX * ENDPOINT_BYTES;

/// The most endpoints in one message; further ones are passed over.
pub const CANDIDATES_MAX: usize = 16;

/// The most moons in one message; further ones are passed over.
pub const MOONS_MAX: usize = 4;

const KEY_BYTES: usize = 32;

const IPV6_HEADER_BYTES: usize = 40;
const UDP_HEADER_BYTES: usize = 8;
const NEXT_HEADER_UDP: u8 = 17;
const PAYLOAD_OFFSET: usize = IPV6_HEADER_BYTES + UDP_HEADER_BYTES;
const BODY_OFFSET: usize = PAYLOAD_OFFSET + 4;

const KIND_ECHO_REQUEST: u8 = 1;
const KIND_ECHO_REPLY: u8 = 2;
const KIND_EPOCH_NOTICE: u8 = 3;
const KIND_CANDIDATES: u8 = 4;
const KIND_RELAY_REQUEST: u8 = 5;
const KIND_RELAY_GRANT: u8 = 6;
const KIND_RELAY_REFUSAL: u8 = 7;
const KIND_KNOCK_REQUEST: u8 = 9;
const KIND_KNOCK_ANSWER: u8 = 10;
const KIND_ASK_AGAIN: u8 = 11;
const KIND_MOONS: u8 = 12;
const KIND_FORECAST: u8 = 13;

/// One packet between two agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelMessage {
    /// Asks for an [`TunnelMessage::EchoReply`] at once.
    EchoRequest {
        /// Chosen by the sender.
        id: u64,
        /// The sender's wall clock when it sent this, in milliseconds since 1970.
        wall_millis: u64,
    },
    /// Answers a [`TunnelMessage::EchoRequest`].
    EchoReply {
        /// From the request.
        id: u64,
        /// The replier's wall clock when it sent this, in milliseconds since 1970.
        wall_millis: u64,
        /// Where the request came from; `None`: not by UDP from the sender itself, or the replier does
        /// not say.
        observed: Option<SocketAddr>,
    },
    /// Tells which roster the sender holds: a reason to fetch, never a floor.
    EpochNotice {
        /// The roster's serial; any number, checked by whoever acts on it.
        serial: u64,
        /// SHA-256 of its head.
        head_hash: [u8; 32],
    },
    /// Tells where the sender may be reached by UDP.
    Candidates {
        /// Whether the receiver's are asked for in return.
        tell_yours: bool,
        /// At most [`CANDIDATES_MAX`].
        endpoints: Vec<SocketAddr>,
    },
    /// Asks a moon to relay for the sender, at the address that this comes from.
    RelayRequest {
        /// Chosen by the sender.
        id: u64,
        /// In how many seconds the sender asks again, at the latest; 0: it does not say.
        renew_seconds: u16,
        /// In how many seconds the moon is to send a knock with the token that it gives, to see that the
        /// sender's NAT still lets it through; 0: not at all.
        knock_seconds: u16,
    },
    /// The moon relays what comes with this token from the address that the request came from.
    RelayGrant {
        /// From the request.
        id: u64,
        /// What frames of the sender carry.
        token: u64,
        /// Where the request came from; `None`: not by UDP.
        observed: Option<SocketAddr>,
        /// For how many seconds the token counts without another request; 0: the moon does not say, and
        /// takes neither reflect nor knock requests.
        lasts_seconds: u16,
    },
    /// The receiver of the request does not relay for the sender.
    RelayRefusal {
        /// From the request.
        id: u64,
        /// Why.
        reason: RelayRefused,
    },
    /// Asks a moon for one knock ([`crate::reflect`]) at an address where the sender has shown to be.
    KnockRequest {
        /// Chosen by the sender.
        id: u64,
        /// In how many seconds.
        after_seconds: u16,
        /// Whether from another port than the moon's usual one.
        from_other_port: bool,
        /// Where to.
        to: SocketAddr,
        /// From a reflection of this moon at that address.
        proof: u64,
    },
    /// What the moon does about it.
    KnockAnswer {
        /// From the request.
        id: u64,
        /// Whether it will knock.
        outcome: KnockOutcome,
        /// The port from which it knocks if not from the usual one; `None`: it has no other.
        other_port: Option<u16>,
    },
    /// The sender, a moon, has lost the receiver's token: it is to be asked for one again.
    AskAgain,
    /// Tells which moons the sender is near to.
    Moons {
        /// Their X25519 public keys, the nearest first; at most [`MOONS_MAX`].
        keys: Vec<[u8; 32]>,
    },
    /// Tells which external port the sender's NAT gives next, and which ones after that.
    Forecast {
        /// Chosen by who asks, and the same in the answer.
        id: u64,
        /// Whether the receiver's is asked for in return.
        tell_yours: bool,
        /// From each port to the next.
        stride: i8,
        /// The next one, at the NAT's address; `None`: its ports are in no order.
        next: Option<SocketAddr>,
    },
}

/// Whether a moon will knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnockOutcome {
    /// It will.
    Agreed,
    /// The address is none where the sender has shown to be, or the moon does not relay for it.
    NotShown,
    /// As many of the sender's knocks are waiting as may be.
    TooMany,
    /// A reason of a later release.
    Other(u8),
}

impl KnockOutcome {
    const fn code(self) -> u8 {
        match self {
            Self::Agreed => 0,
            Self::NotShown => 1,
            Self::TooMany => 2,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Agreed,
            1 => Self::NotShown,
            2 => Self::TooMany,
            code => Self::Other(code),
        }
    }
}

/// Why a member does not relay for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayRefused {
    /// It is no moon, by its own roster.
    NoMoon,
    /// It has as many clients as it can serve.
    Full,
    /// A reason of a later release.
    Other(u8),
}

impl RelayRefused {
    const fn code(self) -> u8 {
        match self {
            Self::NoMoon => 1,
            Self::Full => 2,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::NoMoon,
            2 => Self::Full,
            code => Self::Other(code),
        }
    }
}

/// Why a packet is none that this release understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not an IPv6/UDP packet between two agents.
    #[error("not a packet between two agents")]
    NotAgents,
    /// Lengths or checksum are wrong, or the body is too short for its kind.
    #[error("a malformed packet between two agents")]
    Malformed,
    /// A version or kind of a later release: to be passed over.
    #[error(
        "a packet between two agents of version {version}, kind {kind}, which this release does not know"
    )]
    Unknown {
        /// The packet's version.
        version: u8,
        /// The packet's kind.
        kind: u8,
    },
}

/// Writes `message` as an IPv6 packet from and to `agent_address`.
pub fn emit(message: TunnelMessage, agent_address: Ipv6Addr) -> Vec<u8> {
    emit_padded(message, agent_address, 0)
}

/// As [`emit`], with zeros behind the body, which readers pass over, so that the packet has at least
/// `packet_bytes`: to find out whether packets of this size arrive.
pub fn emit_padded(message: TunnelMessage, agent_address: Ipv6Addr, packet_bytes: u16) -> Vec<u8> {
    let (kind, mut body) = match message {
        TunnelMessage::EchoRequest { id, wall_millis } => {
            (KIND_ECHO_REQUEST, two_words(id, wall_millis))
        }
        TunnelMessage::EchoReply {
            id,
            wall_millis,
            observed,
        } => {
            let mut body = two_words(id, wall_millis);
            body.extend(emit_endpoint(observed));
            (KIND_ECHO_REPLY, body)
        }
        TunnelMessage::EpochNotice { serial, head_hash } => (
            KIND_EPOCH_NOTICE,
            [serial.to_be_bytes().as_slice(), &head_hash].concat(),
        ),
        TunnelMessage::Candidates {
            tell_yours,
            endpoints,
        } => {
            let told = endpoints.len().min(CANDIDATES_MAX);
            let number = u8::try_from(told).expect("at most CANDIDATES_MAX");
            let mut body = vec![u8::from(tell_yours), number, 0, 0];
            for endpoint in &endpoints[..told] {
                body.extend(emit_endpoint(Some(*endpoint)));
            }
            (KIND_CANDIDATES, body)
        }
        TunnelMessage::RelayRequest {
            id,
            renew_seconds,
            knock_seconds,
        } => {
            let mut body = id.to_be_bytes().to_vec();
            body.extend(renew_seconds.to_be_bytes());
            body.extend(knock_seconds.to_be_bytes());
            body.extend([0; 28]);
            (KIND_RELAY_REQUEST, body)
        }
        TunnelMessage::RelayGrant {
            id,
            token,
            observed,
            lasts_seconds,
        } => {
            let mut body = two_words(id, token);
            body.extend(emit_endpoint(observed));
            body.extend(lasts_seconds.to_be_bytes());
            (KIND_RELAY_GRANT, body)
        }
        TunnelMessage::RelayRefusal { id, reason } => (
            KIND_RELAY_REFUSAL,
            [id.to_be_bytes().as_slice(), &[reason.code()]].concat(),
        ),
        TunnelMessage::KnockRequest {
            id,
            after_seconds,
            from_other_port,
            to,
            proof,
        } => {
            let mut body = id.to_be_bytes().to_vec();
            body.extend(after_seconds.to_be_bytes());
            body.extend([u8::from(from_other_port), 0]);
            body.extend(emit_endpoint(Some(to)));
            body.extend(proof.to_be_bytes());
            (KIND_KNOCK_REQUEST, body)
        }
        TunnelMessage::KnockAnswer {
            id,
            outcome,
            other_port,
        } => {
            let mut body = id.to_be_bytes().to_vec();
            body.extend([outcome.code(), 0]);
            body.extend(other_port.unwrap_or(0).to_be_bytes());
            (KIND_KNOCK_ANSWER, body)
        }
        TunnelMessage::AskAgain => (KIND_ASK_AGAIN, Vec::new()),
        TunnelMessage::Moons { keys } => {
            let told = keys.len().min(MOONS_MAX);
            let number = u8::try_from(told).expect("at most MOONS_MAX");
            let mut body = vec![number, 0, 0, 0];
            body.extend(keys[..told].as_flattened());
            (KIND_MOONS, body)
        }
        TunnelMessage::Forecast {
            id,
            tell_yours,
            stride,
            next,
        } => {
            let mut body = id.to_be_bytes().to_vec();
            body.push(u8::from(tell_yours));
            body.extend(stride.to_be_bytes());
            body.extend([0; 2]);
            body.extend(emit_endpoint(next));
            (KIND_FORECAST, body)
        }
    };
    let padded = usize::from(packet_bytes).saturating_sub(BODY_OFFSET);
    body.resize(body.len().max(padded), 0);
    let udp_bytes = u16::try_from(UDP_HEADER_BYTES + 4 + body.len())
        .expect("a body is a few dozen bytes long, or padded to a length of 16 bits");
    let mut packet = Vec::with_capacity(BODY_OFFSET + body.len());
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(udp_bytes.to_be_bytes());
    // Hop limit 1: such a packet never leaves the tunnel's other end.
    packet.extend([NEXT_HEADER_UDP, 1]);
    packet.extend(agent_address.octets());
    packet.extend(agent_address.octets());
    packet.extend(PORT.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(udp_bytes.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend([VERSION, kind, 0, 0]);
    packet.extend(body);
    // RFC 8200 section 8.1: a checksum that computes to zero is sent as ones.
    let checksum = match sum(&packet).checksum() {
        [0, 0] => [0xff; 2],
        checksum => checksum,
    };
    packet[46..48].copy_from_slice(&checksum);
    packet
}

/// Reads an IPv6 packet, which may be followed by WireGuard's padding.
///
/// # Errors
///
/// [`ParseError`]: not from and to `agent_address`, malformed, or of a later release.
pub fn parse(packet: &[u8], agent_address: Ipv6Addr) -> Result<TunnelMessage, ParseError> {
    if !is_agents(packet, agent_address) || packet[6] != NEXT_HEADER_UDP {
        return Err(ParseError::NotAgents);
    }
    let payload_bytes = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let packet = packet
        .get(..IPV6_HEADER_BYTES + payload_bytes)
        .ok_or(ParseError::Malformed)?;
    let (head, body) = packet
        .split_at_checked(BODY_OFFSET)
        .ok_or(ParseError::Malformed)?;
    let port = PORT.to_be_bytes();
    if head[40..42] != port || head[42..44] != port {
        return Err(ParseError::NotAgents);
    }
    // A checksum of zero would mean "none", which IPv6 does not allow.
    if head[44..46] != packet[4..6] || head[46..48] == [0, 0] || !sum(packet).is_whole() {
        return Err(ParseError::Malformed);
    }
    let (version, kind) = (head[48], head[49]);
    if version != VERSION {
        return Err(ParseError::Unknown { version, kind });
    }
    match kind {
        KIND_ECHO_REQUEST => {
            let (id, wall_millis) = parse_two_words(body)?;
            Ok(TunnelMessage::EchoRequest { id, wall_millis })
        }
        KIND_ECHO_REPLY => {
            let (id, wall_millis) = parse_two_words(body)?;
            let observed = body[16..].first_chunk().and_then(parse_endpoint);
            Ok(TunnelMessage::EchoReply {
                id,
                wall_millis,
                observed,
            })
        }
        KIND_EPOCH_NOTICE => {
            let (serial, rest) = body.split_first_chunk().ok_or(ParseError::Malformed)?;
            let head_hash = rest.first_chunk().ok_or(ParseError::Malformed)?;
            Ok(TunnelMessage::EpochNotice {
                serial: u64::from_be_bytes(*serial),
                head_hash: *head_hash,
            })
        }
        KIND_CANDIDATES => {
            let ([flags, number, _, _], list) =
                body.split_first_chunk().ok_or(ParseError::Malformed)?;
            let number = usize::from(*number);
            let list = list
                .get(..number * ENDPOINT_BYTES)
                .ok_or(ParseError::Malformed)?;
            Ok(TunnelMessage::Candidates {
                tell_yours: flags & 1 == 1,
                endpoints: list
                    .chunks_exact(ENDPOINT_BYTES)
                    .filter_map(|endpoint| parse_endpoint(endpoint.first_chunk()?))
                    .take(CANDIDATES_MAX)
                    .collect(),
            })
        }
        KIND_RELAY_REQUEST => {
            let (id, rest) = parse_word(body)?;
            let (renew_seconds, rest) = parse_seconds(rest);
            let (knock_seconds, _) = parse_seconds(rest);
            Ok(TunnelMessage::RelayRequest {
                id,
                renew_seconds,
                knock_seconds,
            })
        }
        KIND_RELAY_GRANT => {
            let (id, token) = parse_two_words(body)?;
            let (observed, rest) = body[16..]
                .split_first_chunk()
                .ok_or(ParseError::Malformed)?;
            let (lasts_seconds, _) = parse_seconds(rest);
            Ok(TunnelMessage::RelayGrant {
                id,
                token,
                observed: parse_endpoint(observed),
                lasts_seconds,
            })
        }
        KIND_RELAY_REFUSAL => {
            let (id, rest) = parse_word(body)?;
            let reason = rest.first().ok_or(ParseError::Malformed)?;
            Ok(TunnelMessage::RelayRefusal {
                id,
                reason: RelayRefused::from_code(*reason),
            })
        }
        KIND_KNOCK_REQUEST => {
            let (id, rest) = parse_word(body)?;
            let body: &[u8; 4 + ENDPOINT_BYTES + 8] =
                rest.first_chunk().ok_or(ParseError::Malformed)?;
            let to = body[4..].first_chunk().and_then(parse_endpoint);
            let (proof, _) = parse_word(&body[4 + ENDPOINT_BYTES..])?;
            Ok(TunnelMessage::KnockRequest {
                id,
                after_seconds: u16::from_be_bytes([body[0], body[1]]),
                from_other_port: body[2] & 1 == 1,
                to: to.ok_or(ParseError::Malformed)?,
                proof,
            })
        }
        KIND_KNOCK_ANSWER => {
            let (id, rest) = parse_word(body)?;
            let [code, _, high, low] = rest.first_chunk().ok_or(ParseError::Malformed)?;
            let port = u16::from_be_bytes([*high, *low]);
            Ok(TunnelMessage::KnockAnswer {
                id,
                outcome: KnockOutcome::from_code(*code),
                other_port: (port != 0).then_some(port),
            })
        }
        KIND_ASK_AGAIN => Ok(TunnelMessage::AskAgain),
        KIND_MOONS => {
            let ([number, _, _, _], list) =
                body.split_first_chunk().ok_or(ParseError::Malformed)?;
            let list = list
                .get(..usize::from(*number) * KEY_BYTES)
                .ok_or(ParseError::Malformed)?;
            let keys = list.chunks_exact(KEY_BYTES).take(MOONS_MAX);
            Ok(TunnelMessage::Moons {
                keys: keys.filter_map(|key| key.first_chunk().copied()).collect(),
            })
        }
        KIND_FORECAST => {
            let (id, rest) = parse_word(body)?;
            let ([flags, stride, _, _], rest) =
                rest.split_first_chunk().ok_or(ParseError::Malformed)?;
            let next = rest.first_chunk().ok_or(ParseError::Malformed)?;
            Ok(TunnelMessage::Forecast {
                id,
                tell_yours: flags & 1 == 1,
                stride: i8::from_be_bytes([*stride]),
                next: parse_endpoint(next),
            })
        }
        kind => Err(ParseError::Unknown { version, kind }),
    }
}

/// Whether `packet` is IPv6 and has the agents' address as its source or destination.
///
/// Only agents may send such a packet: it is never taken from a TUN or a guest, nor passed to the TUN.
pub fn concerns_agents(packet: &[u8], agent_address: Ipv6Addr) -> bool {
    addresses(packet).is_some_and(|(source, destination)| {
        *source == agent_address.octets() || *destination == agent_address.octets()
    })
}

fn is_agents(packet: &[u8], agent_address: Ipv6Addr) -> bool {
    addresses(packet).is_some_and(|(source, destination)| {
        *source == agent_address.octets() && *destination == agent_address.octets()
    })
}

/// Source and destination of an IPv6 packet; `None` if it is none.
fn addresses(packet: &[u8]) -> Option<(&[u8; 16], &[u8; 16])> {
    if packet.len() < IPV6_HEADER_BYTES || packet[0] >> 4 != 6 {
        return None;
    }
    Some((packet[8..].first_chunk()?, packet[24..].first_chunk()?))
}

fn two_words(first: u64, second: u64) -> Vec<u8> {
    [first.to_be_bytes(), second.to_be_bytes()].concat()
}

fn parse_two_words(body: &[u8]) -> Result<(u64, u64), ParseError> {
    let (first, rest) = parse_word(body)?;
    let (second, _) = parse_word(rest)?;
    Ok((first, second))
}

fn parse_word(body: &[u8]) -> Result<(u64, &[u8]), ParseError> {
    let (word, rest) = body.split_first_chunk().ok_or(ParseError::Malformed)?;
    Ok((u64::from_be_bytes(*word), rest))
}

/// Seconds that an earlier release does not write: 0 then.
fn parse_seconds(body: &[u8]) -> (u16, &[u8]) {
    match body.split_first_chunk() {
        Some((seconds, rest)) => (u16::from_be_bytes(*seconds), rest),
        None => (0, &[]),
    }
}

/// What the UDP checksum of an IPv6 packet without extension headers covers (RFC 8200 section 8.1), itself included.
fn sum(packet: &[u8]) -> InternetSum {
    let (header, udp) = packet.split_at(IPV6_HEADER_BYTES);
    InternetSum::default()
        .with(&header[8..])
        .with(&header[4..6])
        .with_number(NEXT_HEADER_UDP.into())
        .with(udp)
}

#[cfg(test)]
mod tests;
