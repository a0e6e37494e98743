//! What packets say of congestion, from the inside of a tunnel to its outside and back (RFC 6040): a sealed packet says
//! outside what it says inside, and a queue's mark outside is a mark inside.

use mesh_types::Ecn;

use super::amend;

/// What an IP packet says.
#[inline]
pub fn ecn(packet: &[u8]) -> Ecn {
    match packet {
        [first, second, ..] if first >> 4 == 4 => Ecn::from_bits(*second),
        [first, second, ..] if first >> 4 == 6 => Ecn::from_bits(*second >> 4),
        _ => Ecn::NotCapable,
    }
}

/// Hands on to a packet what the datagram said that carried it; false: the packet is lost, as its sender understands
/// nothing else.
#[inline]
pub fn hand_on_ecn(packet: &mut [u8], outside: Ecn) -> bool {
    outside != Ecn::Experienced || mark(packet)
}

#[cold]
fn mark(packet: &mut [u8]) -> bool {
    match ecn(packet) {
        Ecn::NotCapable => return false,
        Ecn::Experienced => return true,
        Ecn::Capable0 | Ecn::Capable1 => {}
    }
    if packet[0] >> 4 == 6 {
        packet[1] |= Ecn::Experienced.bits() << 4;
        return true;
    }
    let word = |packet: &[u8]| u16::from_be_bytes([packet[0], packet[1]]);
    let before = word(packet);
    packet[1] |= Ecn::Experienced.bits();
    let after = word(packet);
    if let Some(sum) = packet.get_mut(10..12) {
        amend(sum, before, after);
    }
    true
}

#[cfg(test)]
mod tests {
    use mesh_types::InternetSum;
    use proptest::prelude::*;

    use super::*;

    /// Headers alone, with a right checksum.
    fn packet(is_ipv6: bool, says: Ecn) -> Vec<u8> {
        if is_ipv6 {
            let mut packet = vec![0; 40];
            packet[..2].copy_from_slice(&[0x6a, 0x0b | says.bits() << 4]);
            return packet;
        }
        let mut packet: Vec<u8> = (0x45..).take(20).collect();
        packet[1] = 0xb8 | says.bits();
        packet[10..12].fill(0);
        let sum = InternetSum::default().with(&packet).checksum();
        packet[10..12].copy_from_slice(&sum);
        packet
    }

    #[test]
    fn a_mark_outside_is_a_mark_inside_or_the_loss_that_it_stands_for() {
        use Ecn::{Capable0, Capable1, Experienced, NotCapable};
        for is_ipv6 in [false, true] {
            for inside in [NotCapable, Capable0, Capable1, Experienced] {
                for outside in [NotCapable, Capable0, Capable1, Experienced] {
                    let before = packet(is_ipv6, inside);
                    let mut after = before.clone();
                    let goes_on = hand_on_ecn(&mut after, outside);
                    let expected = match (inside, outside) {
                        (NotCapable, Experienced) => None,
                        (_, Experienced) => Some(packet(is_ipv6, Experienced)),
                        _ => Some(before),
                    };
                    assert_eq!(goes_on.then_some(after), expected, "{inside:?} {outside:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_packet_panics(mut packet in prop::collection::vec(any::<u8>(), 0..30), bits in any::<u8>()) {
            hand_on_ecn(&mut packet, Ecn::from_bits(bits));
        }
    }
}
