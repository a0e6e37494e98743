//! PCP (RFC 6887), as far as it maps a UDP port over IPv4.
//!
//! | offset | bytes | question | answer |
//! |---|---|---|---|
//! | 0 | 1 | version 2 | version 2 |
//! | 1 | 1 | opcode: 0 announce, 1 map | opcode and 0x80 |
//! | 2 | 2 | zero | zero 1, result 1 |
//! | 4 | 4 | lifetime in seconds | lifetime of the mapping, or of the refusal |
//! | 8 | 16 | the client's own address | seconds since the router started 4, zero 12 |
//! | 24 | 12 | map: nonce | the same |
//! | 36 | 4 | map: protocol 1 (17: UDP), zero 3 | the same |
//! | 40 | 4 | map: internal port 2, suggested external port 2 | internal port 2, external port 2 |
//! | 44 | 16 | map: suggested external address | external address |
//!
//! An IPv4 address is mapped into IPv6's (`::ffff:a.b.c.d`). Options, which may follow, are not asked for and
//! passed over.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use super::{BYTES_MAX, Malformed, u16_at, u32_at};

/// The version of every message.
pub const VERSION: u8 = 2;

/// The result of a router that speaks PCP, but not this question.
pub const UNSUPPORTED_OPCODE: u8 = 4;

const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const ANSWER: u8 = 0x80;
const UDP: u8 = 17;
const HEADER_BYTES: usize = 24;

/// What proves to a router that a mapping is asked for again by who asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 12]);

/// A router's answer, or announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is there.
    Announce {
        /// Seconds since the router started or lost its mappings.
        epoch: u32,
    },
    /// A mapping of a UDP port.
    Mapped {
        /// As above.
        epoch: u32,
        /// Of the question.
        nonce: Nonce,
        /// The port that was asked for.
        internal_port: u16,
        /// What is mapped to it; `None`: an IPv6 address, which was not asked for.
        external: Option<SocketAddrV4>,
        /// For how long; zero: no more.
        lifetime_seconds: u32,
    },
    /// It does not do what was asked.
    Refused {
        /// Why (RFC 6887 section 7.4).
        result: u8,
    },
}

/// The question whether a router is there.
pub fn announce_request(client: Ipv4Addr) -> [u8; HEADER_BYTES] {
    header(ANNOUNCE, client, 0)
}

/// The question for a mapping of UDP `internal_port`; with a lifetime of zero, for its end.
pub fn map_request(
    client: Ipv4Addr,
    nonce: Nonce,
    internal_port: u16,
    suggested: SocketAddrV4,
    lifetime_seconds: u32,
) -> [u8; 60] {
    let mut bytes = [0; 60];
    bytes[..HEADER_BYTES].copy_from_slice(&header(MAP, client, lifetime_seconds));
    bytes[24..36].copy_from_slice(&nonce.0);
    bytes[36] = UDP;
    bytes[40..42].copy_from_slice(&internal_port.to_be_bytes());
    bytes[42..44].copy_from_slice(&suggested.port().to_be_bytes());
    bytes[44..60].copy_from_slice(&suggested.ip().to_ipv6_mapped().octets());
    bytes
}

fn header(opcode: u8, client: Ipv4Addr, lifetime_seconds: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = VERSION;
    bytes[1] = opcode;
    bytes[4..8].copy_from_slice(&lifetime_seconds.to_be_bytes());
    bytes[8..24].copy_from_slice(&client.to_ipv6_mapped().octets());
    bytes
}

impl Response {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        // RFC 6887 section 8.3: what has not the length of a message is dropped.
        let whole =
            (HEADER_BYTES..=BYTES_MAX).contains(&bytes.len()) && bytes.len().is_multiple_of(4);
        if !whole || bytes[0] != VERSION || bytes[1] < ANSWER {
            return Err(Malformed);
        }
        if bytes[3] != 0 {
            return Ok(Self::Refused { result: bytes[3] });
        }
        let lifetime_seconds = u32_at(bytes, 4)?;
        let epoch = u32_at(bytes, 8)?;
        match bytes[1] - ANSWER {
            ANNOUNCE => Ok(Self::Announce { epoch }),
            MAP => {
                let body = bytes.get(24..60).ok_or(Malformed)?;
                if body[12] != UDP {
                    return Err(Malformed);
                }
                let address: [u8; 16] = body[20..36].try_into().or(Err(Malformed))?;
                let port = u16_at(body, 18)?;
                Ok(Self::Mapped {
                    epoch,
                    nonce: Nonce(body[..12].try_into().or(Err(Malformed))?),
                    internal_port: u16_at(body, 16)?,
                    external: Ipv6Addr::from(address)
                        .to_ipv4_mapped()
                        .map(|ip| SocketAddrV4::new(ip, port)),
                    lifetime_seconds,
                })
            }
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Response as Any, *};

    const NONCE: Nonce = Nonce([7; 12]);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);

    fn question() -> [u8; 60] {
        let suggested = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 4194);
        map_request(CLIENT, NONCE, 4193, suggested, 3600)
    }

    /// As a router answers: the question with its own words in place.
    fn answer() -> [u8; 60] {
        let mut bytes = question();
        bytes[1] |= ANSWER;
        bytes[8..24].fill(0);
        bytes[11] = 9;
        bytes[44..60].copy_from_slice(&Ipv4Addr::new(203, 0, 113, 9).to_ipv6_mapped().octets());
        bytes
    }

    #[test]
    fn questions_have_the_documented_bytes() {
        let client = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 5];
        let bytes = question();
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x0e, 0x10]);
        assert_eq!(bytes[8..24], client);
        assert_eq!(bytes[24..36], [7; 12]);
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0x10, 0x61, 0x10, 0x62]);
        let any = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(bytes[44..], any);
        assert_eq!(announce_request(CLIENT)[..8], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(announce_request(CLIENT)[8..], client);
    }

    #[test]
    fn answers_are_read() {
        let mapped = Any::Pcp(Response::Mapped {
            epoch: 9,
            nonce: NONCE,
            internal_port: 4193,
            external: Some("203.0.113.9:4194".parse().unwrap()),
            lifetime_seconds: 3600,
        });
        assert_eq!(Any::parse(&answer()), Ok(mapped));
        // With an option behind.
        let longer = [&answer()[..], &[3, 0, 0, 0]].concat();
        assert_eq!(Any::parse(&longer), Ok(mapped));
        let mut announce = announce_request(CLIENT);
        announce[1] |= ANSWER;
        announce[8..24].fill(0);
        assert_eq!(
            Any::parse(&announce),
            Ok(Any::Pcp(Response::Announce { epoch: 0 }))
        );
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_dropped() {
        let answer = answer();
        for cut in 0..answer.len() {
            assert_eq!(Any::parse(&answer[..cut]), Err(Malformed), "{cut}");
        }
        assert_eq!(Any::parse(&question()), Err(Malformed));
        let mut tcp = answer;
        tcp[36] = 6;
        assert_eq!(Any::parse(&tcp), Err(Malformed));
        let mut refused = answer;
        refused[3] = 2;
        assert_eq!(
            Any::parse(&refused),
            Ok(Any::Pcp(Response::Refused { result: 2 }))
        );
        let mut ipv6 = answer;
        ipv6[44] = 0x20;
        let Ok(Any::Pcp(Response::Mapped { external, .. })) = Any::parse(&ipv6) else {
            panic!("{:?}", Any::parse(&ipv6));
        };
        assert_eq!(external, None);
    }
}
