//! Linux: rtnetlink, in the network namespace of the thread that opens [`Links`].

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages are open-ended, and their enums non-exhaustive"
)]

mod device;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
        RouteScope, RouteType,
    },
};

use super::{
    LinkError, failed,
    underlay::{Address, DefaultRoute, Interface},
};
use crate::netlink::{Netlink, open_multicast};

/// How often, and for how long, the kernel is asked whether it delivers to an address that it was given:
/// it takes well below a millisecond on an idle machine.
const DELIVERY_INTERVAL: Duration = Duration::from_micros(500);
const DELIVERY_PATIENCE: Duration = Duration::from_secs(1);

/// The interfaces of a network namespace.
#[derive(Debug)]
pub struct Links {
    netlink: Netlink,
}

impl Links {
    /// Opens a conversation with the kernel.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if the system has no netlink or a sandbox hides it.
    pub fn open() -> Result<Self, LinkError> {
        Netlink::open()
            .map(|netlink| Self { netlink })
            .map_err(failed(|| "open a netlink socket".to_owned()))
    }

    /// Adds an address to interface `index`, usable at once (no duplicate address detection) and without
    /// the route that its prefix would bring.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; an address that is there already is none.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let mut message = address_message(index, address);
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
        let message = RouteNetlinkMessage::NewAddress(message);
        self.request(message, NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("add the address `{address}` to interface {index}")
        })
    }

    /// Removes an address from interface `index`.
    ///
    /// # Errors
    ///
    /// [`LinkError`], also if it is not there.
    pub fn remove_address(&mut self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        self.request(message, 0, || {
            format!("remove the address `{address}` from interface {index}")
        })
    }

    /// The addresses of interface `index`, with their prefix lengths.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, LinkError> {
        let messages = self.dump_addresses()?;
        let own = messages.iter().filter(|m| m.header.index == index);
        Ok(own
            .filter_map(|m| IpNet::new(address_of(m)?, m.header.prefix_len).ok())
            .collect())
    }

    /// Routes `to` through interface `index`, with `source` as the address that packets leave with and `mtu` as
    /// the largest that goes there, instead of the interface's own. Sizes that the kernel learnt of by itself
    /// are forgotten.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; a route that is there already is none.
    pub fn add_route(
        &mut self,
        index: u32,
        to: IpNet,
        source: Option<IpAddr>,
        mtu: Option<u32>,
    ) -> Result<(), LinkError> {
        let mut message = route_message(index, to);
        if let Some(mtu) = mtu {
            message
                .attributes
                .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        if let Some(source) = source {
            message
                .attributes
                .push(RouteAttribute::PrefSource(source.into()));
        }
        let message = RouteNetlinkMessage::NewRoute(message);
        self.request(message, NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("route `{to}` through interface {index}")
        })
    }

    /// Routes `to` through interface `index` by way of the router `gateway`.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn add_route_via(
        &mut self,
        index: u32,
        to: IpNet,
        gateway: IpAddr,
    ) -> Result<(), LinkError> {
        let mut message = route_message(index, to);
        message.header.scope = RouteScope::Universe;
        message
            .attributes
            .push(RouteAttribute::Gateway(gateway.into()));
        let message = RouteNetlinkMessage::NewRoute(message);
        self.request(message, NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("route `{to}` by way of `{gateway}`")
        })
    }

    /// Removes the route to `to` through interface `index`.
    ///
    /// # Errors
    ///
    /// [`LinkError`], also if it is not there.
    pub fn remove_route(&mut self, index: u32, to: IpNet) -> Result<(), LinkError> {
        let mut message = route_message(index, to);
        // As wildcards: whoever made it, it goes.
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        self.request(RouteNetlinkMessage::DelRoute(message), 0, || {
            format!("remove the route to `{to}` through interface {index}")
        })
    }

    /// What is routed through interface `index` by the main table, multicast left out.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn routes(&mut self, index: u32) -> Result<Vec<IpNet>, LinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let question = RouteNetlinkMessage::GetRoute(question);
            for answer in self.dump(question, "list the routes")? {
                if let RouteNetlinkMessage::NewRoute(route) = answer
                    && leaves_through(&route, index)
                {
                    routes.extend(destination_of(&route));
                }
            }
        }
        Ok(routes)
    }

    /// Waits until packets to `addresses` are delivered on this machine: the kernel adds the local route of
    /// an IPv6 address a moment later, in a work queue, and throws away what comes before.
    pub(super) fn wait_delivered(&mut self, addresses: &[IpNet]) -> Result<(), LinkError> {
        let mut missing: Vec<_> = addresses.to_vec();
        missing.retain(|address| matches!(address, IpNet::V6(_)));
        let deadline = Instant::now() + DELIVERY_PATIENCE;
        loop {
            if missing.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            let mut question = RouteMessage::default();
            question.header.address_family = AddressFamily::Inet6;
            let question = RouteNetlinkMessage::GetRoute(question);
            for answer in self.dump(question, "list the routes")? {
                if let RouteNetlinkMessage::NewRoute(route) = answer
                    && route.header.kind == RouteType::Local
                {
                    let delivered = destination_of(&route);
                    missing.retain(|address| Some(*address) != delivered);
                }
            }
            if !missing.is_empty() {
                std::thread::sleep(DELIVERY_INTERVAL);
            }
        }
    }

    /// The interface that this process's own packets are to be bound to, so that they do not leave through
    /// a tunnel. Always `None` here: tunnels' own rules decide, and binding needs CAP_NET_RAW.
    ///
    /// # Errors
    ///
    /// None here.
    pub fn interface_past_tunnels(&mut self) -> Result<Option<u32>, LinkError> {
        Ok(None)
    }

    /// Whether interface `index` is up.
    pub(super) fn is_up(&mut self, index: u32) -> Result<bool, LinkError> {
        Ok(self.dump_links()?.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => {
                link.header.index == index && link.header.flags.contains(LinkFlags::Up)
            }
            _ => false,
        }))
    }

    /// All interfaces and addresses, to choose from.
    pub(super) fn underlay(&mut self) -> Result<(Vec<Interface>, Vec<Address>), LinkError> {
        let links = self.dump_links()?;
        let interfaces = links.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(interface_of(link)),
            _ => None,
        });
        let addresses = self.dump_addresses()?;
        let addresses = addresses.iter().filter_map(|message| {
            Some(Address {
                interface: message.header.index,
                ip: address_of(message)?,
                is_settled: is_settled(message),
            })
        });
        Ok((interfaces.collect(), addresses.collect()))
    }

    /// The default routes of IPv4 in the main table that lead to a router.
    pub(super) fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, LinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet;
        let question = RouteNetlinkMessage::GetRoute(question);
        let answers = self.dump(question, "list the routes")?;
        let routes = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => default_route(route),
            _ => None,
        });
        Ok(routes.collect())
    }

    fn dump_links(&mut self) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump(question, "list the interfaces")
    }

    fn dump_addresses(&mut self) -> Result<Vec<AddressMessage>, LinkError> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump(question, "list the addresses")?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Some(message),
                _ => None,
            })
            .collect())
    }

    /// Asks for a change that has no function of its own here; `action` completes "cannot …".
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<(), LinkError> {
        self.netlink.request(message, flags).map_err(failed(action))
    }

    fn dump(
        &mut self,
        question: RouteNetlinkMessage,
        action: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        self.netlink
            .dump(question)
            .map_err(failed(|| action.to_owned()))
    }
}

/// A socket that hears of every change of interfaces, addresses and routes.
pub(super) fn listen_for_changes() -> io::Result<OwnedFd> {
    open_multicast(
        libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE,
    )
}

/// Whether what such a socket gave is worth a look. The kernel was told what to send.
pub(super) fn tells_of_change(_messages: &[u8]) -> bool {
    true
}

fn interface_of(link: &LinkMessage) -> Interface {
    let attributes = &link.attributes;
    let name = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    let is_tunnel = attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| match info {
            LinkInfo::Kind(kind) => is_tunnel(kind),
            _ => false,
        }),
        _ => false,
    });
    Interface {
        index: link.header.index,
        name: name.unwrap_or_default(),
        is_up: link.header.flags.contains(LinkFlags::Up),
        is_loopback: link.header.flags.contains(LinkFlags::Loopback),
        is_tunnel,
    }
}

fn link_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
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

fn family_of(address: IpNet) -> AddressFamily {
    match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ];
    message
}

/// The interface's own address: `IFA_LOCAL` where there is one, for on a point-to-point link
/// `IFA_ADDRESS` is the other end's.
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
    local.or_else(|| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            })
    })
}

fn route_message(index: u32, to: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(to);
    message.header.destination_prefix_length = to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(to.network().into()),
        RouteAttribute::Oif(index),
    ];
    message
}

fn leaves_through(route: &RouteMessage, index: u32) -> bool {
    let oif = |attribute: &RouteAttribute| *attribute == RouteAttribute::Oif(index);
    route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.kind == RouteType::Unicast
        && route.attributes.iter().any(oif)
}

fn default_route(route: &RouteMessage) -> Option<DefaultRoute> {
    let header = &route.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    let (mut interface, mut gateway, mut metric) = (None, None::<Ipv4Addr>, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(*ip),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    Some(DefaultRoute {
        interface: interface?,
        gateway: gateway?,
        metric,
    })
}

fn destination_of(route: &RouteMessage) -> Option<IpNet> {
    let length = route.header.destination_prefix_length;
    let given = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
    // A default route has no destination.
    let address = given.unwrap_or(match route.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    });
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests;
