//! What the local sockets say, versioned.
//!
//! HTTP/1.1 over a UNIX socket. Every answer is one JSON object with `"version": 1`; fields are only
//! ever added, and units are in their names.

mod controller;
mod invite;
mod metrics;
mod names;
mod netcheck;
mod rules;
mod time;
mod why;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_types::{MachineName, Serial};
use serde::{Deserialize, Serialize};

pub use controller::{ControllerCounters, ControllerReport, MachineReport, ProblemReport};
pub use invite::{Invited, Uninvited};
pub use metrics::{METRICS_TYPE, agent_metrics, controller_metrics};
pub use names::{DnsStatus, Host, Hosts, NAMES_BELL, NAMES_FILE, Names};
pub use netcheck::{Dependence, FamilyReport, MoonReport, Netcheck, Reach, UdpOut};
pub use rules::{Denied, RuleAccepts, RuleReport, RuleTest, Rules, RulesStatus};
pub use time::rfc3339;
pub use why::{MoonStatus, Nat, WayChange, WayEvent, WayOrigin, WayStatus, Why};

/// The version of every object here.
pub const VERSION: u32 = 1;

/// `GET /v1/status` on the agent's socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// This machine.
    #[serde(rename = "self")]
    pub node: SelfStatus,
    /// The roster in force; `None`: the agent has none yet.
    pub roster: Option<RosterStatus>,
    /// The configured controllers.
    pub controllers: Vec<ControllerStatus>,
    /// The other members, in the order of their names.
    pub peers: Vec<PeerStatus>,
    /// Whether names are answered here; `None`: the agent is of a release that cannot.
    #[serde(default)]
    pub dns: Option<DnsStatus>,
    /// What holds the agent's process back; `None`: nothing was said of it.
    #[serde(default)]
    pub confinement: Option<ConfinementStatus>,
    /// What this machine relays for others; `None`: it is no moon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relaying: Option<RelayStatus>,
    /// The router's port for this machine; `None`: the agent is of a release that asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_mapping: Option<PortMappingStatus>,
    /// Who may reach this machine; `None`: the roster has no rules, or the agent is of a release without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesStatus>,
    /// What is odd although it works, such as `clock differs by 9 min`.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What the agent's process took from itself at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfinementStatus {
    /// What is held back, such as `files`.
    pub in_force: Vec<String>,
    /// What is not, each with the reason.
    pub missing: Vec<String>,
}

/// By what a router maps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappingProtocol {
    /// PCP, RFC 6887.
    Pcp,
    /// NAT-PMP, RFC 6886.
    NatPmp,
    /// UPnP's Internet Gateway Device.
    Upnp,
}

/// Whether this machine's router maps a port to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMappingStatus {
    /// The router that is asked; `None`: none.
    pub router: Option<Ipv4Addr>,
    /// By what it maps; `None`: it does not.
    pub protocol: Option<MappingProtocol>,
    /// Where this machine is reached by it.
    pub external: Option<SocketAddr>,
    /// For how long, unless renewed; `None`: for good, or not at all.
    pub lease_seconds: Option<u64>,
    /// Why there is no mapping; `None` if there is.
    pub reason: Option<String>,
}

/// What a moon does for its clients, counted since its agent's process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Members that it would relay for at this moment.
    pub clients: u64,
    /// Frames that were sent on.
    pub relayed_frames: u64,
    /// Their bytes.
    pub relayed_bytes: u64,
    /// Frames dropped because a client sent more than its rate or its share.
    pub limited_frames: u64,
    /// Frames answered with the reason why they were not sent on.
    pub notices: u64,
    /// What one client may send, in bytes a second.
    pub client_bytes_per_second: u64,
    /// What all together may send, in bytes a second.
    pub total_bytes_per_second: u64,
}

/// This machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfStatus {
    /// Its name in the roster; `None`: its key is in no roster that it knows.
    pub name: Option<MachineName>,
    /// Its address in the mesh.
    pub address: Option<Ipv6Addr>,
    /// Its IPv4 address in the mesh.
    pub ipv4: Option<Ipv4Addr>,
    /// Its public identity.
    pub identity: String,
    /// The network's id.
    pub network: String,
    /// The TUN interface; `None`: not up.
    pub interface: Option<String>,
    /// The UDP port of its agent.
    pub listen_port: u16,
    /// Whether a controller (or, while none answers, the stored roster) admits it.
    pub admitted: bool,
    /// Why not; `None` if it is.
    pub reason: Option<String>,
    /// The agent's release.
    pub release: String,
}

/// The roster in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RosterStatus {
    /// Its serial.
    pub serial: Serial,
    /// Who signed it, as `signers` writes it.
    pub signer: String,
    /// Whether the signer is a controller (which signs the inventory that it watches) or an admin.
    pub signed_by_controller: bool,
    /// Seconds since it was signed.
    pub age_seconds: u64,
    /// Its number of members.
    pub members: u64,
}

/// A configured controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// `host:port` as configured.
    pub endpoint: String,
    /// Its name in the roster; `None`: not known yet.
    pub name: Option<MachineName>,
    /// Whether the agent is connected to it.
    pub connected: bool,
    /// Why not; `None` if it is.
    pub reason: Option<String>,
    /// Serial of its roster; `None`: it has not said.
    pub serial: Option<Serial>,
}

/// How packets reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// Straight to its endpoint.
    Direct,
    /// Through a moon.
    Relayed,
}

/// What a peer is to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// There is a session and the peer answers.
    Connected,
    /// Nothing is sent to it and nothing is expected of it.
    Idle,
    /// A handshake is under way.
    Connecting,
    /// It was tried and does not answer.
    Unreachable,
    /// It cannot be tried: switched off or without a key.
    Unavailable,
}

impl PeerState {
    /// The word for it, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Unreachable => "unreachable",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Another member as seen from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: MachineName,
    /// Its address in the mesh.
    pub address: Ipv6Addr,
    /// Its IPv4 address in the mesh.
    pub ipv4: Option<Ipv4Addr>,
    /// Its tags.
    pub tags: Vec<String>,
    /// How packets reach it; `None`: they do not.
    pub path: Option<PathKind>,
    /// The largest packet that goes by this path whole, in bytes: 1280, until more or less is proven. `None`:
    /// there is no path, or the agent is of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The underlay endpoint in use; `None`: none, or a moon relays.
    pub endpoint: Option<SocketAddr>,
    /// The moon that relays; `None`: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<MachineName>,
    /// The last round trip inside the tunnel, in microseconds; `None`: never measured.
    pub rtt_micros: Option<u64>,
    /// When the last handshake was completed, RFC 3339 in UTC; `None`: never.
    pub last_handshake: Option<String>,
    /// Seconds since the last handshake was completed; `None`: never.
    pub last_handshake_seconds: Option<u64>,
    /// What it is to this machine.
    pub state: PeerState,
    /// Why it is in this state, such as `handshake unanswered for 12 s`; `None` when packets go straight.
    pub reason: Option<String>,
    /// The reason for programs, such as `unanswered`: of those in `docs/paths.md`, to which more may be
    /// added. Empty: the agent is of a release that has none.
    #[serde(default)]
    pub reason_code: String,
    /// Bytes received from it in packets of the tunnel.
    pub rx_bytes: u64,
    /// Bytes sent to it in packets of the tunnel.
    pub tx_bytes: u64,
}

/// `POST /v1/ping?name=NAME&timeout_millis=N`: one echo inside the tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// [`VERSION`].
    pub version: u32,
    /// The peer's name.
    pub name: MachineName,
    /// Its address in the mesh.
    pub address: IpAddr,
    /// The round trip in microseconds; `None`: no answer in time.
    pub rtt_micros: Option<u64>,
    /// How the echo travelled.
    pub path: Option<PathKind>,
    /// The underlay endpoint it went through; `None`: none, or a moon relayed it.
    pub endpoint: Option<SocketAddr>,
    /// The moon that relayed it; `None`: none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<MachineName>,
    /// Why there was no answer; `None` if there was.
    pub reason: Option<String>,
}

/// `POST /v1/probe` on the agent's socket: probes the idle peers, so that the next status is fresh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// [`VERSION`].
    pub version: u32,
    /// How many peers are probed.
    pub peers: u64,
}

/// `GET /v1/logs?lines=N` on the agent's socket: what the agent logged last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logs {
    /// [`VERSION`].
    pub version: u32,
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// How many lines before these are gone, because the agent keeps a bounded number.
    pub dropped: u64,
}

/// A line of the agent's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// The message and its fields, as `message key=value`.
    pub message: String,
}

/// `GET /v1/pending` on the controller's socket: keys that asked to join and are in no roster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// [`VERSION`].
    pub version: u32,
    /// The keys, latest first.
    pub pending: Vec<PendingKey>,
}

/// What the controller's socket answers to `POST /v1/accept-shrink`: the roster in force after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// [`VERSION`].
    pub version: u32,
    /// Its serial.
    pub serial: Serial,
    /// Its number of members.
    pub members: u64,
}

/// A key that asked to join and is in no roster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingKey {
    /// The public identity.
    pub key: String,
    /// The name that it claims.
    pub name: Option<MachineName>,
    /// Where it asked from.
    pub source: SocketAddr,
    /// When it asked first, RFC 3339 in UTC.
    pub first_seen: String,
    /// When it asked last, RFC 3339 in UTC.
    pub last_seen: String,
    /// Seconds since it asked last.
    pub last_seen_seconds: u64,
    /// How often it asked.
    pub attempts: u64,
}

/// What a refused request answers, with an HTTP status of 400 or above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// [`VERSION`].
    pub version: u32,
    /// What is wrong, for a person.
    pub error: String,
}
