//! Interfaces, their addresses and routes, and what of them the underlay can use.
//!
//! What an interface is to have is decided here; how a system is asked for it is in `linux` (netlink) and
//! `darwin` (ioctl and the route socket). Changing anything
//! needs CAP_NET_ADMIN or root, looking does not.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use ipnet::IpNet;

mod changes;
#[cfg(target_os = "macos")]
mod darwin;
#[cfg(target_os = "linux")]
mod linux;
mod underlay;

#[cfg(target_os = "macos")]
use darwin as system;
#[cfg(target_os = "linux")]
use linux as system;

pub use changes::NetworkChanges;
pub use system::Links;
pub use underlay::Router;

/// What an interface is to have, no more and no less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// The largest packet that it takes, in bytes.
    pub mtu: u32,
    /// Its addresses, each for itself (/128 and /32), without duplicate address detection.
    pub addresses: Vec<IpAddr>,
    /// What is reached through it, and the largest packet that goes there, in bytes. Packets leave with the
    /// first of `addresses` of the same family.
    pub routes: BTreeMap<IpNet, u32>,
}

/// Why the network was not configured or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct LinkError {
    /// What was attempted, and on what.
    pub action: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl Links {
    /// The index of the interface `name`; `None` if there is none.
    pub fn index_of(name: &str) -> Option<u32> {
        nix::net::if_::if_nametoindex(name).ok()
    }

    /// Brings interface `index` up with exactly what `config` says, and no link-local address. May be
    /// called again with another configuration: what is right already is not touched.
    ///
    /// The addresses can be bound, and what is sent to them arrives, as soon as this returns.
    ///
    /// # Errors
    ///
    /// [`LinkError`] names the first step that failed; those before it are done.
    pub fn configure(&mut self, index: u32, config: &InterfaceConfig) -> Result<(), LinkError> {
        self.prepare(index)?;
        self.set_mtu(index, config.mtu)?;
        self.set_up(index, true)?;
        let wanted: Vec<_> = config.addresses.iter().map(|ip| IpNet::from(*ip)).collect();
        let present = self.addresses(index)?;
        // New ones first: sockets and routes move over before the old address goes.
        let added = wanted.iter().filter(|address| !present.contains(address));
        for address in added.clone() {
            self.add_address(index, *address)?;
        }
        for route in config.routes.keys() {
            self.set_route(index, config, *route)?;
        }
        for route in self.routes(index)? {
            let own = wanted.contains(&route);
            if !own && !config.routes.contains_key(&route) {
                self.remove_route(index, route)?;
            }
        }
        for address in present.iter().filter(|address| !wanted.contains(address)) {
            self.remove_address(index, *address)?;
        }
        // A system may take routes away together with the address that they leave with.
        let present = self.routes(index)?;
        let missing = config
            .routes
            .keys()
            .filter(|route| !present.contains(route));
        for route in missing {
            self.set_route(index, config, *route)?;
        }
        self.wait_delivered(&added.copied().collect::<Vec<_>>())
    }

    /// Gives interface `index`, configured with `before`, the routes of `config`, whose addresses are the same:
    /// only those that differ are touched.
    ///
    /// # Errors
    ///
    /// [`LinkError`] names the first step that failed; those before it are done.
    pub fn change_routes(
        &mut self,
        index: u32,
        before: &InterfaceConfig,
        config: &InterfaceConfig,
    ) -> Result<(), LinkError> {
        for (route, mtu) in &config.routes {
            if before.routes.get(route) != Some(mtu) {
                self.set_route(index, config, *route)?;
            }
        }
        for route in before.routes.keys() {
            if !config.routes.contains_key(route) {
                self.remove_route(index, *route)?;
            }
        }
        Ok(())
    }

    fn set_route(
        &mut self,
        index: u32,
        config: &InterfaceConfig,
        route: IpNet,
    ) -> Result<(), LinkError> {
        let mtu = config.routes.get(&route).copied();
        self.add_route(index, route, config.source_for(route), mtu)
    }

    /// Whether interface `index` is up and lacks an address or a route of `config`. Who takes an interface
    /// down and up again takes them away.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn lacks(&mut self, index: u32, config: &InterfaceConfig) -> Result<bool, LinkError> {
        if !self.is_up(index)? {
            return Ok(false);
        }
        let (addresses, routes) = (self.addresses(index)?, self.routes(index)?);
        let has_address = |ip: &IpAddr| addresses.contains(&IpNet::from(*ip));
        Ok(!config.addresses.iter().all(has_address)
            || !config.routes.keys().all(|route| routes.contains(route)))
    }

    /// The machine's own addresses under which others may reach it: of interfaces that are up and are
    /// neither loopback nor a tunnel of whatever make, global or unique local, and in none of `excluding`
    /// (the mesh's own networks). IPv6 first, then IPv4, public before private.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn underlay_addresses(&mut self, excluding: &[IpNet]) -> Result<Vec<IpAddr>, LinkError> {
        let (interfaces, addresses) = self.underlay()?;
        Ok(underlay::candidates(&interfaces, &addresses, excluding))
    }

    /// The router by which this machine's IPv4 packets leave for the world, by no tunnel; `None`: there is none.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn router(&mut self) -> Result<Option<Router>, LinkError> {
        let routes = self.default_routes()?;
        let (interfaces, addresses) = self.underlay()?;
        Ok(underlay::router(&interfaces, &addresses, &routes))
    }
}

impl InterfaceConfig {
    /// The address that packets to `route` leave with: the first of its family.
    fn source_for(&self, route: IpNet) -> Option<IpAddr> {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == route.addr().is_ipv4();
        self.addresses.iter().find(same_family).copied()
    }
}

/// With which of its addresses this machine sends to the world, by IPv4 and by IPv6; `None` where no route
/// leads there. Nothing is sent.
pub fn ways_out() -> [Option<IpAddr>; 2] {
    // A root server of the DNS: whatever leads to the world leads there.
    let world: [(IpAddr, IpAddr); 2] = [
        (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(198, 41, 0, 4).into(),
        ),
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30).into(),
        ),
    ];
    world.map(|(any, there)| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((there, 53)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

fn failed(action: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> LinkError {
    |source| LinkError {
        action: action(),
        source,
    }
}
