//! What of an agent's names root may act on. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use mesh_api::{Names, VERSION};
use mesh_inventory::roster::Roster;
use mesh_os::{paths::IS_MACOS, resolver::Split};
use mesh_types::reverse_zones;

use crate::config::Config;

/// The most names; as many as machines and aliases that the agent is made for.
const NAMES_MAX: usize = 200_000;

/// The most addresses of a name.
const ADDRESSES_MAX: usize = 16;

/// The longest name, in bytes (RFC 1035 section 2.3.4, without the last dot).
const NAME_BYTES_MAX: usize = 253;

/// The longest label, in bytes (the same section).
const LABEL_BYTES_MAX: usize = 63;

/// What no mesh is called: who asks for these means something else.
const NOT_OURS: [&str; 3] = ["arpa", "local", "localhost"];

/// Why an agent's names are not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// The agent is of another release.
    #[error("it has format {0}; restart the agent, or upgrade this program")]
    Version(u32),
    /// Its network, domain, prefix or pool is not the roster's.
    #[error(
        "its {what} `{said}` is not that of the configuration and the stored roster, `{expected}`"
    )]
    Differs {
        /// Which.
        what: &'static str,
        /// What the file says.
        said: String,
        /// What the roster says.
        expected: String,
    },
    /// The domain is none that a mesh may have.
    #[error("`{0}` cannot be the domain of a mesh")]
    Domain(String),
    /// The interface has not the address.
    #[error("interface `{interface}` has not the address {address}")]
    NotHere {
        /// The interface.
        interface: String,
        /// The address.
        address: Ipv6Addr,
    },
    /// The address that is to be asked is no member's.
    #[error("{0} is no member's address")]
    NoMember(Ipv6Addr),
    /// A name is not below the domain, or is none.
    #[error("`{}` is no name below the domain", .0.escape_debug())]
    Name(String),
    /// A name has an address that is none of the mesh's, or too many.
    #[error("`{name}` has addresses that are not in the mesh, such as {address}")]
    Address {
        /// The name.
        name: String,
        /// One of the addresses.
        address: IpAddr,
    },
    /// There are more than any mesh has.
    #[error("it has {0} names")]
    TooMany(usize),
}

/// Says what the resolver is to ask, if every word of `names` is within what `config` and the verified
/// `roster` allow. `local` are the addresses that the interface has which the names speak of.
///
/// # Errors
///
/// [`Untrusted`] names the first thing that is not.
pub fn check(
    names: &Names,
    config: &Config,
    roster: &Roster,
    local: &BTreeSet<IpAddr>,
) -> Result<Split, Untrusted> {
    if names.version != VERSION {
        return Err(Untrusted::Version(names.version));
    }
    let network = roster.network();
    let prefix = config.network.prefix();
    let pool =
        |pool: Option<ipnet::Ipv4Net>| pool.map_or("none".to_owned(), |pool| pool.to_string());
    same("network", names.network, config.network)?;
    same("domain", &names.domain, &network.domain)?;
    same("prefix", names.prefix, prefix.net())?;
    same("IPv4 pool", pool(names.pool), pool(network.ipv4))?;
    if !IS_MACOS {
        // There, the kernel gives the name.
        same("interface", &names.interface, &config.interface)?;
    }
    check_domain(&names.domain)?;
    if !local.contains(&names.address.into()) || prefix.check(names.address).is_err() {
        return Err(Untrusted::NotHere {
            interface: names.interface.clone(),
            address: names.address,
        });
    }
    let own = roster
        .members()
        .values()
        .find(|member| member.address == names.address)
        .ok_or(Untrusted::NoMember(names.address))?;
    if names.names.len() > NAMES_MAX {
        return Err(Untrusted::TooMany(names.names.len()));
    }
    let in_mesh = |address: &IpAddr| match address {
        IpAddr::V6(address) => prefix.check(*address).is_ok(),
        IpAddr::V4(address) => network.ipv4.is_some_and(|pool| pool.contains(address)),
    };
    let mut by_address: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for (name, addresses) in &names.names {
        if !is_below(name, &names.domain) {
            return Err(Untrusted::Name(name.clone()));
        }
        let wrong = addresses.iter().find(|address| !in_mesh(address));
        if let Some(address) = wrong.or(addresses.get(ADDRESSES_MAX)) {
            return Err(Untrusted::Address {
                name: name.clone(),
                address: *address,
            });
        }
        for address in addresses {
            by_address.entry(*address).or_default().push(name.clone());
        }
    }
    // Whoever asks for the name of an address gets the first: a machine's own rather than an alias.
    let machines: BTreeSet<String> = roster
        .members()
        .keys()
        .map(|name| format!("{name}.{}", names.domain))
        .collect();
    for of_address in by_address.values_mut() {
        of_address.sort_by_key(|name| !machines.contains(name));
    }
    let mut reverse = reverse_zones(prefix.net().into());
    reverse.extend(
        network
            .ipv4
            .into_iter()
            .flat_map(|pool| reverse_zones(pool.into())),
    );
    Ok(Split {
        network: config.network,
        interface: names.interface.clone(),
        server: names.address,
        answering: names.answering,
        domain: names.domain.clone(),
        reverse,
        names: by_address.into_iter().collect(),
        probe: (
            format!("{}.{}", own.name, names.domain),
            names.address.into(),
        ),
    })
}

fn same<T: PartialEq + ToString>(
    what: &'static str,
    said: T,
    expected: T,
) -> Result<(), Untrusted> {
    if said == expected {
        return Ok(());
    }
    Err(Untrusted::Differs {
        what,
        said: said.to_string(),
        expected: expected.to_string(),
    })
}

fn check_domain(domain: &str) -> Result<(), Untrusted> {
    let last = domain.rsplit('.').next().unwrap_or_default();
    if is_name(domain) && !NOT_OURS.contains(&last) {
        return Ok(());
    }
    Err(Untrusted::Domain(domain.to_owned()))
}

fn is_below(name: &str, domain: &str) -> bool {
    let rest = name
        .strip_suffix(domain)
        .and_then(|rest| rest.strip_suffix('.'));
    is_name(name) && rest.is_some_and(|rest| !rest.is_empty())
}

/// Labels of letters, digits, hyphens and underscores; nothing that a hosts file or a shell would read
/// otherwise.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label)
}
