//! What is read from, and done to, the IP packets inside the tunnel.

mod congestion;
mod cut;
mod errors;
mod mss;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use congestion::{ecn, hand_on_ecn};
pub use cut::{Cut, cut};
pub use errors::{AnswerRate, prohibited, too_big};
pub use mss::clamp;

/// Protocols above IP by their numbers (IANA, Assigned Internet Protocol Numbers).
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
    /// Of IPv6: what follows is a piece of a packet.
    pub(crate) const FRAGMENT: u8 = 44;
}

/// The two addresses of an IP packet, and how long its header says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpHeader {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The packet's length in bytes, at most that of the bytes it was read from.
    pub(crate) packet_bytes: usize,
}

/// Reads the header of an IPv4 or IPv6 packet, which padding may follow.
///
/// `None` if it is neither, cut short, or shorter than its own header.
pub(crate) fn ip_header(packet: &[u8]) -> Option<IpHeader> {
    let header = quoted_ip_header(packet)?;
    (header.packet_bytes <= packet.len()).then_some(header)
}

/// The same of a packet that may be cut short behind its header, as errors quote it.
pub(crate) fn quoted_ip_header(packet: &[u8]) -> Option<IpHeader> {
    match packet.first()? >> 4 {
        4 => ipv4_header(packet),
        6 => ipv6_header(packet),
        _ => None,
    }
}

fn ipv4_header(packet: &[u8]) -> Option<IpHeader> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let header_bytes = usize::from(header[0] & 0xf) * 4;
    let packet_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_bytes < header.len() || packet_bytes < header_bytes {
        return None;
    }
    let address = |offset: usize| {
        let octets: &[u8; 4] = header[offset..].first_chunk()?;
        Some(IpAddr::V4(Ipv4Addr::from(*octets)))
    };
    Some(IpHeader {
        source: address(12)?,
        destination: address(16)?,
        packet_bytes,
    })
}

fn ipv6_header(packet: &[u8]) -> Option<IpHeader> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let address = |offset: usize| {
        let octets: &[u8; 16] = header[offset..].first_chunk()?;
        Some(IpAddr::V6(Ipv6Addr::from(*octets)))
    };
    Some(IpHeader {
        source: address(8)?,
        destination: address(24)?,
        packet_bytes: header.len() + usize::from(u16::from_be_bytes([header[4], header[5]])),
    })
}

/// Amends an internet checksum, in two bytes, for one of its words that changed (RFC 1624).
fn amend(checksum: &mut [u8], before: u16, after: u16) {
    let sum = u16::from_be_bytes([checksum[0], checksum[1]]);
    let mut total = u32::from(!sum) + u32::from(!before) + u32::from(after);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    let sum = !u16::try_from(total).expect("folded to 16 bits");
    checksum.copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let mut v4 = [0; 20];
        v4[0] = 0x45;
        v4[3] = 20;
        assert_eq!(ip_header(&v4).unwrap().packet_bytes, 20);
        v4[3] = 21;
        assert_eq!(ip_header(&v4), None, "longer than the bytes");
        v4[3] = 19;
        assert_eq!(ip_header(&v4), None, "shorter than its header");
        v4[3] = 20;
        v4[0] = 0x44;
        assert_eq!(ip_header(&v4), None, "a header of 16 bytes");
        let mut v6 = [0; 48];
        v6[0] = 0x60;
        v6[5] = 8;
        assert_eq!(ip_header(&v6).unwrap().packet_bytes, 48);
        v6[5] = 9;
        assert_eq!(ip_header(&v6), None);
        v6[0] = 0x50;
        assert_eq!(ip_header(&v6), None, "version 5");
        assert_eq!(ip_header(&[]), None);
    }

    proptest! {
        #[test]
        fn no_packet_panics_and_none_is_longer_than_its_bytes(
            packet in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Some(header) = ip_header(&packet) {
                prop_assert!(header.packet_bytes <= packet.len());
            }
        }
    }
}
