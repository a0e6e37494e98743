use std::net::{Ipv6Addr, SocketAddr};

use mesh_types::{MachineName, Serial};
use serde::{Deserialize, Serialize};

use crate::RosterStatus;

/// `GET /v1/status` on the controller's socket and its HTTP side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControllerReport {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The controller's release.
    pub release: String,
    /// Its public identity.
    pub identity: String,
    /// The network's id.
    pub network: String,
    /// Where its rosters come from besides pushes: `inventory` (it signs what it watches), `roster` (a
    /// file that it watches) or `push` (nowhere else).
    pub mode: String,
    /// The roster in force; `None`: it has none yet.
    pub roster: Option<RosterStatus>,
    /// The members, in the order of their names.
    pub machines: Vec<MachineReport>,
    /// Number of pending keys.
    pub pending: u64,
    /// What happened since the start.
    pub counters: ControllerCounters,
    /// What is wrong now; empty: nothing.
    pub problems: Vec<ProblemReport>,
}

/// A member as the controller sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineReport {
    /// Its name.
    pub name: MachineName,
    /// Its address in the mesh.
    pub address: Ipv6Addr,
    /// False: known but switched off.
    pub enabled: bool,
    /// Whether the roster has a key of it.
    pub keyed: bool,
    /// Whether it is connected.
    pub online: bool,
    /// Where it is connected from; `None`: it is not.
    pub source: Option<SocketAddr>,
    /// Where others are told that it may be reached.
    pub endpoints: Vec<SocketAddr>,
    /// Serial of the roster that it holds; `None`: not known.
    pub serial: Option<Serial>,
    /// Its release when it was connected last.
    pub release: Option<String>,
    /// When it connected or disconnected last, RFC 3339 in UTC; `None`: never.
    pub last_seen: Option<String>,
    /// Seconds since then.
    pub last_seen_seconds: Option<u64>,
}

/// What happened since the controller started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ControllerCounters {
    /// Connections that were admitted.
    pub admitted: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connected machines that were cut off because the roster changed.
    pub removed: u64,
    /// Rosters that came into force.
    pub rosters: u64,
    /// Rosters that were refused.
    pub rosters_refused: u64,
    /// Pairs that were introduced.
    pub introductions: u64,
    /// Questions and pushes that came too often.
    pub rate_limited: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProblemReport {
    /// What it concerns: `store`, `damage`, `inventory`, `roster`, `signers`, `serial` or `clock`.
    pub what: String,
    /// What is wrong, for a person.
    pub problem: String,
}
