//! What a moon answers to a client's other sockets, on the same UDP port as WireGuard's messages: where it
//! sees them, and that their NAT still lets it through.
//!
//! | offset | bytes | reflect request | reflection | knock |
//! |---|---|---|---|---|
//! | 0 | 1 | 0x22 | 0x23 | 0x24 |
//! | 1 | 3 | zero | zero | zero |
//! | 4 | 8 | the client's token | id of the request | the id that was asked for |
//! | 12 | 8 | id, chosen by the client | endpoint, 18 bytes | |
//! | 20 | 20 | zero: no shorter than its answer | | |
//! | 30 | 2 | | zero | |
//! | 32 | 8 | | proof, for a knock at this address ([`crate::tunnel`]) | |
//!
//! A request and a reflection have 40 bytes, a knock has 12. The endpoint is the one that the request came
//! from, as in [`crate::tunnel`], each byte combined by exclusive or with the id, repeated: some NATs rewrite
//! addresses that they find in packets (RFC 8489 section 14.2). Nothing is sealed. A request without a token
//! that counts is not answered; who is on the way can forge an answer, and could as well drop it.

use std::net::SocketAddr;

use crate::endpoint::{ENDPOINT_BYTES, emit_endpoint, parse_endpoint};

/// The length of a request, and of its answer.
pub const REFLECT_BYTES: usize = 40;

/// The length of a knock.
pub const KNOCK_BYTES: usize = 12;

const KIND_REQUEST: u8 = 0x22;
const KIND_REFLECTION: u8 = 0x23;
const KIND_KNOCK: u8 = 0x24;

/// Asks a moon where it sees the socket that this comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReflectRequest {
    /// The client's token at this moon.
    pub token: u64,
    /// Chosen by the client.
    pub id: u64,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflection {
    /// From the request.
    pub id: u64,
    /// Where the request came from.
    pub observed: SocketAddr,
    /// Shows the moon that who has it got the answer at that address.
    pub proof: u64,
}

/// What a client's sockets get from a moon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer to a [`ReflectRequest`].
    Reflection(Reflection),
    /// What was asked for inside the session, with its id.
    Knock(u64),
}

impl ReflectRequest {
    /// Its bytes.
    pub fn emit(self) -> [u8; REFLECT_BYTES] {
        let mut bytes = [0; REFLECT_BYTES];
        bytes[0] = KIND_REQUEST;
        bytes[4..12].copy_from_slice(&self.token.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.id.to_be_bytes());
        bytes
    }

    /// Reads a request; `None`: it is none. What a later release may put behind the id is passed over.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let bytes: &[u8; REFLECT_BYTES] = datagram.first_chunk()?;
        (bytes[..4] == [KIND_REQUEST, 0, 0, 0]).then_some(())?;
        Some(Self {
            token: u64::from_be_bytes(*bytes[4..].first_chunk()?),
            id: u64::from_be_bytes(*bytes[12..].first_chunk()?),
        })
    }
}

impl Reflection {
    /// Its bytes.
    pub fn emit(self) -> [u8; REFLECT_BYTES] {
        let mut bytes = [0; REFLECT_BYTES];
        bytes[0] = KIND_REFLECTION;
        bytes[4..12].copy_from_slice(&self.id.to_be_bytes());
        let endpoint = masked(emit_endpoint(Some(self.observed)), self.id);
        bytes[12..12 + ENDPOINT_BYTES].copy_from_slice(&endpoint);
        bytes[32..].copy_from_slice(&self.proof.to_be_bytes());
        bytes
    }
}

impl Heard {
    /// Reads what came to a socket; `None`: neither a reflection nor a knock.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (head, rest) = datagram.split_first_chunk::<4>()?;
        let id = u64::from_be_bytes(*rest.first_chunk()?);
        match head {
            [KIND_REFLECTION, 0, 0, 0] => {
                let rest = &rest[8..];
                let endpoint = masked(*rest.first_chunk()?, id);
                Some(Self::Reflection(Reflection {
                    id,
                    observed: parse_endpoint(&endpoint)?,
                    proof: u64::from_be_bytes(*rest.get(20..)?.first_chunk()?),
                }))
            }
            [KIND_KNOCK, 0, 0, 0] => Some(Self::Knock(id)),
            _ => None,
        }
    }
}

/// Writes a knock.
pub fn emit_knock(id: u64) -> [u8; KNOCK_BYTES] {
    let mut bytes = [0; KNOCK_BYTES];
    bytes[0] = KIND_KNOCK;
    bytes[4..].copy_from_slice(&id.to_be_bytes());
    bytes
}

fn masked(mut endpoint: [u8; ENDPOINT_BYTES], id: u64) -> [u8; ENDPOINT_BYTES] {
    for (byte, mask) in endpoint.iter_mut().zip(id.to_be_bytes().iter().cycle()) {
        *byte ^= mask;
    }
    endpoint
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_has_its_golden_bytes() {
        let (token, id) = (0x0102_0304_0506_0708, 0x1112_1314_1516_1718);
        let mut golden = [0; 40];
        golden[..20].copy_from_slice(&[
            0x22, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        ]);
        assert_eq!(ReflectRequest { token, id }.emit(), golden);
        let reflection = Reflection {
            id,
            observed: SocketAddr::from(([192, 0, 2, 1], 4193)),
            proof: token,
        };
        let golden = [
            0x23, 0, 0, 0, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, // the id
            0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x11, 0x12, // masked zeros
            0xec, 0xeb, // masked ones
            0xd5, 0x16, 0x15, 0x19, // 192.0.2.1, masked
            0x01, 0x73, // 4193, masked
            0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        assert_eq!(reflection.emit(), golden);
        assert_eq!(
            emit_knock(id),
            [
                0x24, 0, 0, 0, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18
            ]
        );
    }

    #[test]
    fn none_of_them_is_a_frame_or_a_message_of_wireguard() {
        for kind in [KIND_REQUEST, KIND_REFLECTION, KIND_KNOCK] {
            assert!(!crate::relay::is_frame(&[kind, 0, 0, 0]));
            assert!(!crate::wireguard::is_data(&[kind, 0, 0, 0]));
        }
    }

    proptest! {
        #[test]
        fn they_survive_their_bytes(token in any::<u64>(), id in any::<u64>(), address in any::<[u8; 4]>(), port in 1..=u16::MAX) {
            let request = ReflectRequest { token, id };
            prop_assert_eq!(ReflectRequest::parse(&request.emit()), Some(request));
            let [_, b, c, d] = address;
            let observed = SocketAddr::from(([192, b, c, d], port));
            let reflection = Reflection { id, observed, proof: token };
            prop_assert_eq!(Heard::parse(&reflection.emit()), Some(Heard::Reflection(reflection)));
            prop_assert_eq!(Heard::parse(&emit_knock(id)), Some(Heard::Knock(id)));
        }

        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0x22..0x26_u8) {
            let _ = (ReflectRequest::parse(&bytes), Heard::parse(&bytes));
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            let _ = (ReflectRequest::parse(&bytes), Heard::parse(&bytes));
        }
    }
}
