//! What is said to the router of the own network so that it maps a port: PCP, NAT-PMP, and UPnP's IGD.
//!
//! None of the three is encrypted or signed, so an answer is a hint, whoever gave it. The rules by which one
//! is believed are `mesh-core`'s; here are the bytes.

pub mod nat_pmp;
pub mod pcp;
pub mod upnp;

use std::net::Ipv4Addr;

/// The UDP port on which a router takes PCP and NAT-PMP.
pub const PORT: u16 = 5351;

/// The UDP port, of all hosts (224.0.0.1), at which a router announces that it started anew.
pub const ANNOUNCE_PORT: u16 = 5350;

/// The longest message of PCP (RFC 6887 section 7), and so of both.
pub const BYTES_MAX: usize = 1100;

/// A message from a router's port [`PORT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// PCP.
    Pcp(pcp::Response),
    /// NAT-PMP, in which also its routers answer PCP.
    NatPmp(nat_pmp::Response),
}

/// The bytes are no answer of either protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither PCP nor NAT-PMP")]
pub struct Malformed;

impl Response {
    /// Reads a message of either protocol.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.first() {
            Some(&pcp::VERSION) => pcp::Response::parse(bytes).map(Self::Pcp),
            Some(&nat_pmp::VERSION) => nat_pmp::Response::parse(bytes).map(Self::NatPmp),
            Some(_) | None => Err(Malformed),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = bytes.get(at..at + 2).ok_or(Malformed)?;
    Ok(u16::from_be_bytes(bytes.try_into().or(Err(Malformed))?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = bytes.get(at..at + 4).ok_or(Malformed)?;
    Ok(u32::from_be_bytes(bytes.try_into().or(Err(Malformed))?))
}

fn ipv4_at(bytes: &[u8], at: usize) -> Result<Ipv4Addr, Malformed> {
    u32_at(bytes, at).map(Ipv4Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Response::parse(&bytes);
        }

        #[test]
        fn no_answer_to_a_question_panics(
            version in prop_oneof![Just(pcp::VERSION), Just(nat_pmp::VERSION)],
            opcode in 0x80_u8..=0x82,
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let bytes = [&[version, opcode], &*rest].concat();
            let _ = Response::parse(&bytes);
        }
    }
}
