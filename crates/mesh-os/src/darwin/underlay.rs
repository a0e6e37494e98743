//! Which interface leads to the world where another tunnel has taken the routes.

use ipnet::IpNet;

use super::{
    ioctl::{IFF_LOOPBACK, IFF_POINTOPOINT, IFF_UP},
    route::{Interface, Route},
};

/// A route that covers this much or more of a family's addresses is one to the world: tunnels that want
/// all traffic set two halves, or quarters, rather than a default route.
const WORLD_PREFIX_MAX: u8 = 4;

/// The interface to bind sockets to so that their packets avoid tunnels; `None` where the routes lead past
/// tunnels by themselves, or nothing but tunnels leads anywhere.
///
/// macOS keeps a default route of its own for each interface, scoped to it, beside the one that is in
/// force; what is bound to an interface follows that one.
pub(crate) fn interface_past_tunnels(interfaces: &[Interface], routes: &[Route]) -> Option<u32> {
    let of = |index: u32| interfaces.iter().find(|interface| interface.index == index);
    let is_world = |route: &&Route| route.to.prefix_len() <= WORLD_PREFIX_MAX;
    let by_tunnel = |route: &Route| of(route.interface).is_some_and(is_tunnel);
    let taken = routes
        .iter()
        .filter(is_world)
        .any(|route| !route.is_scoped && by_tunnel(route));
    if !taken {
        return None;
    }
    // IPv4 first: a socket has one interface for both families, and the other mostly has the same.
    let mut ways: Vec<_> = routes
        .iter()
        .filter(|route| route.to.prefix_len() == 0)
        .filter(|route| of(route.interface).is_some_and(is_physical))
        .map(|route| {
            (
                matches!(route.to, IpNet::V6(_)),
                route.is_scoped,
                route.interface,
            )
        })
        .collect();
    ways.sort_unstable();
    ways.first().map(|(_, _, interface)| *interface)
}

fn is_tunnel(interface: &Interface) -> bool {
    interface.flags & IFF_UP != 0 && interface.flags & IFF_POINTOPOINT != 0
}

fn is_physical(interface: &Interface) -> bool {
    interface.flags & IFF_UP != 0 && interface.flags & (IFF_LOOPBACK | IFF_POINTOPOINT) == 0
}
