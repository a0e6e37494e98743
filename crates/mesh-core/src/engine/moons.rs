//! The moons that relay for this node: each is asked for a token inside its session, and asked again in
//! time for a NAT to remember the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{
    reflect::{ReflectRequest, Reflection},
    relay::{self, Frame, Header, MemberTag, Notice},
    tunnel::{RelayRefused, TunnelMessage},
};
use rand::RngCore;

use super::{Context, Engine, Event, PeerId, Received, peer::Peer, story::Hint};
use crate::{
    Mapping, Now, Refusal, Remote, Via,
    choice::{Choice, Trial},
    forwarding::OpenMoon,
    hold::Hold,
    link::{Sent, Way},
    paths::{WARM, is_warm},
};

/// Between two requests, where nothing is known of how long a NAT holds a mapping, or where a stream is not to
/// end. This is what it costs to be reachable through a moon.
const RENEW: Duration = Hold::BASE;

/// A token is asked for again so long before the moon forgets it: repeated, a request may be lost five times.
const BEFORE_ITS_END: Duration = Duration::from_secs(40);

/// A knock is to come so long before the next request: no packet of ours is to help it through.
const KNOCK_BEFORE: Duration = Duration::from_secs(3);

/// And may be so late.
const KNOCK_LATE: Duration = Duration::from_secs(2);

/// A request is repeated after this, and after twice, four times, … as long.
const REPEAT: Duration = Duration::from_secs(1);

/// A moon that answered none of its requests for this long does not relay any more.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// While a peer is wanted and does not answer, each moon that does not relay is asked this often.
const HASTE: Duration = Duration::from_secs(2);

/// A moon that has not answered its request for this long is looked past for another way to one: a little
/// less than [`REPEAT`], when the engine looks again.
const DOUBTED_AFTER: Duration = Duration::from_millis(900);

/// How often a peer that does not answer can make us ask a moon, which answered the last time.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How often a peer can make us ask another moon: one that names a new one all the time makes us send no more
/// than it does.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The choice among moons does not follow every packet.
const RECENCY_MICROS: u64 = 60_000_000;

/// How often a notice can make us ask again.
const RENEW_ON_NOTICE: Duration = Duration::from_secs(1);

/// What the peers of an engine know of its moons.
#[derive(Default)]
pub(super) struct Moons {
    /// Which of the roster's moons are asked.
    pub(super) choice: Choice,
    /// Those that are asked to relay.
    asked: BTreeSet<PeerId>,
    open: BTreeMap<PeerId, OpenMoon>,
    /// Why one of them does not, if it said so.
    refused: BTreeMap<PeerId, RelayRefused>,
    /// Where each moon sees this node, by IPv4 and by IPv6, and since when that is known.
    observed: BTreeMap<(PeerId, bool), (SocketAddr, Instant)>,
    /// When a moon last saw this node elsewhere than before, by IPv4 and by IPv6.
    moved: [Option<Instant>; 2],
    changed: bool,
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

    fn grant(&mut self, id: PeerId, moon: OpenMoon) {
        self.refused.remove(&id);
        self.changed |= self.open.insert(id, moon) != Some(moon);
    }

    /// Takes note of where a moon sees this node; true if it did elsewhere before.
    fn observe(&mut self, id: PeerId, observed: SocketAddr, now: Instant) -> bool {
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

    fn close(&mut self, id: &PeerId) {
        self.changed |= self.open.remove(id).is_some();
        self.observed.retain(|(moon, _), _| moon != id);
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

/// This node as the client of one moon.
#[derive(Debug)]
pub(super) struct Client {
    /// The request that waits for an answer.
    request: Option<u64>,
    /// When the first one that is not answered was sent.
    pub(super) asked_since: Option<Instant>,
    /// When it was sent, if its answer tells the round trip.
    timed: Option<Instant>,
    /// The token, and the remote that it was given for.
    granted: Option<(Remote, u64)>,
    next: Instant,
    repeat: Duration,
    /// When the moon last said that it does not know our token.
    noticed: Option<Instant>,
    /// How long after the grant a knock is to come that was asked for along with it.
    asked_knock: Option<Duration>,
    /// Whether the moon is of a release that answers outside of the session, and whom of its endpoints was asked.
    reflects: bool,
    reflecting: Option<(SocketAddr, u64)>,
    knock: Option<Knock>,
    /// Why the moon does not relay, if it said so.
    pub(super) refused: Option<RelayRefused>,
}

/// A knock that is to come to this node's own port, with its token.
#[derive(Clone, Copy, Debug)]
struct Knock {
    at: Instant,
    heard: bool,
}

impl Client {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            request: None,
            asked_since: None,
            timed: None,
            granted: None,
            next: now,
            repeat: REPEAT,
            noticed: None,
            asked_knock: None,
            reflects: false,
            reflecting: None,
            knock: None,
            refused: None,
        }
    }

    pub(super) const fn due(&self) -> Instant {
        self.next
    }

    /// Asks at once, and again soon if nothing comes.
    const fn ask_now(&mut self, now: Instant) {
        self.next = now;
        self.repeat = REPEAT;
    }

    /// Asks at once for what somebody said or kept silent about, if that was not done in the last `every`; true if
    /// it is now.
    fn notice(&mut self, every: Duration, now: Instant) -> bool {
        let lately = self
            .noticed
            .is_some_and(|at| now.saturating_since(at) < every);
        if !lately {
            self.noticed = Some(now);
            self.ask_now(now);
        }
        !lately
    }

    /// The token, if the moon relays.
    pub(super) fn token(&self) -> Option<u64> {
        self.granted.map(|(_, token)| token)
    }

    pub(super) const fn reflects(&self) -> bool {
        self.reflects
    }
}

impl Context {
    /// A mapping in use was lost: all of them are made anew at once, and kept with more care.
    fn lost(&mut self, ipv6: bool, now: Instant) {
        self.holds.of_mut(ipv6).lost(now);
        self.moons.lost = true;
    }
}

fn seconds(time: Duration) -> u16 {
    u16::try_from(time.as_secs()).unwrap_or(u16::MAX)
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

    /// Measures the moons, one at a time.
    pub(super) fn run_survey(&mut self, now: Now) {
        while let Some(trial) = self.context.moons.choice.run(now.instant) {
            match trial {
                Trial::Begin(moon) => {
                    self.with_peer(&moon, now, |peer, context| peer.begin_trial(context, now));
                }
                Trial::GiveUp(moon) => {
                    self.with_peer(&moon, now, |peer, context| peer.give_up_trial(context));
                }
            }
        }
    }

    /// Asks the moons that are chosen, and no others.
    fn choose_moons(&mut self, now: Now) {
        if !self.context.moons.choice.take_stale() {
            return;
        }
        let near = self.context.moons.choice.near().to_vec();
        let kept = self.context.moons.choice.kept().clone();
        let mut wanted = Vec::new();
        if self.context.moons.choice.is_many() {
            for (id, peer) in &mut self.peers {
                if let Some(last) = peer.wants_moons() {
                    let moons = peer.moons_of(&self.context.moons.choice);
                    let recency = std::cmp::Reverse(last.as_micros() / RECENCY_MICROS);
                    // Who is not reached yet has nothing else.
                    wanted.push((!peer.is_connecting(), recency, *id, moons));
                }
            }
            wanted.sort_unstable();
        }
        let wanted = wanted.into_iter().map(|(.., moons)| moons);
        let chosen = self.context.moons.choice.choose(wanted);
        // Peers are looked for at those, open already or not.
        self.context.moons.changed |= kept != *self.context.moons.choice.kept();
        if chosen != self.context.moons.asked {
            self.for_each_peer(now, |peer, context| {
                let is_chosen = chosen.contains(peer.link.peer.as_bytes());
                peer.set_moon(is_chosen, context, now.instant);
            });
        }
        if near != self.context.moons.choice.near() {
            self.for_each_peer(now, |peer, context| peer.tell_moons(context, now));
        }
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
        let asked = Some((from, reflection.id));
        let asking = |peer: &Peer| {
            let client = peer.client.as_ref();
            client.is_some_and(|client| client.reflecting == asked)
        };
        let Some(id) = self
            .peers
            .iter()
            .find_map(|(id, peer)| asking(peer).then_some(*id))
        else {
            return Received::Refused(Refusal::NotRelayed);
        };
        self.with_peer(&id, now, |peer, context| {
            if let Some(client) = &mut peer.client {
                client.reflecting = None;
            }
            peer.note_observed(Some(reflection.observed), context, now.instant);
        });
        self.publish_moons(now);
        Received::Consumed
    }

    /// A moon knocks: this node's NAT lets it through.
    pub(super) fn handle_knock(&mut self, from: Remote, token: u64) -> Received<'static> {
        for peer in self.peers.values_mut() {
            if let Some(client) = &mut peer.client
                && client.granted == Some((from, token))
                && let Some(knock) = &mut client.knock
            {
                knock.heard = true;
                return Received::Consumed;
            }
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

    /// Measures the round trip to this moon.
    fn begin_trial(&mut self, context: &mut Context, now: Now) {
        let straight = [true, false].map(|ipv6| self.paths.best_of_family(ipv6));
        match straight.into_iter().flatten().next() {
            Some(via) if self.usable_session(now.instant).is_some() => {
                self.probe_way(via, context, now);
            }
            Some(_) | None => {
                self.trial = !self.is_connecting();
                self.begin(now.instant);
            }
        }
    }

    /// It did not answer; nobody else wants it.
    pub(super) fn give_up_trial(&mut self, context: &mut Context) {
        if std::mem::take(&mut self.trial) {
            self.rest(context);
        }
    }

    /// When this peer was wanted last, if moons may be needed to reach it.
    fn wants_moons(&self) -> Option<Instant> {
        let last = self.wanted.max(self.link.last_data_sent.get());
        let last = last.max(self.link.last_data_received.get());
        last.filter(|_| self.wants_moons)
    }

    /// Notes whether moons may be needed to reach this peer.
    pub(super) fn run_want(&mut self, context: &mut Context, now: Instant) {
        let choice = &context.moons.choice;
        // Whether a moon is asked must not decide whether it is wanted: that would go round in a circle.
        let wanted = if choice.is_known(self.link.peer.as_bytes()) {
            let sent = self.link.last_data_sent.get();
            self.holds_packets() || sent.is_some_and(|at| now.saturating_since(at) < WARM)
        } else {
            !self.trial && self.is_sought(now) || is_warm(&self.facts(now), now)
        };
        let wants = choice.is_many() && self.speaks_mesh() && wanted;
        if wants != self.wants_moons {
            self.wants_moons = wants;
            context.moons.choice.mark_stale();
        }
    }

    /// When traffic with this peer will have been over for so long that it needs no moons.
    pub(super) fn want_ends(&self, now: Instant) -> Option<Instant> {
        let facts = self.facts(now);
        let warm = is_warm(&facts, now).then_some(facts.traffic).flatten();
        warm.filter(|_| self.wants_moons)
            .map(|traffic| traffic + WARM)
    }

    /// The moons at which this peer is found, and the one that is nearest to it. A moon is found at itself, by a
    /// stream if need be.
    fn moons_of(&mut self, choice: &Choice) -> Vec<PeerId> {
        if choice.is_known(self.link.peer.as_bytes()) {
            return vec![*self.link.peer.as_bytes()];
        }
        if self.ranking.0 != choice.epoch() {
            self.ranking = choice.ranking_of(self.link.peer.as_bytes());
        }
        let mut moons = choice.homes(&self.ranking.1);
        moons.extend(self.told_moon.map(|(moon, _)| moon));
        moons
    }

    /// A round trip to this peer was measured: if it is a moon, that may be a reason to choose it.
    pub(super) fn note_moon_rtt(
        &self,
        via: Via,
        rtt: Duration,
        context: &mut Context,
        now: Instant,
    ) {
        if !via.is_relay() {
            let moon = self.link.peer;
            context.moons.choice.measured(moon.as_bytes(), rtt, now);
        }
    }

    /// Has the clients of this node, if it is a moon, ask again: who went on with its sessions knows no tokens.
    pub(super) fn tell_to_ask_again(&mut self, context: &mut Context, now: Now) {
        if context.relay_server.is_some() && self.speaks_mesh() {
            self.say(TunnelMessage::AskAgain, Sent::Probe, context, now);
        }
    }

    /// The moon went on with the session, and has no token of ours.
    pub(super) fn hear_ask_again(&mut self, now: Instant) {
        if let Some(client) = &mut self.client {
            client.notice(RENEW_ON_NOTICE, now);
        }
    }

    /// Tells the peer which moons are near to this node, if there is traffic.
    pub(super) fn tell_moons(&mut self, context: &mut Context, now: Now) {
        let keys = context.moons.choice.near().to_vec();
        let many = context.moons.choice.is_many() && !keys.is_empty();
        if many && self.speaks_mesh() && is_warm(&self.facts(now.instant), now.instant) {
            self.say(TunnelMessage::Moons { keys }, Sent::Quiet, context, now);
        }
    }

    /// Hears which moons are near to the peer.
    pub(super) fn hear_moons(&mut self, keys: &[PeerId], context: &mut Context, now: Instant) {
        let nearest = keys.first().copied();
        let lately = self
            .told_moon
            .is_some_and(|(_, at)| now.saturating_since(at) < TOLD_EVERY);
        let known = self.told_moon.map(|(moon, _)| moon);
        if let Some(nearest) = nearest.filter(|moon| !lately && known != Some(*moon)) {
            self.told_moon = Some((nearest, now));
            context.moons.choice.mark_stale();
            // It may be open already.
            self.moons_changed(context, now);
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

    /// Asks the moon for a token when that is due.
    pub(super) fn run_client(&mut self, context: &mut Context, now: Now) {
        let Some(client) = &mut self.client else {
            return;
        };
        if now.instant < client.next {
            return;
        }
        if client
            .asked_since
            .is_some_and(|since| now.instant.saturating_since(since) >= LOST_AFTER)
        {
            client.granted = None;
            context.moons.close(self.link.peer.as_bytes());
            context.moons.choice.lost(self.link.peer.as_bytes());
        }
        client.next = now.instant + client.repeat;
        client.repeat = (client.repeat * 2).min(RENEW);
        let since = *client.asked_since.get_or_insert(now.instant);
        if self.usable_session(now.instant).is_none() {
            self.begin(now.instant);
            return;
        }
        if self.is_worn(now.instant) {
            // The handshake that is due comes first: the request goes with it.
            return self.begin(now.instant);
        }
        if now.instant.saturating_since(since) >= REPEAT {
            // It may have been started anew.
            self.begin(now.instant);
        }
        self.request_relay(context, now);
        self.ask_in_the_other_family(context, now);
    }

    /// Whether the session is so old that the next packet begins another one.
    fn is_worn(&self, now: Instant) -> bool {
        let session = self.usable_session(now);
        session.is_some_and(|session| session.wants_rekey_on_send(now))
    }

    /// Has the moon tell where it sees this node by the family that the token is not for, too, and keeps a
    /// NAT's mapping there. Packets to a moon that take another moon learn so of a straight way.
    fn ask_in_the_other_family(&mut self, context: &mut Context, now: Now) {
        let in_use = self.straight().and_then(Via::udp);
        for ipv6 in [false, true] {
            if in_use.is_some_and(|endpoint| endpoint.is_ipv6() == ipv6) {
                continue;
            }
            match (in_use, self.paths.best_of_family(ipv6)) {
                (Some(_), Some(via)) if self.reflect_by(via, context) => {}
                (_, Some(via)) => self.probe_way(via, context, now),
                (_, None) => {}
            }
        }
    }

    /// Asks the moon outside of the session where it sees this node by `via`: a packet inside would have both
    /// sides doubt the way in use. False if the moon, of an earlier release, does not answer.
    fn reflect_by(&mut self, via: Via, context: &mut Context) -> bool {
        let (Some(client), Some(to)) = (&mut self.client, via.udp()) else {
            return false;
        };
        let Some((_, token)) = client.granted.filter(|_| client.reflects) else {
            return false;
        };
        let id = context.rng.next_u64();
        client.reflecting = Some((to, id));
        let request = ReflectRequest { token, id }.emit();
        context.output.transmit(Remote::Udp(to), request.to_vec());
        true
    }

    /// An answer of a moon tells where it sees this node.
    pub(super) fn note_observed(
        &self,
        observed: Option<SocketAddr>,
        context: &mut Context,
        now: Instant,
    ) {
        if let Some(observed) = observed.filter(|_| self.client.is_some())
            && context
                .moons
                .observe(*self.link.peer.as_bytes(), observed, now)
        {
            // The NAT made another mapping, so the one before was lost.
            context.lost(observed.is_ipv6(), now);
        }
    }

    /// How long until this moon is asked again for the token at `remote`: as long as every mapping that it
    /// keeps may be left silent.
    fn renewal(&self, remote: Remote, context: &Context) -> Duration {
        let Remote::Udp(endpoint) = remote else {
            return RENEW;
        };
        let own = self.link.peer.as_bytes();
        [false, true]
            .into_iter()
            .filter(|ipv6| *ipv6 == endpoint.is_ipv6() || context.moons.is_seen_by(own, *ipv6))
            .map(|ipv6| context.holds.of(ipv6).interval())
            .min()
            .unwrap_or(RENEW)
    }

    /// Asks for a token on the straight way in use; if packets to the moon take another moon, on the one
    /// that a token was given for, or else the best of each family and of the streams: a moon serves whom it sees. A request
    /// with the token that was given there before proves this node's address to the moon. True if one was sent.
    pub(super) fn request_relay(&mut self, context: &mut Context, now: Now) -> bool {
        let granted = self.client.as_ref().and_then(|client| client.granted);
        let straight = self
            .straight()
            .or(granted.map(|(remote, _)| Via::Direct(remote)));
        let ways: Vec<Via> = match straight {
            Some(via) => vec![via],
            None => [false, true]
                .into_iter()
                .filter_map(|ipv6| self.paths.best_of_family(ipv6))
                .chain(self.paths.best_stream())
                .collect(),
        };
        let Some(client) = self.client.as_mut().filter(|_| !ways.is_empty()) else {
            return false;
        };
        let known = granted.filter(|(remote, _)| ways.contains(&Via::Direct(*remote)));
        let id = known.map_or_else(|| context.rng.next_u64(), |(_, token)| token);
        client.request = Some(id);
        // The answer to a repeated one would not tell the round trip.
        client.timed = client.asked_since.is_none().then_some(now.instant);
        client.asked_since.get_or_insert(now.instant);
        client.next = client.next.max(now.instant + REPEAT);
        let mut sent = false;
        for via in ways {
            let Via::Direct(remote) = via else {
                continue;
            };
            let renew = self.renewal(remote, context);
            // What every NAT holds needs no knock to show that it did.
            let knock = (renew > RENEW).then(|| renew - KNOCK_BEFORE);
            let request = TunnelMessage::RelayRequest {
                id,
                renew_seconds: seconds(renew),
                knock_seconds: knock.map_or(0, seconds),
            };
            sent |= self.say_via(request, via, Sent::Probe, context, now);
            if let Some(client) = &mut self.client {
                client.asked_knock = knock;
            }
        }
        sent
    }

    /// The moon does not know our token: it was started anew, or sees us at another address.
    pub(super) fn ask_moon_again(&mut self, now: Instant) {
        if let Some(client) = &mut self.client
            && client.notice(RENEW_ON_NOTICE, now)
        {
            // Who was started anew knows no session either.
            self.begin(now);
        }
    }

    /// Whether it is a moon that has been asked for a while and is silent.
    pub(super) fn is_silent_moon(&self, now: Instant) -> bool {
        let since = self.client.as_ref().and_then(|client| client.asked_since);
        since.is_some_and(|since| now.saturating_since(since) >= DOUBTED_AFTER)
    }

    /// Somebody is reached by no way: if the moon is gone, that is to be known before its next turn.
    fn check_moon(&mut self, now: Instant) {
        if let Some(client) = &mut self.client
            && client.granted.is_some()
            && client.asked_since.is_none()
        {
            client.notice(CHECK_EVERY, now);
        }
    }

    /// Somebody is wanted whom this moon may relay to.
    fn hasten_moon(&mut self, now: Instant) {
        if let Some(client) = &mut self.client
            && client.granted.is_none()
        {
            client.next = client.next.min(now + HASTE);
            self.hasten(HASTE);
        }
    }

    /// This node has another address: its tokens do not count from there.
    pub(super) fn renew_grant(&mut self, now: Instant) {
        if let Some(client) = &mut self.client {
            client.ask_now(now);
        }
    }

    /// The moon gave a token for the remote that the answer came from.
    pub(super) fn take_grant(
        &mut self,
        (id, token, lasts): (u64, u64, Duration),
        observed: Option<SocketAddr>,
        via: Via,
        context: &mut Context,
        now: Instant,
    ) {
        let key = self.key();
        let (Some(client), Via::Direct(remote)) = (&mut self.client, via) else {
            return;
        };
        if client.request != Some(id) {
            return;
        }
        client.request = None;
        client.asked_since = None;
        client.refused = None;
        // A moon that started anew knows of no knock, and gives another token.
        let same = client.granted.replace((remote, token)) == Some((remote, token));
        let knock = client.knock.take().filter(|_| same);
        let missed = knock.is_some_and(|knock| !knock.heard && now >= knock.at + KNOCK_LATE);
        if let Some(sent) = client.timed.take() {
            let rtt = now.saturating_since(sent);
            context.moons.choice.measured(key.as_bytes(), rtt, now);
        }
        client.repeat = REPEAT;
        let moon = OpenMoon { key, remote, token };
        context.moons.grant(*key.as_bytes(), moon);
        if let Remote::Udp(endpoint) = remote {
            let moved = observed.is_some_and(|at| context.moons.observe(*key.as_bytes(), at, now));
            if missed || moved {
                context.lost(endpoint.is_ipv6(), now);
            }
        }
        // A new token has not proven this node's address yet: the next request does, at once.
        if token != id {
            client.next = now;
            return;
        }
        let of_this_release = !lasts.is_zero();
        client.reflects = of_this_release;
        client.knock = client
            .asked_knock
            .filter(|_| of_this_release)
            .map(|after| Knock {
                at: now + after,
                heard: false,
            });
        let longest = lasts.saturating_sub(BEFORE_ITS_END).max(RENEW);
        let next = now + self.renewal(remote, context).min(longest);
        if let Some(client) = &mut self.client {
            client.next = next;
        }
        if of_this_release && matches!(remote, Remote::Udp(_)) {
            self.begin_measuring(token, context, now);
        }
    }

    pub(super) fn take_refusal(
        &mut self,
        id: u64,
        reason: RelayRefused,
        context: &mut Context,
        now: Instant,
    ) {
        if let Some(client) = &mut self.client
            && client.request == Some(id)
        {
            client.request = None;
            client.asked_since = None;
            client.refused = Some(reason);
            client.granted = None;
            client.next = now + RENEW;
            let id = self.link.peer.as_bytes();
            context.moons.refused.insert(*id, reason);
            context.moons.close(id);
        }
    }

    /// The way that packets take to the moon changed: its token counts from the old one only.
    pub(super) fn check_grant(&mut self, context: &mut Context, now: Now) {
        let Some(Via::Direct(remote)) = self.straight() else {
            return;
        };
        let moved = self
            .client
            .as_ref()
            .is_some_and(|client| client.granted.is_some_and(|(granted, _)| granted != remote));
        if moved {
            if let Some(client) = &mut self.client {
                client.granted = None;
            }
            self.request_relay(context, now);
        }
    }

    fn straight(&self) -> Option<Via> {
        self.paths.selected().filter(|via| !via.is_relay())
    }

    /// What frames to this peer need on the way `via`; `None` if the way is not open.
    pub(super) fn resolve(&self, via: Via, context: &Context) -> Option<Way> {
        match via {
            Via::Direct(remote) => Some(Way::unmeasured(via, remote)),
            Via::Relay(moon) => {
                let open = context.moons.open.get(moon.as_bytes())?;
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
