//! How a packet finds its way: down to whoever holds the address, else up.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mesh_core::Carrier;
use mesh_types::Instant;

use super::{Flight, Holder, HostId, Packet, Pipe, Place, SiteId, TooBig, Underlay};
use crate::world::{Carried, Line, Passage, Way, gateway::Outbound};

const IPV4_AND_UDP_BYTES: usize = 28;
const IPV6_AND_UDP_BYTES: usize = 48;

/// Where a site sends what is for an address.
enum Next {
    Host(HostId),
    Down(SiteId),
    Up,
    Nowhere,
}

impl Underlay {
    /// The site, line and source address with which a host sends to `to`: of the interface at whose site
    /// the address is, else of the first that is up, has the family and a route; `None` if nothing passes there.
    pub(super) fn way_out(&self, host: HostId, to: SocketAddr) -> Option<(SiteId, Way, IpAddr)> {
        let host = &self.hosts[host.0];
        if !host.awake {
            return None;
        }
        let usable = host.interfaces.iter().filter_map(|interface| {
            let source = interface
                .addresses
                .iter()
                .find(|address| address.is_ipv4() == to.is_ipv4())?;
            interface.line.up.is_up.then_some((interface, *source))
        });
        let on_link = usable.clone().find(|(interface, _)| {
            let is_there = self.sites[interface.site.0].holders.contains_key(&to.ip());
            // Nobody is next to each other on the internet.
            is_there && (interface.routed || interface.site != Self::INTERNET)
        });
        let mut routed = usable.filter(|(interface, _)| interface.routed);
        let (interface, source) = on_link.or_else(|| routed.next())?;
        (!interface.captive).then_some((interface.site, interface.line.up, source))
    }

    /// How a stream goes from a host to one that is on the internet directly; `None`: it does not. Gateways let
    /// a connection out and its answers in; some drop UDP, and so QUIC.
    pub(in crate::world) fn pipe(
        &self,
        host: HostId,
        server: HostId,
        carrier: Carrier,
    ) -> Option<Pipe> {
        let severed = self.is_severed(host, server) || self.is_severed(server, host);
        if severed || !self.is_awake(host) || !self.is_awake(server) {
            return None;
        }
        [true, false]
            .into_iter()
            .find_map(|v4| self.pipe_of(host, server, carrier, v4))
    }

    fn pipe_of(&self, host: HostId, server: HostId, carrier: Carrier, v4: bool) -> Option<Pipe> {
        let line_of = |host: HostId, at: SiteId| {
            let interfaces = &self.hosts[host.0].interfaces;
            let interface = interfaces.iter().find(|interface| interface.site == at);
            interface.map(|interface| interface.line)
        };
        let (mut site, source) = self.default_interface(host, v4)?;
        let (at, _) = self.default_interface(server, v4)?;
        let mut lines = vec![line_of(host, site)?, line_of(server, at)?];
        let mut outer = source;
        while site != Self::INTERNET {
            let gateway = &self.sites[site.0].gateway;
            let passage = if v4 { &gateway.v4 } else { &gateway.v6 };
            let dropped = gateway.blocks_udp && carrier == Carrier::Quic;
            if dropped || !passage.is_there() {
                return None;
            }
            if let Passage::Translated(nat) = passage {
                outer = nat.external();
            }
            lines.push(gateway.line);
            site = self.parent(site);
        }
        let ways = lines.iter().flat_map(|line| [line.up, line.down]);
        let loss_percent = ways.map(|way| way.quality.loss_percent).max()?;
        let time = |way: Way| way.quality.latency + way.detour;
        let up: Duration = lines.iter().map(|line| time(line.up)).sum();
        let down: Duration = lines.iter().map(|line| time(line.down)).sum();
        lines.iter().all(Line::is_up).then(|| Pipe {
            source,
            outer,
            latency: (up + down) / 2,
            loss_percent,
        })
    }

    /// Puts a packet on a line, at whose end is `place`.
    pub(super) fn put_on(&mut self, way: Way, place: Place, packet: Packet, now: Instant) {
        let overhead = match packet.to {
            SocketAddr::V4(_) => IPV4_AND_UDP_BYTES,
            SocketAddr::V6(_) => IPV6_AND_UDP_BYTES,
        };
        match way.carry(packet.data.len() + overhead, &mut self.rng) {
            Carried::Lost => {}
            Carried::TooBig(mtu) => self.too_big.push(TooBig {
                host: packet.origin,
                to: packet.to,
                mtu,
            }),
            Carried::After(first, second) => {
                if let Some(second) = second {
                    self.fly(now + second, place, packet.clone());
                }
                self.fly(now + first, place, packet);
            }
        }
    }

    pub(super) fn route(&mut self, site: SiteId, mut packet: Packet, now: Instant) {
        let Some(hops_left) = packet.hops_left.checked_sub(1) else {
            return;
        };
        packet.hops_left = hops_left;
        match self.next(site, packet.to.ip()) {
            Next::Host(host) => {
                let interface = self.hosts[host.0]
                    .interfaces
                    .iter()
                    .find(|interface| interface.addresses.contains(&packet.to.ip()));
                if let Some(way) = interface.map(|interface| interface.line.down) {
                    self.put_on(way, Place::Host(host), packet, now);
                }
            }
            Next::Down(child) => {
                let gateway = &self.sites[child.0].gateway;
                let way = gateway.line.down;
                if let Some(to) = gateway.inbound(packet.from, packet.to, now) {
                    packet.to = to;
                    self.put_on(way, Place::Site(child), packet, now);
                }
            }
            Next::Up => self.route_up(site, packet, now),
            Next::Nowhere => {}
        }
    }

    fn route_up(&mut self, site: SiteId, mut packet: Packet, now: Instant) {
        let parent = self.parent(site);
        let gateway = &mut self.sites[site.0].gateway;
        let way = gateway.line.up;
        match gateway.outbound(packet.from, packet.to, now, &mut self.rng) {
            Outbound::On(source) => {
                packet.from = source;
                self.put_on(way, Place::Site(parent), packet, now);
            }
            Outbound::Back(source, inner) => {
                packet.from = source;
                packet.to = inner;
                self.fly(now, Place::Site(site), packet);
            }
            Outbound::Dropped => {}
        }
    }

    fn next(&self, site: SiteId, to: IpAddr) -> Next {
        match self.sites[site.0].holders.get(&to) {
            Some(Holder::Host(host)) => return Next::Host(*host),
            Some(Holder::Gateway(child)) => return Next::Down(*child),
            None => {}
        }
        if let Some(child) = self.child_towards(site, to) {
            return Next::Down(child);
        }
        match self.sites[site.0].parent {
            Some(_) => Next::Up,
            None => Next::Nowhere,
        }
    }

    /// The child of a site behind whose gateway, which does not translate it, the address is.
    fn child_towards(&self, site: SiteId, to: IpAddr) -> Option<SiteId> {
        let is_private = |at: &SiteId| {
            to.is_ipv4() && matches!(self.sites[at.0].gateway.v4, Passage::Translated(_))
        };
        let mut at = (0..self.sites.len()).map(SiteId).find(|candidate| {
            !is_private(candidate) && self.sites[candidate.0].holders.contains_key(&to)
        })?;
        while at != Self::INTERNET {
            let parent = self.parent(at);
            if parent == site {
                return Some(at);
            }
            if is_private(&parent) {
                return None;
            }
            at = parent;
        }
        None
    }

    fn fly(&mut self, at: Instant, place: Place, packet: Packet) {
        self.flights += 1;
        self.flying
            .insert((at, self.flights), Flight { place, packet });
    }
}
