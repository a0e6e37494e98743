//! The whole story of one peer.

use std::net::SocketAddr;

use mesh_types::MachineName;
use serde::{Deserialize, Serialize};

use crate::PeerStatus;

/// `GET /v1/why?name=NAME` on the agent's socket: why a member is reached as it is, or is not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Its line in the status, with the reason.
    pub peer: PeerStatus,
    /// What would help; `None`: nothing is wrong, or it will be over in a moment.
    pub helps: Option<String>,
    /// The ways to it that are known.
    pub ways: Vec<WayStatus>,
    /// Where this machine may be reached, as its peers are told.
    pub own_candidates: Vec<SocketAddr>,
    /// Seconds since this peer was told of them; `None`: never.
    pub told_seconds: Option<u64>,
    /// What is known of the NATs between this machine and the internet, by IPv4.
    pub nat_ipv4: Nat,
    /// The same by IPv6.
    pub nat_ipv6: Nat,
    /// The moons that this machine asks to relay.
    pub moons: Vec<MoonStatus>,
    /// What happened to the ways, the oldest first; at most 16 events.
    pub history: Vec<WayEvent>,
}

/// A way to a peer: straight to an endpoint, through a moon, or (with neither) by a connection on port 443.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayStatus {
    /// Where it leads straight to.
    pub endpoint: Option<SocketAddr>,
    /// The moon that relays; `None`: none does, or it has left the roster.
    pub relay: Option<MachineName>,
    /// How it became known.
    pub origin: WayOrigin,
    /// Seconds since it became known.
    pub known_seconds: u64,
    /// Probes sent, all in all.
    pub probes: u64,
    /// Seconds since the last probe that waits for its answer was sent; `None`: none waits.
    pub last_probe_seconds: Option<u64>,
    /// Seconds since it last answered; `None`: never.
    pub last_answer_seconds: Option<u64>,
    /// The smoothed round trip in microseconds; `None`: it has not answered, or was let go since.
    pub rtt_micros: Option<u64>,
    /// Seconds since it was left because it had stopped answering; `None`: it was not.
    pub left_seconds: Option<u64>,
    /// Whether packets take it.
    pub in_use: bool,
}

/// How a way became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WayOrigin {
    /// The peer itself told of it.
    Peer,
    /// The roster or a controller told of it, or a stream was opened.
    Told,
    /// A packet came by it.
    Heard,
    /// A moon relays.
    Moon,
}

/// What this machine's moons see of the NATs between it and the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nat {
    /// No moon sees this machine by this IP version.
    Unseen,
    /// Moons see it at an address and port of its own.
    None,
    /// One moon sees it at another endpoint than its own: what the NAT does for other destinations is not
    /// known.
    Translated,
    /// Several moons see it at the same endpoint.
    SamePort,
    /// Several moons see it at different endpoints.
    PortVaries,
}

/// A moon as this machine sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoonStatus {
    /// Its name; `None`: it is leaving the roster.
    pub name: Option<MachineName>,
    /// Whether it relays for this machine.
    pub relays: bool,
    /// Why not, if it said so.
    pub refused: Option<String>,
    /// Seconds since which it has not answered; `None`: it does.
    pub unanswered_seconds: Option<u64>,
    /// The last round trip in microseconds; `None`: never measured.
    pub rtt_micros: Option<u64>,
    /// Where it sees this machine.
    pub observed: Vec<SocketAddr>,
}

/// Something that happened to the ways to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayEvent {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// Seconds since then.
    pub seconds: u64,
    /// How often in a row; `time` is that of the last.
    pub times: u64,
    /// What.
    pub what: WayChange,
    /// The endpoint of the way that it happened to; with `relay` also `None`: a connection on port 443, or
    /// all ways.
    pub endpoint: Option<SocketAddr>,
    /// The moon of the way that it happened to.
    pub relay: Option<MachineName>,
}

/// What may happen to a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WayChange {
    /// A handshake came through, and packets take it.
    Handshake,
    /// Packets take it.
    Taken,
    /// What went by it was not answered.
    Unanswered,
    /// It was left: it was silent while another answered.
    Left,
    /// Packets came by it, which is not the one in use.
    Heard,
    /// It was let go, because there was no traffic.
    LetGo,
    /// Its moon relays no longer, or its stream is over.
    Closed,
    /// This machine's network changed, or it woke up.
    NetworkChanged,
}
