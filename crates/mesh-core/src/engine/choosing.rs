//! Which of many moons are asked: the nearest ones, and those at which the peers are found that are wanted.

use std::time::Duration;

use mesh_types::Instant;
use mesh_wire::tunnel::TunnelMessage;

use super::{Context, Engine, PeerId, peer::Peer};
use crate::{
    Now, Via,
    choice::{Choice, Trial},
    link::Sent,
    paths::{WARM, is_warm},
};

/// How often a peer can make us ask another moon: one that names a new one all the time makes us send no more
/// than it does.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The choice among moons does not follow every packet.
const RECENCY_MICROS: u64 = 60_000_000;

impl Engine {
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
    pub(super) fn choose_moons(&mut self, now: Now) {
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
}

impl Peer {
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
    pub(super) fn moons_of(&mut self, choice: &Choice) -> Vec<PeerId> {
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
}
