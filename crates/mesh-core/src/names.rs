//! Answers to DNS questions, from a table that is made of a roster and replaced whole with it.
//!
//! [`NameTable`] holds the zones that a fleet has: its domain, and the reverse zones of its addresses.
//! [`answer`] is the server: bytes of a question in, bytes of its answer out. It is authoritative for those
//! zones, refuses all else, and forwards nothing.
//!
//! An alias has the addresses of its machine as its own instead of a CNAME: every client understands that
//! in one step, wildcards need nothing more, and a stub resolver that does not follow CNAMEs across an answer
//! is served as well as any other. The canonical name is what the reverse name tells.

mod wire;
mod zone;

use std::{collections::BTreeMap, net::IpAddr};

use hickory_proto::rr::{Name, rdata::SOA};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_types::{MachineName, Serial, reverse_name, reverse_zones};

pub use wire::{Transport, UDP_BYTES_MAX, answer, refuse};
use zone::{Data, Found, Labels, Zone, labels};

/// For how long an answer may be kept, in seconds: what it says changes with a roster, and asking again
/// costs nothing, as the server is on the machine that asks.
const TTL_SECONDS: u32 = 30;

/// For how long it may be remembered that there is no such name, in seconds: a machine that was just added
/// is to be found soon.
const NEGATIVE_TTL_SECONDS: u32 = 10;

/// What a fleet's names have in common.
#[derive(Clone, Copy, Debug)]
pub struct NamesConfig<'a> {
    /// The domain, without a dot at its end.
    pub domain: &'a str,
    /// The network's prefix.
    pub prefix: Ipv6Net,
    /// The network's IPv4 pool.
    pub pool: Option<Ipv4Net>,
    /// Serial of the roster.
    pub serial: Serial,
    /// The machine that answers: each is the name server of its own programs.
    pub server: &'a MachineName,
}

/// A machine or guest.
#[derive(Clone, Debug)]
pub struct NamedHost<'a> {
    /// Its name.
    pub name: &'a MachineName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its further names below the domain; a wildcard begins with `*.`.
    pub aliases: &'a [String],
}

/// A domain that no names can be below.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a domain, so no names are answered", .0.escape_debug())]
pub struct NotADomain(String);

/// The names of a fleet and what they mean.
#[derive(Clone, Debug)]
pub struct NameTable {
    domain: String,
    server: Name,
    /// By the labels of the apex.
    zones: BTreeMap<Labels, Zone>,
    forward: BTreeMap<String, Vec<IpAddr>>,
    passed_over: Vec<String>,
}

impl NameTable {
    /// Makes the table. Machines' names come before aliases, and a name's first owner keeps it; what is no
    /// name is passed over.
    ///
    /// # Errors
    ///
    /// [`NotADomain`].
    pub fn new<'a>(
        config: &NamesConfig<'a>,
        hosts: impl IntoIterator<Item = NamedHost<'a>>,
    ) -> Result<Self, NotADomain> {
        let not_a_domain = || NotADomain(config.domain.to_owned());
        let domain = config.domain.to_ascii_lowercase();
        if !domain.split('.').all(is_label) {
            return Err(not_a_domain());
        }
        let absolute = |name: &str| Name::from_ascii(format!("{name}.{domain}.")).ok();
        let server = absolute(config.server.as_str()).ok_or_else(not_a_domain)?;
        let mail = absolute("hostmaster").ok_or_else(not_a_domain)?;
        let mut table = Self {
            server: server.clone(),
            zones: BTreeMap::new(),
            forward: BTreeMap::new(),
            passed_over: Vec::new(),
            domain,
        };
        // The lower half: serials of rosters are longer, and only ever compared for being other ones.
        let serial = u32::try_from(config.serial.get() & u64::from(u32::MAX)).unwrap_or_default();
        let minimum = NEGATIVE_TTL_SECONDS;
        let soa = SOA::new(server, mail, serial, 3600, 600, 86_400, minimum);
        let nets = std::iter::once(IpNet::V6(config.prefix)).chain(config.pool.map(IpNet::V4));
        let reverse = nets.flat_map(reverse_zones);
        for apex in std::iter::once(table.domain.clone()).chain(reverse) {
            let name = Name::from_ascii(format!("{apex}.")).map_err(|_| not_a_domain())?;
            let zone = Zone::new(name.clone(), soa.clone());
            table.zones.insert(labels(&name), zone);
        }
        let hosts: Vec<_> = hosts.into_iter().collect();
        for host in &hosts {
            table.add_forward(host.name.as_str(), &host.addresses);
            table.add_reverse(host);
        }
        for host in &hosts {
            for alias in host.aliases {
                let alias = alias.to_ascii_lowercase();
                let plain = alias.strip_prefix("*.").unwrap_or(&alias);
                if !plain.split('.').all(is_label) || !table.add_forward(&alias, &host.addresses) {
                    table.passed_over.push(alias);
                }
            }
        }
        Ok(table)
    }

    /// The domain, in lower case and without a dot at its end.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The addresses by full name, in lower case and without a dot at its end; wildcards among them.
    pub const fn forward(&self) -> &BTreeMap<String, Vec<IpAddr>> {
        &self.forward
    }

    /// Aliases that are no names, too long with the domain, or another's.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// What there is at `name`; `None`: it is in none of the zones.
    fn find(&self, name: &Name) -> Option<(&Zone, Found<'_>)> {
        let wanted = labels(name);
        // The closest zone that encloses the name, should one be inside another.
        (0..=wanted.len()).rev().find_map(|length| {
            let (apex, below) = wanted.split_at(length);
            let zone = self.zones.get(apex)?;
            Some((zone, zone.find(below)))
        })
    }

    /// The addresses of the machine that answers, to go along where it is named.
    fn server_addresses(&self) -> &[IpAddr] {
        match self.find(&self.server) {
            Some((_, Found::Here(data))) => &data.addresses,
            Some((_, Found::Apex(_) | Found::Nothing)) | None => &[],
        }
    }

    /// False: `name` is too long, or taken.
    fn add_forward(&mut self, name: &str, addresses: &[IpAddr]) -> bool {
        let full = format!("{name}.{}", self.domain);
        let Ok(name) = Name::from_ascii(format!("{full}.")) else {
            return false;
        };
        let data = Data {
            addresses: addresses.to_vec(),
            pointer: None,
        };
        self.insert(&name, data) && self.forward.insert(full, addresses.to_vec()).is_none()
    }

    fn add_reverse(&mut self, host: &NamedHost<'_>) {
        let target = Name::from_ascii(format!("{}.{}.", host.name, self.domain)).ok();
        for address in &host.addresses {
            let Ok(name) = Name::from_ascii(format!("{}.", reverse_name(*address))) else {
                continue;
            };
            let data = Data {
                addresses: Vec::new(),
                pointer: target.clone(),
            };
            self.insert(&name, data);
        }
    }

    fn insert(&mut self, name: &Name, data: Data) -> bool {
        let wanted = labels(name);
        for length in (0..=wanted.len()).rev() {
            let (apex, below) = wanted.split_at(length);
            if let Some(zone) = self.zones.get_mut(apex) {
                return zone.insert(below, data);
            }
        }
        false
    }
}

/// A label as names of machines are made of.
fn is_label(label: &str) -> bool {
    label.parse::<MachineName>().is_ok()
}

#[cfg(test)]
mod tests;
