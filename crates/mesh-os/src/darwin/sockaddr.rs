//! Socket addresses: their bytes, and several of them one after the other.
//!
//! All begin with their length and family. In messages each is padded to four bytes, and one of length 0
//! takes four. The kernel cuts zeros off the end of masks and default destinations, and its length byte
//! says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `AF_INET`, `AF_INET6`, `AF_LINK` and `AF_SYSTEM` of macOS.
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 30;
pub(crate) const AF_LINK: u8 = 18;
pub(crate) const AF_SYSTEM: u8 = 32;

/// `AF_SYS_CONTROL`: addresses of kernel controls.
const AF_SYS_CONTROL: u16 = 2;

/// Where the address is in a `sockaddr_in` and a `sockaddr_in6`.
const IN_ADDRESS_AT: usize = 4;
const IN6_ADDRESS_AT: usize = 8;

/// How many addresses a message can have (`RTAX_MAX`).
pub(crate) const SLOTS: usize = 8;

/// The addresses of one message, by their bit in its `addrs` field.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots<'b>([Option<&'b [u8]>; SLOTS]);

/// `struct sockaddr_in` without a port.
pub(crate) fn inet(ip: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&[16, AF_INET]);
    bytes[IN_ADDRESS_AT..8].copy_from_slice(&ip.octets());
    bytes
}

/// `struct sockaddr_in6` without port and scope.
pub(crate) fn inet6(ip: Ipv6Addr) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..2].copy_from_slice(&[28, AF_INET6]);
    bytes[IN6_ADDRESS_AT..24].copy_from_slice(&ip.octets());
    bytes
}

/// The address of either family.
pub(crate) fn of_ip(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => inet(ip).to_vec(),
        IpAddr::V6(ip) => inet6(ip).to_vec(),
    }
}

/// `struct sockaddr_dl` that names an interface by its index alone.
pub(crate) fn link(index: u16) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&[20, AF_LINK]);
    bytes[2..4].copy_from_slice(&index.to_ne_bytes());
    bytes
}

/// `struct sockaddr_ctl`: unit `unit` of the kernel control `id`; unit 0 is any free one.
pub(crate) fn control(id: u32, unit: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&[32, AF_SYSTEM]);
    bytes[2..4].copy_from_slice(&AF_SYS_CONTROL.to_ne_bytes());
    bytes[4..8].copy_from_slice(&id.to_ne_bytes());
    bytes[8..12].copy_from_slice(&unit.to_ne_bytes());
    bytes
}

/// The mask of a prefix of `length` bits, for either family.
pub(crate) fn mask(is_ipv4: bool, length: u8) -> Vec<u8> {
    let left = |bits: u8| 128_u32.saturating_sub(u32::from(bits));
    let ones = u128::MAX.checked_shl(left(length)).unwrap_or(0);
    let ip = if is_ipv4 {
        // The same ones, at the front of 32 bits.
        let top = u32::try_from(ones >> 96).unwrap_or(u32::MAX);
        IpAddr::V4(Ipv4Addr::from_bits(top))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(ones))
    };
    of_ip(ip)
}

/// The address in `sockaddr`, which may be cut short; `None` for other families. `family` is what the
/// message is about, as default destinations may have lost theirs.
///
/// The kernel keeps the interface of a link-local address in its second group, which is cleared here.
pub(crate) fn parse_ip(sockaddr: &[u8], family: u8) -> Option<IpAddr> {
    match family {
        AF_INET => {
            let octets = tail::<4>(sockaddr, IN_ADDRESS_AT);
            Some(IpAddr::V4(octets.into()))
        }
        AF_INET6 => {
            let mut octets = tail::<16>(sockaddr, IN6_ADDRESS_AT);
            if octets[0] == 0xfe && octets[1] & 0xc0 == 0x80 {
                octets[2..4].fill(0);
            }
            Some(IpAddr::V6(octets.into()))
        }
        _ => None,
    }
}

/// The family that `sockaddr` says it has.
pub(crate) fn family(sockaddr: &[u8]) -> Option<u8> {
    sockaddr.get(1).copied()
}

/// The number of ones at the front of a mask. Its own family byte is not to be relied on.
pub(crate) fn prefix_length(mask: &[u8], family: u8) -> Option<u8> {
    let ones = match family {
        AF_INET => u32::from_be_bytes(tail(mask, IN_ADDRESS_AT)).leading_ones(),
        AF_INET6 => u128::from_be_bytes(tail(mask, IN6_ADDRESS_AT)).leading_ones(),
        _ => return None,
    };
    u8::try_from(ones).ok()
}

/// The name in a `sockaddr_dl`; empty if it has none.
pub(crate) fn link_name(sockaddr: &[u8]) -> Option<&str> {
    if family(sockaddr)? != AF_LINK {
        return None;
    }
    let length = usize::from(*sockaddr.get(5)?);
    std::str::from_utf8(sockaddr.get(8..8 + length)?).ok()
}

/// The `N` bytes from `at` on, as far as the address's own length says that they are there; zeros after.
fn tail<const N: usize>(sockaddr: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let length = sockaddr.first().map_or(0, |length| usize::from(*length));
    let end = length.min(sockaddr.len()).min(at + N);
    if let Some(present) = sockaddr.get(at..end) {
        bytes[..present.len()].copy_from_slice(present);
    }
    bytes
}

/// Appends `sockaddr` to a message, padded.
pub(crate) fn append(message: &mut Vec<u8>, sockaddr: &[u8]) {
    message.extend_from_slice(sockaddr);
    message.resize(message.len().next_multiple_of(4), 0);
}

impl<'b> Slots<'b> {
    /// Splits the addresses that follow a message's header; `present` is its `addrs` field. Those after a
    /// cut one are left out.
    pub(crate) fn parse(present: u32, mut bytes: &'b [u8]) -> Self {
        let mut slots = Self::default();
        for (bit, slot) in slots.0.iter_mut().enumerate() {
            if present & (1 << bit) == 0 {
                continue;
            }
            let Some(length) = bytes.first().map(|length| usize::from(*length)) else {
                break;
            };
            let Some(sockaddr) = bytes.get(..length.max(2)) else {
                break;
            };
            *slot = Some(sockaddr);
            bytes = bytes
                .get(length.max(1).next_multiple_of(4)..)
                .unwrap_or_default();
        }
        slots
    }

    /// The address of bit `bit` (`RTAX_*`).
    pub(crate) fn get(&self, bit: usize) -> Option<&'b [u8]> {
        self.0.get(bit).copied().flatten()
    }
}
