//! Messages of the route socket, and of the lists that `sysctl` gives (route(4)).
//!
//! Each begins with its length in two bytes, the version and its type; after a header that depends on the
//! type come the addresses whose bits are set in its `addrs` field.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::sockaddr::{self, AF_INET, AF_INET6, Slots};

/// `RTM_VERSION`.
const VERSION: u8 = 5;

/// Types of messages (`RTM_*`).
const RTM_ADD: u8 = 0x1;
const RTM_DELETE: u8 = 0x2;
const RTM_CHANGE: u8 = 0x3;
const RTM_GET: u8 = 0x4;
const RTM_NEWADDR: u8 = 0xc;
const RTM_DELADDR: u8 = 0xd;
const RTM_IFINFO: u8 = 0xe;
const RTM_IFINFO2: u8 = 0x12;

/// Bytes of the headers: `struct rt_msghdr`, `if_msghdr`, `if_msghdr2`, `ifa_msghdr`.
pub(super) const ROUTE_HEADER_BYTES: usize = 92;
pub(super) const INTERFACE_HEADER_BYTES: usize = 112;
pub(super) const INTERFACE2_HEADER_BYTES: usize = 160;
pub(super) const ADDRESS_HEADER_BYTES: usize = 20;

/// What a route is (`RTF_*`).
const RTF_UP: u32 = 0x1;
const RTF_GATEWAY: u32 = 0x2;
const RTF_HOST: u32 = 0x4;
const RTF_REJECT: u32 = 0x8;
const RTF_LLINFO: u32 = 0x400;
const RTF_STATIC: u32 = 0x800;
const RTF_BLACKHOLE: u32 = 0x1000;
const RTF_WASCLONED: u32 = 0x2_0000;
const RTF_BROADCAST: u32 = 0x40_0000;
const RTF_MULTICAST: u32 = 0x80_0000;
const RTF_IFSCOPE: u32 = 0x100_0000;

/// Which metrics a message sets, and where: `rtm_inits`, and `rmx_mtu` behind `rmx_locks` in `rtm_rmx`.
const RTV_MTU: u32 = 0x1;
pub(super) const INITS: std::ops::Range<usize> = 32..36;
pub(super) const METRIC_MTU: std::ops::Range<usize> = 40..44;

/// Bits of the addresses (`RTAX_*`).
const DST: usize = 0;
const GATEWAY: usize = 1;
const NETMASK: usize = 2;
const IFP: usize = 4;
const IFA: usize = 5;

/// A change of the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) kind: Kind,
    pub(crate) to: IpNet,
    pub(crate) via: Via,
    /// The address that packets leave with, where it is not to be the interface's first.
    pub(crate) source: Option<IpAddr>,
    /// The largest packet that goes there, where it is not to be what the interface takes.
    pub(crate) mtu: Option<u32>,
}

/// What is to become of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Add,
    /// Of a route that is there.
    Change,
    Delete,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// Straight into the interface of this index.
    Interface(u16),
    /// To a router, or for this machine's own addresses to 127.0.0.1.
    Gateway(IpAddr),
}

/// A message that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// An interface (`RTM_IFINFO`, `RTM_IFINFO2`).
    Interface(Interface),
    /// An address of an interface (`RTM_NEWADDR`).
    Address(Address),
    /// A route (`RTM_GET` in lists, `RTM_ADD`, `RTM_CHANGE`).
    Route(Route),
    /// Any other, well-formed.
    Other,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `IFF_*`.
    pub(crate) flags: u32,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) interface: u32,
    pub(crate) net: IpNet,
}

/// A route that somebody set, or that came with an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) interface: u32,
    pub(crate) to: IpNet,
    /// The router; `None`: it leads straight into the interface.
    pub(crate) gateway: Option<IpAddr>,
    /// Only for sockets that are bound to the interface.
    pub(crate) is_scoped: bool,
}

impl Change {
    /// The message to write to a route socket; `sequence` comes back in the answer.
    pub(crate) fn to_bytes(self, sequence: i32) -> Vec<u8> {
        let (kind, mut flags) = match self.kind {
            Kind::Add => (RTM_ADD, RTF_UP | RTF_STATIC),
            Kind::Change => (RTM_CHANGE, RTF_UP | RTF_STATIC),
            Kind::Delete => (RTM_DELETE, RTF_STATIC),
        };
        let is_ipv4 = self.to.addr().is_ipv4();
        let is_host = self.to.prefix_len() == self.to.max_prefix_len();
        let gateway = match self.via {
            Via::Interface(index) => sockaddr::link(index).to_vec(),
            Via::Gateway(ip) => {
                flags |= RTF_GATEWAY;
                sockaddr::of_ip(ip)
            }
        };
        let mut addresses = vec![
            (DST, sockaddr::of_ip(self.to.network())),
            (GATEWAY, gateway),
        ];
        if is_host {
            flags |= RTF_HOST;
        } else {
            addresses.push((NETMASK, sockaddr::mask(is_ipv4, self.to.prefix_len())));
        }
        addresses.extend(self.source.map(|ip| (IFA, sockaddr::of_ip(ip))));
        let mut message = message(kind, flags, sequence, &addresses);
        if let Some(mtu) = self.mtu {
            message[INITS].copy_from_slice(&RTV_MTU.to_ne_bytes());
            message[METRIC_MTU].copy_from_slice(&mtu.to_ne_bytes());
        }
        message
    }
}

/// A message with a `struct rt_msghdr`: length 0, version 2, type 3, index 4, flags 8, addrs 12, pid 16,
/// seq 20, errno 24, use 28, inits 32, metrics 36.
fn message(kind: u8, flags: u32, sequence: i32, addresses: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; ROUTE_HEADER_BYTES];
    let present = addresses
        .iter()
        .fold(0_u32, |bits, (bit, _)| bits | 1 << bit);
    for (_, address) in addresses {
        sockaddr::append(&mut bytes, address);
    }
    let length = u16::try_from(bytes.len()).expect("four addresses are far below 64 KiB");
    bytes[..2].copy_from_slice(&length.to_ne_bytes());
    bytes[2] = VERSION;
    bytes[3] = kind;
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&present.to_ne_bytes());
    bytes[20..24].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}

/// The messages in what one read or one list gave. Ends at one whose length cannot be; one of another
/// version, or too short for its type, is [`Message::Other`].
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Message> {
    split(bytes).map(|message| parse(message).unwrap_or(Message::Other))
}

/// Whether there is a change among the messages that makes a difference to where this machine can be
/// reached, or to the mesh's interface: neighbours that come and go, and routes to a single host that the
/// kernel derives from others, do not.
pub(crate) fn tells_of_change(bytes: &[u8]) -> bool {
    const DERIVED: u32 = RTF_LLINFO | RTF_WASCLONED | RTF_BROADCAST | RTF_MULTICAST;
    split(bytes).any(|message| match message.get(3).copied() {
        Some(RTM_NEWADDR | RTM_DELADDR | RTM_IFINFO | RTM_IFINFO2) => true,
        Some(RTM_ADD | RTM_DELETE | RTM_CHANGE) => {
            let failed = read_u32(message, 24).is_none_or(|errno| errno != 0);
            let flags = read_u32(message, 8).unwrap_or(DERIVED);
            !failed && flags & DERIVED == 0
        }
        Some(_) | None => false,
    })
}

fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        if length < 4 {
            return None;
        }
        let (message, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        Some(message)
    })
}

fn parse(message: &[u8]) -> Option<Message> {
    if *message.get(2)? != VERSION {
        return None;
    }
    match *message.get(3)? {
        RTM_IFINFO => interface(message, INTERFACE_HEADER_BYTES),
        RTM_IFINFO2 => interface(message, INTERFACE2_HEADER_BYTES),
        RTM_NEWADDR => address(message),
        RTM_GET | RTM_ADD | RTM_CHANGE => route(message),
        _ => None,
    }
}

/// `struct if_msghdr` and `if_msghdr2` begin alike: addrs 4, flags 8, index 12.
fn interface(message: &[u8], header_bytes: usize) -> Option<Message> {
    let slots = Slots::parse(read_u32(message, 4)?, message.get(header_bytes..)?);
    let name = slots.get(IFP).and_then(sockaddr::link_name);
    Some(Message::Interface(Interface {
        index: read_u16(message, 12)?.into(),
        name: name.unwrap_or_default().to_owned(),
        flags: read_u32(message, 8)?,
    }))
}

/// `struct ifa_msghdr`: addrs 4, flags 8, index 12, metric 16.
fn address(message: &[u8]) -> Option<Message> {
    let slots = Slots::parse(read_u32(message, 4)?, message.get(ADDRESS_HEADER_BYTES..)?);
    let own = slots.get(IFA)?;
    let family = sockaddr::family(own)?;
    let ip = sockaddr::parse_ip(own, family)?;
    let length = match slots.get(NETMASK) {
        Some(mask) => sockaddr::prefix_length(mask, family)?,
        None => IpNet::from(ip).max_prefix_len(),
    };
    Some(Message::Address(Address {
        interface: read_u16(message, 12)?.into(),
        net: IpNet::new(ip, length).ok()?,
    }))
}

fn route(message: &[u8]) -> Option<Message> {
    const PASSED_OVER: u32 =
        RTF_LLINFO | RTF_WASCLONED | RTF_BROADCAST | RTF_MULTICAST | RTF_REJECT | RTF_BLACKHOLE;
    let flags = read_u32(message, 8)?;
    if flags & PASSED_OVER != 0 || flags & RTF_UP == 0 {
        return None;
    }
    let slots = Slots::parse(read_u32(message, 12)?, message.get(ROUTE_HEADER_BYTES..)?);
    let destination = slots.get(DST)?;
    let family = sockaddr::family(destination).filter(|f| matches!(*f, AF_INET | AF_INET6))?;
    let ip = sockaddr::parse_ip(destination, family)?;
    let gateway = slots
        .get(GATEWAY)
        .filter(|address| flags & RTF_GATEWAY != 0 && sockaddr::family(address) == Some(family));
    let whole = IpNet::from(ip).max_prefix_len();
    let length = match slots.get(NETMASK) {
        Some(mask) if flags & RTF_HOST == 0 => sockaddr::prefix_length(mask, family)?,
        Some(_) | None => whole,
    };
    Some(Message::Route(Route {
        interface: read_u16(message, 4)?.into(),
        to: IpNet::new(ip, length).ok()?,
        gateway: gateway.and_then(|address| sockaddr::parse_ip(address, family)),
        is_scoped: flags & RTF_IFSCOPE != 0,
    }))
}

/// Leads packets to `ip`, an IPv4 address of this machine's own, back to it: on a point-to-point interface
/// they would leave through it.
pub(crate) fn loop_back(ip: Ipv4Addr, kind: Kind) -> Change {
    Change {
        kind,
        to: IpNet::from(IpAddr::V4(ip)),
        via: Via::Gateway(Ipv4Addr::LOCALHOST.into()),
        source: None,
        mtu: None,
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
