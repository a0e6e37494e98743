//! Which of the machine's addresses others may reach it at.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// An interface, as far as it matters for the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) is_up: bool,
    pub(super) is_loopback: bool,
    /// The system says so; the name may, too.
    pub(super) is_tunnel: bool,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The index of its interface.
    pub(super) interface: u32,
    pub(super) ip: IpAddr,
    /// Neither a duplicate, nor one that is still checked or on its way out.
    pub(super) is_settled: bool,
}

/// A default route of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    /// The index of its interface.
    pub(super) interface: u32,
    /// The router.
    pub(super) gateway: Ipv4Addr,
    /// Lower is better.
    pub(super) metric: u32,
}

/// The router by which this machine's packets leave for the world, tunnels left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its address.
    pub address: Ipv4Addr,
    /// This machine's address on the same link.
    pub local: Ipv4Addr,
}

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
    interfaces: &[Interface],
    addresses: &[Address],
    excluding: &[IpNet],
) -> Vec<IpAddr> {
    let usable: HashSet<u32> = interfaces
        .iter()
        .filter(|interface| is_underlay(interface))
        .map(|interface| interface.index)
        .collect();
    let mut candidates: Vec<_> = addresses
        .iter()
        .filter(|address| usable.contains(&address.interface) && address.is_settled)
        .map(|address| address.ip)
        .filter(|ip| is_reachable(*ip) && !excluding.iter().any(|net| net.contains(ip)))
        .collect();
    candidates.sort_by_key(|ip| (preference(*ip), *ip));
    candidates.dedup();
    candidates
}

/// The router of the best default route through an interface that is no tunnel. Of several addresses there,
/// the local one is that which is most like the router's.
pub(super) fn router(
    interfaces: &[Interface],
    addresses: &[Address],
    routes: &[DefaultRoute],
) -> Option<Router> {
    let usable = |route: &&DefaultRoute| {
        let of = |interface: &&Interface| interface.index == route.interface;
        interfaces.iter().find(of).is_some_and(is_underlay)
    };
    let mut routes: Vec<_> = routes.iter().filter(usable).collect();
    routes.sort_by_key(|route| route.metric);
    routes.into_iter().find_map(|route| {
        let local = addresses
            .iter()
            .filter(|address| address.interface == route.interface && address.is_settled)
            .filter_map(|address| match address.ip {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })
            .min_by_key(|ip| ip.to_bits() ^ route.gateway.to_bits())?;
        Some(Router {
            address: route.gateway,
            local,
        })
    })
}

/// Whether an interface leads to the world by itself.
pub(super) fn is_underlay(interface: &Interface) -> bool {
    interface.is_up
        && !interface.is_loopback
        && !interface.is_tunnel
        && !TUNNEL_NAMES
            .iter()
            .any(|tunnel| interface.name.starts_with(tunnel))
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
    use super::*;

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            is_up: true,
            is_loopback: false,
            is_tunnel: false,
        }
    }

    fn address(interface: u32, ip: &str) -> Address {
        Address {
            interface,
            ip: ip.parse().unwrap(),
            is_settled: true,
        }
    }

    #[test]
    fn only_settled_addresses_of_real_links_outside_the_mesh_are_candidates() {
        let mut loopback = interface(1, "lo");
        loopback.is_loopback = true;
        let mut down = interface(3, "eth1");
        down.is_up = false;
        let mut vpn = interface(4, "vpn");
        vpn.is_tunnel = true;
        let interfaces = [
            loopback,
            interface(2, "eth0"),
            down,
            vpn,
            interface(5, "ztabcdef"),
            interface(6, "tailscale0"),
            interface(7, "veth3"),
            interface(8, "utun4"),
        ];
        let mut tentative = address(2, "2001:db8::7");
        tentative.is_settled = false;
        let addresses = [
            address(1, "127.0.0.1"),
            address(2, "192.168.1.5"),
            address(2, "fe80::1"),
            address(2, "fd00::5"),
            address(2, "2001:db8::5"),
            address(2, "fdc3:582e:db61::1"),
            tentative,
            address(8, "192.0.2.8"),
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
        assert_eq!(candidates(&interfaces, &addresses, &mesh), expected);
    }

    #[test]
    fn the_router_is_that_of_the_best_route_past_tunnels() {
        let interfaces = [
            interface(2, "eth0"),
            interface(3, "wlan0"),
            interface(4, "wg0"),
        ];
        let addresses = [
            address(2, "2001:db8::5"),
            address(2, "172.16.0.5"),
            address(2, "192.168.1.5"),
            address(3, "192.168.2.5"),
            address(4, "10.9.0.2"),
        ];
        let route = |interface, gateway: &str, metric| DefaultRoute {
            interface,
            gateway: gateway.parse().unwrap(),
            metric,
        };
        let tunnel = route(4, "10.9.0.1", 0);
        let wired = route(2, "192.168.1.1", 100);
        let wireless = route(3, "192.168.2.1", 600);
        let of = |routes: &[DefaultRoute]| {
            router(&interfaces, &addresses, routes)
                .map(|it| [it.address.to_string(), it.local.to_string()])
        };
        let wired_ends = ["192.168.1.1", "192.168.1.5"].map(str::to_owned);
        let wireless_ends = ["192.168.2.1", "192.168.2.5"].map(str::to_owned);
        assert_eq!(of(&[wireless, tunnel, wired]), Some(wired_ends));
        assert_eq!(of(&[wireless, tunnel]), Some(wireless_ends));
        assert_eq!(of(&[tunnel]), None);
        assert_eq!(of(&[]), None);
    }
}
