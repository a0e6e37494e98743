//! What goes wrong between machines.

use std::process::Command;

use anyhow::Context as _;
use mesh_types::AGENT_PORT;

use super::{Lab, SiteId};
use crate::{
    namespace::Namespace,
    router::{self, apply},
    site::BRIDGE,
};

impl Lab {
    /// Drops all that comes straight from one machine to another, where it comes off the internet. Who sends
    /// is told nothing, and the other direction is as it was.
    ///
    /// # Errors
    ///
    /// What `nft` says.
    pub fn sever(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let mut rules = String::from(
            "add table inet severed\n\
             add chain inet severed arrive { type filter hook prerouting priority -300; }\n",
        );
        if let Ok(address) = self.address(from) {
            rules += &format!("add rule inet severed arrive ip saddr {address} drop\n");
        }
        let place = self.place(from)?;
        let members = &self.sites[place.site.0].members;
        if let Some(address) = members.ipv6(place.number) {
            rules += &format!("add rule inet severed arrive ip6 saddr {address} drop\n");
        }
        self.outermost(to)?.run(|| apply(&rules))
    }

    /// Of what comes to a machine's agent, loses one in so many at random, and changes a byte of as many. What the
    /// system joined is one.
    ///
    /// # Errors
    ///
    /// What `nft` says.
    pub fn spoil(&self, to: &str, one_in: u32) -> anyhow::Result<()> {
        let rules = format!(
            "table inet spoiled {{\n\
             counter lost {{ }}\n\
             counter changed {{ }}\n\
             chain arrive {{\n\
             type filter hook prerouting priority -300;\n\
             udp dport {AGENT_PORT} numgen random mod {one_in} < 1 counter name lost drop\n\
             udp dport {AGENT_PORT} numgen random mod {one_in} < 1 counter name changed @th,800,8 set 0x5a\n\
             }}\n}}\n"
        );
        self.outermost(to)?.run(|| apply(&rules))
    }

    /// How many [`Lab::spoil`] has lost, and changed.
    ///
    /// # Errors
    ///
    /// What `nft` says.
    pub fn spoiled(&self, to: &str) -> anyhow::Result<[u64; 2]> {
        let count = |name| {
            let mut nft = Command::new("nft");
            nft.args(["list", "counter", "inet", "spoiled", name]);
            let output = self.outermost(to)?.run(|| Ok(nft.output()?))?;
            let text = String::from_utf8(output.stdout)?;
            let mut words = text.split_whitespace();
            words.find(|word| *word == "packets");
            let count = words.next().context("`nft` has no such counter")?;
            anyhow::Ok(count.parse()?)
        };
        Ok([count("lost")?, count("changed")?])
    }

    /// Undoes [`Lab::sever`] for all that is dropped on its way to a machine.
    ///
    /// # Errors
    ///
    /// What `nft` says.
    pub fn mend(&self, to: &str) -> anyhow::Result<()> {
        self.outermost(to)?
            .run(|| apply("add table inet severed\ndelete table inet severed\n"))
    }

    /// Lets no UDP through a site's router, in either direction, without an answer.
    ///
    /// # Errors
    ///
    /// What `nft` says.
    pub fn drop_udp(&self, site: SiteId) -> anyhow::Result<()> {
        self.gateway(site).run(|| {
            apply(
                "table inet no_udp {\n\
                 chain pass { type filter hook forward priority -10; meta l4proto udp drop; }\n}\n",
            )
        })
    }

    /// Makes a site's NAT forget its mappings and give other ports from now on, as one that was started anew.
    ///
    /// # Errors
    ///
    /// What `nft` and the kernel say.
    pub fn rebind(&mut self, site: SiteId) -> anyhow::Result<()> {
        let gateway = &mut self.sites[site.0];
        gateway.rebinds += 1;
        let rules = gateway
            .router
            .context("the internet has no NAT")?
            .rules_after(gateway.rebinds, super::UPLINK, BRIDGE);
        gateway.namespace.run(|| {
            apply(&rules)?;
            router::forget_mappings()
        })
    }

    /// The router of a machine that is next to the internet, or the machine itself.
    fn outermost(&self, name: &str) -> anyhow::Result<&Namespace> {
        let machine = self.machine(name)?;
        let mut namespace = &machine.namespace;
        let mut site = self.place(name)?.site;
        while let Some(above) = &self.sites[site.0].above {
            namespace = &self.sites[site.0].namespace;
            site = above.site;
        }
        Ok(namespace)
    }
}
