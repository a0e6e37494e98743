//! Which way packets take to a peer: what is known, what is tried, what is chosen.
//!
//! Every way is in one table, straight ones and those through moons alike. A way is *proven* by an echo
//! that came back on it. Three things choose one: a handshake that came through, an answer on a better
//! way than the one in use (*promotion*), and a way in use that stays silent while another answers
//! (*demotion*). Nothing else does: an address that somebody told of is probed, never used.
//!
//! | what | when |
//! |---|---|
//! | probes of a way that never answered | [`BURST`] after it was heard of, then in [`RETRY`] while there is traffic |
//! | doubt in the way in use | silence for `SILENCE` or twice the round trip, packets that come another way, a new network |
//! | probes while in doubt | `DOUBT`: the way in use, and those that may take its place; if packets only come another way, these once it is overdue |
//! | demotion | two probes overdue on it, and an answer on another since the doubt began |
//! | promotion | straight before relayed; else a round trip shorter by a fifth and 2 ms |
//! | a probe to keep a NAT's mapping | [`Facts::keep`] after the last packet on a straight way, while there is traffic |
//! | probes of the size of packets | `mtu`, on the way in use |
//! | probes of ports that nobody told | `predict`, where both sides have NATs that count |

mod budget;
mod doubt;
mod history;
mod mtu;
mod pause;
mod predict;
mod table;
mod view;
mod why;

use std::{collections::BTreeSet, time::Duration};

use mesh_types::{Instant, WireguardPublicKey};

use self::{
    budget::Budget,
    doubt::Doubt,
    history::History,
    mtu::MtuFacts,
    predict::Predict,
    table::{BURST, Table, Way, rank},
};
use crate::{Remote, StreamId, Via};
pub(crate) use mtu::{CHECK as MTU_CHECK, FLOOR};
pub use mtu::{MTU_BASE, MTU_MAX};

pub use history::{PathChange, PathEvent};
pub(crate) use predict::{Forecast, Part, Step};
pub use table::Origin;
pub use view::PathView;
pub(crate) use why::OwnSide;

/// Between bursts towards ways that did not answer, while there is traffic and no straight way: doubled
/// each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// Traffic this long ago keeps ways alive; an idle pair costs nothing.
pub(crate) const WARM: Duration = Duration::from_secs(60);

/// What the path agent has to know of the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Whether there is a session to probe in.
    pub(crate) session: bool,
    /// When data was last sent or came.
    pub(crate) traffic: Option<Instant>,
    /// Since when traffic has gone unanswered.
    pub(crate) silent_since: Option<Instant>,
    /// When a packet was last sent.
    pub(crate) sent: Option<Instant>,
    /// When a packet of a program last came.
    pub(crate) received: Option<Instant>,
    /// Whether packets were sent whose size matters, since the last check of it.
    pub(crate) large: bool,
    /// How long the NATs before the way in use hold a mapping.
    pub(crate) keep: Duration,
}

/// What [`Paths::run`] wants done.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// The ways to be probed.
    pub(crate) probes: Vec<Via>,
    /// Those to be opened from within: by a probe that gets past this side's NATs and no further.
    pub(crate) openers: Vec<Via>,
    /// Whether the peer is to be asked where it is, so that both probe at the same time.
    pub(crate) ask: bool,
    /// Whether a handshake is to settle which way serves.
    pub(crate) handshake: bool,
    /// The sizes to be tried on the way in use.
    pub(crate) sizes: Vec<u16>,
    /// Whether the sizes of packets are watched from here on.
    pub(crate) checked: bool,
}

/// The ways to one peer.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    selected: Option<Via>,
    /// The inventory bars straight ways: none is known, none is tried, whoever tells of one.
    relay_only: bool,
    ways: Table,
    doubt: Option<Doubt>,
    /// The silence that was doubted already: it is, once.
    doubted: Option<Instant>,
    /// When doubt last ended well, so that packets that keep coming by another way do not renew it at once.
    cleared: Option<Instant>,
    /// When bursts are sent again, and how long after that once more.
    retry: Option<(Instant, Duration)>,
    /// Whether there was traffic when last looked at.
    warm: bool,
    /// The way in use is a straight one that was kept over a pause, and has not answered since.
    stale: bool,
    /// The way whose sizes were looked at last.
    measured: Option<Via>,
    /// Whether there was a session when last looked at.
    in_session: bool,
    /// When straight ways were last tried from the start.
    search: Option<Instant>,
    history: History,
    budget: Budget,
    predict: Predict,
}

impl Paths {
    /// The way that packets take.
    pub(crate) fn selected(&self) -> Option<Via> {
        self.selected
    }

    /// The largest packet that is proven to go by the way in use.
    pub(crate) fn mtu(&self) -> Option<u16> {
        self.ways.get(self.selected?)?.mtu.proven()
    }

    /// An echo of this size came back, which was sent then.
    pub(crate) fn size_answered(&mut self, via: Via, size: u16, sent: Instant) {
        if let Some(way) = self.ways.get_mut(via) {
            way.mtu.answered(size, sent);
        }
    }

    /// Ways that a handshake is tried on, the one in use first.
    pub(crate) fn all(&self) -> impl Iterator<Item = Via> + '_ {
        let others = self.ways.iter().map(|(via, _)| *via);
        let relays_first = others.clone().filter(|via| via.is_relay());
        let straight = others.filter(|via| !via.is_relay());
        self.selected.into_iter().chain(
            relays_first
                .chain(straight)
                .filter(|via| Some(*via) != self.selected),
        )
    }

    /// The straight way of a family that answered last and fastest, or else one that may.
    pub(crate) fn best_of_family(&self, ipv6: bool) -> Option<Via> {
        self.ways.best_of_family(ipv6)
    }

    /// The best of the streams.
    pub(crate) fn best_stream(&self) -> Option<Via> {
        self.ways.best_stream()
    }

    /// Bars straight ways, or lets them be looked for again, at once if there is traffic; true if that is
    /// a change.
    pub(crate) fn set_relay_only(&mut self, relay_only: bool, now: Instant) -> bool {
        if self.relay_only == relay_only {
            return false;
        }
        self.relay_only = relay_only;
        if relay_only {
            self.retain(Via::is_relay, now);
            self.doubt = None;
        } else {
            self.begin_search(now);
        }
        self.retry = Some((now, RETRY.0));
        true
    }

    pub(crate) fn is_relay_only(&self) -> bool {
        self.relay_only
    }

    /// Whether the inventory bars this way.
    pub(crate) fn bars(&self, via: Via) -> bool {
        self.relay_only && !via.is_relay()
    }

    /// Hears of a way; true if it is new. It is probed from now on. Where there is no room, and none could be probed, who
    /// tells of ever others is not listened to.
    pub(crate) fn learn(&mut self, via: Via, origin: Origin, now: Instant) -> bool {
        let is_idle_talk =
            || origin == Origin::Told && self.ways.is_full() && !self.budget.is_left(now);
        if self.bars(via) || !self.knows(via) && is_idle_talk() {
            return false;
        }
        self.ways.learn(via, origin, self.selected, now)
    }

    /// Hears from the peer itself where it is: what was told before and did not answer is no more.
    pub(crate) fn told(&mut self, ways: &[Via], now: Instant) {
        let selected = self.selected;
        let mut addresses = ways.iter().filter_map(|via| Some(via.udp()?.ip()));
        if addresses.any(|address| !self.is_told_at(address)) {
            // It is behind another NAT, perhaps.
            self.predict.forget();
        }
        let told: BTreeSet<Via> = ways.iter().copied().collect();
        self.ways.retain(|via, way| {
            way.is_proven()
                || via.udp().is_none()
                || way.burst.is_some()
                || Some(*via) == selected
                || told.contains(via)
        });
        for via in ways {
            self.learn(*via, Origin::Told, now);
        }
        for (via, way) in self.ways.iter_mut() {
            way.told = told.contains(via);
        }
    }

    /// Brings the relays in line with the moons that relay for this node.
    pub(crate) fn set_moons(&mut self, moons: &[WireguardPublicKey], now: Instant) {
        let open = |via: Via| match via {
            Via::Relay(moon) => moons.contains(&moon),
            Via::Direct(_) => true,
        };
        self.retain(open, now);
        for moon in moons {
            self.learn(Via::Relay(*moon), Origin::Moon, now);
        }
    }

    /// Brings the straight ways in line with the streams that there are; true if one is new.
    pub(crate) fn set_streams(&mut self, streams: &[StreamId], now: Instant) -> bool {
        let open = |via: Via| match via {
            Via::Direct(Remote::Stream(stream)) => streams.contains(&stream),
            Via::Direct(Remote::Udp(_)) | Via::Relay(_) => true,
        };
        self.retain(open, now);
        let mut new = false;
        for stream in streams {
            new |= self.learn(Via::Direct(Remote::Stream(*stream)), Origin::Told, now);
        }
        new
    }

    /// Forgets the ways that are not open, and leaves the one in use if it is among them.
    fn retain(&mut self, open: impl Fn(Via) -> bool, now: Instant) {
        self.ways.retain(|via, _| open(*via));
        if let Some(closed) = self.selected.filter(|via| !open(*via)) {
            self.selected = None;
            self.history.note(PathChange::Closed(closed), now);
            self.select_best(None, now);
        }
    }

    /// Whether it is none to take, though a packet came by it: it is barred, or a stream that has ended, whose last
    /// packets are looked at after that and which never comes back.
    fn is_closed(&self, via: Via) -> bool {
        let stream = matches!(via, Via::Direct(Remote::Stream(_)));
        self.bars(via) || stream && self.ways.get(via).is_none()
    }

    /// A handshake came through by this way, to the peer and back.
    pub(crate) fn established(&mut self, via: Via, rtt: Option<Duration>, now: Instant) {
        if self.is_closed(via) {
            return;
        }
        self.learn(via, Origin::Heard, now);
        if let Some(way) = self.ways.get_mut(via) {
            way.answer(rtt, now);
            way.owed = 0;
            way.left = None;
        }
        // A session that only follows another one is no news.
        if !self.in_session || self.selected != Some(via) {
            self.history.note(PathChange::Handshake(via), now);
            self.begin_search(now);
        }
        self.in_session = true;
        self.selected = Some(via);
        self.stale = false;
        self.doubt = None;
        self.retry = Some((now + RETRY.0, RETRY.0));
        for (other, way) in self.ways.iter_mut() {
            if *other != via {
                way.burst = Some((now, 0));
            }
        }
    }

    /// Packets take this way, whatever is proven: of a peer that cannot be probed.
    pub(crate) fn follow(&mut self, via: Via) {
        self.selected = Some(via);
    }

    /// A probe went out.
    pub(crate) fn probed(&mut self, via: Via, now: Instant) {
        if let Some(way) = self.ways.get_mut(via) {
            way.probed(now);
        }
    }

    /// A probe came back on the way that it went out. True if packets take another way now.
    pub(crate) fn answered(
        &mut self,
        via: Via,
        rtt: Duration,
        facts: &Facts,
        now: Instant,
    ) -> bool {
        let Some(way) = self.ways.get_mut(via) else {
            return false;
        };
        way.answer(Some(rtt), now);
        way.mtu.small_answered();
        if self.selected == Some(via) {
            self.stale = false;
            if self.doubt.take().is_some() {
                self.cleared = Some(now);
            }
            return false;
        }
        if self.demote(now) {
            return true;
        }
        let better = self.selected.is_none_or(|selected| {
            let is_let_go = is_idle(facts, now) && selected.is_relay() && !via.is_relay();
            !is_let_go && self.ways.is_better(via, selected)
        });
        if better {
            self.select(via, now);
        }
        better
    }

    /// The machine has another network, or woke up: nothing is proven any more, all is tried at once.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        for (_, way) in self.ways.iter_mut() {
            way.answered = None;
            way.waiting.clear();
            way.owed = 0;
            way.left = None;
            way.burst = Some((now, 0));
            way.mtu.reset(now);
        }
        self.history.note(PathChange::NetworkChanged, now);
        self.begin_search(now);
        self.retry = Some((now + RETRY.0, RETRY.0));
        self.budget.refill();
        self.predict.forget();
        self.doubt = self.selected.map(|_| Doubt::begin(now));
    }

    /// Does what is due.
    pub(crate) fn run(&mut self, facts: &Facts, now: Instant) -> Due {
        let mut due = Due::default();
        self.in_session = facts.session;
        if !facts.session {
            self.doubt = None;
            return due;
        }
        due.handshake = self.run_warmth(facts, now);
        self.run_doubt(facts, now, &mut due.probes);
        self.demote(now);
        due.ask = self.run_retry(facts, now, &mut due.probes);
        self.run_bursts(facts, now, &mut due);
        self.run_keep(facts, now, &mut due.probes);
        self.run_mtu(facts, now, &mut due);
        due
    }

    /// When [`Paths::run`] has something to do next.
    pub(crate) fn deadline(&self, facts: &Facts, now: Instant) -> Option<Instant> {
        if !facts.session {
            return None;
        }
        let doubt = match &self.doubt {
            Some(doubt) => self.doubt_due(doubt, now),
            None => facts
                .silent_since
                .filter(|since| self.doubted != Some(*since) && self.selected.is_some())
                .map(|since| since + self.patience()),
        };
        let warm = is_warm(facts, now);
        let bursts = self
            .ways
            .iter()
            .filter(|(via, way)| {
                warm && (self.budget.is_left(now) || way.is_proven() || via.is_relay())
            })
            .filter_map(|(_, way)| way.burst_due())
            .min();
        let retry = self
            .retry
            .filter(|_| warm && !self.is_best_kind())
            .map(|(at, _)| at);
        let keep = self.keep_due(facts, now);
        let mtu = self
            .selected
            .and_then(|via| self.ways.get(via))
            .and_then(|way| way.mtu.due(mtu_facts(way, facts, now)));
        // What lies in the past is done already, or waits for a fact to change.
        // A straight pair is not woken for it.
        let predict = self.predict.deadline().filter(|_| !self.is_best_kind());
        [
            doubt,
            bursts,
            retry,
            keep,
            mtu,
            predict,
            self.cold_due(facts),
        ]
        .into_iter()
        .flatten()
        .map(|at| at.max(now + Duration::from_millis(1)))
        .min()
    }

    /// Chooses the best of the other ways that answered, at or after `since` if given.
    fn select_best(&mut self, since: Option<Instant>, now: Instant) -> bool {
        let best = self.ways.best_besides(self.selected, since);
        if let Some(best) = best {
            self.select(best, now);
        }
        best.is_some()
    }

    fn select(&mut self, via: Via, now: Instant) {
        self.history.note(PathChange::Taken(via), now);
        self.selected = Some(via);
        self.stale = false;
        self.doubt = None;
        if let Some(way) = self.ways.get_mut(via) {
            way.left = None;
        }
        if self.is_best_kind() {
            self.predict.forget();
        }
    }

    fn run_retry(&mut self, facts: &Facts, now: Instant, probes: &mut Vec<Via>) -> bool {
        let Some((at, interval)) = self.retry else {
            return false;
        };
        if now < at || self.is_best_kind() || !is_warm(facts, now) {
            return false;
        }
        let next = (interval * 2).min(RETRY.1);
        self.retry = Some((now + next, next));
        self.predict.schedule(now);
        // Relays, too: which of them is the fastest may have changed, that in use included.
        for (_, way) in self.ways.iter_mut() {
            way.burst.get_or_insert((now, 0));
        }
        if let Some(selected) = self.selected.filter(|via| !probes.contains(via)) {
            probes.push(selected);
        }
        true
    }

    fn run_bursts(&mut self, facts: &Facts, now: Instant, out: &mut Due) {
        if !is_warm(facts, now) {
            return;
        }
        let selected = self.selected;
        let mut budget = self.budget.left(now);
        for (via, way) in self.ways.iter_mut() {
            let Some((since, sent)) = way.burst else {
                continue;
            };
            if Some(*via) == selected || out.probes.contains(via) {
                way.burst = way.burst.filter(|_| Some(*via) != selected);
                continue;
            }
            let due = BURST.iter().filter(|at| since + **at <= now).count();
            if due <= sent {
                continue;
            }
            if !way.is_proven() && !via.is_relay() {
                if budget == 0 {
                    continue;
                }
                budget -= 1;
                self.budget.spend();
            }
            // Late, it is a probe: the peer's own may be under way.
            if due == 1 && way.may_be_shut(*via) {
                out.openers.push(*via);
            } else {
                out.probes.push(*via);
            }
            way.burst = (due < BURST.len()).then_some((since, due));
        }
    }

    fn run_keep(&self, facts: &Facts, now: Instant, probes: &mut Vec<Via>) {
        if let (Some(at), Some(selected)) = (self.keep_due(facts, now), self.selected)
            && at <= now
            && !probes.contains(&selected)
        {
            probes.push(selected);
        }
    }

    /// Looks for the size of packets on the way in use.
    fn run_mtu(&mut self, facts: &Facts, now: Instant, due: &mut Due) {
        let Some((via, way)) = self
            .selected
            .and_then(|via| Some((via, self.ways.get_mut(via)?)))
        else {
            return;
        };
        if self.measured != Some(via) {
            self.measured = Some(via);
            way.mtu.taken(now);
        }
        let mtu = way.mtu.run(via, mtu_facts(way, facts, now), now);
        due.sizes = mtu.sizes;
        due.checked = mtu.checked;
        if mtu.small && !due.probes.contains(&via) {
            due.probes.push(via);
        }
    }

    /// When the way in use needs a packet for its NAT to remember it.
    fn keep_due(&self, facts: &Facts, now: Instant) -> Option<Instant> {
        let selected = self.selected.filter(|via| !via.is_relay())?;
        if !is_warm(facts, now) {
            return None;
        }
        let probed = self.ways.get(selected)?.waiting.last().copied();
        let last = facts
            .sent
            .max(probed)
            .max(self.ways.get(selected)?.answered);
        last.map(|last| last + facts.keep)
    }

    fn is_straight(&self) -> bool {
        self.selected.is_some_and(|via| !via.is_relay())
    }

    /// Whether packets go straight and by UDP: a stream is left like a relay once there is better.
    fn is_best_kind(&self) -> bool {
        self.selected.is_some_and(|via| rank(via) == 0)
    }
}

/// What the search for the size of packets on a way has to know.
fn mtu_facts(way: &Way, facts: &Facts, now: Instant) -> MtuFacts {
    let came = facts
        .received
        .is_some_and(|at| now.saturating_since(at) < WARM);
    let large = facts.large && is_warm(facts, now);
    MtuFacts {
        warm: came || large,
        large,
        patience: way.patience(),
    }
}

/// Whether there was traffic, and is no more.
fn is_idle(facts: &Facts, now: Instant) -> bool {
    facts.traffic.is_some() && !is_warm(facts, now)
}

/// Whether there was traffic lately.
pub(crate) fn is_warm(facts: &Facts, now: Instant) -> bool {
    facts
        .traffic
        .is_some_and(|traffic| now.saturating_since(traffic) < WARM)
}

#[cfg(test)]
mod tests;
