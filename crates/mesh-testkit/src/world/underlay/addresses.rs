//! Who gets which address: private ones repeat between sites, as they do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Holder, Passage, SiteId, Underlay};

/// How many different private networks there are for the sites that translate.
const PRIVATE_NETWORKS: usize = 3;

/// The public addresses that were given out; none is given twice, so that a packet to a former one goes
/// to nobody.
#[derive(Default)]
pub(super) struct Pools {
    v4: u16,
    v6: u16,
}

impl Underlay {
    /// An address for the outside of a site's NAT.
    pub(super) fn external_address(&mut self, site: SiteId) -> IpAddr {
        let parent = self.parent(site);
        let address = self.free_v4(parent);
        let holder = Holder::Gateway(site);
        self.sites[parent.0].holders.insert(address, holder);
        address
    }

    /// A free IPv4 address at a site.
    pub(super) fn free_v4(&mut self, site: SiteId) -> IpAddr {
        if !matches!(self.sites[site.0].gateway.v4, Passage::Translated(_)) {
            // 198.18.0.0/15 is for simulated internets (RFC 2544). Behind gateways that only route it is
            // found by its holder.
            self.pools.v4 = self.pools.v4.checked_add(1).expect("65 535 are enough");
            let [high, low] = self.pools.v4.to_be_bytes();
            return Ipv4Addr::new(198, 18, high, low).into();
        }
        // The lowest that is free, as DHCP gives it: a host that comes may get the address of one that
        // left, while the NAT still has mappings for it.
        let third = u8::try_from(site.0 % PRIVATE_NETWORKS).expect("a small number");
        let is_carrier = self.sites.iter().any(|other| other.parent == Some(site));
        (10..=u8::MAX)
            .map(|last| match is_carrier {
                true => Ipv4Addr::new(100, 64, third, last).into(),
                false => Ipv4Addr::new(192, 168, third, last).into(),
            })
            .find(|address| !self.sites[site.0].holders.contains_key(address))
            .expect("a site has fewer than 240 hosts")
    }

    /// An IPv6 address at a site.
    pub(super) fn free_v6(&mut self, site: SiteId) -> IpAddr {
        self.pools.v6 = self.pools.v6.checked_add(1).expect("65 535 are enough");
        let site = u16::try_from(site.0).expect("fewer than 65 536 sites");
        Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, self.pools.v6).into()
    }
}
