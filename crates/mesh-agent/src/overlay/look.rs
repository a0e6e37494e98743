//! What is to be seen of peers and moons.

use std::{collections::BTreeMap, net::SocketAddr};

use mesh_core::{Keeping, MTU_BASE, Mapping, MoonView, PeerStory, PeerView, Via};
use mesh_os::clock;
use mesh_types::{Instant, MachineName};

use super::{Overlay, now};
use crate::view::Link;

/// What the engine can tell of a peer, at a moment.
#[derive(Debug)]
pub(crate) struct Tale {
    pub(crate) story: PeerStory,
    pub(crate) moons: Vec<MoonView>,
    pub(crate) candidates: Vec<SocketAddr>,
    pub(crate) mappings: [Mapping; 2],
    pub(crate) now: Instant,
}

impl Overlay {
    /// Where those are that this machine relays for.
    pub(crate) fn clients(&self) -> BTreeMap<MachineName, SocketAddr> {
        let state = self.lock();
        let clients = state.engine.clients(clock::now()).into_iter();
        clients
            .filter_map(|(key, at)| Some((state.directory.name(&key)?.clone(), at)))
            .collect()
    }

    /// What is known of the moons of this machine.
    pub(crate) fn moon_views(&self) -> Vec<(MachineName, MoonView)> {
        let state = self.lock();
        let moons = state.engine.moon_views().into_iter();
        moons
            .filter_map(|moon| Some((state.directory.name(&moon.key)?.clone(), moon)))
            .collect()
    }

    /// For how long the NATs before this machine hold a mapping.
    pub(crate) fn keeping(&self, ipv6: bool) -> Keeping {
        self.lock().engine.keeping(ipv6)
    }

    /// What is known of every peer.
    pub(crate) fn links(&self) -> BTreeMap<MachineName, Link> {
        let now = now();
        let state = self.lock();
        state
            .directory
            .keys()
            .filter_map(|key| {
                let view = state.engine.peer(&key, now)?;
                let relay = view.via.and_then(|via| state.directory.relay(via));
                Some((
                    state.directory.name(&key)?.clone(),
                    link(&view, relay, now.instant),
                ))
            })
            .collect()
    }

    /// What the engine can tell of `peer` and of the moons; of one that is no peer, of the moons alone.
    pub(crate) fn tale(&self, peer: &MachineName) -> Tale {
        let state = self.lock();
        let key = state.directory.key(peer);
        Tale {
            story: key.map(|key| state.engine.story(&key)).unwrap_or_default(),
            moons: state.engine.moon_views(),
            candidates: state.engine.candidates(),
            mappings: state.engine.mappings(),
            now: clock::now(),
        }
    }
}

fn link(view: &PeerView, relay: Option<MachineName>, now: Instant) -> Link {
    Link {
        endpoint: view.via.and_then(Via::udp),
        relay,
        ways: view.ways,
        mtu: view.mtu.unwrap_or(MTU_BASE),
        reason: view.reason,
        last_handshake: view
            .last_handshake
            .map(|at| now.saturating_since(at.instant)),
        rtt: view.rtt,
        clock_ahead_millis: view.clock_ahead_millis,
        rx_bytes: view.received_bytes,
        tx_bytes: view.sent_bytes,
    }
}
