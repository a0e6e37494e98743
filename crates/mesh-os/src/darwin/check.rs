//! Holds the layouts and numbers of this module against the `libc` crate's, when compiled for macOS.

use std::mem::{offset_of, size_of};

use super::{ioctl, route, sockaddr};

const _: () = {
    assert!(size_of::<libc::rt_msghdr>() == route::ROUTE_HEADER_BYTES);
    assert!(offset_of!(libc::rt_msghdr, rtm_index) == 4);
    assert!(offset_of!(libc::rt_msghdr, rtm_flags) == 8);
    assert!(offset_of!(libc::rt_msghdr, rtm_addrs) == 12);
    assert!(offset_of!(libc::rt_msghdr, rtm_seq) == 20);
    assert!(offset_of!(libc::rt_msghdr, rtm_errno) == 24);
    assert!(offset_of!(libc::rt_msghdr, rtm_inits) == route::INITS.start);
    let metrics = offset_of!(libc::rt_msghdr, rtm_rmx);
    assert!(metrics + offset_of!(libc::rt_metrics, rmx_mtu) == route::METRIC_MTU.start);
    assert!(size_of::<libc::if_msghdr>() == route::INTERFACE_HEADER_BYTES);
    assert!(offset_of!(libc::if_msghdr, ifm_flags) == 8);
    assert!(offset_of!(libc::if_msghdr, ifm_index) == 12);
    assert!(size_of::<libc::if_msghdr2>() == route::INTERFACE2_HEADER_BYTES);
    assert!(offset_of!(libc::if_msghdr2, ifm_index) == 12);
    assert!(size_of::<libc::ifa_msghdr>() == route::ADDRESS_HEADER_BYTES);
    assert!(offset_of!(libc::ifa_msghdr, ifam_addrs) == 4);
    assert!(offset_of!(libc::ifa_msghdr, ifam_index) == 12);
};

const _: () = {
    assert!(libc::AF_INET == sockaddr::AF_INET as i32);
    assert!(libc::AF_INET6 == sockaddr::AF_INET6 as i32);
    assert!(libc::AF_LINK == sockaddr::AF_LINK as i32);
    assert!(libc::AF_SYSTEM == sockaddr::AF_SYSTEM as i32);
    assert!(size_of::<libc::sockaddr_in>() == 16);
    assert!(size_of::<libc::sockaddr_in6>() == 28);
    assert!(offset_of!(libc::sockaddr_in6, sin6_addr) == 8);
    assert!(size_of::<libc::sockaddr_dl>() == 20);
    assert!(offset_of!(libc::sockaddr_dl, sdl_nlen) == 5);
    assert!(offset_of!(libc::sockaddr_dl, sdl_data) == 8);
    assert!(size_of::<libc::sockaddr_ctl>() == 32);
    assert!(offset_of!(libc::sockaddr_ctl, sc_unit) == 8);
};

const _: () = {
    assert!(libc::IFNAMSIZ == ioctl::NAME_BYTES);
    assert!(size_of::<libc::ctl_info>() == ioctl::CTL_INFO_BYTES);
    assert!(libc::CTLIOCGINFO == ioctl::GET_CONTROL_ID);
    assert!(size_of::<libc::ifreq>() == (ioctl::SET_MTU >> 16 & 0x1fff) as usize);
    assert!(size_of::<libc::ifaliasreq>() == (ioctl::ADD_ADDRESS >> 16 & 0x1fff) as usize);
    assert!(size_of::<libc::in6_ifreq>() == (ioctl::DELETE_ADDRESS6 >> 16 & 0x1fff) as usize);
    // `struct in6_aliasreq`, which the crate has not: a name, three addresses, flags, lifetimes.
    let alias = 16 + 3 * size_of::<libc::sockaddr_in6>() + 4 + size_of::<libc::in6_addrlifetime>();
    assert!(alias == (ioctl::ADD_ADDRESS6 >> 16 & 0x1fff) as usize);
    assert!(libc::IFF_POINTOPOINT as u32 == ioctl::IFF_POINTOPOINT);
    assert!(libc::IFF_LOOPBACK as u32 == ioctl::IFF_LOOPBACK);
};
