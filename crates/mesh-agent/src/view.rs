//! What `mesh status` says, decided from plain facts: every state ends in a named reason.
//!
//! Pure: the shell collects the facts, tests make them up.

use std::{net::SocketAddr, time::Duration};

use mesh_api::{PathKind, PeerState, PeerStatus};
use mesh_inventory::roster::{Member, Roster};
use mesh_types::{MachineName, MemberKey, NodeId, Serial};

/// From this difference of the clocks on, it is named: far above what drift and latency make.
const SKEW_NAMED_MIN: Duration = Duration::from_secs(120);

/// What a controller said of this machine last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet, or the connection is gone.
    #[default]
    None,
    /// It is admitted.
    Admitted,
    /// It is not, and why.
    Refused(String),
}

/// Where this machine stands in the roster in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is no roster yet.
    NoRoster,
    /// The roster has no member with this machine's key.
    UnknownKey(Serial),
    /// The roster says that it is switched off.
    SwitchedOff(Serial),
    /// It is a member.
    Member,
}

/// What the engine knows of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The endpoint in use, or tried last.
    pub(crate) endpoint: Option<SocketAddr>,
    /// The moon that relays, if one does.
    pub(crate) relay: Option<MachineName>,
    /// How many ways may be tried.
    pub(crate) ways: usize,
    /// The largest packet that goes by it, in bytes; 0: there is no way.
    pub(crate) mtu: u16,
    /// What goes on with it.
    pub(crate) phase: Phase,
    /// Time since the last completed handshake.
    pub(crate) last_handshake: Option<Duration>,
    /// The last round trip.
    pub(crate) rtt: Option<Duration>,
    /// How far the peer's clock is ahead of this machine's; negative: behind. `None`: not known.
    pub(crate) clock_ahead_millis: Option<i64>,
    /// Bytes received.
    pub(crate) rx_bytes: u64,
    /// Bytes sent.
    pub(crate) tx_bytes: u64,
}

impl Link {
    /// How packets go.
    pub(crate) fn path(&self) -> Option<PathKind> {
        match (&self.relay, self.endpoint) {
            (Some(_), _) => Some(PathKind::Relayed),
            (None, Some(_)) => Some(PathKind::Direct),
            (None, None) => None,
        }
    }
}

/// What goes on with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is sent and nothing expected.
    #[default]
    Idle,
    /// A handshake is under way, or traffic waits for one, for this long.
    Connecting(Duration),
    /// There is a session, and the peer answers.
    Connected,
    /// There is a session, but what was sent has not been answered for this long.
    Silent(Duration),
}

/// From when on an unanswered handshake makes a peer unreachable: the second of WireGuard's attempts,
/// which are 5 s apart, went unanswered too.
const CONNECTING_MAX: Duration = Duration::from_secs(10);

/// What every peer's line depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// Whether this machine is a member, and switched on.
    pub(crate) member: bool,
    /// Whether a controller is connected, which knows endpoints.
    pub(crate) controller: bool,
    /// By how much this machine's clock differs from those of others; `None`: not known.
    pub(crate) skew: Option<Duration>,
    /// The wall clock, in seconds since 1970.
    pub(crate) unix_seconds: u64,
}

impl Standing {
    /// Where the machine with this key stands in `roster`.
    pub(crate) fn of(roster: Option<&Roster>, node_id: &NodeId) -> Self {
        let Some(roster) = roster else {
            return Self::NoRoster;
        };
        match roster.member_by_node_id(node_id) {
            None => Self::UnknownKey(roster.head().serial),
            Some(member) if !member.enabled => Self::SwitchedOff(roster.head().serial),
            Some(_) => Self::Member,
        }
    }
}

/// Whether this machine is admitted, or why not.
///
/// A connected controller's word counts; while none has spoken, the roster in force.
///
/// # Errors
///
/// The reason, for a person.
pub(crate) fn admission(verdicts: &[Verdict], standing: &Standing) -> Result<(), String> {
    if verdicts.contains(&Verdict::Admitted) {
        return Ok(());
    }
    for verdict in verdicts {
        if let Verdict::Refused(reason) = verdict {
            return Err(reason.clone());
        }
    }
    match standing {
        Standing::NoRoster if verdicts.is_empty() => {
            Err("no roster yet, and no controller is configured".to_owned())
        }
        Standing::NoRoster => Err("no roster yet, and no controller answers".to_owned()),
        Standing::UnknownKey(serial) => {
            Err(format!("this key is not in the roster (serial {serial})"))
        }
        Standing::SwitchedOff(serial) => Err(format!(
            "this machine is switched off in the roster (serial {serial})"
        )),
        Standing::Member => Ok(()),
    }
}

/// Why a member is not tried, whatever the engine says; `None`: it is.
pub(crate) fn not_tried(member: &Member) -> Option<String> {
    if !member.enabled {
        return Some("switched off".to_owned());
    }
    match &member.public_key {
        None => Some("no key in roster".to_owned()),
        Some(MemberKey::Wireguard(_)) if member.gateways.is_empty() => {
            Some("a guest without a gateway".to_owned())
        }
        Some(MemberKey::Wireguard(_)) => {
            let gateways: Vec<_> = member.gateways.iter().map(ToString::to_string).collect();
            Some(format!("a guest of {}", gateways.join(", ")))
        }
        Some(MemberKey::Mesh(_)) => None,
    }
}

/// The line of one peer.
pub(crate) fn peer(member: &Member, link: Option<&Link>, scene: &Scene) -> PeerStatus {
    let (state, reason) = state(member, link, scene);
    let link = link.cloned().unwrap_or_default();
    let connected = state == PeerState::Connected;
    let in_use = connected || (state == PeerState::Idle && link.last_handshake.is_some());
    let last_handshake_seconds = link.last_handshake.map(|age| age.as_secs());
    let path = link.path().filter(|_| in_use);
    PeerStatus {
        name: member.name.clone(),
        address: member.address,
        ipv4: member.ipv4,
        tags: member.tags.clone(),
        path,
        mtu: path.map(|_| link.mtu),
        endpoint: link.endpoint,
        relay: link.relay,
        rtt_micros: link.rtt.map(micros),
        last_handshake: last_handshake_seconds
            .map(|age| mesh_api::rfc3339(scene.unix_seconds.saturating_sub(age))),
        last_handshake_seconds,
        state,
        reason,
        rx_bytes: link.rx_bytes,
        tx_bytes: link.tx_bytes,
    }
}

fn state(member: &Member, link: Option<&Link>, scene: &Scene) -> (PeerState, Option<String>) {
    if let Some(reason) = not_tried(member) {
        return (PeerState::Unavailable, Some(reason));
    }
    if !scene.member {
        let reason = "this machine is not admitted".to_owned();
        return (PeerState::Unavailable, Some(reason));
    }
    let Some(link) = link else {
        return (PeerState::Idle, Some("no traffic".to_owned()));
    };
    match link.phase {
        Phase::Connected => (PeerState::Connected, None),
        Phase::Idle => (PeerState::Idle, Some("no traffic".to_owned())),
        Phase::Connecting(_) if link.path().is_none() && link.ways == 0 => {
            (PeerState::Unreachable, Some(no_endpoint(scene)))
        }
        Phase::Connecting(since) if since < CONNECTING_MAX => (
            PeerState::Connecting,
            Some("handshake under way".to_owned()),
        ),
        Phase::Connecting(since) => {
            let what = format!("handshake unanswered for {}", duration(since));
            (PeerState::Unreachable, Some(with_skew(what, link, scene)))
        }
        Phase::Silent(since) => {
            let what = format!("no answer for {}", duration(since));
            (PeerState::Unreachable, Some(with_skew(what, link, scene)))
        }
    }
}

fn no_endpoint(scene: &Scene) -> String {
    if scene.controller {
        "no endpoint known".to_owned()
    } else {
        "no endpoint known, and no controller is connected".to_owned()
    }
}

fn with_skew(what: String, link: &Link, scene: &Scene) -> String {
    let towards_peer = link
        .clock_ahead_millis
        .map(|millis| Duration::from_millis(millis.unsigned_abs()));
    match skew_reason(towards_peer.or(scene.skew)) {
        Some(skew) => format!("{skew}; {what}"),
        None => what,
    }
}

/// Names a difference of the clocks that is too large: `clock differs by 9 min`.
pub(crate) fn skew_reason(skew: Option<Duration>) -> Option<String> {
    skew.filter(|skew| *skew >= SKEW_NAMED_MIN)
        .map(|skew| format!("clock differs by {}", duration(skew)))
}

/// A duration in its largest whole unit, as people read it: `12 s`, `9 min`, `3 h`, `4 d`.
fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds @ 86_400.. => format!("{} d", seconds / 86_400),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
