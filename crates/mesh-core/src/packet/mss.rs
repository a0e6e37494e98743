//! The maximum segment size that TCP ends tell each other in their SYNs (RFC 9293 section 3.7.1), lowered
//! to what the way carries.

use super::{amend, protocol::TCP};

/// The flag in the byte of flags, and where that is in TCP's header.
const SYN: u8 = 0x02;
const FLAGS_OFFSET: usize = 13;
const TCP_HEADER_BYTES: usize = 20;

/// Kinds of options: the end of the list, a filler, and the one that is looked for.
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the maximum segment size in an IP packet that carries a TCP SYN to what fits `mtu`, which is asked for
/// only then, and mends the checksum. Every other packet is left as it is; so is a SYN that says nothing, whose
/// default fits any way.
#[inline]
pub fn clamp(packet: &mut [u8], mtu: impl FnOnce() -> u16) {
    if let Some((ip_bytes, tcp)) = syn(packet) {
        lower(tcp, mtu().saturating_sub(ip_bytes));
    }
}

/// The IP header's length without extensions, and all from the TCP header on; `None` if this is no SYN that
/// can be read.
#[inline]
fn syn(packet: &mut [u8]) -> Option<(u16, &mut [u8])> {
    let (ip_bytes, offset) = match packet.first()? >> 4 {
        6 if *packet.get(6)? == TCP => (40, 40),
        // Of a fragmented packet only the first piece has the header.
        4 if *packet.get(9)? == TCP && packet[6] & 0x1f == 0 && packet[7] == 0 => {
            (20, usize::from(packet[0] & 0xf) * 4)
        }
        _ => return None,
    };
    let tcp = packet.get_mut(offset..)?;
    (tcp.len() >= TCP_HEADER_BYTES && tcp[FLAGS_OFFSET] & SYN != 0).then_some((ip_bytes, tcp))
}

#[cold]
fn lower(tcp: &mut [u8], payload_bytes: u16) {
    let most = payload_bytes.saturating_sub(20);
    let header_bytes = usize::from(tcp[12] >> 4) * 4;
    let mut at = TCP_HEADER_BYTES;
    while at < header_bytes.min(tcp.len()) {
        match tcp[at] {
            OPTION_END => return,
            OPTION_NOTHING => {
                at += 1;
                continue;
            }
            OPTION_MSS if tcp.get(at + 1) == Some(&4) && at + 4 <= header_bytes.min(tcp.len()) => {
                replace(tcp, at + 2, most);
            }
            _ => {}
        }
        match tcp.get(at + 1) {
            Some(&length @ 2..) => at += usize::from(length),
            _ => return,
        }
    }
}

/// Writes `most` at `at` if what is there is more, and mends the checksum by the difference (RFC 1624).
fn replace(tcp: &mut [u8], at: usize, most: u16) {
    let old = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    if old <= most {
        return;
    }
    tcp[at..at + 2].copy_from_slice(&most.to_be_bytes());
    // Words are counted from the header's beginning: one that lies across two counts with its bytes swapped.
    let word = |value: u16| match at % 2 {
        0 => value,
        _ => value.swap_bytes(),
    };
    amend(&mut tcp[16..18], word(old), word(most));
}

#[cfg(test)]
mod tests {
    use mesh_types::InternetSum;
    use proptest::prelude::*;

    use super::*;

    /// A SYN with these options, and the right checksum (without a pseudo-header, whose part does not change).
    fn syn_packet(v6: bool, flags: u8, options: &[u8]) -> Vec<u8> {
        let header_bytes = TCP_HEADER_BYTES + options.len().next_multiple_of(4);
        let mut packet = match v6 {
            true => {
                let mut ip = vec![0; 40];
                (ip[0], ip[6]) = (0x60, TCP);
                ip
            }
            false => {
                let mut ip = vec![0; 20];
                (ip[0], ip[9]) = (0x45, TCP);
                ip
            }
        };
        let ip_bytes = packet.len();
        let mut tcp = vec![0; header_bytes];
        tcp[12] = u8::try_from(header_bytes / 4).unwrap() << 4;
        tcp[FLAGS_OFFSET] = flags;
        tcp[20..20 + options.len()].copy_from_slice(options);
        let checksum = InternetSum::default().with(&tcp).checksum();
        tcp[16..18].copy_from_slice(&checksum);
        packet.extend(tcp);
        assert!(InternetSum::default().with(&packet[ip_bytes..]).is_whole());
        packet
    }

    fn clamped(v6: bool, flags: u8, options: &[u8], mtu: u16) -> Vec<u8> {
        let mut packet = syn_packet(v6, flags, options);
        clamp(&mut packet, || mtu);
        let ip_bytes = if v6 { 40 } else { 20 };
        let sum = InternetSum::default().with(&packet[ip_bytes..]);
        assert!(sum.is_whole(), "the checksum");
        packet[ip_bytes + 20..].to_vec()
    }

    #[test]
    fn a_syn_tells_what_fits_and_its_checksum_stays_right() {
        let mss = |value: u16| [&[2, 4][..], &value.to_be_bytes()].concat();
        assert_eq!(clamped(true, SYN, &mss(8880), 1420), mss(1360));
        assert_eq!(clamped(false, SYN, &mss(8900), 1420), mss(1380));
        assert_eq!(clamped(true, SYN | 0x10, &mss(8880), 1200), mss(1140));
        assert_eq!(clamped(true, SYN, &mss(1000), 1420), mss(1000), "less");
        assert_eq!(clamped(true, 0x10, &mss(8880), 1420), mss(8880), "no SYN");
        let odd = [&[1][..], &mss(9000), &[3, 3, 7]].concat();
        assert_eq!(clamped(true, SYN, &odd, 1420)[1..5], mss(1360));
        let behind = [&[4, 2][..], &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8], &mss(1460)].concat();
        assert_eq!(clamped(false, SYN, &behind, 1280)[12..], mss(1240));
    }

    #[test]
    fn a_later_piece_of_a_packet_is_no_syn() {
        let mut packet = syn_packet(false, SYN, &[2, 4, 0x22, 0xb0]);
        packet[7] = 1;
        let before = packet.clone();
        clamp(&mut packet, || 1280);
        assert_eq!(packet, before);
    }

    proptest! {
        #[test]
        fn no_packet_panics_and_only_a_syn_is_changed(
            mut packet in prop::collection::vec(any::<u8>(), 0..120),
            version in 0u8..3,
            mtu: u16,
        ) {
            if let Some(first) = packet.first_mut() {
                *first = match version { 0 => *first, 1 => 0x45, _ => 0x60 };
            }
            if packet.len() > 9 {
                packet[if version == 1 { 9 } else { 6 }] = TCP;
            }
            let before = packet.clone();
            clamp(&mut packet, || mtu);
            prop_assert_eq!(before.len(), packet.len());
            if syn(&mut before.clone()).is_none() {
                prop_assert_eq!(before, packet);
            }
        }

        #[test]
        fn whatever_its_options_a_syn_keeps_its_checksum(
            options in prop::collection::vec(any::<u8>(), 0..40),
            v6: bool,
            mtu: u16,
        ) {
            clamped(v6, SYN, &options, mtu);
        }
    }
}
