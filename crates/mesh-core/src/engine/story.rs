//! What the engine can tell of a peer and of the moons, for people.

use std::{net::SocketAddr, time::Duration};

use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::tunnel::RelayRefused;

use super::{
    Context, Engine,
    peer::Peer,
    timers::{Connecting, UNRESPONSIVE_AFTER},
};
use crate::{Mapping, PathEvent, PathView, Reason, Remote, Via, paths::OwnSide};

/// From when on an unanswered handshake makes a peer unreachable: the second of WireGuard's attempts,
/// which are 5 s apart, went unanswered too.
const CONNECTING_MAX: Duration = Duration::from_secs(10);

/// A session without traffic for this long is idle: three times the 10 s after which a peer that got data
/// lets itself be heard of.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// What a moon said of a peer counts for so long: a little over the slowest pace at which it is asked by a
/// handshake.
const NOTICE_COUNTS: Duration = Duration::from_secs(35);

/// What a moon said of a peer. It is not sealed, so it explains and decides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// The peer has no session with the moon.
    NotHere(Instant),
    /// The moon's roster does not let the two talk.
    NotAllowed(Instant),
}

/// What became of the ways to a peer, and what is known of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStory {
    /// The ways that are known.
    pub ways: Vec<PathView>,
    /// What happened to them, the oldest first; at most 16.
    pub history: Vec<PathEvent>,
    /// When it was last told where this node is; `None`: never.
    pub told: Option<Instant>,
}

/// A moon as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoonView {
    /// Its key.
    pub key: WireguardPublicKey,
    /// The token, if it relays for this node.
    pub token: Option<u64>,
    /// Whether it answers reflect and knock requests; not known before it relays.
    pub reflects: bool,
    /// Why not, if it said so.
    pub refused: Option<RelayRefused>,
    /// Since when it has not answered; `None`: it does.
    pub unanswered_since: Option<Instant>,
    /// The last round trip to it.
    pub rtt: Option<Duration>,
    /// The largest packet that was seen to get to it whole by the way in use; `None`: none was tried.
    pub mtu: Option<u16>,
    /// Where it sees this node, by IPv4 and by IPv6.
    pub observed: [Option<SocketAddr>; 2],
    /// Where it is by IPv4 and by IPv6: what answered last, or may answer.
    pub endpoints: [Option<SocketAddr>; 2],
}

impl Engine {
    /// What became of the ways to a peer; nothing if the key is no peer's.
    pub fn story(&self, key: &WireguardPublicKey) -> PeerStory {
        let Some(peer) = self.peers.get(key.as_bytes()) else {
            return PeerStory::default();
        };
        PeerStory {
            ways: peer.paths.view(),
            history: peer.paths.history(),
            told: peer.told,
        }
    }

    /// The moons that were set.
    pub fn moon_views(&self) -> Vec<MoonView> {
        let view = |peer: &Peer| {
            let client = peer.client.as_ref()?;
            let observed = [false, true].map(|ipv6| self.context.moons.seen_by(&peer.key(), ipv6));
            Some(MoonView {
                key: peer.key(),
                token: client.token(),
                reflects: client.reflects(),
                refused: client.refused,
                unanswered_since: client.asked_since,
                rtt: peer.rtt,
                mtu: peer.paths.mtu(),
                observed,
                endpoints: [false, true]
                    .map(|ipv6| peer.paths.best_of_family(ipv6).and_then(Via::udp)),
            })
        };
        self.peers.values().filter_map(view).collect()
    }

    /// Where this node may be reached, as peers are told.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        self.context.candidates()
    }

    /// What is known of the NATs between this node and the internet, by IPv4 and by IPv6.
    pub fn mappings(&self) -> [Mapping; 2] {
        self.context.own_side().mappings
    }
}

impl Context {
    /// Where this node may be reached, as peers are told.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        let mut endpoints = self.own_endpoints.clone();
        for observed in self.moons.observed() {
            if !endpoints.contains(&observed) {
                endpoints.push(observed);
            }
        }
        endpoints.truncate(mesh_wire::tunnel::CANDIDATES_MAX);
        endpoints
    }

    pub(super) fn own_side(&self) -> OwnSide {
        let has = |ipv6: bool| {
            let mut own = self.own_endpoints.iter().copied();
            own.any(|endpoint| endpoint.is_ipv6() == ipv6)
                || self
                    .moons
                    .observed()
                    .any(|endpoint| endpoint.is_ipv6() == ipv6)
        };
        OwnSide {
            families: [has(false), has(true)],
            mappings: [false, true].map(|ipv6| self.moons.mapping(ipv6, &self.own_endpoints)),
        }
    }
}

impl Peer {
    /// Why it is reached as it is, or is not.
    pub(super) fn reason(&self, context: &Context, now: Instant) -> Reason {
        let session = self.usable_session(now).is_some();
        let patience = if session {
            UNRESPONSIVE_AFTER
        } else {
            CONNECTING_MAX
        };
        // Requests to a moon are no traffic, and tell of it where nothing else does.
        let client = self.client.as_ref();
        let straight = self.link.via().is_none_or(|via| !via.is_relay());
        let asked = client
            .filter(|_| straight && self.is_quiet(now))
            .and_then(|client| client.asked_since);
        let unanswered = self.unanswered_since(now).into_iter().chain(asked).min();
        if let Some(since) = unanswered
            && (now.saturating_since(since) >= patience || !self.has_way())
        {
            return self.why_unreachable(since, session, context, now);
        }
        match unanswered {
            Some(since) if !session => Reason::Handshake { since },
            _ if !session || self.is_quiet(now) => Reason::NoTraffic,
            _ => self.why_reached(context, now),
        }
    }

    fn has_way(&self) -> bool {
        self.link.via().is_some() || self.paths.count() > 0
    }

    /// Whether nothing was said for long.
    fn is_quiet(&self, now: Instant) -> bool {
        let handshake = self.last_handshake.map(|at| at.instant);
        let last = self.last_traffic().max(handshake);
        last.is_none_or(|at| now.saturating_since(at) >= IDLE_AFTER)
    }

    fn why_reached(&self, context: &Context, now: Instant) -> Reason {
        match self.link.via() {
            Some(Via::Direct(Remote::Udp(_))) => Reason::Direct,
            Some(Via::Direct(Remote::Stream(_))) => Reason::Stream,
            Some(Via::Relay(_)) => self.paths.why_relayed(&context.own_side(), now),
            None => Reason::NoWay,
        }
    }

    fn why_unreachable(
        &self,
        since: Instant,
        session: bool,
        context: &Context,
        now: Instant,
    ) -> Reason {
        if matches!(self.connecting, Connecting::Running { needs_stamps, .. } if needs_stamps) {
            return Reason::NeedsDisk { since };
        }
        if context.offline {
            return Reason::NoNetwork { since };
        }
        let moons = context.moons.besides(&self.key());
        // A moon that is asked may be the way; it is given the time of a handshake.
        let waits = moons.asked == 0 || now.saturating_since(since) < CONNECTING_MAX;
        if !self.has_way() && (waits || moons.open > 0) {
            return Reason::NoWay;
        }
        if moons.open == 0 {
            return match moons.refused {
                Some(refused) => Reason::MoonsRefuse { since, refused },
                None if moons.asked > 0 => Reason::NoMoonAnswers { since },
                None => self.why_silent(since, session),
            };
        }
        let counts = |at: Instant| now.saturating_since(at) < NOTICE_COUNTS;
        match self.hint {
            Some(Hint::NotHere(at)) if counts(at) => Reason::NotThere { since },
            Some(Hint::NotAllowed(at)) if counts(at) => Reason::NotAllowed { since },
            Some(Hint::NotHere(_) | Hint::NotAllowed(_)) | None => self.why_silent(since, session),
        }
    }

    fn why_silent(&self, since: Instant, session: bool) -> Reason {
        if session {
            Reason::Silent { since }
        } else {
            let ways = self.paths.count().max(1);
            Reason::Unanswered { since, ways }
        }
    }
}
