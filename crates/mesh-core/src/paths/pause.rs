//! What a pause in the traffic does to the ways, and its end.

use mesh_types::Instant;

use super::{Facts, PathChange, Paths, RETRY, WARM, is_warm};

impl Paths {
    /// A relayed pair that speaks after a pause looks for a straight way at once. What it heard of during
    /// the pause is tried from here on: an idle pair sends nothing. A straight way that was kept over the pause, as
    /// there was no relay to fall back on, may be one that a NAT has forgotten: true if a handshake is to tell.
    pub(super) fn run_warmth(&mut self, facts: &Facts, now: Instant) -> bool {
        self.run_cold(facts, now);
        let warm = is_warm(facts, now);
        let mut handshake = false;
        if warm && !self.warm {
            handshake = self.has_kept_a_way(now);
            self.stale = handshake;
            for (_, way) in self.ways.iter_mut() {
                way.burst = way.burst.map(|_| (now, 0));
                // What it did before the pause says nothing of now.
                way.owed = 0;
            }
            if !self.is_best_kind() {
                self.retry = Some((now, RETRY.0 / 2));
                self.begin_search(now);
            }
        }
        self.warm = warm;
        handshake
    }

    /// Whether a straight way is in use that has not answered for as long as a pause lasts.
    fn has_kept_a_way(&self, now: Instant) -> bool {
        let way = self.selected.filter(|via| !via.is_relay());
        let answered = way.map(|via| self.ways.get(via).and_then(|way| way.answered));
        answered.is_some_and(|at| at.is_none_or(|at| now.saturating_since(at) >= WARM))
    }

    /// Whether a handshake is to go by all ways, and not only by the one in use.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// An idle pair lets its straight way go: a NAT forgets it, and what comes first after a pause is not to
    /// be lost on it. Without a relay there is nothing to fall back on.
    fn run_cold(&mut self, facts: &Facts, now: Instant) {
        if self.cold_due(facts).is_none_or(|at| now < at) {
            return;
        }
        for (via, way) in self.ways.iter_mut() {
            if !via.is_relay() {
                way.rtt = None;
                way.burst = None;
            }
        }
        self.retry = Some((now, RETRY.0));
        if let Some(selected) = self.selected {
            self.history.note(PathChange::LetGo(selected), now);
        }
        if let Some(relay) = self.ways.best_relay() {
            self.select(relay, now);
        }
    }

    /// When it does so.
    pub(super) fn cold_due(&self, facts: &Facts) -> Option<Instant> {
        let may_let_go = self.is_straight() && self.ways.best_relay().is_some();
        facts.traffic.filter(|_| may_let_go).map(|at| at + WARM)
    }
}
