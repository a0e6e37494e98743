//! Which of the machine's addresses others may reach it at.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use super::address_of;

/// How interfaces begin whose maker is to be told by the name only.
const TUNNEL_NAMES: [&str; 8] = [
    "mesh",
    "nebula",
    "ppp",
    "tailscale",
    "tun",
    "utun",
    "wg",
    "zt",
];

pub(super) fn candidates(
    links: &[RouteNetlinkMessage],
    addresses: &[AddressMessage],
    excluding: &[IpNet],
) -> Vec<IpAddr> {
    let usable: HashSet<u32> = links
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) if is_underlay(link) => Some(link.header.index),
            _ => None,
        })
        .collect();
    let mut candidates: Vec<_> = addresses
        .iter()
        .filter(|message| usable.contains(&message.header.index) && is_settled(message))
        .filter_map(address_of)
        .filter(|ip| is_reachable(*ip) && !excluding.iter().any(|net| net.contains(ip)))
        .collect();
    candidates.sort_by_key(|ip| (preference(*ip), *ip));
    candidates.dedup();
    candidates
}

fn is_underlay(link: &LinkMessage) -> bool {
    if !link.header.flags.contains(LinkFlags::Up) || link.header.flags.contains(LinkFlags::Loopback)
    {
        return false;
    }
    link.attributes.iter().all(|attribute| match attribute {
        LinkAttribute::IfName(name) => !TUNNEL_NAMES.iter().any(|tunnel| name.starts_with(tunnel)),
        LinkAttribute::LinkInfo(infos) => !infos.iter().any(|info| match info {
            LinkInfo::Kind(kind) => is_tunnel(kind),
            _ => false,
        }),
        _ => true,
    })
}

fn is_tunnel(kind: &InfoKind) -> bool {
    matches!(
        kind,
        InfoKind::Tun
            | InfoKind::Wireguard
            | InfoKind::SitTun
            | InfoKind::GreTun
            | InfoKind::IpIp
            | InfoKind::Vti
            | InfoKind::Xfrm
            | InfoKind::Vxlan
            | InfoKind::Geneve
    )
}

/// Neither a duplicate, nor one that is still checked or on its way out.
fn is_settled(message: &AddressMessage) -> bool {
    let unsettled = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let long = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
    let short = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    !long.unwrap_or(short).intersects(unsettled)
}

fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified() && !ip.is_multicast()
        }
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_multicast(),
    }
}

/// Lower comes first: others try in this order, and no more than a few.
fn preference(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V6(ip) if !is_unique_local(ip) => 0,
        IpAddr::V4(ip) if !is_private(ip) => 1,
        IpAddr::V6(_) => 2,
        IpAddr::V4(_) => 3,
    }
}

fn is_unique_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xfe00 == 0xfc00
}

/// RFC 1918, and the space shared behind carriers' NAT (RFC 6598).
fn is_private(ip: Ipv4Addr) -> bool {
    ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressHeaderFlags;

    use super::*;

    fn link(
        index: u32,
        name: &str,
        kind: Option<InfoKind>,
        flags: LinkFlags,
    ) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        if let Some(kind) = kind {
            let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
            link.attributes.push(info);
        }
        RouteNetlinkMessage::NewLink(link)
    }

    fn address(index: u32, ip: &str) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Address(ip.parse().unwrap())];
        message
    }

    #[test]
    fn only_settled_addresses_of_real_links_outside_the_mesh_are_candidates() {
        let up = LinkFlags::Up;
        let links = [
            link(1, "lo", None, up | LinkFlags::Loopback),
            link(2, "eth0", None, up),
            link(3, "eth1", None, LinkFlags::empty()),
            link(4, "vpn", Some(InfoKind::Wireguard), up),
            link(5, "ztabcdef", Some(InfoKind::Tun), up),
            link(6, "tailscale0", None, up),
            link(7, "veth3", Some(InfoKind::Veth), up),
        ];
        let mut tentative = address(2, "2001:db8::7");
        tentative.header.flags = AddressHeaderFlags::Tentative;
        let addresses = [
            address(1, "127.0.0.1"),
            address(2, "192.168.1.5"),
            address(2, "fe80::1"),
            address(2, "fd00::5"),
            address(2, "2001:db8::5"),
            address(2, "fdc3:582e:db61::1"),
            tentative,
            address(3, "192.0.2.3"),
            address(4, "192.0.2.4"),
            address(5, "192.0.2.5"),
            address(6, "192.0.2.6"),
            address(7, "192.0.2.7"),
            address(7, "169.254.3.4"),
        ];
        let mesh = ["fdc3:582e:db61::/48".parse().unwrap()];
        let expected = ["2001:db8::5", "192.0.2.7", "fd00::5", "192.168.1.5"];
        let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(candidates(&links, &addresses, &mesh), expected);
    }
}
