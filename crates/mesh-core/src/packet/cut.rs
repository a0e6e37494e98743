//! Packets that do not fit one datagram of their way: cut into fragments, as the machine's own IP layer
//! does, which the other machine's puts together again.
//!
//! Cut are IPv4 packets that allow it and IPv6 packets of up to 1280 bytes, which IPv6 promises to carry
//! anywhere (RFC 8200 section 5). Of what is larger the sender is told.

use mesh_types::InternetSum;

use super::protocol::FRAGMENT;

const IPV6_HEADER_BYTES: usize = 40;
const FRAGMENT_HEADER_BYTES: usize = 8;

/// IPv6 headers that stand before what is cut: hop-by-hop options, routing, destination options.
const KEPT_WHOLE: [u8; 3] = [0, 43, 60];

/// The most bytes of them, far more than anybody sends: each fragment has them again.
const KEPT_BYTES_MAX: usize = 200;

/// The least of which IPv6 lets nobody say that it is too big.
const IPV6_MTU_MIN: u16 = 1280;

const IPV4_DONT_FRAGMENT: u16 = 0x4000;
const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_OFFSET: u16 = 0x1fff;

/// What becomes of a packet that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It goes in these fragments; in none if it cannot be cut.
    Pieces(Vec<Vec<u8>>),
    /// Its sender is to be told that this many bytes fit ([`too_big`](crate::too_big)).
    TooBig(u16),
}

/// Cuts an IP packet into fragments of at most `fit` bytes, if its sender may send as many bytes as it has on
/// a way of `mtu` bytes. `id` becomes their identification, unless the packet is a fragment already.
pub fn cut(packet: &[u8], fit: u16, mtu: u16, id: u32) -> Cut {
    let is_ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let fit = usize::from(fit);
    if is_ipv6 {
        let mtu = mtu.max(IPV6_MTU_MIN);
        if packet.len() > usize::from(mtu) {
            return Cut::TooBig(mtu);
        }
        return Cut::Pieces(cut_ipv6(packet, fit, id).unwrap_or_default());
    }
    let Some(flags) = packet.get(6..8) else {
        return Cut::Pieces(Vec::new());
    };
    let may_not = u16::from_be_bytes([flags[0], flags[1]]) & IPV4_DONT_FRAGMENT != 0;
    if may_not && packet.len() > usize::from(mtu) {
        return Cut::TooBig(mtu);
    }
    // One that may not be cut and is no larger than the way is said to carry is put together by the tunnel's
    // other end before anybody sees it.
    Cut::Pieces(cut_ipv4(packet, fit, may_not.then_some(id)).unwrap_or_default())
}

/// RFC 8200 section 4.5; `None` if it cannot be cut.
fn cut_ipv6(packet: &[u8], fit: usize, id: u32) -> Option<Vec<Vec<u8>>> {
    let (kept_bytes, next_at) = kept_whole(packet)?;
    let (kept, rest) = packet.split_at_checked(kept_bytes)?;
    let next = *packet.get(next_at)?;
    // A fragment is cut in smaller ones of the same packet.
    let (next, from, last_more, id, rest) = if next == FRAGMENT {
        let (header, rest) = rest.split_first_chunk::<FRAGMENT_HEADER_BYTES>()?;
        let place = u16::from_be_bytes([header[2], header[3]]);
        let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        (header[0], place & 0xfff8, place & 1, id, rest)
    } else {
        (next, 0, 0, id, rest)
    };
    let room = fit.checked_sub(kept_bytes + FRAGMENT_HEADER_BYTES)? & !7;
    if room == 0 {
        return None;
    }
    let pieces = rest.len().div_ceil(room);
    let piece = |(number, part): (usize, &[u8])| {
        let mut piece = kept.to_vec();
        piece[next_at] = FRAGMENT;
        let payload = kept_bytes - IPV6_HEADER_BYTES + FRAGMENT_HEADER_BYTES + part.len();
        piece[4..6].copy_from_slice(&u16::try_from(payload).ok()?.to_be_bytes());
        let offset = from.checked_add(u16::try_from(number * room).ok()?)?;
        let more = if number + 1 < pieces { 1 } else { last_more };
        piece.extend([next, 0]);
        piece.extend((offset | more).to_be_bytes());
        piece.extend(id.to_be_bytes());
        piece.extend(part);
        Some(piece)
    };
    rest.chunks(room).enumerate().map(piece).collect()
}

/// How many bytes stand at the beginning of every fragment, and where the last of their headers says what
/// follows.
fn kept_whole(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut bytes, mut next_at) = (IPV6_HEADER_BYTES, 6);
    while KEPT_WHOLE.contains(packet.get(next_at)?) {
        next_at = bytes;
        bytes += 8 + 8 * usize::from(*packet.get(bytes + 1)?);
        if bytes > KEPT_BYTES_MAX {
            return None;
        }
    }
    Some((bytes, next_at))
}

/// RFC 791 section 3.2; `None` if it cannot be cut.
fn cut_ipv4(packet: &[u8], fit: usize, id: Option<u32>) -> Option<Vec<Vec<u8>>> {
    let header_bytes = usize::from(packet.first()? & 0xf) * 4;
    let (header, rest) = packet.split_at_checked(header_bytes.max(20))?;
    let place = u16::from_be_bytes([header[6], header[7]]);
    let room = fit.checked_sub(header.len())? & !7;
    if room == 0 {
        return None;
    }
    let pieces = rest.len().div_ceil(room);
    let mut piece_header = header.to_vec();
    if let Some([.., high, low]) = id.map(u32::to_be_bytes) {
        piece_header[4..6].copy_from_slice(&[high, low]);
    }
    let mut cut = Vec::with_capacity(pieces);
    for (number, part) in rest.chunks(room).enumerate() {
        let offset = u16::try_from(number * room / 8).ok()?;
        let offset = (place & IPV4_OFFSET).checked_add(offset)?;
        let more = if number + 1 < pieces {
            IPV4_MORE_FRAGMENTS
        } else {
            place & IPV4_MORE_FRAGMENTS
        };
        let total = u16::try_from(piece_header.len() + part.len()).ok()?;
        piece_header[2..4].copy_from_slice(&total.to_be_bytes());
        piece_header[6..8].copy_from_slice(&((offset & IPV4_OFFSET) | more).to_be_bytes());
        piece_header[10..12].copy_from_slice(&[0, 0]);
        let checksum = InternetSum::default().with(&piece_header).checksum();
        piece_header[10..12].copy_from_slice(&checksum);
        cut.push([&piece_header, part].concat());
        if number == 0 {
            forget_first_options(&mut piece_header[20..]);
        }
    }
    Some(cut)
}

/// Options without the bit "copied" are for the first fragment alone; later ones have fillers in their place.
fn forget_first_options(options: &mut [u8]) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let length = match kind {
            0 => return,
            1 => 1,
            _ => match options.get(at + 1) {
                Some(&length @ 2..) => usize::from(length),
                _ => return,
            },
        };
        let end = (at + length).min(options.len());
        if kind & 0x80 == 0 {
            options[at..end].fill(1);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests;
