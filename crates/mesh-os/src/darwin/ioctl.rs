//! Requests that name an interface: their numbers, and what goes with them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::sockaddr::{inet, inet6};

/// Bytes of an interface's name, with the zero at its end (`IFNAMSIZ`).
pub(crate) const NAME_BYTES: usize = 16;

/// `struct ifreq`, `ifaliasreq`, `in6_ifreq`, `in6_aliasreq` and `ctl_info`, in bytes.
const IFREQ_BYTES: usize = 32;
const IFALIASREQ_BYTES: usize = 64;
const IN6_IFREQ_BYTES: usize = 288;
const IN6_ALIASREQ_BYTES: usize = 128;
pub(crate) const CTL_INFO_BYTES: usize = 100;

/// Asks for the id of a kernel control (`CTLIOCGINFO`).
pub(crate) const GET_CONTROL_ID: u64 = request(true, true, b'N', 3, CTL_INFO_BYTES);
/// `SIOCSIFFLAGS`, `SIOCGIFFLAGS`, `SIOCSIFMTU`.
pub(crate) const SET_FLAGS: u64 = request(true, false, b'i', 16, IFREQ_BYTES);
pub(crate) const GET_FLAGS: u64 = request(true, true, b'i', 17, IFREQ_BYTES);
pub(crate) const SET_MTU: u64 = request(true, false, b'i', 52, IFREQ_BYTES);
/// `SIOCAIFADDR`, `SIOCDIFADDR`.
pub(crate) const ADD_ADDRESS: u64 = request(true, false, b'i', 26, IFALIASREQ_BYTES);
pub(crate) const DELETE_ADDRESS: u64 = request(true, false, b'i', 25, IFREQ_BYTES);
/// `SIOCAIFADDR_IN6`, `SIOCDIFADDR_IN6`, `SIOCGIFAFLAG_IN6`.
pub(crate) const ADD_ADDRESS6: u64 = request(true, false, b'i', 26, IN6_ALIASREQ_BYTES);
pub(crate) const DELETE_ADDRESS6: u64 = request(true, false, b'i', 25, IN6_IFREQ_BYTES);
pub(crate) const GET_ADDRESS_FLAGS6: u64 = request(true, true, b'i', 73, IN6_IFREQ_BYTES);

/// `IFF_UP`, `IFF_LOOPBACK`, `IFF_POINTOPOINT`.
pub(crate) const IFF_UP: u32 = 0x1;
pub(crate) const IFF_LOOPBACK: u32 = 0x8;
pub(crate) const IFF_POINTOPOINT: u32 = 0x10;

/// No duplicate address detection (`IN6_IFF_NODAD`).
const IN6_IFF_NODAD: u32 = 0x20;
/// `IN6_IFF_TENTATIVE`, `_DUPLICATED`, `_DETACHED` and `_DEPRECATED`.
const IN6_IFF_UNSETTLED: u32 = 0x02 | 0x04 | 0x08 | 0x10;
/// `ND6_INFINITE_LIFETIME`.
const INFINITE: u32 = u32::MAX;

/// A request's number (`_IOC` of `sys/ioccom.h`): directions, size, group, number.
const fn request(is_in: bool, is_out: bool, group: u8, number: u8, bytes: usize) -> u64 {
    let out = if is_out { 0x4000_0000 } else { 0 };
    let into = if is_in { 0x8000_0000 } else { 0 };
    out | into | ((bytes as u64 & 0x1fff) << 16) | ((group as u64) << 8) | number as u64
}

/// `struct ctl_info` that asks for the control `name`; the kernel fills in the first four bytes.
pub(crate) fn control_info(name: &str) -> [u8; CTL_INFO_BYTES] {
    let mut bytes = [0; CTL_INFO_BYTES];
    put_name(&mut bytes[4..], name);
    bytes
}

/// The id that the kernel filled into a `struct ctl_info`.
pub(crate) fn control_id(info: &[u8; CTL_INFO_BYTES]) -> u32 {
    u32::from_ne_bytes([info[0], info[1], info[2], info[3]])
}

/// `struct ifreq` with the name alone: what to ask for the flags with.
pub(crate) fn ifreq(name: &str) -> [u8; IFREQ_BYTES] {
    let mut bytes = [0; IFREQ_BYTES];
    put_name(&mut bytes[..NAME_BYTES], name);
    bytes
}

/// `struct ifreq` with an MTU in bytes.
pub(crate) fn ifreq_mtu(name: &str, mtu: u32) -> [u8; IFREQ_BYTES] {
    let mut bytes = ifreq(name);
    bytes[16..20].copy_from_slice(&mtu.to_ne_bytes());
    bytes
}

/// Turns `IFF_UP` on or off in a `struct ifreq` that the kernel filled with flags.
pub(crate) fn set_up(request: &mut [u8; IFREQ_BYTES], up: bool) {
    let flags = u16::from_ne_bytes([request[16], request[17]]);
    let bit = u16::try_from(IFF_UP).unwrap_or(1);
    let flags = if up { flags | bit } else { flags & !bit };
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
}

/// `struct ifaliasreq`: `ip` on a point-to-point link whose other end has the same address, /32.
pub(crate) fn add_address(name: &str, ip: Ipv4Addr) -> [u8; IFALIASREQ_BYTES] {
    let mut bytes = [0; IFALIASREQ_BYTES];
    put_name(&mut bytes[..NAME_BYTES], name);
    bytes[16..32].copy_from_slice(&inet(ip));
    bytes[32..48].copy_from_slice(&inet(ip));
    bytes[48..64].copy_from_slice(&inet(Ipv4Addr::BROADCAST));
    bytes
}

/// `struct ifreq` that names an address.
pub(crate) fn delete_address(name: &str, ip: Ipv4Addr) -> [u8; IFREQ_BYTES] {
    let mut bytes = ifreq(name);
    bytes[16..32].copy_from_slice(&inet(ip));
    bytes
}

/// `struct in6_aliasreq`: `ip` as a /128, for ever, usable at once.
pub(crate) fn add_address6(name: &str, ip: Ipv6Addr) -> [u8; IN6_ALIASREQ_BYTES] {
    let mut bytes = [0; IN6_ALIASREQ_BYTES];
    put_name(&mut bytes[..NAME_BYTES], name);
    bytes[16..44].copy_from_slice(&inet6(ip));
    // No address of the other end: 44..72.
    bytes[72..100].copy_from_slice(&inet6(Ipv6Addr::from_bits(u128::MAX)));
    bytes[100..104].copy_from_slice(&IN6_IFF_NODAD.to_ne_bytes());
    // Two times, which the kernel computes: 104..120; then the valid and the preferred lifetime.
    bytes[120..124].copy_from_slice(&INFINITE.to_ne_bytes());
    bytes[124..128].copy_from_slice(&INFINITE.to_ne_bytes());
    bytes
}

/// `struct in6_ifreq` that names an address: to delete it, or to ask for its flags.
pub(crate) fn in6_ifreq(name: &str, ip: Ipv6Addr) -> [u8; IN6_IFREQ_BYTES] {
    let mut bytes = [0; IN6_IFREQ_BYTES];
    put_name(&mut bytes[..NAME_BYTES], name);
    bytes[16..44].copy_from_slice(&inet6(ip));
    bytes
}

/// Whether the flags that the kernel filled into a `struct in6_ifreq` say that the address can be used
/// and will stay.
pub(crate) fn is_settled(answer: &[u8; IN6_IFREQ_BYTES]) -> bool {
    let flags = u32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    flags & IN6_IFF_UNSETTLED == 0
}

/// Copies `name`, cut so that a zero follows it.
fn put_name(field: &mut [u8], name: &str) {
    let room = field.len() - 1;
    for (to, from) in field[..room].iter_mut().zip(name.bytes()) {
        *to = from;
    }
}
