//! Puts what the engine knows of one peer into what the local API answers.

use mesh_api::{
    MoonStatus, Nat, PeerStatus, VERSION, WayChange, WayEvent, WayOrigin, WayStatus, Why,
};
use mesh_core::{Mapping, MoonView, Origin, PathChange, PathEvent, PathView, Via};
use mesh_types::{Instant, MachineName, WireguardPublicKey};

use crate::{
    overlay::Tale,
    view::{micros, words},
};

/// The whole story of a peer.
pub(crate) fn tell(
    peer: PeerStatus,
    helps: Option<String>,
    tale: &Tale,
    name: impl Fn(&WireguardPublicKey) -> Option<MachineName>,
    unix_seconds: u64,
) -> Why {
    let relay = |via: Via| match via {
        Via::Relay(moon) => name(&moon),
        Via::Direct(_) => None,
    };
    let age = |at: Instant| tale.now.saturating_since(at).as_secs();
    let way = |way: &PathView| WayStatus {
        endpoint: way.via.udp(),
        relay: relay(way.via),
        origin: origin(way),
        known_seconds: age(way.since),
        probes: way.probes.into(),
        last_probe_seconds: way.last_probe.map(age),
        last_answer_seconds: way.last_answer.map(age),
        rtt_micros: way.rtt.map(micros),
        left_seconds: way.left.map(age),
        in_use: way.selected,
    };
    let event = |event: &PathEvent| {
        let (what, via) = change(event.what);
        WayEvent {
            time: mesh_api::rfc3339(unix_seconds.saturating_sub(age(event.at))),
            seconds: age(event.at),
            times: event.times.into(),
            what,
            endpoint: via.and_then(Via::udp),
            relay: via.and_then(relay),
        }
    };
    let moon = |moon: &MoonView| MoonStatus {
        name: name(&moon.key),
        relays: moon.token.is_some(),
        refused: moon.refused.map(words::refusal),
        unanswered_seconds: moon.unanswered_since.map(age),
        rtt_micros: moon.rtt.map(micros),
        observed: moon.observed.iter().flatten().copied().collect(),
    };
    let [nat_ipv4, nat_ipv6] = tale.mappings.map(nat);
    Why {
        version: VERSION,
        peer,
        helps,
        ways: tale.story.ways.iter().map(way).collect(),
        own_candidates: tale.candidates.clone(),
        told_seconds: tale.story.told.map(age),
        nat_ipv4,
        nat_ipv6,
        moons: tale.moons.iter().map(moon).collect(),
        history: tale.story.history.iter().map(event).collect(),
    }
}

const fn origin(way: &PathView) -> WayOrigin {
    match way.origin {
        Origin::Moon => WayOrigin::Moon,
        Origin::Told | Origin::Heard if way.told => WayOrigin::Peer,
        Origin::Told => WayOrigin::Told,
        Origin::Heard => WayOrigin::Heard,
    }
}

const fn nat(mapping: Mapping) -> Nat {
    match mapping {
        Mapping::Unseen => Nat::Unseen,
        Mapping::None => Nat::None,
        Mapping::Translated => Nat::Translated,
        Mapping::Same => Nat::SamePort,
        Mapping::Varies => Nat::PortVaries,
    }
}

const fn change(change: PathChange) -> (WayChange, Option<Via>) {
    match change {
        PathChange::Handshake(via) => (WayChange::Handshake, Some(via)),
        PathChange::Taken(via) => (WayChange::Taken, Some(via)),
        PathChange::Unanswered(via) => (WayChange::Unanswered, Some(via)),
        PathChange::Left(via) => (WayChange::Left, Some(via)),
        PathChange::Heard(via) => (WayChange::Heard, Some(via)),
        PathChange::LetGo(via) => (WayChange::LetGo, Some(via)),
        PathChange::Closed(via) => (WayChange::Closed, Some(via)),
        PathChange::NetworkChanged => (WayChange::NetworkChanged, None),
    }
}
