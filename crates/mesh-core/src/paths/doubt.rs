//! Doubt in the way in use, and what comes of it.

use std::time::Duration;

use mesh_types::Instant;

use super::{Facts, Origin, PathChange, Paths, RETRY, is_warm, table::OWED_INTERVAL};
use crate::Via;

/// How long traffic goes unanswered before the way in use is doubted, at least.
const SILENCE: Duration = Duration::from_millis(500);

/// And at most, however long its round trip.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// When the way in use is probed, after doubt began, and those with it that may take its place. The peer
/// hears of the doubt by these, and looks at its own way.
const DOUBT: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(1500),
    Duration::from_millis(2500),
    Duration::from_millis(4500),
];

/// Probes of [`DOUBT`] after which a doubt is more than a lost packet: the third goes out 250 ms after the
/// first.
const DOUBT_SERIOUS: usize = 3;

/// Probes that must be overdue on the way in use before another takes its place.
const OVERDUE_MIN: usize = 2;

/// Answers that a way owes after it was demoted, before it is chosen again.
const OWED_AFTER_DEMOTION: u32 = 3;

/// The way in use may not serve any more.
#[derive(Debug)]
pub(super) struct Doubt {
    since: Instant,
    /// Probes of [`DOUBT`] that are sent.
    sent: usize,
    /// The peer seems to doubt: others are probed once one probe on the way in use is overdue. As the peer hears of
    /// these, and doubts its own way in turn, two who doubted for nothing would never end.
    only_heard: bool,
}

impl Doubt {
    pub(super) const fn begin(now: Instant) -> Self {
        Self {
            since: now,
            sent: 0,
            only_heard: false,
        }
    }
}

impl Paths {
    /// An authentic packet came by another way than the one in use. Without traffic that is no reason for doubt: requests
    /// to a moon go their own way.
    pub(crate) fn heard(&mut self, via: Via, facts: &Facts, now: Instant) {
        if self.is_closed(via) {
            return;
        }
        self.learn(via, Origin::Heard, now);
        let lately = self
            .cleared
            .is_some_and(|at| now.saturating_since(at) < SILENCE);
        if let Some(doubt) = &self.doubt
            && let Some(way) = self.ways.get_mut(via)
            && !doubt.only_heard
            && way.answered < Some(doubt.since)
        {
            // It may have been the peer's turn first: this way's turn may be seconds away.
            way.burst.get_or_insert((now, 0));
        }
        if self.doubt.is_none() && !lately && self.selected.is_some() && is_warm(facts, now) {
            self.history.note(PathChange::Heard(via), now);
            self.doubt = Some(Doubt {
                only_heard: true,
                ..Doubt::begin(now)
            });
        }
    }

    /// Begins to doubt, and probes what is due.
    pub(super) fn run_doubt(&mut self, facts: &Facts, now: Instant, probes: &mut Vec<Via>) {
        let Some(selected) = self.selected else {
            self.doubt = None;
            return;
        };
        let patience = self.patience();
        if self.doubt.is_none()
            && let Some(since) = facts.silent_since
            && self.doubted != Some(since)
            && now >= since + patience
        {
            self.doubted = Some(since);
            self.doubt = Some(Doubt::begin(now));
        }
        let Some(doubt) = &mut self.doubt else {
            return;
        };
        let way = self.ways.get(selected);
        let is_overdue = way.is_none_or(|way| way.overdue(doubt.since, now) > 0);
        let was_only_heard = doubt.only_heard;
        doubt.only_heard &= !is_overdue;
        let due = DOUBT
            .iter()
            .filter(|offset| doubt.since + **offset <= now)
            .count();
        let is_due = due > doubt.sent;
        if is_due {
            if doubt.sent < DOUBT_SERIOUS && due >= DOUBT_SERIOUS {
                self.history.note(PathChange::Unanswered(selected), now);
            }
            doubt.sent = due;
            probes.push(selected);
        }
        if !doubt.only_heard && (is_due || was_only_heard) {
            probes.extend(self.ways.others(selected));
        }
        let end = doubt.since + DOUBT[DOUBT.len() - 1] + SILENCE_MAX;
        if !is_due && due >= DOUBT.len() && now >= end {
            // Nobody answers anywhere: a handshake settles it.
            self.doubt = None;
            self.cleared = Some(now);
        }
    }

    /// When a doubt has something to do next.
    pub(super) fn doubt_due(&self, doubt: &Doubt, now: Instant) -> Option<Instant> {
        let next = DOUBT.get(doubt.sent).map(|offset| doubt.since + *offset);
        let end = doubt.since + DOUBT[DOUBT.len() - 1] + SILENCE_MAX;
        // An answer that is there already may only have to wait for a probe to be overdue.
        let count = if doubt.only_heard { 1 } else { OVERDUE_MIN };
        let overdue = self.selected.and_then(|via| {
            let way = self.ways.get(via)?;
            let mut waiting = way.waiting.iter().filter(|sent| **sent >= doubt.since);
            Some(*waiting.nth(count - 1)? + way.patience())
        });
        let overdue = overdue.filter(|at| *at >= now);
        [Some(next.unwrap_or(end)), overdue]
            .into_iter()
            .flatten()
            .min()
    }

    /// Leaves the way in use if it is silent and another is not.
    pub(super) fn demote(&mut self, now: Instant) -> bool {
        let Some(selected) = self.selected else {
            return self.select_best(None, now);
        };
        let Some(doubt) = &self.doubt else {
            return false;
        };
        let since = doubt.since;
        let overdue = match self.ways.get(selected) {
            Some(way) => way.overdue(since, now) >= OVERDUE_MIN,
            None => true,
        };
        if !overdue
            || self
                .ways
                .best_besides(Some(selected), Some(since))
                .is_none()
        {
            return false;
        }
        self.history.note(PathChange::Left(selected), now);
        self.select_best(Some(since), now);
        if let Some(way) = self.ways.get_mut(selected) {
            // One that did not answer since the network changed has not stopped to.
            way.left = way.answered.map(|_| now);
            way.rtt = None;
            way.owed = OWED_AFTER_DEMOTION;
            way.burst = Some((now + OWED_INTERVAL, 0));
        }
        // From one relay to another: the search for a straight way goes on as it was.
        if !selected.is_relay() {
            self.retry = Some((now + RETRY.0, RETRY.0));
        }
        true
    }

    /// Whether neither the way in use nor any other has answered for a while.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubt
            .as_ref()
            .is_some_and(|doubt| doubt.sent >= DOUBT_SERIOUS)
    }

    /// A moon serves, or does so by another way: who does not answer may do so by it, and is not left until its next
    /// turn.
    pub(crate) fn probe_by_moons(&mut self) {
        if let Some(doubt) = &mut self.doubt {
            doubt.sent = doubt.sent.saturating_sub(1);
        }
    }

    /// How long the way in use may be silent.
    pub(crate) fn patience(&self) -> Duration {
        let rtt = self
            .selected
            .and_then(|via| self.ways.get(via)?.rtt)
            .unwrap_or_default();
        (rtt * 2).clamp(SILENCE, SILENCE_MAX)
    }
}
