mod addresses;
mod route;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mesh_types::Instant;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::addresses::Pools;
use super::{Gateway, Line, Nat, NatBehaviour, Passage};

/// The port on which every host takes datagrams.
pub const PORT: u16 = mesh_types::AGENT_PORT;

/// The number of a site; 0 is the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub usize);

/// The number of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// Which addresses a host has at a site, as far as the site has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

/// A datagram that came to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where it came.
    pub host: HostId,
    /// Whether to the second socket.
    pub second: bool,
    /// Its source, as the host sees it.
    pub from: SocketAddr,
    /// Which host sent it.
    pub origin: HostId,
    /// The payload.
    pub data: Vec<u8>,
}

/// A line told that a datagram was too big.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// The host that sent it.
    pub host: HostId,
    /// Where it was to go.
    pub to: SocketAddr,
    /// The largest IP packet that passes, in bytes.
    pub mtu: usize,
}

/// Sites, hosts, and the datagrams between them.
///
/// The owner passes the time in: [`Underlay::send`] and [`Underlay::handle_timeout`] with it, then
/// [`Underlay::poll_arrival`] until there is none, and on to [`Underlay::poll_timeout`].
pub struct Underlay {
    sites: Vec<Site>,
    hosts: Vec<Host>,
    pools: Pools,
    /// Pairs of which the second gets nothing that the first sends, whatever way it goes.
    severed: BTreeSet<(HostId, HostId)>,
    flying: BTreeMap<(Instant, u64), Flight>,
    flights: u64,
    arrivals: VecDeque<Arrival>,
    too_big: Vec<TooBig>,
    rng: ChaCha8Rng,
}

struct Site {
    parent: Option<SiteId>,
    gateway: Gateway,
    /// Who has an address here: hosts, and gateways that translate.
    holders: BTreeMap<IpAddr, Holder>,
}

#[derive(Clone, Copy)]
enum Holder {
    Host(HostId),
    Gateway(SiteId),
}

struct Host {
    interfaces: Vec<Interface>,
    awake: bool,
    /// The port of a second socket, and the last one that it had.
    second_port: Option<u16>,
    last_port: u16,
}

/// A host's place at a site. Of several, the first that is up and routed is the default route.
struct Interface {
    site: SiteId,
    addresses: Vec<IpAddr>,
    line: Line,
    /// Whether a route leads from here beyond the site.
    routed: bool,
    /// Whether nothing passes, although all looks well.
    captive: bool,
}

/// How segments of a TCP connection go between a host and one on the internet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipe {
    /// The host's address.
    pub(super) source: IpAddr,
    /// The same as the internet sees it.
    pub(super) outer: IpAddr,
    /// One way.
    pub(super) latency: Duration,
    /// Of the worst line.
    pub(super) loss_percent: u32,
}

struct Flight {
    place: Place,
    packet: Packet,
}

#[derive(Clone, Copy)]
enum Place {
    /// To be routed at this site.
    Site(SiteId),
    /// At the end of this host's line.
    Host(HostId),
}

#[derive(Clone)]
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    origin: HostId,
    hops_left: u8,
    data: Vec<u8>,
}

impl Underlay {
    /// The internet, to which hosts may be attached directly.
    pub const INTERNET: SiteId = SiteId(0);

    /// An internet with no one on it.
    pub fn new(seed: u64) -> Self {
        Self {
            sites: vec![Site {
                parent: None,
                gateway: Gateway::open(Line::good(Duration::ZERO)),
                holders: BTreeMap::new(),
            }],
            hosts: Vec::new(),
            pools: Pools::default(),
            severed: BTreeSet::new(),
            flying: BTreeMap::new(),
            flights: 0,
            arrivals: VecDeque::new(),
            too_big: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Adds a site below `parent` whose gateway only routes; [`Underlay::translate`] and
    /// [`Underlay::gateway_mut`] make it do more. `latency` is that of its line, one way.
    pub fn add_site(&mut self, parent: SiteId, latency: Duration) -> SiteId {
        let site = SiteId(self.sites.len());
        self.sites.push(Site {
            parent: Some(parent),
            gateway: Gateway::open(Line::good(latency)),
            holders: BTreeMap::new(),
        });
        site
    }

    /// Makes a site's gateway translate IPv4. To be called before hosts are there: they get private
    /// addresses.
    pub fn translate(&mut self, site: SiteId, behaviour: NatBehaviour) {
        let external = self.external_address(site);
        self.sites[site.0].gateway.v4 = Passage::Translated(Nat::new(behaviour, external));
    }

    /// Gives a site's NAT another external address, as when a router dials in again. Mappings go.
    pub fn readdress(&mut self, site: SiteId) {
        let Passage::Translated(nat) = &self.sites[site.0].gateway.v4 else {
            return;
        };
        let before = nat.external();
        let parent = self.parent(site);
        let external = self.external_address(site);
        self.sites[parent.0].holders.remove(&before);
        if let Passage::Translated(nat) = &mut self.sites[site.0].gateway.v4 {
            nat.set_external(external);
        }
    }

    /// Adds a host that is nowhere.
    pub fn add_host(&mut self) -> HostId {
        self.hosts.push(Host {
            interfaces: Vec::new(),
            awake: true,
            second_port: None,
            last_port: PORT,
        });
        HostId(self.hosts.len() - 1)
    }

    /// Gives a host another interface, at `site`, behind those that it has.
    pub fn attach(&mut self, host: HostId, site: SiteId, families: Families, latency: Duration) {
        let mut addresses = Vec::new();
        let (v4, v6) = match families {
            Families::V4 => (true, false),
            Families::V6 => (false, true),
            Families::Dual => (true, true),
        };
        let gateway = &self.sites[site.0].gateway;
        let (v4, v6) = (v4 && gateway.v4.is_there(), v6 && gateway.v6.is_there());
        let wanted = [
            v4.then(|| self.free_v4(site)),
            v6.then(|| self.free_v6(site)),
        ];
        for address in wanted.into_iter().flatten() {
            self.sites[site.0]
                .holders
                .insert(address, Holder::Host(host));
            addresses.push(address);
        }
        self.hosts[host.0].interfaces.push(Interface {
            site,
            addresses,
            line: Line::good(latency),
            routed: true,
            captive: false,
        });
    }

    /// Takes the first interface from a host.
    pub fn detach_first(&mut self, host: HostId) {
        if !self.hosts[host.0].interfaces.is_empty() {
            let interface = self.hosts[host.0].interfaces.remove(0);
            self.release(interface);
        }
    }

    /// Makes a host's second interface its first, and so the default route.
    pub fn rotate(&mut self, host: HostId) {
        let interfaces = &mut self.hosts[host.0].interfaces;
        if !interfaces.is_empty() {
            interfaces.rotate_left(1);
        }
    }

    /// Takes a host's default routes, or gives them back. Its addresses stay, and so do others at its sites.
    pub fn set_routed(&mut self, host: HostId, routed: bool) {
        for interface in &mut self.hosts[host.0].interfaces {
            interface.routed = routed;
        }
    }

    /// Whether a host has a default route.
    pub fn is_routed(&self, host: HostId) -> bool {
        let mut interfaces = self.hosts[host.0].interfaces.iter();
        interfaces.any(|interface| interface.routed)
    }

    /// Lets nothing pass between a host and its sites, as before a log-in, or everything. Its addresses and routes
    /// stay.
    pub fn set_captive(&mut self, host: HostId, captive: bool) {
        for interface in &mut self.hosts[host.0].interfaces {
            interface.captive = captive;
        }
    }

    /// Whether nothing passes between a host and one of its sites.
    pub fn is_captive(&self, host: HostId) -> bool {
        let mut interfaces = self.hosts[host.0].interfaces.iter();
        interfaces.any(|interface| interface.captive)
    }

    /// Takes all interfaces from a host.
    pub fn detach(&mut self, host: HostId) {
        for interface in std::mem::take(&mut self.hosts[host.0].interfaces) {
            self.release(interface);
        }
    }

    fn release(&mut self, interface: Interface) {
        for address in interface.addresses {
            self.sites[interface.site.0].holders.remove(&address);
        }
    }

    /// Says whether a host runs. What comes to one that does not is lost.
    pub fn set_awake(&mut self, host: HostId, awake: bool) {
        self.hosts[host.0].awake = awake;
    }

    /// Whether a host runs.
    pub fn is_awake(&self, host: HostId) -> bool {
        self.hosts[host.0].awake
    }

    /// Whether a host runs and has an interface whose line is up.
    pub fn is_online(&self, host: HostId) -> bool {
        self.is_awake(host) && self.addresses(host).next().is_some()
    }

    /// The addresses of a host's interfaces that are up.
    pub fn addresses(&self, host: HostId) -> impl Iterator<Item = IpAddr> + '_ {
        self.hosts[host.0]
            .interfaces
            .iter()
            .filter(|interface| interface.line.is_up())
            .flat_map(|interface| interface.addresses.iter().copied())
    }

    /// The same with the port that every host uses.
    pub fn endpoints(&self, host: HostId) -> Vec<SocketAddr> {
        self.addresses(host)
            .map(|address| SocketAddr::new(address, PORT))
            .collect()
    }

    /// The sites where a host is, in order of preference.
    pub fn sites_of(&self, host: HostId) -> impl Iterator<Item = SiteId> + '_ {
        self.hosts[host.0]
            .interfaces
            .iter()
            .map(|interface| interface.site)
    }

    /// The lines of a host's interfaces, in order of preference.
    pub fn host_lines_mut(&mut self, host: HostId) -> impl Iterator<Item = &mut Line> {
        self.hosts[host.0]
            .interfaces
            .iter_mut()
            .map(|interface| &mut interface.line)
    }

    /// A site's gateway.
    pub fn gateway(&self, site: SiteId) -> &Gateway {
        &self.sites[site.0].gateway
    }

    /// A site's gateway, to be changed.
    pub fn gateway_mut(&mut self, site: SiteId) -> &mut Gateway {
        &mut self.sites[site.0].gateway
    }

    /// The site above; the internet is above itself.
    pub fn parent(&self, site: SiteId) -> SiteId {
        self.sites[site.0].parent.unwrap_or(Self::INTERNET)
    }

    /// Lets nothing more come to `to` from `from`, directly: a black hole in one direction.
    pub fn sever(&mut self, from: HostId, to: HostId) {
        self.severed.insert((from, to));
    }

    /// Takes back [`Underlay::sever`].
    pub fn mend(&mut self, from: HostId, to: HostId) {
        self.severed.remove(&(from, to));
    }

    /// Takes back every [`Underlay::sever`].
    pub fn mend_all(&mut self) {
        self.severed.clear();
    }

    /// The interface that a host uses for a family by default: its site and address; `None` if nothing passes
    /// there.
    pub(super) fn default_interface(&self, host: HostId, v4: bool) -> Option<(SiteId, IpAddr)> {
        let mut routed = self.up(host, v4).filter(|(interface, _)| interface.routed);
        let (interface, address) = routed.next()?;
        (!interface.captive).then_some((interface.site, address))
    }

    /// A host's interfaces by which something passes and that have the family, each with its site and address.
    pub(super) fn interfaces(
        &self,
        host: HostId,
        v4: bool,
    ) -> impl Iterator<Item = (SiteId, IpAddr)> + '_ {
        // Nobody is next to each other on the internet.
        self.up(host, v4)
            .filter(|(i, _)| !i.captive && (i.routed || i.site != Self::INTERNET))
            .map(|(interface, address)| (interface.site, address))
    }

    /// A host's interfaces that are up and have the family, each with its address.
    fn up(&self, host: HostId, v4: bool) -> impl Iterator<Item = (&Interface, IpAddr)> + '_ {
        let interfaces = self.hosts[host.0].interfaces.iter();
        interfaces
            .filter(|interface| interface.line.is_up())
            .filter_map(move |interface| {
                let address = interface.addresses.iter().find(|a| a.is_ipv4() == v4)?;
                Some((interface, *address))
            })
    }

    /// Whether what a host sends to an address goes to this site at first.
    pub(super) fn is_sent_at(&self, host: HostId, to: IpAddr, site: SiteId) -> bool {
        let way = self.way_out(host, SocketAddr::new(to, PORT));
        way.is_some_and(|(at, ..)| at == site)
    }

    /// Whether `to` gets nothing from `from`.
    pub fn is_severed(&self, from: HostId, to: HostId) -> bool {
        self.severed.contains(&(from, to))
    }

    /// Gives a host a second socket, on a port that it never had, in place of the one that it may have.
    pub fn open_second(&mut self, host: HostId) {
        let host = &mut self.hosts[host.0];
        host.last_port = host.last_port.checked_add(1).expect("61 000 are enough");
        host.second_port = Some(host.last_port);
    }

    /// Takes the second socket from a host.
    pub fn close_second(&mut self, host: HostId) {
        self.hosts[host.0].second_port = None;
    }

    /// Sends a datagram from a host's port.
    pub fn send(&mut self, host: HostId, to: SocketAddr, data: Vec<u8>, now: Instant) {
        self.send_from(host, PORT, to, data, now);
    }

    /// Sends a datagram from a host's second socket, if it has one.
    pub fn send_second(&mut self, host: HostId, to: SocketAddr, data: Vec<u8>, now: Instant) {
        if let Some(port) = self.hosts[host.0].second_port {
            self.send_from(host, port, to, data, now);
        }
    }

    fn send_from(&mut self, host: HostId, port: u16, to: SocketAddr, data: Vec<u8>, now: Instant) {
        let Some((site, line, source)) = self.way_out(host, to) else {
            return;
        };
        let packet = Packet {
            from: SocketAddr::new(source, port),
            to,
            origin: host,
            hops_left: 16,
            data,
        };
        self.put_on(line, Place::Site(site), packet, now);
    }

    /// When something happens next; `None`: nothing is on its way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets happen what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= now
        {
            let at = entry.key().0;
            let Flight { place, packet } = entry.remove();
            match place {
                Place::Site(site) => self.route(site, packet, at),
                Place::Host(host) => self.arrive(host, packet),
            }
        }
    }

    /// The next datagram that came to a host.
    pub fn poll_arrival(&mut self) -> Option<Arrival> {
        self.arrivals.pop_front()
    }

    /// What was too big for a line since this was last asked.
    pub fn take_too_big(&mut self) -> Vec<TooBig> {
        std::mem::take(&mut self.too_big)
    }

    fn arrive(&mut self, host: HostId, packet: Packet) {
        // The host may have moved while the packet was on its line.
        let is_here = self.hosts[host.0].interfaces.iter().any(|interface| {
            interface.line.is_up()
                && !interface.captive
                && interface.addresses.contains(&packet.to.ip())
        });
        let second = self.hosts[host.0].second_port == Some(packet.to.port());
        if is_here
            && self.is_awake(host)
            && (packet.to.port() == PORT || second)
            && !self.is_severed(packet.origin, host)
        {
            self.arrivals.push_back(Arrival {
                host,
                second,
                from: packet.from,
                origin: packet.origin,
                data: packet.data,
            });
        }
    }
}

#[cfg(test)]
mod tests;
