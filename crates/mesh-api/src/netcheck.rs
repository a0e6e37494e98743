//! What an agent finds out about the network that its machine is in.

use std::net::{IpAddr, SocketAddr};

use mesh_types::MachineName;
use serde::{Deserialize, Serialize};

use crate::PortMappingStatus;

/// `POST /v1/netcheck` on the agent's socket: what lies between this machine and others, tried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netcheck {
    /// [`VERSION`](crate::VERSION).
    pub version: u32,
    /// How others are reached from here.
    pub reach: Reach,
    /// Whether UDP gets out.
    pub udp: UdpOut,
    /// What IPv4 does; `None`: this machine has none, and no moon sees it there.
    pub ipv4: Option<FamilyReport>,
    /// What IPv6 does; `None`: this machine has none, and no moon sees it there.
    pub ipv6: Option<FamilyReport>,
    /// Whether a router maps a port to this machine on request.
    pub port_mapping: PortMappingStatus,
    /// The moons, in the order of their names.
    pub moons: Vec<MoonReport>,
    /// What this means and what would help, in words.
    pub hints: Vec<String>,
}

/// How others are reached from a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Directly, unless the other side's NAT and this one's are both strict.
    Direct,
    /// Directly only if the other side has no strict NAT; else through a moon.
    DirectToOpen,
    /// Through a moon, over UDP. Whether directly, could not be told.
    Relayed,
    /// Through a moon, over port 443.
    Only443,
    /// Not at all.
    Offline,
}

/// Whether UDP gets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UdpOut {
    /// A moon answers.
    Yes,
    /// No moon does, but one is reached over port 443.
    Only443,
    /// Nobody answers at all.
    No,
}

/// What one address family does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyReport {
    /// This machine's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Where a moon sees a socket of this machine; `None`: none answered.
    pub seen_at: Option<SocketAddr>,
    /// Whether a NAT translates; `None`: not known.
    pub nat: Option<bool>,
    /// On what the port depends that others see; `None`: not known.
    pub mapping: Option<Dependence>,
    /// On what it depends whether a packet is let in; `None`: not known.
    pub filtering: Option<Dependence>,
    /// Whether a packet to the NAT's own address comes back in; `None`: not known, or there is no NAT.
    pub hairpin: Option<bool>,
    /// For how long a mapping was seen to hold without a packet, in seconds; `None`: not measured yet.
    pub holds_seconds: Option<u64>,
    /// How long mappings are left silent, in seconds.
    pub keepalive_seconds: u64,
}

/// On what of the remote endpoint something depends (RFC 4787).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// On nothing.
    Independent,
    /// Not on the port; whether on the address, only a second moon can tell.
    NotPort,
    /// On the address.
    Address,
    /// On address or port: which, could not be told.
    AddressOrPort,
    /// On address and port.
    AddressAndPort,
}

/// A moon as seen from a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoonReport {
    /// Its name.
    pub name: MachineName,
    /// Where it answered by UDP; `None`: it did not.
    pub endpoint: Option<SocketAddr>,
    /// The round trip, in microseconds; `None`: no answer.
    pub rtt_micros: Option<u64>,
    /// The largest packet of the tunnel that was seen to get to it whole, in bytes; `None`: none was tried, which
    /// begins with the first packets of programs.
    pub mtu: Option<u16>,
    /// Whether it relays for this machine.
    pub relays: bool,
    /// Why it does not answer or relay; `None` if it does.
    pub reason: Option<String>,
    /// Whether it takes TLS on port 443.
    pub tcp_443: bool,
    /// How long that took, in microseconds; `None`: it does not, or is in use.
    pub tcp_443_micros: Option<u64>,
}
