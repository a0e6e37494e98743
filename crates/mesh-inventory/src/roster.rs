//! The roster: the resolved inventory, signed. `docs/formats.md` has the file's form.

mod admit;
mod canonical;
mod hash;
mod lenient;
mod merkle;
mod signer;
#[cfg(test)]
mod tests;
mod unsigned;
pub(crate) mod verify;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_types::{MachineName, MemberKey, NetworkId, NodeId, Serial, WireguardPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ssh_key::{PublicKey, SshSig};

use crate::rules::{Decision, Rules, Traffic, Verdict};

pub use self::{
    admit::{RosterRefused, SERIAL_JUMP_MAX, admit},
    hash::{Hash, ParseHashError},
    signer::{ParseSignerError, Signer},
    unsigned::{HeadFields, Unsigned},
};

/// The format number of heads.
pub const FORMAT: u32 = 1;

/// The namespace of roster signatures, `ssh-keygen -Y`'s `-n`.
pub const NAMESPACE: &str = "mesh-roster";

/// The largest roster file that is read, in bytes: about 25 000 members.
pub const ROSTER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest signature that is read, in bytes of its armour: RSA with 16 384 bits fits.
const SIGNATURE_BYTES_MAX: usize = 16 * 1024;

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

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Controller, Self::Moon, Self::Peer];

    /// Its name in inventories and rosters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Moon => "moon",
            Self::Peer => "peer",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// One member: the leaf that gets signed. Fields that this release does not know are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The machine's name.
    pub name: MachineName,
    /// What kind of machine it is; one of a newer release counts as external.
    #[serde(deserialize_with = "lenient::class")]
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
    /// Roles in the mesh instance, sorted; those of newer releases are left out.
    #[serde(deserialize_with = "lenient::roles")]
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
    /// Its SSH host keys, each a type and base64; the field is left out where there are none.
    #[serde(rename = "sshHostKeys", default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_host_keys: Vec<String>,
    /// Whether it relays for others as a moon or controller; the field is left out where it does.
    #[serde(default = "relays", skip_serializing_if = "is_so")]
    pub relay: bool,
    /// What it relays for one client, in bytes a second; `None`, and left out: its release says.
    #[serde(
        rename = "relayRateLimit",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub relay_rate_limit: Option<u64>,
    /// Whether it and members that do not relay speak through moons alone; the field is left out where not.
    #[serde(rename = "relayOnly", default, skip_serializing_if = "is_not")]
    pub relay_only: bool,
    /// What newer releases say of a member.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

const fn relays() -> bool {
    true
}

const fn is_so(so: &bool) -> bool {
    *so
}

const fn is_not(so: &bool) -> bool {
    !*so
}

impl Member {
    /// Whether it relays for others: a moon or controller that is switched on and has a mesh identity, unless
    /// its settings say otherwise.
    pub fn is_relay(&self) -> bool {
        let role = self.roles.contains(&Role::Moon) || self.roles.contains(&Role::Controller);
        let key = matches!(self.public_key, Some(MemberKey::Mesh(_)));
        self.enabled && self.relay && role && key
    }
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
    /// Who may reach whom on what; `None`, and left out: everyone everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// What newer releases say of a network.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl NetworkPart {
    /// Whether `from` may begin to speak to `to`, and what says so.
    pub fn decide(&self, from: &Member, to: &Member, traffic: Traffic) -> Decision<'_> {
        match &self.rules {
            Some(rules) => rules.decide(from, to, traffic),
            None => Decision::Default(Verdict::Allow),
        }
    }
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

/// A roster whose signature and hashes were found right.
///
/// [`Roster::verify`] also found the signer to be trusted. Holds an index by key; share it in an `Arc`.
#[derive(Clone, Debug)]
pub struct Roster {
    head: Head,
    head_hash: Hash,
    signer: Signer,
    network: NetworkPart,
    members: BTreeMap<MachineName, Member>,
    by_node_id: BTreeMap<NodeId, MachineName>,
    by_wireguard: BTreeMap<WireguardPublicKey, MachineName>,
    file: Vec<u8>,
}

/// Why a roster is refused.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// The file is larger than [`ROSTER_BYTES_MAX`].
    #[error("a roster of {0} bytes; {ROSTER_BYTES_MAX} is the most")]
    TooLarge(usize),
    /// The file, or a part of it, is not the JSON that is expected.
    #[error("not a roster")]
    Json(#[source] serde_json::Error),
    /// A part of the file is missing, or is not an object or text as it should be.
    #[error("not a roster: `{0}` is missing or of the wrong kind")]
    Missing(&'static str),
    /// JSON that canonical JSON here does not have.
    #[error("a roster cannot hold this: {0}")]
    Strict(String),
    /// A format that this release does not know.
    #[error("a roster of format {0}; this release of mesh knows format {FORMAT}, so update it")]
    Format(String),
    /// It is for another network.
    #[error("a roster for network `{found}`, not `{expected}`")]
    Network {
        /// The network that was asked for.
        expected: NetworkId,
        /// The network of the roster.
        found: NetworkId,
    },
    /// What stands for the signature is none.
    #[error("its signature is not an SSH signature")]
    SignatureForm,
    /// The signature's key is of a kind that cannot sign rosters.
    #[error("its signature is by a key that cannot sign rosters")]
    SignerKind(#[source] ParseSignerError),
    /// The signature is not one of this head in the namespace `mesh-roster`.
    #[error(
        "its signature by {0} is not of this head: it was forged, altered, or signed for something else"
    )]
    BadSignature(String),
    /// The signature is genuine, but none of the trusted signers made it.
    #[error("it is signed by {signer}, which is none of the {trusted} trusted signers")]
    UntrustedSigner {
        /// Fingerprint of the key that signed.
        signer: String,
        /// How many signers are trusted.
        trusted: usize,
    },
    /// The network part is not the one that the head names.
    #[error("its network part is not the one that was signed")]
    NetworkHash,
    /// The members are not those that the head names.
    #[error("its members are not those that were signed")]
    MemberRoot,
    /// The parts contradict each other.
    #[error("a roster that contradicts itself: {0}")]
    Inconsistent(String),
    /// The key could not sign.
    #[error("the key could not sign")]
    Sign(#[source] ssh_key::Error),
}

impl Roster {
    /// Reads a roster file and verifies it: signature by one of `trusted`, network part, members, root.
    ///
    /// # Errors
    ///
    /// [`RosterError`] names what is wrong.
    pub fn verify(
        file: &[u8],
        network: &NetworkId,
        trusted: &[Signer],
    ) -> Result<Self, RosterError> {
        Self::read(file, |head, signer| {
            if head.network != *network {
                return Err(RosterError::Network {
                    expected: *network,
                    found: head.network,
                });
            }
            match trusted.iter().find(|trusted| **trusted == signer) {
                Some(trusted) => Ok(trusted.clone()),
                None => Err(RosterError::UntrustedSigner {
                    signer: signer.fingerprint(),
                    trusted: trusted.len(),
                }),
            }
        })
    }

    /// Reads a roster file and verifies all but whether its signer is trusted: anyone could have made
    /// it, and the caller must judge [`Roster::signer`] before it goes by what the roster says.
    ///
    /// # Errors
    ///
    /// [`RosterError`] names what is wrong.
    pub fn open(file: &[u8]) -> Result<Self, RosterError> {
        Self::read(file, |_, signer| Ok(signer))
    }

    /// `judge` gets the head and who signed it, before anything else is believed, and names the signer.
    fn read(
        file: &[u8],
        judge: impl FnOnce(&Head, Signer) -> Result<Signer, RosterError>,
    ) -> Result<Self, RosterError> {
        if file.len() > ROSTER_BYTES_MAX {
            return Err(RosterError::TooLarge(file.len()));
        }
        let value = canonical::parse(file).map_err(RosterError::Json)?;
        let part = |name: &'static str| value.get(name).ok_or(RosterError::Missing(name));
        let head_value = part("head")?;
        let head = verify::head(head_value)?;
        let head_bytes = canonical::to_bytes(head_value);
        let signature = part("signature")?
            .as_str()
            .ok_or(RosterError::Missing("signature"))?;
        let signer = judge(&head, signer_of(&head_bytes, signature)?)?;
        let network_value = part("network")?;
        if Hash::of(&canonical::to_bytes(network_value)) != head.network_hash {
            return Err(RosterError::NetworkHash);
        }
        let member_values = part("members")?
            .as_object()
            .ok_or(RosterError::Missing("members"))?;
        // In byte order of the names, whatever order the map keeps.
        let member_values: BTreeMap<&String, &Value> = member_values.iter().collect();
        let leaves: Vec<_> = member_values
            .values()
            .map(|member| merkle::leaf(&canonical::to_bytes(member)))
            .collect();
        if leaves.len() as u64 != head.member_count || merkle::root(&leaves) != head.member_root {
            return Err(RosterError::MemberRoot);
        }
        let network = NetworkPart::deserialize(network_value).map_err(RosterError::Json)?;
        if network.id != head.network {
            return Err(RosterError::Network {
                expected: head.network,
                found: network.id,
            });
        }
        let mut members = BTreeMap::new();
        for (name, member) in member_values {
            let name: MachineName = name
                .parse()
                .map_err(|error| RosterError::Inconsistent(format!("{error}")))?;
            let member = Member::deserialize(member).map_err(RosterError::Json)?;
            members.insert(name, member);
        }
        verify::parts(&network, &members)?;
        Ok(Self {
            head,
            head_hash: Hash::of(&head_bytes),
            signer,
            network,
            by_node_id: index(&members, MemberKey::node_id),
            by_wireguard: index(&members, |key| Some(key.wireguard())),
            members,
            file: file.to_vec(),
        })
    }

    /// The roster file: what [`Roster::verify`] reads, to the byte as it was read or made.
    pub fn to_file(&self) -> Vec<u8> {
        self.file.clone()
    }

    /// The signed head.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// SHA-256 of the canonical head.
    pub const fn head_hash(&self) -> Hash {
        self.head_hash
    }

    /// Who signed it, as the trusted signers name it.
    pub const fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The network part.
    pub const fn network(&self) -> &NetworkPart {
        &self.network
    }

    /// The members by name.
    pub const fn members(&self) -> &BTreeMap<MachineName, Member> {
        &self.members
    }

    /// The member whose identity has this Ed25519 half, switched off or not.
    pub fn member_by_node_id(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(self.by_node_id.get(id)?)
    }

    /// The member, machine or guest, with this WireGuard key, switched off or not.
    pub fn member_by_wireguard(&self, key: &WireguardPublicKey) -> Option<&Member> {
        self.members.get(self.by_wireguard.get(key)?)
    }

    fn signed_by(mut self, signer: Signer) -> Self {
        self.signer = signer;
        self
    }
}

impl PartialEq for Roster {
    /// Equal heads are equal rosters: the head names everything else by its hash.
    fn eq(&self, other: &Self) -> bool {
        self.head_hash == other.head_hash
    }
}

impl Eq for Roster {}

/// Whose signature of `head` this is; verified.
fn signer_of(head: &[u8], signature: &str) -> Result<Signer, RosterError> {
    if signature.len() > SIGNATURE_BYTES_MAX {
        return Err(RosterError::SignatureForm);
    }
    let signature = SshSig::from_pem(signature).map_err(|_| RosterError::SignatureForm)?;
    let key = PublicKey::new(signature.public_key().clone(), "");
    let signer = Signer::try_from(key.clone()).map_err(RosterError::SignerKind)?;
    key.verify(NAMESPACE, head, &signature)
        .map_err(|_| RosterError::BadSignature(signer.fingerprint()))?;
    Ok(signer)
}

fn index<K: Ord>(
    members: &BTreeMap<MachineName, Member>,
    key: impl Fn(&MemberKey) -> Option<K>,
) -> BTreeMap<K, MachineName> {
    members
        .values()
        .filter_map(|member| Some((key(member.public_key.as_ref()?)?, member.name.clone())))
        .collect()
}
