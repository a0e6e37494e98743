//! The TUN device with the machine's address and the network's route.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;
use mesh_core::{MTU_BASE, MTU_MAX};
use mesh_inventory::roster::{Member, Roster};
use mesh_os::{
    link::{InterfaceConfig, LinkError, Links},
    tun::{CreateTunError, Tun},
};
use mesh_types::{MemberKey, NodeId, WireguardPublicKey};
use tracing::{debug, error, info, warn};

use crate::{agent::Agent, chain, config::Config, handover::Inheritance, view};

/// The least that a route of IPv4 is said to carry, in bytes, as Linux has it (`min_pmtu`): smaller pieces are
/// the agent's to cut.
const MTU_MIN_V4: u16 = 552;

/// What the ways to peers carry, where that is not [`MTU_BASE`].
type Mtus = BTreeMap<WireguardPublicKey, u16>;

/// Packets that wait in the device at most: a second of 1 000 a second while one process ends and the next
/// begins, and no more than a few milliseconds at full speed. Set before the device is up: later the kernel
/// drops packets while it makes a queue longer.
const QUEUE_PACKETS: u32 = 1_000;

/// Packets that the kernel hands over as one at most. Sealed, so many of Ethernet's size fit the 65 507 bytes that leave
/// in one call: what is read at once is sent at once, with no second send for a small rest.
const SEGMENTS: u32 = 44;

/// The device. It goes, with its addresses and routes, when the last clone of the [`Tun`] does,
/// and the service manager's copy, where it keeps one.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) tun: Arc<Tun>,
    configured: Mutex<Configured>,
}

#[derive(Debug)]
struct Configured {
    links: Links,
    interface: InterfaceConfig,
}

/// Why there is no device. `Display` of the cause has the next step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenDeviceError {
    /// It cannot be made.
    #[error(transparent)]
    Create(#[from] CreateTunError),
    /// It cannot be configured.
    #[error("cannot configure interface `{interface}`")]
    Configure {
        /// Its name.
        interface: String,
        /// What failed.
        source: LinkError,
    },
}

impl Device {
    /// Makes the device, or goes on with that of the last process, and brings it up: with the address of the member that has our key in `roster`,
    /// else with that of the configured name, else with none yet.
    pub(crate) fn open(
        config: &Config,
        own: &NodeId,
        roster: Option<&Roster>,
        inheritance: &mut Inheritance,
    ) -> Result<Self, OpenDeviceError> {
        let (tun, is_new) = inheritance.tun(config)?;
        match is_new {
            true => info!(interface = tun.name(), offload = %tun.offload(), "interface made"),
            false => {
                info!(interface = tun.name(), offload = %tun.offload(), "went on with the interface");
            }
        }
        let failed = |source| OpenDeviceError::Configure {
            interface: config.interface.clone(),
            source,
        };
        let mut links = Links::open().map_err(failed)?;
        let interface = interface_config(config, own, roster, &Mtus::new());
        if is_new {
            links
                .set_queue(tun.index(), QUEUE_PACKETS)
                .map_err(failed)?;
        }
        // A kernel that knows no such limit costs speed alone.
        if let Err(error) = links.set_segments(tun.index(), SEGMENTS) {
            debug!(error = chain(&error), "large packets stay as they are");
        }
        links.configure(tun.index(), &interface).map_err(failed)?;
        Ok(Self {
            tun: Arc::new(tun),
            configured: Mutex::new(Configured { links, interface }),
        })
    }

    /// Gives the device what `roster` says and what is known of peers' ways, if it is something else than it
    /// has.
    pub(crate) fn apply(&self, config: &Config, own: &NodeId, roster: &Roster, mtus: &Mtus) {
        let wanted = interface_config(config, own, Some(roster), mtus);
        let mut configured = self.lock();
        let before = std::mem::replace(&mut configured.interface, wanted);
        let Configured { links, interface } = &mut *configured;
        if *interface == before {
            return;
        }
        let index = self.tun.index();
        if interface.addresses != before.addresses {
            configured.configure(index);
        } else if let Err(error) = links.change_routes(index, &before, interface) {
            // Somebody else changed them, or took the device down.
            debug!(error = chain(&error), "could not change a route");
            configured.configure(index);
        }
    }

    /// Gives the device back what it lost, if it is up: somebody took it down in between, or what it was
    /// to have could not be set.
    pub(crate) fn restore(&self) {
        let mut configured = self.lock();
        let Configured { links, interface } = &mut *configured;
        match links.lacks(self.tun.index(), interface) {
            Ok(false) => {}
            Ok(true) => configured.configure(self.tun.index()),
            Err(error) => warn!(error = chain(&error), "could not look at the interface"),
        }
    }

    /// The IPv6 address that it has.
    pub(crate) fn address(&self) -> Option<Ipv6Addr> {
        self.lock()
            .interface
            .addresses
            .iter()
            .find_map(|address| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Configured> {
        self.configured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Configured {
    fn configure(&mut self, index: u32) {
        match self.links.configure(index, &self.interface) {
            Ok(()) => {
                info!("address set");
                debug!(interface = ?self.interface, "the interface was configured");
            }
            Err(error) => error!(error = chain(&error), "could not set the address"),
        }
    }
}

/// The addresses that this machine is to have: its member's, or before the first roster its name's.
///
/// A machine whose key left the roster has none; what it had may be another's by then.
fn addresses(config: &Config, own: &NodeId, roster: Option<&Roster>) -> Vec<IpAddr> {
    let member = roster.and_then(|roster| roster.member_by_node_id(own));
    match (roster, member) {
        (
            _,
            Some(Member {
                address,
                ipv4,
                routes,
                ..
            }),
        ) => {
            // Its own come first: packets leave with them.
            let own = [Some(IpAddr::from(*address)), ipv4.map(IpAddr::from)];
            let hosts = host_routes(routes).map(|route| route.addr());
            own.into_iter().flatten().chain(hosts).collect()
        }
        (Some(_), None) => Vec::new(),
        (None, None) => config
            .name
            .as_ref()
            .and_then(|name| config.network.address_of(name).ok())
            .map(IpAddr::from)
            .into_iter()
            .collect(),
    }
}

/// Keeps the routes to peers as their ways are, for ever.
pub(crate) async fn follow_mtus(agent: Arc<Agent>) {
    let mut mtus = agent.overlay.mtus.subscribe();
    loop {
        // Also what was known before this was watched.
        agent.apply_mtus();
        if mtus.changed().await.is_err() {
            return;
        }
    }
}

/// The device takes the largest packets that are carried anywhere. How much goes to a peer is its route's to
/// say: the network's says what every way carries, and a peer whose way carries another size has one of its own.
fn interface_config(
    config: &Config,
    own: &NodeId,
    roster: Option<&Roster>,
    mtus: &Mtus,
) -> InterfaceConfig {
    let addresses = addresses(config, own, roster);
    let mut routes = Vec::new();
    // A route without an address of its own would lead packets astray with a source of the underlay.
    if addresses.iter().any(IpAddr::is_ipv6) {
        routes.push(IpNet::from(config.network.prefix().net()));
    }
    if addresses.iter().any(IpAddr::is_ipv4) {
        routes.extend(
            roster
                .and_then(|roster| roster.network().ipv4)
                .map(IpNet::from),
        );
    }
    let mut routes: BTreeMap<IpNet, u32> = routes
        .into_iter()
        .map(|route| (route, MTU_BASE.into()))
        .collect();
    let others = roster.iter().flat_map(|roster| roster.members().values());
    for member in others.filter(|member| view::not_tried(member).is_none()) {
        // Without an address of the family a packet would leave with one of the underlay.
        let reachable = |route: &IpNet| {
            addresses
                .iter()
                .any(|ip| ip.is_ipv4() == route.addr().is_ipv4())
        };
        let foreign = |route: &IpNet| !addresses.contains(&route.addr());
        let mtu = member
            .public_key
            .as_ref()
            .map(MemberKey::wireguard)
            .and_then(|key| mtus.get(&key).copied());
        // With what every way carries, the network's route is enough.
        let own = [
            Some(IpAddr::from(member.address)),
            member.ipv4.map(IpAddr::from),
        ];
        let own = own.into_iter().flatten().map(IpNet::from);
        let own = own.filter(|_| mtu.is_some());
        let all = host_routes(&member.routes).chain(own);
        for route in all.filter(|route| reachable(route) && foreign(route)) {
            routes.insert(route, route_mtu(route, mtu.unwrap_or(MTU_BASE)));
        }
    }
    InterfaceConfig {
        mtu: MTU_MAX.into(),
        addresses,
        routes,
    }
}

/// What a route says, where the way carries `mtu` bytes whole. IPv6 knows no less than [`MTU_BASE`], which
/// goes in pieces where it must.
fn route_mtu(route: IpNet, mtu: u16) -> u32 {
    let least = match route {
        IpNet::V4(_) => MTU_MIN_V4,
        IpNet::V6(_) => MTU_BASE,
    };
    mtu.max(least).into()
}

/// Routes of a single address: the machine itself answers to it, as to the one it had in another network.
/// What leads further, behind a machine, needs forwarding there.
fn host_routes(routes: &[IpNet]) -> impl Iterator<Item = IpNet> {
    routes
        .iter()
        .filter(|route| route.prefix_len() == route.max_prefix_len())
        .copied()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::{Fleet, network, seed};

    fn config(fleet: &Fleet, more: &str) -> Config {
        let text = format!(
            "network = \"{}\"\nsigners = [\"{}\"]\ncontrollers = []\n{more}\n",
            network(),
            fleet.signer()
        );
        Config::parse(&text, Path::new("agent.toml")).unwrap()
    }

    #[test]
    fn the_address_is_the_members_and_before_the_first_roster_the_names() {
        let mut fleet = Fleet::new(&["cinnabar", "galena"]);
        let pinned: Ipv6Addr = "fdc3:582e:db61::7".parse().unwrap();
        fleet.member_mut("galena").address = pinned;
        fleet.member_mut("galena").ipv4 = Some("10.1.0.2".parse().unwrap());
        let roster = fleet.roster(1);
        let galena = fleet.seed_of("galena").public().node_id();
        let named = config(&fleet, "name = \"galena\"");
        let unnamed = config(&fleet, "");

        let derived: IpAddr = network()
            .address_of(&"galena".parse().unwrap())
            .unwrap()
            .into();
        assert_eq!(addresses(&named, &galena, None), [derived]);
        assert!(addresses(&unnamed, &galena, None).is_empty());
        let member: [IpAddr; 2] = [pinned.into(), "10.1.0.2".parse().unwrap()];
        assert_eq!(addresses(&named, &galena, Some(&roster)), member);
        let stranger = seed().public().node_id();
        assert!(addresses(&named, &stranger, Some(&roster)).is_empty());
    }

    #[test]
    fn there_is_no_route_without_an_address() {
        let mut fleet = Fleet::new(&["cinnabar"]);
        let stranger = seed().public().node_id();
        let cinnabar = fleet.seed_of("cinnabar").public().node_id();
        let config = config(&fleet, "");
        let roster = fleet.roster(1);
        let interface = |own, roster| interface_config(&config, own, Some(roster), &Mtus::new());
        assert!(interface(&stranger, &roster).routes.is_empty());
        let route = IpNet::from(network().prefix().net());
        assert_eq!(interface(&cinnabar, &roster).routes, base(&[route]));
        assert_eq!(interface(&cinnabar, &roster).mtu, 8940);

        // The pool's route comes with the address in it, and changes without it.
        fleet.member_mut("cinnabar").ipv4 = Some("10.1.0.2".parse().unwrap());
        let pool = "10.1.0.0/16".parse().unwrap();
        assert_eq!(
            interface(&cinnabar, &fleet.roster(2)).routes,
            base(&[route, pool])
        );
    }

    /// Routes that say what every way carries.
    fn base(routes: &[IpNet]) -> BTreeMap<IpNet, u32> {
        routes.iter().map(|route| (*route, 1280)).collect()
    }

    #[test]
    fn a_peer_whose_way_carries_another_size_has_routes_of_its_own() {
        let mut fleet = Fleet::new(&["cinnabar", "galena"]);
        fleet.member_mut("cinnabar").ipv4 = Some("10.1.0.1".parse().unwrap());
        fleet.member_mut("galena").ipv4 = Some("10.1.0.2".parse().unwrap());
        let old: IpNet = "fd80:56c2:e21c::1/128".parse().unwrap();
        fleet.member_mut("galena").routes = vec![old];
        let own = IpNet::from(IpAddr::from(fleet.member_mut("galena").address));
        let own4: IpNet = "10.1.0.2/32".parse().unwrap();
        let roster = fleet.roster(1);
        let cinnabar = fleet.seed_of("cinnabar").public().node_id();
        let galena = fleet.seed_of("galena").public().wireguard();
        let config = config(&fleet, "");
        let interface = |mtus| interface_config(&config, &cinnabar, Some(&roster), &mtus);

        let nothing_known = interface(Mtus::new()).routes;
        assert!(!nothing_known.contains_key(&own) && !nothing_known.contains_key(&own4));
        assert_eq!(nothing_known[&old], 1280);
        for (mtu, v6, v4) in [(1420, 1420, 1420), (1220, 1280, 1220), (496, 1280, 552)] {
            let routes = interface(Mtus::from([(galena, mtu)])).routes;
            assert_eq!((routes[&own], routes[&old], routes[&own4]), (v6, v6, v4));
            assert_eq!(routes.len(), nothing_known.len() + 2);
        }
    }

    #[test]
    fn a_route_of_one_address_is_another_address_of_its_machine() {
        let mut fleet = Fleet::new(&["cinnabar", "galena"]);
        let behind = "192.0.2.0/24".parse().unwrap();
        let old: IpNet = "fd80:56c2:e21c::1/128".parse().unwrap();
        fleet.member_mut("galena").routes = vec![behind, old];
        let roster = fleet.roster(1);
        let config = config(&fleet, "");
        let interface = |name| {
            let own = fleet.seed_of(name).public().node_id();
            interface_config(&config, &own, Some(&roster), &Mtus::new())
        };
        let prefix = IpNet::from(network().prefix().net());
        assert_eq!(interface("galena").addresses[1..], [old.addr()]);
        assert_eq!(interface("galena").routes, base(&[prefix]));
        assert_eq!(interface("cinnabar").routes, base(&[prefix, old]));
    }
}
