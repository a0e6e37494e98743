//! Machines, the sites that they are at, and the internet between these.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::Context as _;

use crate::{
    namespace::Namespace,
    router::Router,
    site::{Members, Place, Site},
};

mod faults;
mod uplinks;

pub use uplinks::Families;

/// The name of a machine's first interface, and of a router's towards the internet.
pub(crate) const UPLINK: &str = "eth0";

/// Machines in namespaces of their own, around a switch that can cut and renumber them, or behind routers.
///
/// Each has IPv4 and IPv6 (`192.0.2.N` and `2001:db8::N`, of the blocks for documentation), no route but to
/// the others, and an MTU of 1500. Behind a router it has what [`Router`] says, and a default route.
#[derive(Debug)]
pub struct Lab {
    /// The internet first; each after the one above it.
    sites: Vec<Site>,
    machines: BTreeMap<String, Machine>,
    /// Cables laid so far, which gives each a name of its own.
    cables: u32,
}

/// A site of a [`Lab`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteId(pub(crate) usize);

#[derive(Debug)]
struct Machine {
    namespace: Namespace,
    /// By the name of the interface.
    uplinks: BTreeMap<String, Place>,
    /// By which interface its default routes lead, by IPv4 and by IPv6.
    default: [Option<String>; 2],
}

impl Lab {
    /// Where machines are that no router stands before.
    pub const INTERNET: SiteId = SiteId(0);

    /// Makes an internet without machines.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            sites: vec![Site::internet()?],
            machines: BTreeMap::new(),
            cables: 0,
        })
    }

    /// Adds a machine, joined to the internet, with the next free addresses.
    ///
    /// # Errors
    ///
    /// What the kernel says; more than 100 machines.
    pub fn add(&mut self, name: &str) -> anyhow::Result<()> {
        let machine = Machine {
            namespace: Namespace::create()?,
            uplinks: BTreeMap::new(),
            default: [None, None],
        };
        self.machines.insert(name.to_owned(), machine);
        self.plug_in(name, UPLINK, Self::INTERNET)
    }

    /// Makes a site with a router of its own, which is joined to the site `above`.
    ///
    /// # Errors
    ///
    /// What the kernel and `nft` say.
    pub fn site(&mut self, router: Router, above: SiteId) -> anyhow::Result<SiteId> {
        let number = self.sites[above.0].members.next()?;
        self.site_with_number(router, above, number)
    }

    fn site_with_number(
        &mut self,
        router: Router,
        above: SiteId,
        number: u8,
    ) -> anyhow::Result<SiteId> {
        let id = SiteId(self.sites.len());
        let members = Members::of_site(id.0, router)?;
        let port = self.next_port();
        let site = Site::below(&self.sites[above.0], router, members, above, &port, number)?;
        self.sites.push(site);
        // Those above learn where the addresses are that nobody translates.
        let mut by = id;
        while let Some(place) = self.sites[by.0].above.clone() {
            self.sites[place.site.0].route_down(&self.sites[id.0].members, place.number)?;
            by = place.site;
        }
        Ok(id)
    }

    /// Puts a router between a machine and the internet. The router has the machine's addresses there.
    ///
    /// # Errors
    ///
    /// As [`Lab::site`].
    pub fn put_behind(&mut self, name: &str, router: Router) -> anyhow::Result<SiteId> {
        let number = self.place(name)?.number;
        self.unplug(name, UPLINK)?;
        let site = self.site_with_number(router, Self::INTERNET, number)?;
        self.plug_in(name, UPLINK, site)?;
        Ok(site)
    }

    /// Moves a machine's first interface to a site. What it had before is gone at once, also its interface.
    ///
    /// # Errors
    ///
    /// What the kernel says; more than 100 machines at the site.
    pub fn join(&mut self, name: &str, site: SiteId) -> anyhow::Result<()> {
        self.unplug(name, UPLINK)?;
        self.plug_in(name, UPLINK, site)
    }

    /// Gives a machine one more interface, at a site, without default routes ([`Lab::route_by`]).
    ///
    /// # Errors
    ///
    /// As [`Lab::join`].
    pub fn add_uplink(&mut self, name: &str, uplink: &str, site: SiteId) -> anyhow::Result<()> {
        self.plug_in(name, uplink, site)
    }

    /// The namespace of a machine.
    ///
    /// # Errors
    ///
    /// There is no machine of this name.
    pub fn namespace(&self, name: &str) -> anyhow::Result<&Namespace> {
        Ok(&self.machine(name)?.namespace)
    }

    /// The namespace of a site, with its switch and its router: `lan0`, and `eth0` towards the site above.
    pub fn gateway(&self, site: SiteId) -> &Namespace {
        &self.sites[site.0].namespace
    }

    /// Where a machine is by its first interface.
    ///
    /// # Errors
    ///
    /// There is no machine of this name, or it is nowhere.
    pub fn site_of(&self, name: &str) -> anyhow::Result<SiteId> {
        Ok(self.place(name)?.site)
    }

    /// The IPv4 address by which the internet sees a machine.
    ///
    /// # Errors
    ///
    /// There is no machine of this name, or it has no IPv4.
    pub fn address(&self, name: &str) -> anyhow::Result<Ipv4Addr> {
        let mut place = self.place(name)?;
        loop {
            let site = &self.sites[place.site.0];
            match &site.above {
                Some(above) if site.members.translated => place = above,
                _ => return site.members.ipv4(place.number).context("it has no IPv4"),
            }
        }
    }

    /// The IPv6 address of a machine, which nobody translates.
    ///
    /// # Errors
    ///
    /// There is no machine of this name, or it has no IPv6.
    pub fn address_v6(&self, name: &str) -> anyhow::Result<Ipv6Addr> {
        let place = self.place(name)?;
        let members = &self.sites[place.site.0].members;
        members.ipv6(place.number).context("it has no IPv6")
    }

    fn plug_in(&mut self, name: &str, uplink: &str, site: SiteId) -> anyhow::Result<()> {
        let port = self.next_port();
        let site_id = site;
        let site = &mut self.sites[site_id.0];
        let number = site.members.next()?;
        let machine = self.machines.get_mut(name).context("no such machine")?;
        site.lay_cable(&port, uplink, &machine.namespace)?;
        let place = Place {
            site: site_id,
            number,
            port,
        };
        machine.uplinks.insert(uplink.to_owned(), place);
        if site_id != Self::INTERNET {
            let families = [site.members.has_ipv4(), site.members.has_ipv6()];
            for (default, has) in machine.default.iter_mut().zip(families) {
                if has {
                    default.get_or_insert_with(|| uplink.to_owned());
                }
            }
        }
        self.set_up(name, uplink)
    }

    fn unplug(&mut self, name: &str, uplink: &str) -> anyhow::Result<()> {
        let machine = self.machines.get_mut(name).context("no such machine")?;
        let place = machine.uplinks.remove(uplink).context("no such uplink")?;
        for default in &mut machine.default {
            default.take_if(|by| by == uplink);
        }
        self.sites[place.site.0].take_cable(&place.port)
    }

    fn next_port(&mut self) -> String {
        self.cables += 1;
        format!("port{}", self.cables)
    }

    fn machine(&self, name: &str) -> anyhow::Result<&Machine> {
        self.machines
            .get(name)
            .with_context(|| format!("there is no machine `{name}` in this lab"))
    }

    fn place(&self, name: &str) -> anyhow::Result<&Place> {
        let uplinks = &self.machine(name)?.uplinks;
        uplinks
            .get(UPLINK)
            .with_context(|| format!("`{name}` has no `{UPLINK}`"))
    }
}

#[cfg(test)]
mod tests;
