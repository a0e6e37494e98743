//! What ZeroTier says of a network and its members.
//!
//! Read from the service's own API (`/controller/network/ID` and its `member`s), or from ZeroTier
//! Central's, whose members have a `nodeId` and keep the rest under `config`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use anyhow::{Context as _, anyhow, bail};
use mesh_types::MachineName;
use serde_json::Value;

/// A node address: 40 bits, ten hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeAddress(u64);

/// A network and its members.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// 16 hex digits; empty where the source does not say.
    pub(super) id: String,
    /// For people; may be empty.
    pub(super) name: String,
    pub(super) members: Vec<Member>,
    /// Whether the source does not tell if members have ZeroTier's RFC 4193 addresses, so that these are
    /// taken for theirs.
    pub(super) is_assumed: bool,
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) node: NodeAddress,
    name: String,
    pub(super) authorized: bool,
    /// Assigned and derived ones.
    pub(super) addresses: Vec<IpAddr>,
}

/// Reads an object with `network` and `members`, or a list of members.
///
/// # Errors
///
/// What is missing or wrong.
pub(super) fn network(value: &Value) -> anyhow::Result<Network> {
    let (network, members) = match value.as_array() {
        Some(members) => (&Value::Null, members),
        None => {
            // `data` is what the service's `/unstable/controller/network/ID/member` has them under.
            let members = ["members", "data"].iter().find_map(|key| value.get(*key));
            let members = members
                .and_then(Value::as_array)
                .context("there is no list `members`")?;
            (value.get("network").unwrap_or(&Value::Null), members)
        }
    };
    let id = text(network, &["id", "nwid"])
        .or_else(|| {
            members
                .iter()
                .find_map(|member| text(member, &["nwid", "networkId"]))
        })
        .unwrap_or_default();
    if !id.is_empty() && parse_network_id(id).is_none() {
        bail!("`{id}` is no ZeroTier network: 16 hex digits");
    }
    let settings = config(network);
    let mode = settings.get("v6AssignMode").unwrap_or(&Value::Null);
    let is_on = |name: &str| mode.get(name).and_then(Value::as_bool).unwrap_or(false);
    let is_told = network.is_object();
    let derive = parse_network_id(id).map(|id| Derive {
        network: id,
        // Nobody else has such an address, so one too many does no harm.
        rfc4193: is_on("rfc4193") || !is_told,
        sixplane: is_on("6plane"),
    });
    let members = members
        .iter()
        .map(|value| member(value, derive))
        .collect::<anyhow::Result<_>>()?;
    Ok(Network {
        id: id.to_owned(),
        name: text(network, &["name"])
            .or_else(|| text(settings, &["name"]))
            .unwrap_or_default()
            .to_owned(),
        members,
        is_assumed: derive.is_some() && !is_told,
    })
}

/// Which addresses follow from a network and a node.
#[derive(Clone, Copy)]
struct Derive {
    network: u64,
    rfc4193: bool,
    sixplane: bool,
}

fn member(value: &Value, derive: Option<Derive>) -> anyhow::Result<Member> {
    let node = text(value, &["nodeId", "address"])
        .or_else(|| text(value, &["id"]))
        .context("a member has neither `id` nor `nodeId`")?;
    let node: NodeAddress = node.parse()?;
    let settings = config(value);
    // What a node says of its peers looks like a list of members otherwise.
    let authorized = settings.get("authorized").and_then(Value::as_bool);
    let authorized = authorized.with_context(|| {
        format!("it does not say whether {node} is `authorized`, so it is no list of members")
    })?;
    let assigned = settings.get("ipAssignments").and_then(Value::as_array);
    let mut addresses = Vec::new();
    for address in assigned.into_iter().flatten() {
        let address = address.as_str().unwrap_or_default();
        let parsed = address.split('/').next().unwrap_or_default().parse();
        addresses
            .push(parsed.with_context(|| format!("`{address}` of member {node} is no address"))?);
    }
    if let Some(derive) = derive {
        addresses.extend(
            derive
                .rfc4193
                .then(|| IpAddr::from(rfc4193(derive.network, node))),
        );
        addresses.extend(
            derive
                .sixplane
                .then(|| IpAddr::from(sixplane(derive.network, node))),
        );
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(Member {
        node,
        name: text(value, &["name"]).unwrap_or_default().to_owned(),
        authorized,
        addresses,
    })
}

impl Network {
    /// The node that controls it: a network's id begins with its controller's address.
    pub(super) fn controller(&self) -> Option<NodeAddress> {
        Some(NodeAddress(parse_network_id(&self.id)? >> 24))
    }
}

impl Member {
    /// The machine name that its own name comes closest to.
    pub(super) fn own_name(&self) -> Option<MachineName> {
        self.name
            .parse()
            .or_else(|error: mesh_types::ParseNameError| {
                error.suggestion.as_deref().unwrap_or_default().parse()
            })
            .ok()
    }

    /// A machine name for a member that nothing names.
    pub(super) fn fallback_name(&self) -> MachineName {
        format!("zt-{}", self.node)
            .parse()
            .expect("hex digits and a hyphen make a name")
    }
}

impl FromStr for NodeAddress {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let digits = text.len() == 10 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| {
            anyhow!(
                "`{}` is no ZeroTier node address: ten hex digits",
                text.escape_debug()
            )
        })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010x}", self.0)
    }
}

/// ZeroTier's RFC 4193 address: `fd`, the network's id, `9993`, the node's address.
fn rfc4193(network: u64, node: NodeAddress) -> Ipv6Addr {
    let high = 0xfd << 120 | u128::from(network) << 56;
    Ipv6Addr::from(high | 0x9993 << 40 | u128::from(node.0))
}

/// ZeroTier's 6PLANE address: `fc`, both halves of the network's id folded, the node's address, and 1.
fn sixplane(network: u64, node: NodeAddress) -> Ipv6Addr {
    let folded = u128::from((network >> 32) ^ (network & 0xffff_ffff));
    Ipv6Addr::from(0xfc << 120 | folded << 88 | u128::from(node.0) << 48 | 1)
}

fn parse_network_id(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

/// Where Central keeps the settings; the service has them in the object itself.
fn config(value: &Value) -> &Value {
    value
        .get("config")
        .filter(|config| config.is_object())
        .unwrap_or(value)
}

fn text<'v>(value: &'v Value, keys: &[&str]) -> Option<&'v str> {
    keys.iter()
        .find_map(|key| value.get(*key)?.as_str())
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn derived_addresses_are_zerotiers() {
        // By the layouts that ZeroTier documents.
        let node: NodeAddress = "8056c2e21c".parse().unwrap();
        let network = parse_network_id("9c9b1d6cf9a5b25c").unwrap();
        let expected: Ipv6Addr = "fd9c:9b1d:6cf9:a5b2:5c99:9380:56c2:e21c".parse().unwrap();
        assert_eq!(rfc4193(network, node), expected);
        let expected: Ipv6Addr = "fc65:3eaf:3080:56c2:e21c::1".parse().unwrap();
        assert_eq!(sixplane(network, node), expected);
    }

    #[test]
    fn the_lists_of_the_service_and_of_central_read_alike() {
        let service = json!({
            "network": { "nwid": "8056c2e21c000001", "name": "fleet", "v6AssignMode": { "rfc4193": true } },
            "members": [{ "address": "efcc1b0947", "authorized": true, "ipAssignments": ["10.1.2.3"] }],
        });
        let central = json!([{
            "id": "8056c2e21c000001-efcc1b0947",
            "networkId": "8056c2e21c000001",
            "nodeId": "efcc1b0947",
            "name": "phone",
            "config": { "authorized": true, "ipAssignments": ["10.1.2.3"] },
        }]);
        let service = network(&service).unwrap();
        assert_eq!(service.members[0].addresses.len(), 2);
        assert_eq!(service.controller().unwrap().to_string(), "8056c2e21c");
        let central = network(&central).unwrap();
        assert_eq!(central.id, service.id);
        assert_eq!(central.members[0].node, service.members[0].node);
        assert_eq!(central.members[0].own_name().unwrap().as_str(), "phone");
        // Central's list has nothing of the network's settings.
        assert_eq!(central.members[0].addresses, service.members[0].addresses);
        assert!(central.is_assumed && !service.is_assumed);
        let unstable = json!({ "data": [
            { "id": "efcc1b0947", "nwid": "8056c2e21c000001", "authorized": true, "ipAssignments": ["10.1.2.3"] },
        ], "meta": { "totalCount": 1, "authorizedCount": 1 } });
        assert_eq!(
            network(&unstable).unwrap().members[0].addresses,
            service.members[0].addresses
        );
    }

    #[test]
    fn what_is_no_member_is_an_error() {
        for wrong in [
            json!({}),
            json!([{}]),
            json!([{ "id": "xyz" }]),
            json!([{ "id": "efcc1b0947", "authorized": true, "ipAssignments": ["x"] }]),
            // `zerotier-cli -j listnetworks`, `peers` and `info`, and the service's list of members.
            json!([{ "id": "8056c2e21c000001", "nwid": "8056c2e21c000001", "status": "OK", "assignedAddresses": ["10.1.2.3/24"] }]),
            json!([{ "address": "efcc1b0947", "role": "LEAF", "latency": 12, "paths": [] }]),
            json!({ "address": "efcc1b0947", "online": true, "config": { "settings": {} } }),
            json!({ "efcc1b0947": 3 }),
        ] {
            assert!(network(&wrong).is_err(), "{wrong}");
        }
    }
}
