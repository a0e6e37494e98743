//! NAT-PMP (RFC 6886): the port mapping protocol of Apple's and many other routers.
//!
//! | offset | bytes | question | answer |
//! |---|---|---|---|
//! | 0 | 1 | version 0 | version 0 |
//! | 1 | 1 | opcode: 0 address, 1 map UDP | opcode and 0x80 |
//! | 2 | 2 | map: zero | result |
//! | 4 | 4 | map: internal port 2, suggested external port 2 | seconds since the router started |
//! | 8 | 4 | map: lifetime in seconds | address: external address; map: internal port 2, external port 2 |
//! | 12 | 4 | | map: lifetime in seconds |

use std::net::Ipv4Addr;

use super::{Malformed, ipv4_at, u16_at, u32_at};

/// The version of every message.
pub const VERSION: u8 = 0;

const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const ANSWER: u8 = 0x80;

/// The result of a router to whom the question's version is unknown, as a question of PCP is.
pub const UNSUPPORTED_VERSION: u16 = 1;

/// A router's answer, or announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Its external address.
    Address {
        /// Seconds since the router started or lost its mappings.
        epoch: u32,
        /// The address.
        external: Ipv4Addr,
    },
    /// A mapping of a UDP port.
    Mapped {
        /// As above.
        epoch: u32,
        /// The port that was asked for.
        internal_port: u16,
        /// The port that is mapped to it.
        external_port: u16,
        /// For how long; zero: no more.
        lifetime_seconds: u32,
    },
    /// It does not do what was asked.
    Refused {
        /// Why ([`UNSUPPORTED_VERSION`], 2 not authorised, 3 no network, 4 out of resources, 5 no such question).
        result: u16,
    },
}

/// The question for the external address.
pub fn address_request() -> [u8; 2] {
    [VERSION, ADDRESS]
}

/// The question for a mapping of UDP `internal_port`; with a lifetime of zero and no `external_port`, for its end.
pub fn map_request(internal_port: u16, external_port: u16, lifetime_seconds: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = VERSION;
    bytes[1] = MAP_UDP;
    bytes[4..6].copy_from_slice(&internal_port.to_be_bytes());
    bytes[6..8].copy_from_slice(&external_port.to_be_bytes());
    bytes[8..12].copy_from_slice(&lifetime_seconds.to_be_bytes());
    bytes
}

impl Response {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let [VERSION, opcode, ..] = *bytes else {
            return Err(Malformed);
        };
        let result = u16_at(bytes, 2)?;
        if opcode < ANSWER {
            return Err(Malformed);
        }
        if result != 0 {
            return Ok(Self::Refused { result });
        }
        let epoch = u32_at(bytes, 4)?;
        match opcode - ANSWER {
            ADDRESS => Ok(Self::Address {
                epoch,
                external: ipv4_at(bytes, 8)?,
            }),
            MAP_UDP => Ok(Self::Mapped {
                epoch,
                internal_port: u16_at(bytes, 8)?,
                external_port: u16_at(bytes, 10)?,
                lifetime_seconds: u32_at(bytes, 12)?,
            }),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Response as Any, *};

    #[test]
    fn questions_have_the_documented_bytes() {
        assert_eq!(address_request(), [0, 0]);
        assert_eq!(
            map_request(4193, 4194, 3600),
            [0, 1, 0, 0, 0x10, 0x61, 0x10, 0x62, 0, 0, 0x0e, 0x10]
        );
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(
            Any::parse(&[0, 128, 0, 0, 0, 0, 1, 2, 203, 0, 113, 9]),
            Ok(Any::NatPmp(Response::Address {
                epoch: 258,
                external: Ipv4Addr::new(203, 0, 113, 9)
            }))
        );
        let mapped = [0, 129, 0, 0, 0, 0, 0, 7, 0x10, 0x61, 0x10, 0x62, 0, 0, 2, 0];
        assert_eq!(
            Any::parse(&mapped),
            Ok(Any::NatPmp(Response::Mapped {
                epoch: 7,
                internal_port: 4193,
                external_port: 4194,
                lifetime_seconds: 512
            }))
        );
        for cut in 0..mapped.len() {
            assert_eq!(Any::parse(&mapped[..cut]), Err(Malformed));
        }
    }

    #[test]
    fn a_refusal_is_read_whatever_was_asked() {
        for opcode in [128, 129, 130, 255] {
            assert_eq!(
                Any::parse(&[0, opcode, 0, 1, 0, 0, 0, 0]),
                Ok(Any::NatPmp(Response::Refused { result: 1 }))
            );
        }
        // A question is no answer.
        assert_eq!(Any::parse(&[0, 0]), Err(Malformed));
        assert_eq!(Any::parse(&map_request(1, 2, 3)), Err(Malformed));
    }
}
