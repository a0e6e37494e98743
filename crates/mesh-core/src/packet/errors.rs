//! What a machine is told of a packet that goes no further. One that is too big for its way: ICMPv6's Packet Too Big
//! (RFC 4443 section 3.2) and ICMP's Fragmentation Needed (RFC 1191 section 4). One that no rule accepts: that it is
//! prohibited (RFC 4443 section 3.1, RFC 1812 section 5.2.7.1), at which programs give up at once.

use std::time::Duration;

use mesh_types::{Instant, InternetSum};

use super::protocol::{FRAGMENT, ICMP, ICMPV6};
use crate::allowance::{Allowance, Limit};

const UNREACHABLE_V4: u8 = 3;
const UNREACHABLE_V6: u8 = 1;
const TOO_BIG_V6: u8 = 2;

/// What the answer has of the packet, at most: an IPv6 answer is no longer than 1280 bytes, an IPv4 one no
/// longer than 576 (RFC 1812 section 4.3.2.3).
const QUOTED_BYTES_V6: usize = 1280 - 48;
const QUOTED_BYTES_V4: usize = 576 - 28;

/// Answers at once, and a second: who sends many packets that are too big learns it from the first.
const ANSWERS: Limit = Limit {
    at_once: 100,
    every: Duration::from_millis(10),
};

/// The answer to an IP packet that is too big for its way, which carries `mtu` bytes, as if its destination
/// had sent it: so it comes from where the packet's answers come from.
///
/// `None` for what must not be answered: errors of ICMP themselves, later fragments, packets from or to many.
pub fn too_big(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => ipv4_error(packet, UNREACHABLE_V4, 4, mtu),
        6 => ipv6_error(packet, TOO_BIG_V6, 0, mtu),
        _ => None,
    }
}

/// The answer to an IP packet that is not let through; else as [`too_big`].
pub fn prohibited(packet: &[u8]) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => ipv4_error(packet, UNREACHABLE_V4, 13, 0),
        6 => ipv6_error(packet, UNREACHABLE_V6, 1, 0),
        _ => None,
    }
}

fn ipv6_error(packet: &[u8], kind: u8, code: u8, mtu: u16) -> Option<Vec<u8>> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let (source, destination) = (&header[8..24], &header[24..]);
    if source[0] == 0xff || destination[0] == 0xff || source == [0; 16] {
        return None;
    }
    let is_error = header[6] == ICMPV6 && packet.get(40).is_none_or(|kind| *kind < 128);
    if is_error || header[6] == FRAGMENT && packet.get(42..44).is_none_or(is_later) {
        return None;
    }
    let quoted = &packet[..packet.len().min(QUOTED_BYTES_V6)];
    let mut answer = vec![0x60, 0, 0, 0];
    let payload_bytes = u16::try_from(8 + quoted.len()).ok()?;
    answer.extend(payload_bytes.to_be_bytes());
    answer.extend([ICMPV6, 64]);
    answer.extend(destination);
    answer.extend(source);
    answer.extend([kind, code, 0, 0]);
    answer.extend(u32::from(mtu).to_be_bytes());
    answer.extend(quoted);
    let sum = InternetSum::default()
        .with(&answer[8..])
        .with_number(payload_bytes)
        .with_number(ICMPV6.into());
    answer[42..44].copy_from_slice(&sum.checksum());
    Some(answer)
}

/// Whether a fragment is not the first of its packet.
fn is_later(place: &[u8]) -> bool {
    u16::from_be_bytes([place[0], place[1]]) & 0xfff8 != 0
}

fn ipv4_error(packet: &[u8], kind: u8, code: u8, mtu: u16) -> Option<Vec<u8>> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let (source, destination) = (&header[12..16], &header[16..]);
    let is_one = |address: &[u8]| !matches!(address[0], 0 | 224..);
    let is_later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if !is_one(source) || !is_one(destination) || is_later {
        return None;
    }
    let header_bytes = usize::from(header[0] & 0xf) * 4;
    // Echoes, timestamps and the like are answered, errors and what is not known are not.
    let asks = |kind: &u8| matches!(kind, 0 | 8 | 13 | 14);
    if header[9] == ICMP && !packet.get(header_bytes).is_some_and(asks) {
        return None;
    }
    let quoted = &packet[..packet.len().min(QUOTED_BYTES_V4)];
    let total = u16::try_from(28 + quoted.len()).ok()?;
    let mut answer = vec![0x45, 0xc0];
    answer.extend(total.to_be_bytes());
    answer.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
    answer.extend(destination);
    answer.extend(source);
    let checksum = InternetSum::default().with(&answer).checksum();
    answer[10..12].copy_from_slice(&checksum);
    answer.extend([kind, code, 0, 0, 0, 0]);
    answer.extend(mtu.to_be_bytes());
    answer.extend(quoted);
    let checksum = InternetSum::default().with(&answer[20..]).checksum();
    answer[22..24].copy_from_slice(&checksum);
    Some(answer)
}

/// How many such answers are given (RFC 4443 section 2.4 (f)).
#[derive(Debug, Default)]
pub struct AnswerRate(Allowance);

impl AnswerRate {
    /// Whether another one may be given.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.0.takes(ANSWERS, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[6] = next;
        (packet[8], packet[23], packet[24], packet[39]) = (0xfd, 1, 0xfd, 2);
        packet.extend(payload);
        packet
    }

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[9] = protocol;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn the_answer_names_what_fits_and_quotes_the_packet() {
        let packet = ipv6(17, &[7; 3000]);
        let answer = too_big(&packet, 1420).unwrap();
        assert_eq!(answer.len(), 1280);
        assert_eq!(
            (&answer[8..24], &answer[24..40]),
            (&packet[24..40], &packet[8..24])
        );
        assert_eq!(answer[40..42], [2, 0]);
        assert_eq!(answer[44..48], 1420_u32.to_be_bytes());
        assert_eq!(answer[48..], packet[..1232]);
        let sum = InternetSum::default().with(&answer[8..]).with_number(1240);
        let sum = sum.with_number(ICMPV6.into());
        assert!(sum.is_whole(), "the checksum");

        let packet = ipv4(17, &[7; 3000]);
        let answer = too_big(&packet, 1220).unwrap();
        assert_eq!(answer.len(), 576);
        assert_eq!(answer[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(answer[20..22], [3, 4]);
        assert_eq!(answer[26..28], 1220_u16.to_be_bytes());
        assert_eq!(answer[28..], packet[..548]);
        assert!(InternetSum::default().with(&answer[..20]).is_whole());
        assert!(InternetSum::default().with(&answer[20..]).is_whole());
    }

    #[test]
    fn a_packet_that_is_not_let_through_is_prohibited() {
        let answer = prohibited(&ipv6(6, &[7; 20])).unwrap();
        assert_eq!(answer[40..42], [1, 1]);
        assert_eq!(answer[44..48], [0; 4]);
        let answer = prohibited(&ipv4(6, &[7; 20])).unwrap();
        assert_eq!(answer[20..22], [3, 13]);
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let error = [1, 0, 0, 0];
        let echo = [128, 0, 0, 0];
        assert_eq!(too_big(&ipv6(ICMPV6, &error), 1280), None);
        assert!(too_big(&ipv6(ICMPV6, &echo), 1280).is_some());
        assert_eq!(
            too_big(&ipv6(FRAGMENT, &[17, 0, 0, 8, 0, 0, 0, 1]), 1280),
            None
        );
        assert!(too_big(&ipv6(FRAGMENT, &[17, 0, 0, 1, 0, 0, 0, 1]), 1280).is_some());
        let mut many = ipv6(17, &[]);
        many[24] = 0xff;
        assert_eq!(too_big(&many, 1280), None);

        assert_eq!(too_big(&ipv4(ICMP, &[3, 4]), 1280), None);
        assert!(too_big(&ipv4(ICMP, &[8, 0]), 1280).is_some());
        let mut later = ipv4(17, &[]);
        later[7] = 1;
        assert_eq!(too_big(&later, 1280), None);
        let mut many = ipv4(17, &[]);
        many[16] = 224;
        assert_eq!(too_big(&many, 1280), None);
    }

    proptest! {
        #[test]
        fn no_packet_panics_and_no_answer_is_longer_than_allowed(
            packet in prop::collection::vec(any::<u8>(), 0..2000),
            first in prop::sample::select(vec![0x45u8, 0x4f, 0x60]),
            mtu: u16,
        ) {
            let mut packet = packet;
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            if let Some(answer) = too_big(&packet, mtu) {
                prop_assert!(answer.len() <= 1280);
            }
        }
    }
}
