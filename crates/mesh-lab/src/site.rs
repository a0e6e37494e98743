//! A switch with what is joined to it, and the router above.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use mesh_os::{link::Links, netlink::Netlink};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage, State},
};

use crate::{
    namespace::Namespace,
    network::{SiteId, UPLINK},
    router::{self, Router},
    wait::wait_until,
};

/// The name of a site's switch, which is its router's interface towards the site, too.
pub(crate) const BRIDGE: &str = "lan0";

/// Members' numbers at a site, of which a machine that is renumbered takes one a hundred higher.
const MEMBERS_MAX: u8 = 100;

/// How long a switch takes at most until it carries what a port gives it.
const FORWARDING_PATIENCE: Duration = Duration::from_secs(10);

/// The router's number at its own site.
const GATEWAY: u8 = 254;

/// The internet, or what is behind a router.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) namespace: Namespace,
    pub(crate) members: Members,
    /// Where the router is joined to.
    pub(crate) above: Option<Place>,
    pub(crate) router: Option<Router>,
    /// How often its NAT was started anew.
    pub(crate) rebinds: u16,
}

/// Where something is joined to a site.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) site: SiteId,
    pub(crate) number: u8,
    /// Its port's name on the site's switch.
    pub(crate) port: String,
}

/// The addresses of a site's members.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    ipv4: Option<[u8; 3]>,
    ipv6: Option<u16>,
    /// Whether others see the router's IPv4 address in their place.
    pub(crate) translated: bool,
    taken: u8,
}

impl Members {
    fn of_internet() -> Self {
        Self {
            ipv4: Some([192, 0, 2]),
            ipv6: Some(0),
            translated: false,
            taken: 0,
        }
    }

    /// Of the site with this number: private ones where the router translates, and else of the block for
    /// benchmarks (RFC 2544).
    pub(crate) fn of_site(number: usize, router: Router) -> anyhow::Result<Self> {
        let number = u8::try_from(number).context("no more than 255 sites fit in a lab")?;
        let translated = router.translates();
        let ipv4 = if translated {
            [10, 0, number]
        } else {
            [198, 18, number]
        };
        Ok(Self {
            ipv4: router.carries_ipv4().then_some(ipv4),
            ipv6: router.carries_ipv6().then_some(number.into()),
            translated,
            taken: 0,
        })
    }

    /// The next free number.
    pub(crate) fn next(&mut self) -> anyhow::Result<u8> {
        ensure!(
            self.taken < MEMBERS_MAX,
            "no more than {MEMBERS_MAX} machines fit in a site of a lab"
        );
        self.taken += 1;
        Ok(self.taken)
    }

    pub(crate) const fn has_ipv4(&self) -> bool {
        self.ipv4.is_some()
    }

    pub(crate) const fn has_ipv6(&self) -> bool {
        self.ipv6.is_some()
    }

    pub(crate) fn ipv4(&self, number: u8) -> Option<Ipv4Addr> {
        let [a, b, c] = self.ipv4?;
        Some(Ipv4Addr::new(a, b, c, number))
    }

    pub(crate) fn ipv6(&self, number: u8) -> Option<Ipv6Addr> {
        let site = self.ipv6?;
        Some(Ipv6Addr::new(
            0x2001,
            0xdb8,
            site,
            0,
            0,
            0,
            0,
            number.into(),
        ))
    }

    /// With the lengths of their networks.
    pub(crate) fn addresses(&self, number: u8) -> Vec<IpNet> {
        let ipv4 = self.ipv4(number).map(|ip| IpNet::new_assert(ip.into(), 24));
        let ipv6 = self.ipv6(number).map(|ip| IpNet::new_assert(ip.into(), 64));
        ipv4.into_iter().chain(ipv6).collect()
    }

    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        let addresses = self.addresses(GATEWAY).into_iter();
        addresses.map(|net| net.addr()).collect()
    }

    /// Gives `interface` of this thread's namespace the addresses of a number.
    pub(crate) fn give(
        &self,
        links: &mut Links,
        interface: &str,
        number: u8,
    ) -> anyhow::Result<()> {
        let index = index_of(interface)?;
        for address in self.addresses(number) {
            links.add_address(index, address)?;
            links.add_route(index, address.trunc(), Some(address.addr()), None)?;
        }
        Ok(())
    }
}

impl Site {
    pub(crate) fn internet() -> anyhow::Result<Self> {
        Self::new(Members::of_internet(), None, None)
    }

    /// A site whose router is joined to `above` by `port`, with this number there.
    pub(crate) fn below(
        above: &Self,
        router: Router,
        members: Members,
        above_id: SiteId,
        port: &str,
        number: u8,
    ) -> anyhow::Result<Self> {
        let place = Place {
            site: above_id,
            number,
            port: port.to_owned(),
        };
        let site = Self::new(members, Some(place), Some(router))?;
        above.lay_cable(port, UPLINK, &site.namespace)?;
        above.namespace.run(forward)?;
        site.namespace.run(|| {
            forward()?;
            let mut links = Links::open()?;
            links.set_up(index_of(UPLINK)?, true)?;
            above.members.give(&mut links, UPLINK, number)?;
            for gateway in above.members.gateways() {
                let everywhere = default_of(gateway);
                links.add_route_via(index_of(UPLINK)?, everywhere, gateway)?;
            }
            router::apply(&router.rules(UPLINK, BRIDGE))
        })?;
        Ok(site)
    }

    fn new(members: Members, above: Option<Place>, router: Option<Router>) -> anyhow::Result<Self> {
        let namespace = Namespace::create()?;
        namespace.run(|| {
            // A router asks for its neighbours from its link-local address, which else it may use only after a
            // second or two. Where this may not be set, it is that much slower.
            let _ = fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
            let _ = fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0");
            let mut links = Links::open()?;
            let mut bridge = named(BRIDGE);
            bridge
                .attributes
                .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                    InfoKind::Bridge,
                )]));
            create(&mut links, bridge)?;
            links.set_up(index_of(BRIDGE)?, true)?;
            members.give(&mut links, BRIDGE, GATEWAY)
        })?;
        Ok(Self {
            namespace,
            members,
            above,
            router,
            rebinds: 0,
        })
    }

    /// Routes what is for `members`, where nobody translates, by way of the router with this number.
    pub(crate) fn route_down(&self, members: &Members, number: u8) -> anyhow::Result<()> {
        let routers = self.members.addresses(number);
        self.namespace.run(|| {
            let mut links = Links::open()?;
            for net in members.addresses(GATEWAY) {
                let by = routers
                    .iter()
                    .find(|router| router.addr().is_ipv4() == net.addr().is_ipv4());
                if members.translated && net.addr().is_ipv4() {
                    continue;
                }
                let by = by.context("a site without what the one below it carries")?;
                links.add_route_via(index_of(BRIDGE)?, net.trunc(), by.addr())?;
            }
            Ok(())
        })
    }

    /// Joins a namespace to the switch by an interface of this name there.
    pub(crate) fn lay_cable(
        &self,
        port: &str,
        far: &str,
        namespace: &Namespace,
    ) -> anyhow::Result<()> {
        self.namespace.run(|| {
            let mut links = Links::open()?;
            veth(&mut links, port, far, namespace)?;
            attach(&mut links, port, true)?;
            links.set_up(index_of(port)?, true)?;
            Ok(())
        })
    }

    pub(crate) fn take_cable(&self, port: &str) -> anyhow::Result<()> {
        self.namespace.run(|| {
            let mut message = LinkMessage::default();
            message.header.index = index_of(port)?;
            Links::open()?.request(RouteNetlinkMessage::DelLink(message), 0, || {
                "unplug a machine".to_owned()
            })?;
            Ok(())
        })
    }

    /// Waits until the switch carries what comes by a port whose far end is up, and the router speaks by the switch: the
    /// kernel sees to that a while later, and who asks for a neighbour before asks again after a second.
    pub(crate) fn wait_forwarding(&self, port: &str) -> anyhow::Result<()> {
        self.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            for index in [index_of(port)?, index_of(BRIDGE)?] {
                wait_until(FORWARDING_PATIENCE, || {
                    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
                    let up = LinkAttribute::OperState(State::Up);
                    let is_up = netlink.dump(question)?.iter().any(|link| {
                        matches!(link, RouteNetlinkMessage::NewLink(link)
                            if link.header.index == index && link.attributes.contains(&up))
                    });
                    ensure!(is_up, "the switch does not carry what `{port}` gives it");
                    Ok(())
                })?;
            }
            Ok(())
        })
    }

    pub(crate) fn set_attached(&self, port: &str, attached: bool) -> anyhow::Result<()> {
        self.namespace
            .run(|| attach(&mut Links::open()?, port, attached))
    }
}

/// What is behind routers that translate nothing, and by whom it is reached from the internet.
pub(crate) fn elsewhere(internet: &Members) -> Vec<(IpNet, IpAddr)> {
    let gateways = internet.gateways().into_iter();
    gateways
        .map(|gateway| match gateway {
            IpAddr::V4(_) => (Ipv4Addr::new(198, 18, 0, 0).into(), 16, gateway),
            IpAddr::V6(_) => {
                let all = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
                (all.into(), 32, gateway)
            }
        })
        .map(|(net, length, gateway)| (IpNet::new_assert(net, length), gateway))
        .collect()
}

/// Everything that is reached by way of `gateway`.
pub(crate) fn default_of(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

pub(crate) fn index_of(name: &str) -> anyhow::Result<u32> {
    Links::index_of(name).with_context(|| format!("there is no interface `{name}`"))
}

/// Makes this thread's namespace forward packets; what its switch carries is none of its filters' business.
fn forward() -> anyhow::Result<()> {
    for (setting, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
    ] {
        let path = Path::new("/proc/sys/net").join(setting);
        if path.exists() {
            fs::write(&path, value).with_context(|| format!("cannot set `{setting}`"))?;
        }
    }
    Ok(())
}

fn attach(links: &mut Links, port: &str, attached: bool) -> anyhow::Result<()> {
    let bridge = if attached { index_of(BRIDGE)? } else { 0 };
    let mut message = LinkMessage::default();
    message.header.index = index_of(port)?;
    message.attributes.push(LinkAttribute::Controller(bridge));
    links.request(RouteNetlinkMessage::SetLink(message), 0, || {
        format!("connect `{port}` to the switch or take it off")
    })?;
    Ok(())
}

fn create(links: &mut Links, message: LinkMessage) -> anyhow::Result<()> {
    let message = RouteNetlinkMessage::NewLink(message);
    links.request(message, NLM_F_CREATE | NLM_F_EXCL, || {
        "make a link of the lab".to_owned()
    })?;
    Ok(())
}

/// A cable from `near` in this thread's namespace to `far` in another.
fn veth(links: &mut Links, near: &str, far: &str, namespace: &Namespace) -> anyhow::Result<()> {
    let mut far = named(far);
    far.attributes
        .push(LinkAttribute::NetNsFd(namespace.file().as_raw_fd()));
    let mut near = named(near);
    near.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
    ]));
    create(links, near)
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}
