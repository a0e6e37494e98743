//! What an agent knows of names: for the step that sets the machine's resolver, and for `mesh hosts`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use mesh_types::{MachineName, NetworkId, Serial};
use serde::{Deserialize, Serialize};

/// The file beside the agent's socket that holds [`Names`].
pub const NAMES_FILE: &str = "names.json";

/// The file beside [`NAMES_FILE`] that is there from when the names changed until somebody begins to act on
/// them.
///
/// A watcher of files that does not look while it acts, as systemd does, misses no change by it.
pub const NAMES_BELL: &str = "names.changed";

/// What an agent answers, in [`NAMES_FILE`].
///
/// Written as a whole, when anything in it changed. There is no file while the agent does not run, has no
/// roster, or has no address in the mesh. Whoever acts on it with more privileges than the agent must check
/// that each name is below `domain`, and each address in `prefix` or `pool`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The network's id.
    pub network: NetworkId,
    /// Serial of the roster that says so.
    pub serial: Serial,
    /// The fleet's domain, in lower case and without a dot at its end.
    pub domain: String,
    /// The interface of the mesh.
    pub interface: String,
    /// This machine's address in the mesh, where its agent answers.
    pub address: Ipv6Addr,
    /// This machine's IPv4 address in the mesh.
    pub ipv4: Option<Ipv4Addr>,
    /// The network's /48.
    pub prefix: Ipv6Net,
    /// The network's IPv4 pool.
    pub pool: Option<Ipv4Net>,
    /// Whether UDP and TCP port 53 of `address` answer; false where another program has the port, or the
    /// configuration says `dns = false`.
    pub answering: bool,
    /// Addresses by full name, in lower case and without a dot at its end, such as `cinnabar.mesh`: of
    /// machines, switched off or not, and of aliases.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Addresses by wildcard, such as `*.apps.mesh`, which a hosts file cannot say.
    pub wildcards: BTreeMap<String, Vec<IpAddr>>,
}

/// `GET /v1/hosts` on the agent's socket, and what `mesh hosts --format json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Serial of the roster that says so.
    pub serial: Serial,
    /// The fleet's domain.
    pub domain: String,
    /// The machines and guests, in the order of their names.
    pub hosts: Vec<Host>,
}

/// A machine or guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name, to which the domain is added.
    pub name: MachineName,
    /// Its address in the mesh.
    pub address: Ipv6Addr,
    /// Its IPv4 address in the mesh.
    pub ipv4: Option<Ipv4Addr>,
    /// False: known but switched off.
    pub enabled: bool,
    /// Its further names, to which the domain is added; wildcards among them begin with `*.`.
    pub aliases: Vec<String>,
    /// Its SSH host keys in OpenSSH's form, each a type and base64.
    pub ssh_host_keys: Vec<String>,
}

/// Whether the agent answers names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Where it answers, over UDP and TCP; `None`: it does not.
    pub listening: Option<SocketAddr>,
    /// Why not; `None` if it does.
    pub reason: Option<String>,
    /// The domain that it answers for; `None`: there is no roster yet.
    pub domain: Option<String>,
    /// Number of names that it has addresses for.
    pub names: u64,
}
