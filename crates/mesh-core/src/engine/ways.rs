//! The engine's side of the path agent: probes are sealed and sent, answers are passed on, candidates are
//! exchanged inside the session.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mesh_types::Instant;
use mesh_wire::{
    relay::{Header, MemberTag},
    tunnel::{self, TunnelMessage},
};
use rand::RngCore;

use super::{Context, Event, agents::Probe, peer::Peer};
use crate::{
    Now, Via,
    link::{Sent, Way},
    packet::clamp,
    paths::{Facts, MTU_CHECK, Origin, is_warm},
};

/// How often a peer is told where this node may be reached, at most.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Between two handshakes with a peer that has itself introduced: as soon as it repeats its own.
const INTRODUCED_PACE: Duration = Duration::from_secs(1);

impl Peer {
    pub(super) fn facts(&self, now: Instant) -> Facts {
        let session = self.usable_session(now).is_some();
        Facts {
            session: session && self.speaks_mesh(),
            traffic: self.last_traffic(),
            silent_since: self.link.unanswered.get().filter(|_| session),
            sent: self.link.last_data_sent.get(),
            received: self.link.last_data_received.get(),
            large: self.link.large.get().is_some(),
            keep: self.keep,
        }
    }

    /// Hears of endpoints; true if one is new.
    pub(super) fn learn_endpoints(
        &mut self,
        endpoints: impl IntoIterator<Item = SocketAddr>,
        now: Instant,
    ) -> bool {
        let mut new = false;
        for endpoint in endpoints {
            new |= self.paths.learn(endpoint.into(), Origin::Told, now);
        }
        new
    }

    /// Hears that the peer is about to talk, and where it is. It goes on trying, and has itself introduced again each time;
    /// if this side did so, too, two that cannot reach each other would never end.
    pub(super) fn introduce(
        &mut self,
        candidates: Vec<SocketAddr>,
        context: &mut Context,
        now: Now,
    ) {
        self.set_candidates(candidates, context, now);
        if self.usable_session(now.instant).is_some() {
            self.probe(context, now);
        } else if !self.is_connecting() && !self.attempted_within(INTRODUCED_PACE, now.instant) {
            let ways = self.paths.all().collect();
            self.initiate(ways, false, context, now);
        }
    }

    /// Probes what is due to be probed.
    pub(super) fn run_paths(&mut self, context: &mut Context, now: Now) {
        if !self.speaks_mesh() {
            if let Some(via) = self.link.via() {
                self.paths.follow(via);
            }
            return;
        }
        if let Some(endpoint) = self.paths.selected().and_then(Via::udp) {
            self.keep = context.holds.of(endpoint.is_ipv6()).interval();
        }
        let facts = self.facts(now.instant);
        if let Some(via) = self.link.heard() {
            self.paths.heard(via, &facts, now.instant);
        }
        let due = self.paths.run(&facts, now.instant);
        if self.paths.is_in_doubt() {
            context.moons.doubt();
        }
        if due.handshake {
            self.begin(now.instant);
        }
        if due.ask {
            self.tell_candidates(true, context, now);
        }
        for via in due.openers {
            self.probe_way_with(via, Sent::Opener, context, now);
        }
        for via in due.probes {
            self.probe_way(via, context, now);
        }
        if due.checked {
            self.link.large.clear();
            self.mtu_armed = Some(now.instant + MTU_CHECK);
        }
        for size in due.sizes {
            self.probe_size(size, context, now);
        }
        self.refresh_way(context);
        self.check_grant(context, now);
    }

    pub(super) fn probe_way(&mut self, via: Via, context: &mut Context, now: Now) {
        self.probe_way_with(via, Sent::Probe, context, now);
    }

    pub(super) fn probe_way_with(&mut self, via: Via, kind: Sent, context: &mut Context, now: Now) {
        let id = context.rng.next_u64();
        let request = TunnelMessage::EchoRequest {
            id,
            wall_millis: now.wall.as_millis(),
        };
        // Noted even if it cannot be sent: a way that is not open does not answer.
        self.paths.probed(via, now.instant);
        if self.say_via(request, via, kind, context, now) {
            self.remember_probe(id, Probe::of_way(via, now.instant));
        }
    }

    /// Sends an echo of so many bytes by the way in use: only one that arrives is answered.
    fn probe_size(&mut self, size: u16, context: &mut Context, now: Now) {
        let Some(via) = self.paths.selected() else {
            return;
        };
        let Some(way) = self.resolve(via, context) else {
            return;
        };
        let id = context.rng.next_u64();
        let request = TunnelMessage::EchoRequest {
            id,
            wall_millis: now.wall.as_millis(),
        };
        let packet = tunnel::emit_padded(request, context.agent_address, size);
        let way = Way { fit: size, ..way };
        if self.transmit_by(&way, &packet, Sent::Probe, context, now) {
            self.remember_probe(id, Probe::of_size(via, size, now.instant));
        }
    }

    /// Tells the peer that this node may be reached elsewhere, if there is traffic. An idle one is told as
    /// soon as it asks, which whoever speaks first does.
    pub(super) fn tell_news(&mut self, context: &mut Context, now: Now) {
        if is_warm(&self.facts(now.instant), now.instant) {
            self.tell_candidates(false, context, now);
        }
    }

    /// Whether this is a moon to which nothing but relaying has been said for a while: it need not know more of
    /// where this node is than where it sees it.
    pub(super) fn is_idle_moon(&self, now: Instant) -> bool {
        self.client.is_some() && !self.holds_packets() && !is_warm(&self.facts(now), now)
    }

    /// Tells the peer where this node may be reached.
    pub(super) fn tell_candidates(&mut self, tell_yours: bool, context: &mut Context, now: Now) {
        let silent = !self.speaks_mesh() || self.paths.is_relay_only();
        if silent || self.usable_session(now.instant).is_none() {
            return;
        }
        let lately = self
            .told
            .is_some_and(|at| now.instant.saturating_since(at) < TELL_EVERY);
        let endpoints = context.candidates();
        if (endpoints.is_empty() && !tell_yours) || lately {
            return;
        }
        self.told = Some(now.instant);
        let candidates = TunnelMessage::Candidates {
            tell_yours,
            endpoints,
        };
        self.say(candidates, Sent::Quiet, context, now);
    }

    pub(super) fn hear_candidates(
        &mut self,
        tell_yours: bool,
        endpoints: Vec<SocketAddr>,
        context: &mut Context,
        now: Now,
    ) {
        let usable: Vec<Via> = endpoints
            .into_iter()
            .filter(|endpoint| may_be_told(endpoint.ip()))
            .map(Via::from)
            .filter(|via| !context.forwarding.is_inside(*via))
            .collect();
        self.paths.told(&usable, now.instant);
        if tell_yours {
            self.tell_candidates(false, context, now);
        }
    }

    /// Seals a packet and sends it by `way`; false if there is no session for it.
    pub(super) fn transmit_by(
        &mut self,
        way: &Way,
        packet: &[u8],
        kind: Sent,
        context: &mut Context,
        now: Now,
    ) -> bool {
        use mesh_wire::wireguard::{DATA_HEADER_BYTES, data_message_bytes};
        let Some(session) = self.usable_session(now.instant) else {
            return false;
        };
        let offset = way.header.map_or(0, |header| header.len());
        let mut frame = vec![0; offset + data_message_bytes(packet.len())];
        if let Some(header) = &way.header {
            frame[..offset].copy_from_slice(header);
        }
        let sealed = &mut frame[offset..];
        let inner = &mut sealed[DATA_HEADER_BYTES..DATA_HEADER_BYTES + packet.len()];
        inner.copy_from_slice(packet);
        clamp(inner, || way.mtu);
        let Ok(bytes) = session.seal(sealed, packet.len(), way.fit.into(), now.instant) else {
            return false;
        };
        frame.truncate(offset + bytes);
        self.link.note_sent(session, bytes, kind, now.instant);
        match kind {
            Sent::Opener => context.output.open(way.remote, frame),
            Sent::Data | Sent::Quiet | Sent::Probe => context.output.transmit(way.remote, frame),
        }
        true
    }

    /// Sends a handshake's message by `via`, if that is open.
    pub(super) fn send_message(&self, via: Via, message: &[u8], context: &mut Context) {
        let Some(way) = self.resolve(via, context) else {
            return;
        };
        let data = match &way.header {
            Some(header) => [header.as_slice(), message].concat(),
            None => message.to_vec(),
        };
        context.output.transmit(way.remote, data);
    }

    /// What frames to this peer need on the way `via`; `None` if the way is not open.
    pub(super) fn resolve(&self, via: Via, context: &Context) -> Option<Way> {
        match via {
            Via::Direct(remote) => Some(Way::unmeasured(via, remote)),
            Via::Relay(moon) => {
                let open = context.moons.if_open(&moon)?;
                let header = Header {
                    token: open.token,
                    member: MemberTag::of(self.link.peer.as_bytes()),
                };
                Some(Way {
                    header: Some(header.emit()),
                    ..Way::unmeasured(via, open.remote)
                })
            }
        }
    }

    /// Shows the data threads the way that packets take, and tells what it carries if that changed.
    pub(super) fn refresh_way(&mut self, context: &mut Context) {
        let way = self
            .paths
            .selected()
            .and_then(|via| self.resolve(via, context));
        let measured = |way: Way| match self.speaks_mesh() {
            true => way.measured(self.paths.mtu()),
            false => way,
        };
        self.link.set_way(way.map(measured));
        let mtu = self.link.mtu();
        if self.told_mtu != mtu {
            self.told_mtu = mtu;
            let peer = self.key();
            context.output.event(Event::MtuChanged { peer, mtu });
        }
    }
}

/// Whether a peer may be somewhere: what it says may not make us send to ourselves or to many at once.
fn may_be_told(address: IpAddr) -> bool {
    let special = address.is_loopback() || address.is_multicast() || address.is_unspecified();
    !special
        && match address {
            IpAddr::V4(address) => !address.is_broadcast() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        }
}
