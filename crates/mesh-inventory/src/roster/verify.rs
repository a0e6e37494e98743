//! What a roster must be, whoever signed it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_types::{MachineName, MemberKey};
use serde_json::Value;

use super::{FORMAT, Head, Member, NetworkPart, RosterError};

/// The most entries in one list of a member or of the network part.
const LIST_MAX: usize = 1024;

/// The longest text in a member or in the network part, in bytes: an RSA key of 16 384 bits fits.
const TEXT_BYTES_MAX: usize = 4096;

/// Reads a head; its format is judged first, so that a newer one is called that.
pub(super) fn head(value: &Value) -> Result<Head, RosterError> {
    let format = value
        .get("format")
        .ok_or(RosterError::Missing("head.format"))?;
    if format.as_u64() != Some(FORMAT.into()) {
        return Err(RosterError::Format(format.to_string()));
    }
    let fields = value.as_object().ok_or(RosterError::Missing("head"))?;
    for (key, field) in fields {
        let printable = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if field.as_str().is_some_and(|text| !printable(text)) {
            return Err(RosterError::Strict(format!(
                "`head.{key}` is not printable ASCII"
            )));
        }
    }
    serde_json::from_value(value.clone()).map_err(RosterError::Json)
}

/// Checks that the network part and the members fit together.
pub(super) fn parts(
    network: &NetworkPart,
    members: &BTreeMap<MachineName, Member>,
) -> Result<(), RosterError> {
    let inconsistent = |reason: String| Err(RosterError::Inconsistent(reason));
    if network.prefix != network.id.prefix().net() {
        return inconsistent(format!(
            "prefix `{}` is not that of network `{}`",
            network.prefix, network.id
        ));
    }
    bounded("the network", [&network.name, &network.domain].into_iter())?;
    bounded("the network", network.signers.iter())?;
    let mut seen = Seen::default();
    for (name, member) in members {
        if *name != member.name {
            return inconsistent(format!("member `{name}` calls itself `{}`", member.name));
        }
        one_member(network, members, member)
            .map_err(|reason| RosterError::Inconsistent(format!("member `{name}`: {reason}")))?;
        bounded(
            &format!("member `{name}`"),
            [
                &member.tags,
                &member.endpoints,
                &member.aliases,
                &member.ciphers,
                &member.ssh_host_keys,
            ]
            .into_iter()
            .flatten(),
        )?;
        seen.add(member)
            .map_err(|reason| RosterError::Inconsistent(format!("member `{name}`: {reason}")))?;
    }
    for member in members.values() {
        for alias in &member.aliases {
            if members.contains_key(alias.as_str()) {
                return inconsistent(format!(
                    "alias `{alias}` of `{}` is the name of another member",
                    member.name
                ));
            }
        }
    }
    Ok(())
}

fn one_member(
    network: &NetworkPart,
    members: &BTreeMap<MachineName, Member>,
    member: &Member,
) -> Result<(), String> {
    network
        .id
        .prefix()
        .check(member.address)
        .map_err(|error| error.to_string())?;
    if let Some(ipv4) = member.ipv4 {
        match network.ipv4 {
            Some(pool) if pool.contains(&ipv4) => {}
            Some(pool) => return Err(format!("`{ipv4}` is outside the pool `{pool}`")),
            None => return Err(format!("`{ipv4}` in a network without an IPv4 pool")),
        }
    }
    let lists = [
        member.tags.len(),
        member.roles.len(),
        member.endpoints.len(),
        member.aliases.len(),
        member.routes.len(),
        member.gateways.len(),
        member.ciphers.len(),
        member.ssh_host_keys.len(),
    ];
    if lists.into_iter().any(|length| length > LIST_MAX) {
        return Err(format!("a list of over {LIST_MAX} entries"));
    }
    for route in &member.routes {
        check_route(network.prefix, network.ipv4, *route)?;
    }
    if let Some(gateway) = member
        .gateways
        .iter()
        .find(|name| !members.contains_key(*name))
    {
        return Err(format!("its gateway `{gateway}` is no member"));
    }
    let chacha_alone = matches!(member.ciphers.as_slice(), [only] if only == "chacha");
    if matches!(member.public_key, Some(MemberKey::Wireguard(_))) && !chacha_alone {
        return Err("a guest speaks `chacha` alone".to_owned());
    }
    Ok(())
}

/// A route may not touch the prefix or be a default route.
pub(crate) fn check_route(
    prefix: Ipv6Net,
    pool: Option<Ipv4Net>,
    route: IpNet,
) -> Result<(), String> {
    if route.prefix_len() == 0 {
        return Err(format!("route `{route}` is a default route"));
    }
    for own in std::iter::once(IpNet::V6(prefix)).chain(pool.map(IpNet::V4)) {
        if own.contains(&route) || route.contains(&own) {
            return Err(format!(
                "route `{route}` overlaps the network's own `{own}`"
            ));
        }
    }
    Ok(())
}

fn bounded<'a>(whose: &str, texts: impl Iterator<Item = &'a String>) -> Result<(), RosterError> {
    for (index, text) in texts.enumerate() {
        // Five lists of a member come in one run.
        if index >= 5 * LIST_MAX || text.len() > TEXT_BYTES_MAX {
            return Err(RosterError::Inconsistent(format!(
                "{whose} has too many or too long texts"
            )));
        }
    }
    Ok(())
}

/// What may occur once in a roster.
#[derive(Default)]
struct Seen {
    addresses: BTreeSet<std::net::IpAddr>,
    keys: BTreeSet<[u8; 32]>,
    aliases: BTreeSet<String>,
}

impl Seen {
    fn add(&mut self, member: &Member) -> Result<(), String> {
        let addresses = [Some(member.address.into()), member.ipv4.map(Into::into)];
        for address in addresses.into_iter().flatten() {
            if !self.addresses.insert(address) {
                return Err(format!("another member has the address `{address}`"));
            }
        }
        for alias in &member.aliases {
            if !self.aliases.insert(alias.clone()) {
                return Err(format!("another member has the alias `{alias}`"));
            }
        }
        let Some(key) = member.public_key else {
            return Ok(());
        };
        let halves = [
            Some(*key.wireguard().as_bytes()),
            key.node_id().map(|id| *id.as_bytes()),
        ];
        for half in halves.into_iter().flatten() {
            if !self.keys.insert(half) {
                return Err("another member has the same key".to_owned());
            }
        }
        Ok(())
    }
}
