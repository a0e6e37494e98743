//! What becomes of a machine's interfaces and routes.

use anyhow::Context as _;
use mesh_os::link::Links;

use super::{Lab, Machine, Place, UPLINK};
use crate::site::{Members, default_of, elsewhere, index_of};

/// Of which family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Both,
}

impl Families {
    const fn has(self, ipv4: bool) -> bool {
        match self {
            Self::V4 => ipv4,
            Self::V6 => !ipv4,
            Self::Both => true,
        }
    }
}

impl Lab {
    /// Lets nothing through to or from a machine, which is told nothing of it: its interface stays up.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn cut(&self, name: &str) -> anyhow::Result<()> {
        let place = self.place(name)?;
        self.sites[place.site.0].set_attached(&place.port, false)
    }

    /// Undoes [`Lab::cut`].
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn restore(&self, name: &str) -> anyhow::Result<()> {
        let place = self.place(name)?;
        self.sites[place.site.0].set_attached(&place.port, true)
    }

    /// Gives a machine other addresses of its site. The old ones are gone at once.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn renumber(&mut self, name: &str) -> anyhow::Result<()> {
        let place = self.place(name)?;
        let members = self.sites[place.site.0].members.clone();
        let number = place.number;
        self.machine(name)?.namespace.run(|| {
            let mut links = Links::open()?;
            let index = index_of(UPLINK)?;
            for address in members.addresses(number) {
                links.remove_address(index, address)?;
            }
            Ok(())
        })?;
        let machine = self.machines.get_mut(name);
        if let Some(place) = machine.and_then(|machine| machine.uplinks.get_mut(UPLINK)) {
            place.number += 100;
        }
        self.set_up(name, UPLINK)
    }

    /// Takes an interface of a machine down, as pulling the cable does. Its routes go with it.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn take_down(&self, name: &str, uplink: &str) -> anyhow::Result<()> {
        self.machine(name)?
            .namespace
            .run(|| Ok(Links::open()?.set_up(index_of(uplink)?, false)?))
    }

    /// Brings an interface of a machine up, with its addresses and with the default routes that lead by it.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn set_up(&self, name: &str, uplink: &str) -> anyhow::Result<()> {
        let machine = self.machine(name)?;
        let Place { site, number, port } = machine.uplink(uplink)?;
        let members = &self.sites[site.0].members;
        machine
            .namespace
            .run(|| Ok(Links::open()?.set_up(index_of(uplink)?, true)?))?;
        self.sites[site.0].wait_forwarding(port)?;
        machine.namespace.run(|| {
            let mut links = Links::open()?;
            members.give(&mut links, uplink, *number)?;
            if *site == Self::INTERNET {
                for (net, gateway) in elsewhere(members) {
                    links.add_route_via(index_of(uplink)?, net, gateway)?;
                }
            }
            machine.route(&mut links, uplink, members)
        })
    }

    /// Makes the default routes of a machine lead by another of its interfaces. The others keep their
    /// addresses.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn route_by(&mut self, name: &str, uplink: &str, families: Families) -> anyhow::Result<()> {
        self.unroute(name, families)?;
        if let Some(machine) = self.machines.get_mut(name) {
            for (default, ipv4) in machine.default.iter_mut().zip([true, false]) {
                if families.has(ipv4) {
                    *default = Some(uplink.to_owned());
                }
            }
        }
        let machine = self.machine(name)?;
        let members = &self.sites[machine.uplink(uplink)?.site.0].members;
        machine
            .namespace
            .run(|| machine.route(&mut Links::open()?, uplink, members))
    }

    /// Takes the default routes of a machine away; nothing else changes.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn unroute(&mut self, name: &str, families: Families) -> anyhow::Result<()> {
        let machine = self.machine(name)?;
        for (default, ipv4) in machine.default.iter().zip([true, false]) {
            let Some(uplink) = default.as_ref().filter(|_| families.has(ipv4)) else {
                continue;
            };
            let members = &self.sites[machine.uplink(uplink)?.site.0].members;
            let gateways = members.gateways().into_iter();
            for gateway in gateways.filter(|gateway| gateway.is_ipv4() == ipv4) {
                machine.namespace.run(|| {
                    let index = index_of(uplink)?;
                    Ok(Links::open()?.remove_route(index, default_of(gateway))?)
                })?;
            }
        }
        if let Some(machine) = self.machines.get_mut(name) {
            for (default, ipv4) in machine.default.iter_mut().zip([true, false]) {
                default.take_if(|_| families.has(ipv4));
            }
        }
        Ok(())
    }
}

impl Machine {
    fn uplink(&self, name: &str) -> anyhow::Result<&Place> {
        let uplink = self.uplinks.get(name);
        uplink.with_context(|| format!("a machine without an interface `{name}`"))
    }

    /// Makes the default routes that are to lead by `uplink`, in this thread's namespace.
    fn route(&self, links: &mut Links, uplink: &str, members: &Members) -> anyhow::Result<()> {
        for gateway in members.gateways() {
            let default = &self.default[usize::from(!gateway.is_ipv4())];
            if default.as_deref() == Some(uplink) {
                links.add_route_via(index_of(uplink)?, default_of(gateway), gateway)?;
            }
        }
        Ok(())
    }
}
