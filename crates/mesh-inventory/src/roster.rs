//! The roster: the resolved inventory, signed. `docs/formats.md` has the file's form.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_types::{MachineName, MemberKey, NetworkId, NodeId, Serial};
use serde::{Deserialize, Serialize};

/// A SHA-256 hash; in JSON 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

/// What kind of machine a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineClass {
    /// Runs NixOS.
    Nixos,
    /// A Mac.
    Darwin,
    /// Anything else, such as a phone.
    External,
}

/// A role of the mesh instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Admits machines and distributes rosters.
    Controller,
    /// Relays for others.
    Moon,
    /// An ordinary node.
    Peer,
}

/// One member: the leaf that gets signed. Fields that this release does not know are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The machine's name.
    pub name: MachineName,
    /// What kind of machine it is.
    pub class: MachineClass,
    /// Its key; `None`: declared, not yet keyed.
    #[serde(rename = "publicKey")]
    pub public_key: Option<MemberKey>,
    /// Its IPv6 address in the mesh.
    pub address: Ipv6Addr,
    /// Its IPv4 address in the mesh; `None` where the network has no pool.
    pub ipv4: Option<Ipv4Addr>,
    /// False: known but switched off.
    pub enabled: bool,
    /// Labels, sorted.
    pub tags: Vec<String>,
    /// Roles in the mesh instance, sorted.
    pub roles: Vec<Role>,
    /// Static underlay endpoints of its agent, `host:port`.
    pub endpoints: Vec<String>,
    /// Names of services that it answers to beside its own.
    pub aliases: Vec<String>,
    /// Subnets behind it.
    pub routes: Vec<IpNet>,
    /// The moons through which a guest joins.
    pub gateways: Vec<MachineName>,
    /// Transport ciphers that it speaks, `aes` and `chacha`.
    pub ciphers: Vec<String>,
    /// What newer releases say of a member.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// Whatever is not one member's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkPart {
    /// The network's id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Its DNS domain.
    pub domain: String,
    /// Its /48.
    pub prefix: Ipv6Net,
    /// The IPv4 pool; `None`: the network has no IPv4.
    pub ipv4: Option<Ipv4Net>,
    /// Who may sign rosters, as text; for the nodes' configurations only, a roster adds no signer.
    pub signers: Vec<String>,
    /// What newer releases say of a network (rules and their tests among it).
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// Format number, 1.
    pub format: u32,
    /// The network's id.
    pub network: NetworkId,
    /// Higher for every newer roster.
    pub serial: Serial,
    /// When it was signed, in seconds since 1970.
    pub time: u64,
    /// Revision of the inventory's source, such as a git commit.
    pub revision: Option<String>,
    /// Hash of the previous head; `None` if unknown.
    pub previous: Option<Hash>,
    /// SHA-256 of the network part's canonical JSON.
    pub network_hash: Hash,
    /// Number of members.
    pub member_count: u64,
    /// Root of the Merkle tree (RFC 9162 section 2.1) of the members' canonical JSON.
    pub member_root: Hash,
}

/// Who may sign a roster: an SSH key, or a `mesh1` identity's Ed25519 half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer(());

/// A roster that a trusted signer signed and whose hashes were found right.
#[derive(Clone, Debug)]
pub struct Roster(());

/// Why a roster is refused.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {}

impl Roster {
    /// Reads a roster file and verifies it: signature by one of `trusted`, network part, members, root.
    ///
    /// # Errors
    ///
    /// [`RosterError`] names what is wrong.
    pub fn verify(
        _file: &[u8],
        _network: &NetworkId,
        _trusted: &[Signer],
    ) -> Result<Self, RosterError> {
        todo!()
    }

    /// The roster file: what [`Roster::verify`] reads.
    pub fn to_file(&self) -> Vec<u8> {
        todo!()
    }

    /// The signed head.
    pub fn head(&self) -> &Head {
        todo!()
    }

    /// SHA-256 of the canonical head.
    pub fn head_hash(&self) -> Hash {
        todo!()
    }

    /// Who signed it.
    pub fn signer(&self) -> &Signer {
        todo!()
    }

    /// The network part.
    pub fn network(&self) -> &NetworkPart {
        todo!()
    }

    /// The members by name.
    pub fn members(&self) -> &BTreeMap<MachineName, Member> {
        todo!()
    }

    /// The member whose identity has this Ed25519 half.
    pub fn member_by_node_id(&self, _id: &NodeId) -> Option<&Member> {
        todo!()
    }
}
