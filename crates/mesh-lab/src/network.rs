//! A switch with machines around it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use anyhow::Context as _;
use ipnet::IpNet;
use mesh_os::link::Links;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage},
};

use crate::{
    namespace::Namespace,
    router::{self, Router},
};

/// The name of every machine's interface.
const UPLINK: &str = "eth0";

/// The name of the switch in its own namespace.
const BRIDGE: &str = "br0";

/// Machines in namespaces of their own, around a switch that can cut and renumber them.
///
/// Each has IPv4 and IPv6 (`192.0.2.N` and `2001:db8::N`, of the blocks for documentation), no route to
/// anywhere else, and an MTU of 1500.
#[derive(Debug)]
pub struct Lab {
    switch: Namespace,
    machines: BTreeMap<String, Machine>,
}

#[derive(Debug)]
struct Machine {
    namespace: Namespace,
    /// Its port's name on the switch.
    port: String,
    number: u8,
    /// What stands between it and the switch, kept for as long as the machine.
    router: Option<Namespace>,
}

impl Lab {
    /// Makes a switch without machines.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn new() -> anyhow::Result<Self> {
        let switch = Namespace::create()?;
        switch.run(|| {
            let mut links = Links::open()?;
            let mut bridge = named(BRIDGE);
            bridge
                .attributes
                .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                    InfoKind::Bridge,
                )]));
            create(&mut links, bridge)?;
            links.set_up(index_of(BRIDGE)?, true)?;
            Ok(())
        })?;
        Ok(Self {
            switch,
            machines: BTreeMap::new(),
        })
    }

    /// Adds a machine, joined to the switch, with the next free addresses.
    ///
    /// # Errors
    ///
    /// What the kernel says; more than 100 machines.
    pub fn add(&mut self, name: &str) -> anyhow::Result<()> {
        let number = u8::try_from(self.machines.len() + 1)?;
        anyhow::ensure!(number <= 100, "no more than 100 machines fit in a lab");
        let port = format!("port{number}");
        let namespace = Namespace::create()?;
        self.plug_in(&port, &namespace, number)?;
        let machine = Machine {
            namespace,
            port,
            number,
            router: None,
        };
        self.machines.insert(name.to_owned(), machine);
        Ok(())
    }

    /// Puts a router between a machine and the switch. The router has the machine's addresses there; the
    /// machine has `10.0.N.2` and a default route, and no IPv6.
    ///
    /// # Errors
    ///
    /// What the kernel, `ip` and `nft` say.
    pub fn put_behind(&mut self, name: &str, router: Router) -> anyhow::Result<()> {
        let namespace = Namespace::create()?;
        let machine = self.machine(name)?;
        let number = machine.number;
        self.switch.run(|| {
            let index = index_of(&machine.port)?;
            let mut message = LinkMessage::default();
            message.header.index = index;
            Links::open()?.request(RouteNetlinkMessage::DelLink(message), 0, || {
                "unplug a machine".to_owned()
            })?;
            Ok(())
        })?;
        self.plug_in(&machine.port, &namespace, number)?;
        namespace.run(|| {
            veth(
                &mut Links::open()?,
                router::INNER,
                UPLINK,
                &machine.namespace,
            )
        })?;
        router::set_up(router, &namespace, &machine.namespace, UPLINK, number)?;
        if let Some(machine) = self.machines.get_mut(name) {
            machine.router = Some(namespace);
        }
        Ok(())
    }

    /// Joins a namespace to the switch and gives it the addresses of this number.
    fn plug_in(&self, port: &str, namespace: &Namespace, number: u8) -> anyhow::Result<()> {
        self.switch.run(|| {
            let mut links = Links::open()?;
            veth(&mut links, port, UPLINK, namespace)?;
            attach(&mut links, port, true)?;
            links.set_up(index_of(port)?, true)?;
            Ok(())
        })?;
        namespace.run(|| {
            let mut links = Links::open()?;
            links.set_up(index_of(UPLINK)?, true)?;
            give(&mut links, number)
        })
    }

    /// The namespace of a machine.
    ///
    /// # Errors
    ///
    /// There is no machine of this name.
    pub fn namespace(&self, name: &str) -> anyhow::Result<&Namespace> {
        Ok(&self.machine(name)?.namespace)
    }

    /// The IPv4 address of a machine on the switch.
    ///
    /// # Errors
    ///
    /// There is no machine of this name.
    pub fn address(&self, name: &str) -> anyhow::Result<Ipv4Addr> {
        Ok(ipv4(self.machine(name)?.number))
    }

    /// Lets nothing through to or from a machine, which is told nothing of it: its interface stays up.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn cut(&self, name: &str) -> anyhow::Result<()> {
        self.set_attached(name, false)
    }

    /// Undoes [`Lab::cut`].
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn restore(&self, name: &str) -> anyhow::Result<()> {
        self.set_attached(name, true)
    }

    /// Gives a machine other addresses, as moving to another network does. The old ones are gone at once.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn renumber(&mut self, name: &str) -> anyhow::Result<()> {
        let machine = self.machine(name)?;
        let (old, new) = (machine.number, machine.number + 100);
        machine.namespace.run(|| {
            let mut links = Links::open()?;
            let index = index_of(UPLINK)?;
            for address in addresses(old) {
                links.remove_address(index, address)?;
            }
            give(&mut links, new)
        })?;
        if let Some(machine) = self.machines.get_mut(name) {
            machine.number = new;
        }
        Ok(())
    }

    fn set_attached(&self, name: &str, attached: bool) -> anyhow::Result<()> {
        let machine = self.machine(name)?;
        self.switch
            .run(|| attach(&mut Links::open()?, &machine.port, attached))
    }

    fn machine(&self, name: &str) -> anyhow::Result<&Machine> {
        self.machines
            .get(name)
            .with_context(|| format!("there is no machine `{name}` in this lab"))
    }
}

fn ipv4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

fn addresses(number: u8) -> [IpNet; 2] {
    let ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
    [
        IpNet::new_assert(ipv4(number).into(), 24),
        IpNet::new_assert(ipv6.into(), 64),
    ]
}

fn give(links: &mut Links, number: u8) -> anyhow::Result<()> {
    let index = index_of(UPLINK)?;
    for address in addresses(number) {
        let source: IpAddr = address.addr();
        links.add_address(index, address)?;
        links.add_route(index, address.trunc(), Some(source))?;
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

fn index_of(name: &str) -> anyhow::Result<u32> {
    Links::index_of(name).with_context(|| format!("there is no interface `{name}`"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ping::Pinger, sandbox};

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn machines_reach_each_other_until_cut_or_renumbered() {
        if !sandbox::enter_test() {
            return;
        }
        let mut lab = Lab::new().unwrap();
        lab.add("a").unwrap();
        lab.add("b").unwrap();
        let pinger = Pinger::new(lab.namespace("a").unwrap()).unwrap();
        let at = |number| match addresses(number)[1].addr() {
            IpAddr::V6(ip) => ip,
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        };
        assert!(pinger.ping(at(2), LONG).unwrap().is_some());
        lab.cut("b").unwrap();
        assert_eq!(pinger.ping(at(2), SHORT).unwrap(), None);
        lab.restore("b").unwrap();
        assert!(pinger.ping(at(2), LONG).unwrap().is_some());
        lab.renumber("b").unwrap();
        assert_eq!(pinger.ping(at(2), SHORT).unwrap(), None);
        assert!(pinger.ping(at(102), LONG).unwrap().is_some());
        assert_eq!(lab.address("b").unwrap(), Ipv4Addr::new(192, 0, 2, 102));
    }
}
