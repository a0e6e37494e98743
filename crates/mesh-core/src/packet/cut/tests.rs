use proptest::prelude::*;

use super::*;

fn ipv6(headers: &[u8], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6_HEADER_BYTES];
    packet[0] = 0x60;
    let length = u16::try_from(headers.len() + payload.len()).unwrap();
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet[6] = next;
    packet.extend(headers);
    packet.extend(payload);
    packet
}

fn ipv4(options: &[u8], flags: u16, payload: &[u8]) -> Vec<u8> {
    let header_bytes = 20 + options.len();
    let mut packet = vec![0; 20];
    packet[0] = 0x40 | u8::try_from(header_bytes / 4).unwrap();
    let length = u16::try_from(header_bytes + payload.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[4..6].copy_from_slice(&[0x12, 0x34]);
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// Puts fragments without extension headers together again, as their receiver does.
fn together(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let last = number + 1 == pieces.len();
        let (offset, more, body) = if piece[0] >> 4 == 6 {
            assert_eq!(
                piece.len(),
                40 + usize::from(u16::from_be_bytes([piece[4], piece[5]]))
            );
            assert_eq!(piece[6], FRAGMENT);
            let place = u16::from_be_bytes([piece[42], piece[43]]);
            (usize::from(place & 0xfff8), place & 1 == 1, &piece[48..])
        } else {
            let header = usize::from(piece[0] & 0xf) * 4;
            assert_eq!(
                piece.len(),
                usize::from(u16::from_be_bytes([piece[2], piece[3]]))
            );
            let sum = InternetSum::default().with(&piece[..header]);
            assert!(sum.is_whole(), "the header's checksum");
            let place = u16::from_be_bytes([piece[6], piece[7]]);
            let more = place & IPV4_MORE_FRAGMENTS != 0;
            (usize::from(place & IPV4_OFFSET) * 8, more, &piece[header..])
        };
        assert_eq!((offset, more), (payload.len(), !last));
        payload.extend(body);
    }
    payload
}

fn pieces(packet: &[u8], fit: u16, mtu: u16) -> Vec<Vec<u8>> {
    let Cut::Pieces(pieces) = cut(packet, fit, mtu, 0xabcd_ef01) else {
        panic!("it may be cut");
    };
    assert!(pieces.iter().all(|piece| piece.len() <= usize::from(fit)));
    pieces
}

#[test]
fn a_packet_of_1280_bytes_goes_in_two_and_comes_out_whole() {
    let payload: Vec<u8> = (0..1240).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let cut6 = pieces(&ipv6(&[], 17, &payload), 1180, 1280);
    assert_eq!((cut6.len(), together(&cut6)), (2, payload.clone()));
    assert!(
        cut6.iter()
            .all(|piece| piece[40] == 17 && piece[44..48] == [0xab, 0xcd, 0xef, 1])
    );
    let cut4 = pieces(&ipv4(&[], 0, &payload), 1180, 1280);
    assert_eq!((cut4.len(), together(&cut4)), (2, payload.clone()));
    assert!(cut4.iter().all(|piece| piece[4..6] == [0x12, 0x34]));
    // One that may not be cut has no number that tells it from others (RFC 6864).
    let whole = pieces(&ipv4(&[], IPV4_DONT_FRAGMENT, &payload), 1180, 1280);
    assert_eq!(together(&whole), payload);
    assert!(whole.iter().all(|piece| piece[4..6] == [0xef, 1]));
}

#[test]
fn the_sender_is_told_of_what_it_may_not_send() {
    let payload = [0; 1400];
    assert_eq!(
        cut(&ipv6(&[], 17, &payload), 1420, 1420, 0),
        Cut::TooBig(1420)
    );
    // IPv6 knows no less than 1280.
    assert_eq!(
        cut(&ipv6(&[], 17, &payload), 1200, 1200, 0),
        Cut::TooBig(1280)
    );
    let firm = ipv4(&[], IPV4_DONT_FRAGMENT, &payload);
    assert_eq!(cut(&firm, 1200, 1200, 0), Cut::TooBig(1200));
    assert_eq!(
        together(&pieces(&ipv4(&[], 0, &payload), 1200, 1200)),
        payload
    );
}

#[test]
fn a_fragment_is_cut_into_smaller_ones_of_the_same_packet() {
    let payload: Vec<u8> = (0..1200).map(|i| u8::try_from(i % 249).unwrap()).collect();
    for first in [ipv6(&[], 17, &payload), ipv4(&[], 0, &payload)] {
        let smaller: Vec<_> = pieces(&first, 1100, 1280)
            .iter()
            .flat_map(|piece| pieces(piece, 520, 1280))
            .collect();
        assert!(smaller.len() > 2);
        assert_eq!(together(&smaller), payload);
    }
}

#[test]
fn options_are_where_they_belong() {
    // Record route is for the first fragment, a security label for all.
    let options = [7, 7, 4, 0, 0, 0, 0, 1, 130, 4, 9, 9];
    let cut = pieces(&ipv4(&options, 0, &[1; 1000]), 600, 1280);
    assert_eq!(cut[0][20..32], options);
    assert_eq!(cut[1][20..32], [1, 1, 1, 1, 1, 1, 1, 1, 130, 4, 9, 9]);
    assert_eq!(together(&cut), [1; 1000]);
    // IPv6's hop-by-hop options stand before the fragment header of each.
    let hop_by_hop = [17, 0, 5, 2, 0, 0, 1, 0];
    for piece in pieces(&ipv6(&hop_by_hop, 0, &[1; 1000]), 600, 1280) {
        assert_eq!(piece[6], 0);
        assert_eq!(piece[40..48], [FRAGMENT, 0, 5, 2, 0, 0, 1, 0]);
        assert_eq!(piece[48], 17);
    }
}

proptest! {
    #[test]
    fn what_is_cut_comes_out_whole(
        payload in prop::collection::vec(any::<u8>(), 1..1240),
        fit in 60u16..1280,
        v6: bool,
    ) {
        let packet = if v6 { ipv6(&[], 17, &payload) } else { ipv4(&[], 0, &payload) };
        prop_assert_eq!(together(&pieces(&packet, fit, 1280)), payload);
    }

    #[test]
    fn no_packet_panics_and_no_piece_is_larger_than_fits(
        packet in prop::collection::vec(any::<u8>(), 0..2000),
        first in prop::sample::select(vec![0x45u8, 0x4f, 0x60]),
        next in prop::sample::select(vec![0u8, 6, 43, 44, 60]),
        fit: u16,
        mtu: u16,
    ) {
        let mut packet = packet;
        if packet.len() > 6 {
            packet[0] = first;
            packet[6] = next;
        }
        if let Cut::Pieces(pieces) = cut(&packet, fit, mtu, 7) {
            prop_assert!(pieces.iter().all(|piece| piece.len() <= usize::from(fit)));
        }
    }
}
