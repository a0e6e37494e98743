//! What `mesh status` says, decided from plain facts: every state ends in a named reason.
//!
//! Pure: the shell collects the facts, tests make them up.

pub(crate) mod words;

use std::{net::SocketAddr, time::Duration};

use mesh_api::{PathKind, PeerState, PeerStatus};
use mesh_core::{Reach, Reason};
use mesh_inventory::roster::{Member, Roster};
use mesh_types::{Instant, MachineName, MemberKey, NodeId, Serial};

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
    /// How many ways are known.
    pub(crate) ways: usize,
    /// The largest packet that goes by it, in bytes; 0: there is no way.
    pub(crate) mtu: u16,
    /// Why it is reached as it is, or is not.
    pub(crate) reason: Reason,
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

/// What every peer's line depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// Whether this machine is a member, and switched on.
    pub(crate) member: bool,
    /// Whether a controller is connected, which knows endpoints.
    pub(crate) controller: bool,
    /// By how much this machine's clock differs from those of others; `None`: not known.
    pub(crate) skew: Option<Duration>,
    /// The UDP port of this machine's agent.
    pub(crate) listen_port: u16,
    /// The clock of what the engine tells.
    pub(crate) now: Instant,
    /// The wall clock, in seconds since 1970.
    pub(crate) unix_seconds: u64,
}

impl Scene {
    /// How long ago something was, as people read it.
    fn age(&self, at: Instant) -> String {
        duration(self.now.saturating_since(at))
    }
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
pub(crate) fn not_tried(member: &Member) -> Option<Reason> {
    if !member.enabled {
        return Some(Reason::SwitchedOff);
    }
    match &member.public_key {
        None => Some(Reason::NoKey),
        Some(MemberKey::Wireguard(_)) if member.gateways.is_empty() => {
            Some(Reason::GuestWithoutGateway)
        }
        Some(MemberKey::Wireguard(_)) => Some(Reason::Guest),
        Some(MemberKey::Mesh(_)) => None,
    }
}

/// Why a member is reached as it is, or is not.
pub(crate) fn reason(member: &Member, link: Option<&Link>, scene: &Scene) -> Reason {
    if let Some(reason) = not_tried(member) {
        return reason;
    }
    match link {
        _ if !scene.member => Reason::NotAdmitted,
        None => Reason::NoTraffic,
        Some(link) => link.reason,
    }
}

/// The line of one peer.
pub(crate) fn peer(member: &Member, link: Option<&Link>, scene: &Scene) -> PeerStatus {
    line(reason(member, link, scene), member, link, scene)
}

/// The line of one member that is in the state for which `reason` is.
pub(crate) fn line(
    reason: Reason,
    member: &Member,
    link: Option<&Link>,
    scene: &Scene,
) -> PeerStatus {
    let link = link.cloned().unwrap_or_default();
    let state = state(reason);
    let connected = state == PeerState::Connected;
    let in_use = connected || (state == PeerState::Idle && link.last_handshake.is_some());
    let last_handshake_seconds = link.last_handshake.map(|age| age.as_secs());
    let path = link.path().filter(|_| in_use);
    let towards_peer = link
        .clock_ahead_millis
        .map(|millis| Duration::from_millis(millis.unsigned_abs()));
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
        reason: words::short(reason, member, towards_peer.or(scene.skew), scene),
        reason_code: reason.code().to_owned(),
        rx_bytes: link.rx_bytes,
        tx_bytes: link.tx_bytes,
    }
}

fn state(reason: Reason) -> PeerState {
    match reason.reach() {
        Reach::Straight | Reach::Relayed => PeerState::Connected,
        Reach::Idle => PeerState::Idle,
        Reach::Connecting => PeerState::Connecting,
        Reach::Unreachable => PeerState::Unreachable,
        Reach::Untried => PeerState::Unavailable,
    }
}

/// The name that comes closest to a `wrong` one, if any is close.
pub(crate) fn nearest<'a>(
    wrong: &MachineName,
    names: impl IntoIterator<Item = &'a MachineName>,
) -> Option<&'a MachineName> {
    names
        .into_iter()
        .map(|name| {
            let distance = strsim::damerau_levenshtein(name.as_str(), wrong.as_str());
            (distance, name)
        })
        .min()
        .filter(|(distance, name)| *distance <= name.as_str().len() / 3 + 1)
        .map(|(_, name)| name)
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

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
