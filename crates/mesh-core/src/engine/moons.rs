//! The moons that relay for this node: which are asked, which do, what they see, and who is told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{
    reflect::Reflection,
    relay::{self, Frame, MemberTag, Notice},
    tunnel::{RelayRefused, TunnelMessage},
};
use rand::RngCore;

use super::{Context, Engine, Event, PeerId, Received, client::Client, peer::Peer, story::Hint};
use crate::{Mapping, Now, Refusal, Remote, choice::Choice, forwarding::OpenMoon, link::Sent};

/// What the peers of an engine know of its moons.
#[derive(Default)]
pub(super) struct Moons {
    /// Which of the roster's moons are asked.
    pub(super) choice: Choice,
    /// Those that are asked to relay.
    pub(super) asked: BTreeSet<PeerId>,
    open: BTreeMap<PeerId, OpenMoon>,
    /// Why one of them does not, if it said so.
    refused: BTreeMap<PeerId, RelayRefused>,
    /// Where each moon sees this node, by IPv4 and by IPv6, and since when that is known.
    observed: BTreeMap<(PeerId, bool), (SocketAddr, Instant)>,
    /// When a moon last saw this node elsewhere than before, by IPv4 and by IPv6.
    moved: [Option<Instant>; 2],
    pub(super) changed: bool,
    /// Somebody is wanted, and no moon relays, or none to it.
    wanted: bool,
    /// Somebody is reached by no way, moons included.
    doubted: bool,
    /// A NAT has lost a mapping that was in use.
    lost: bool,
}

impl Moons {
    /// Those that relay.
    pub(super) fn open(&self) -> impl Iterator<Item = &OpenMoon> {
        self.open.values()
    }

    /// Endpoints of this node, as the moons see them.
    pub(super) fn observed(&self) -> impl Iterator<Item = SocketAddr> {
        self.observed.values().map(|(endpoint, _)| *endpoint)
    }

    /// A handshake is tried. Without an open moon it may need one, and if it was tried `before` it may need
    /// one of those that are away.
    pub(super) fn want(&mut self, before: bool) {
        self.wanted |= before || self.open.is_empty();
    }

    pub(super) fn take_wanted(&mut self) -> bool {
        std::mem::take(&mut self.wanted)
    }

    /// A peer does not answer, also not by the moons: do they?
    pub(super) fn doubt(&mut self) {
        self.doubted = !self.open.is_empty();
    }

    fn take_doubted(&mut self) -> bool {
        std::mem::take(&mut self.doubted)
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Where a moon sees this node.
    pub(super) fn seen_by(&self, moon: &WireguardPublicKey, ipv6: bool) -> Option<SocketAddr> {
        let (endpoint, _) = self.observed.get(&(*moon.as_bytes(), ipv6))?;
        Some(*endpoint)
    }

    /// What this node's NATs do with one family, judged by what the moons see.
    ///
    /// After one has seen it move, as after a NAT was started anew, the others count again once they were
    /// asked; and a moon on this side of the NAT says nothing of it.
    pub(super) fn mapping(&self, ipv6: bool, own: &[SocketAddr]) -> Mapping {
        let moved = self.moved[usize::from(ipv6)];
        let of_family = self
            .observed
            .iter()
            .filter(|((_, family), _)| *family == ipv6);
        let mut untranslated = false;
        let mut translated = Vec::new();
        for (_, (endpoint, at)) in of_family {
            if own.contains(endpoint) {
                untranslated = true;
            } else if moved.is_none_or(|moved| *at >= moved) {
                translated.push(*endpoint);
            }
        }
        match translated.as_slice() {
            [] if untranslated => Mapping::None,
            [] => Mapping::Unseen,
            [_] => Mapping::Translated,
            [first, others @ ..] if others.iter().all(|other| other == first) => Mapping::Same,
            [..] => Mapping::Varies,
        }
    }

    /// How the moons are, apart from this one.
    pub(super) fn besides(&self, moon: &WireguardPublicKey) -> MoonCount {
        let id = moon.as_bytes();
        let other = |moon: &&PeerId| *moon != id;
        MoonCount {
            asked: self.asked.iter().filter(other).count(),
            open: self.open.keys().filter(other).count(),
            refused: self
                .refused
                .iter()
                .find(|(moon, _)| *moon != id)
                .map(|(_, refused)| *refused),
        }
    }

    pub(super) fn grant(&mut self, id: PeerId, moon: OpenMoon) {
        self.refused.remove(&id);
        self.changed |= self.open.insert(id, moon) != Some(moon);
    }

    /// Takes note of where a moon sees this node; true if it did elsewhere before.
    pub(super) fn observe(&mut self, id: PeerId, observed: SocketAddr, now: Instant) -> bool {
        let ipv6 = observed.is_ipv6();
        let known = self.observed.insert((id, ipv6), (observed, now));
        let known = known.map(|(endpoint, _)| endpoint);
        self.changed |= known != Some(observed);
        let moved = known.is_some_and(|known| known != observed);
        if moved {
            self.moved[usize::from(ipv6)] = Some(now);
        }
        moved
    }

    /// Whether a moon sees this node by this family.
    pub(super) fn is_seen_by(&self, id: &PeerId, ipv6: bool) -> bool {
        self.observed.contains_key(&(*id, ipv6))
    }

    /// This node has other addresses: what the moons saw is no more.
    pub(super) fn forget_observed(&mut self) {
        self.observed.clear();
    }

    /// One is asked no more.
    fn forget(&mut self, id: &PeerId) {
        self.asked.remove(id);
        self.refused.remove(id);
        self.close(id);
    }

    /// It relays no more.
    pub(super) fn close(&mut self, id: &PeerId) {
        self.changed |= self.open.remove(id).is_some();
        self.observed.retain(|(moon, _), _| moon != id);
    }

    /// A moon says that it does not relay.
    pub(super) fn refuse(&mut self, id: PeerId, reason: RelayRefused) {
        self.refused.insert(id, reason);
        self.close(&id);
    }

    /// The token of a moon that relays, and where it does.
    pub(super) fn if_open(&self, moon: &WireguardPublicKey) -> Option<&OpenMoon> {
        self.open.get(moon.as_bytes())
    }
}

/// How many moons there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoonCount {
    /// Those that are asked.
    pub(super) asked: usize,
    /// Those that relay.
    pub(super) open: usize,
    /// Why one does not, if any said so.
    pub(super) refused: Option<RelayRefused>,
}

impl Context {
    /// A mapping in use was lost: all of them are made anew at once, and kept with more care.
    pub(super) fn lost(&mut self, ipv6: bool, now: Instant) {
        self.holds.of_mut(ipv6).lost(now);
        self.moons.lost = true;
    }
}

impl Engine {
    /// Asks a moon inside the session to knock at `to` at once, where it sent a reflection with this `proof`. The
    /// answer is [`Event::KnockAnswered`](crate::Event::KnockAnswered) with the id returned here, which is the
    /// knock's, too. `None`: there is no session with it.
    pub fn request_knock(
        &mut self,
        moon: &WireguardPublicKey,
        to: SocketAddr,
        proof: u64,
        from_other_port: bool,
        now: Now,
    ) -> Option<u64> {
        self.with_peer(moon.as_bytes(), now, |peer, context| {
            let id = context.rng.next_u64();
            let request = TunnelMessage::KnockRequest {
                id,
                after_seconds: 0,
                from_other_port,
                to,
                proof,
            };
            let sent = peer.say(request, Sent::Probe, context, now);
            sent.then_some(id)
        })
        .flatten()
    }

    /// The moons that this node asks to relay for it, and what its datagrams take to each; `None`: it does
    /// not relay, or does not answer. To be asked again after every call.
    pub fn moons(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (WireguardPublicKey, Option<Remote>)> + '_ {
        self.context.moons.asked.iter().filter_map(move |id| {
            let peer = self.peers.get(id).filter(|peer| peer.client.is_some())?;
            let open = self.context.moons.open.get(id);
            let open = open.filter(|_| !peer.is_silent_moon(now));
            Some((peer.key(), open.map(|moon| moon.remote)))
        })
    }

    /// Passes the news of the moons on to every peer.
    pub(super) fn publish_moons(&mut self, now: Now) {
        self.choose_moons(now);
        if self.context.moons.take_wanted() {
            self.for_each_peer(now, |peer, _| peer.hasten_moon(now.instant));
            self.context.output.event(Event::MoonsWanted);
        }
        if std::mem::take(&mut self.context.moons.lost) {
            self.for_each_peer(now, |peer, _| peer.renew_grant(now.instant));
        }
        if self.context.moons.take_doubted() {
            self.for_each_peer(now, |peer, _| peer.check_moon(now.instant));
        }
        if !self.context.moons.take_changed() {
            return;
        }
        let open: Vec<OpenMoon> = self.context.moons.open().copied().collect();
        self.context.forwarding.set_moons(open);
        self.for_each_peer(now, |peer, context| {
            peer.moons_changed(context, now.instant);
            peer.tell_news(context, now);
        });
        // What the peers did may not have changed the moons again.
        self.context.moons.take_changed();
    }

    /// A moon tells where it sees this node by the family that the token is not for.
    pub(super) fn handle_reflection(
        &mut self,
        from: Remote,
        reflection: Reflection,
        now: Now,
    ) -> Received<'static> {
        let Remote::Udp(from) = from else {
            return Received::Refused(Refusal::NotRelayed);
        };
        let asked = (from, reflection.id);
        let takes = |peer: &mut Peer| {
            let client = peer.client.as_mut();
            client.is_some_and(|client| client.takes_reflection(asked))
        };
        let mut peers = self.peers.iter_mut();
        let Some(id) = peers.find_map(|(id, peer)| takes(peer).then_some(*id)) else {
            return Received::Refused(Refusal::NotRelayed);
        };
        self.with_peer(&id, now, |peer, context| {
            peer.note_observed(Some(reflection.observed), context, now.instant);
        });
        self.publish_moons(now);
        Received::Consumed
    }

    /// A moon knocks: this node's NAT lets it through.
    pub(super) fn handle_knock(&mut self, from: Remote, token: u64) -> Received<'static> {
        let mut clients = self
            .peers
            .values_mut()
            .filter_map(|peer| peer.client.as_mut());
        if clients.any(|client| client.takes_knock(from, token)) {
            return Received::Consumed;
        }
        Received::Refused(Refusal::NotRelayed)
    }

    /// Acts on what a moon says of a frame that it did not relay.
    pub(super) fn handle_notice(
        &mut self,
        moon: &PeerId,
        datagram: &[u8],
        now: Now,
    ) -> Result<(), Refusal> {
        let Some(Frame::Notice(notice, header)) = relay::parse(datagram) else {
            return Err(Refusal::NotRelayed);
        };
        match notice {
            Notice::UnknownToken => {
                self.with_peer(moon, now, |peer, _| peer.ask_moon_again(now.instant));
            }
            // The handshake or the probe that this is about goes unanswered on that way.
            Notice::NotHere => self.note_hint(header.member, Hint::NotHere(now.instant)),
            Notice::NotAllowed => self.note_hint(header.member, Hint::NotAllowed(now.instant)),
        }
        Ok(())
    }

    /// Keeps what a moon said of the peer whose key begins so; two of them are not told apart.
    fn note_hint(&mut self, member: MemberTag, hint: Hint) {
        let mut first = [0; 32];
        first[..member.0.len()].copy_from_slice(&member.0);
        if let Some((id, peer)) = self.peers.range_mut(first..).next()
            && id.starts_with(&member.0)
        {
            peer.hint = Some(hint);
        }
    }
}
impl Peer {
    /// Makes this peer a moon of this node, or no more.
    pub(super) fn set_moon(&mut self, is_moon: bool, context: &mut Context, now: Instant) {
        match (&self.client, is_moon) {
            (None, true) => {
                self.client = Some(Client::new(now));
                context.moons.asked.insert(*self.link.peer.as_bytes());
            }
            (Some(_), false) => {
                self.client = None;
                context.moons.forget(self.link.peer.as_bytes());
                context.end_measuring(Some(self.link.peer.as_bytes()));
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Has the clients of this node, if it is a moon, ask again: who went on with its sessions knows no tokens.
    pub(super) fn tell_to_ask_again(&mut self, context: &mut Context, now: Now) {
        if context.relay_server.is_some() && self.speaks_mesh() {
            self.say(TunnelMessage::AskAgain, Sent::Probe, context, now);
        }
    }

    pub(super) fn moons_changed(&mut self, context: &mut Context, now: Instant) {
        if self.speaks_mesh() {
            let own = *self.link.peer.as_bytes();
            let at = self.moons_of(&context.moons.choice);
            let moons: Vec<_> = context
                .moons
                .open()
                .map(|moon| moon.key)
                .filter(|moon| {
                    // Of many moons those where one of the two is found: on others the peer is by chance.
                    let id = moon.as_bytes();
                    *id != own && (at.contains(id) || context.moons.choice.kept().contains(id))
                })
                .collect();
            self.paths.set_moons(&moons, now);
            self.paths.probe_by_moons();
        }
        self.refresh_way(context);
        // What is under way goes through the moon again: it did not relay it with the token before.
        if let Some(attempt) = self.attempt.take() {
            for moon in self.paths.all().filter(|via| via.is_relay()) {
                self.send_message(moon, &attempt.message, context);
            }
            self.attempt = Some(attempt);
        }
    }
}
