//! What of a packet decides whether it passes: whose it is, what it asks, and what it answers.

use std::net::IpAddr;

use crate::packet::{
    protocol::{FRAGMENT, ICMP, ICMPV6, TCP, UDP},
    quoted_ip_header,
};

/// Two ends that speak to each other, as seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) protocol: u8,
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    /// The ports, or of an echo its identifier and nothing.
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
}

/// What was found in a packet, from one end to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP or UDP.
    Ports {
        source: u16,
        destination: u16,
        /// It opens a connection: TCP with SYN and without ACK.
        opens: bool,
    },
    EchoRequest {
        id: u16,
    },
    EchoReply {
        id: u16,
    },
    /// An error of ICMP.
    Error {
        /// The flow that it is about, from the end that it goes to; `None`: that cannot be told.
        about: Option<Flow>,
    },
    /// A fragment after the first; where it begins, in bytes.
    LaterFragment {
        offset: u16,
    },
    /// Any other protocol, and what else ICMP says.
    Other,
}

/// Headers of IPv6 between the first and what is carried (RFC 8200 section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// The most of them that are looked through.
const HEADERS_MAX: usize = 8;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

impl Seen {
    /// The flow as the one sees it who gets the packet.
    pub(crate) fn flow(&self) -> Flow {
        let (source, destination) = match self.kind {
            Kind::Ports {
                source,
                destination,
                ..
            } => (source, destination),
            Kind::EchoRequest { id } | Kind::EchoReply { id } => (id, id),
            Kind::Error { .. } | Kind::LaterFragment { .. } | Kind::Other => (0, 0),
        };
        Flow {
            protocol: self.protocol,
            local: self.destination,
            remote: self.source,
            local_port: destination,
            remote_port: source,
        }
    }

    pub(crate) const fn is_icmp(&self) -> bool {
        matches!(self.protocol, ICMP | ICMPV6)
    }
}

impl Flow {
    /// The same as the other end sees it.
    pub(crate) const fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            local: self.remote,
            remote: self.local,
            local_port: self.remote_port,
            remote_port: self.local_port,
        }
    }
}

/// Looks into an IP packet; `None`: it is none, or its headers do not hold what they should.
pub(crate) fn look(packet: &[u8]) -> Option<Seen> {
    seen(packet, true)
}

/// `whole`: not what an error quotes, which may be cut off and is not looked into for further quotes.
fn seen(packet: &[u8], whole: bool) -> Option<Seen> {
    let header = quoted_ip_header(packet)?;
    let (protocol, rest) = match header.source {
        IpAddr::V4(_) => behind_ipv4(packet)?,
        IpAddr::V6(_) => behind_ipv6(packet)?,
    };
    let kind = match rest {
        Rest::LaterFragment { offset } => Kind::LaterFragment { offset },
        Rest::Bytes(bytes) => kind(protocol, bytes, whole)?,
    };
    Some(Seen {
        source: header.source,
        destination: header.destination,
        protocol,
        kind,
    })
}

/// What is behind IP's headers.
enum Rest<'p> {
    Bytes(&'p [u8]),
    LaterFragment { offset: u16 },
}

fn behind_ipv4(packet: &[u8]) -> Option<(u8, Rest<'_>)> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let offset = (u16::from_be_bytes([header[6], header[7]]) & 0x1fff) * 8;
    let rest = match offset {
        0 => Rest::Bytes(packet.get(usize::from(header[0] & 0xf) * 4..)?),
        offset => Rest::LaterFragment { offset },
    };
    Some((header[9], rest))
}

fn behind_ipv6(packet: &[u8]) -> Option<(u8, Rest<'_>)> {
    let (header, mut rest) = packet.split_first_chunk::<40>()?;
    let mut next = header[6];
    for _ in 0..HEADERS_MAX {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => (usize::from(*rest.get(1)?) + 1) * 8,
            FRAGMENT => {
                let place: &[u8; 4] = rest.first_chunk()?;
                let offset = u16::from_be_bytes([place[2], place[3]]) & 0xfff8;
                if offset != 0 {
                    return Some((place[0], Rest::LaterFragment { offset }));
                }
                8
            }
            _ => return Some((next, Rest::Bytes(rest))),
        };
        next = *rest.first()?;
        rest = rest.get(length..)?;
    }
    None
}

fn kind(protocol: u8, bytes: &[u8], whole: bool) -> Option<Kind> {
    let number = |offset: usize| {
        let word = bytes.get(offset..offset + 2)?;
        Some(u16::from_be_bytes([word[0], word[1]]))
    };
    Some(match protocol {
        TCP | UDP => {
            let flags = match (protocol, bytes.get(13)) {
                (TCP, Some(flags)) => *flags,
                // A first fragment that ends before them hides them.
                (TCP, None) if whole => return None,
                _ => 0,
            };
            Kind::Ports {
                source: number(0)?,
                destination: number(2)?,
                opens: flags & (SYN | ACK) == SYN,
            }
        }
        ICMP | ICMPV6 => match (protocol, *bytes.first()?) {
            (ICMP, 8) | (ICMPV6, 128) => Kind::EchoRequest { id: number(4)? },
            (ICMP, 0) | (ICMPV6, 129) => Kind::EchoReply { id: number(4)? },
            // Unreachable, too big, time exceeded, a field that is wrong.
            (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) if whole => {
                let about = bytes.get(8..).and_then(|quoted| seen(quoted, false));
                let about = about.filter(|seen| match seen.kind {
                    Kind::Ports { .. } | Kind::EchoRequest { .. } => true,
                    Kind::Other => !seen.is_icmp(),
                    Kind::EchoReply { .. } => true,
                    Kind::Error { .. } | Kind::LaterFragment { .. } => false,
                });
                // It was sent from where the error goes to.
                let about = about.map(|seen| seen.flow().reversed());
                Kind::Error { about }
            }
            _ => Kind::Other,
        },
        _ => Kind::Other,
    })
}
