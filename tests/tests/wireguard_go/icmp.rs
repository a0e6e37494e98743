//! ICMPv6 echo (RFC 4443 section 4), as much as the test needs.

use std::net::Ipv6Addr;

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// An echo request from `source` to `destination`.
pub(crate) fn request(source: Ipv6Addr, destination: Ipv6Addr, sequence: u16) -> Vec<u8> {
    let mut body = vec![ECHO_REQUEST, 0, 0, 0, 0x6d, 0x77];
    body.extend(sequence.to_be_bytes());
    body.extend(b"from the engine");
    packet(source, destination, body)
}

/// The answer to an echo request; `None` if `request` is none.
pub(crate) fn reply(request: &[u8]) -> Option<Vec<u8>> {
    let (source, destination, body) = parse(request)?;
    if body.first() != Some(&ECHO_REQUEST) {
        return None;
    }
    let mut body = body.to_vec();
    body[0] = ECHO_REPLY;
    Some(packet(destination, source, body))
}

/// The sequence number that an echo reply answers.
pub(crate) fn answered(reply: &[u8]) -> Option<u16> {
    let (_, _, body) = parse(reply)?;
    match body {
        [ECHO_REPLY, 0, _, _, 0x6d, 0x77, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

fn parse(packet: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr, &[u8])> {
    if packet.len() < 48 || packet[0] >> 4 != 6 || packet[6] != 58 {
        return None;
    }
    let address = |at: usize| -> Ipv6Addr {
        let octets: [u8; 16] = packet[at..at + 16].try_into().expect("16 bytes");
        octets.into()
    };
    Some((address(8), address(24), &packet[40..]))
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    body[2..4].fill(0);
    let mut packet = mesh_testkit::packets::ipv6(source, destination, &body);
    packet[6] = 58;
    let pseudo = u32::try_from(body.len()).expect("short").to_be_bytes();
    let covered = [&packet[8..40], &pseudo, &[0, 0, 0, 58], &packet[40..]].concat();
    let mut sum: u32 = covered
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded");
    packet[42..44].copy_from_slice(&checksum.to_be_bytes());
    packet
}
