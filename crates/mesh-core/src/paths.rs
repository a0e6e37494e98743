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
//! | doubt in the way in use | silence for [`SILENCE`] or twice the round trip, packets that come another way, a new network |
//! | probes while in doubt | [`DOUBT`]: the way in use, and those that may take its place |
//! | demotion | two probes overdue on it, and an answer on another since the doubt began |
//! | promotion | straight before relayed; else a round trip shorter by a fifth and 2 ms |
//! | a probe to keep a NAT's mapping | [`KEEP`] after the last packet on a straight way, while there is traffic |

use std::{collections::BTreeMap, time::Duration};

use mesh_types::{Instant, WireguardPublicKey};

use crate::{Remote, StreamId, Via};

/// When a way that never answered is probed, after it was heard of. Both sides do so at about the same
/// time, which opens NATs from within: the first probe opens this side's, the second finds the other's
/// open, the rest are for loss and for a peer that hears later.
const BURST: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(900),
    Duration::from_millis(1600),
];

/// Between bursts towards ways that did not answer, while there is traffic and no straight way: doubled
/// each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

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

/// Other straight ways that are probed along with the way in use; relays always are.
const DOUBT_OTHERS: usize = 8;

/// Probes that must be overdue on the way in use before another takes its place.
const OVERDUE_MIN: usize = 2;

/// A probe is overdue after twice the round trip, and no sooner than this after one.
const OVERDUE_SLACK: Duration = Duration::from_millis(100);

/// The round trip of a way that never told it.
const RTT_UNKNOWN: Duration = Duration::from_millis(200);

/// Answers that a way owes after it was demoted, before it is chosen again.
const OWED_AFTER_DEMOTION: u32 = 3;

/// Between probes of a way that owes answers.
const OWED_INTERVAL: Duration = Duration::from_millis(500);

/// Traffic this long ago keeps ways alive; an idle pair costs nothing.
const WARM: Duration = Duration::from_secs(60);

/// Under the 30 s after which the most impatient NATs seen forget a UDP mapping (RFC 4787 wants 120 s).
const KEEP: Duration = Duration::from_secs(20);

/// Ways known at a time. The ones that never answered go first.
const WAYS_MAX: usize = 32;

/// Ports of one address that packets came from: those that answered last, so that one NAT does not fill
/// the table.
const PORTS_HEARD_MAX: usize = 4;

/// Probes to ways that never answered: this many at once, and then [`BUDGET_PER_SECOND`]. A peer that
/// lies about where it is can make us send that much to somebody else, and no more.
const BUDGET_MAX: u32 = 160;
const BUDGET_PER_SECOND: u32 = 2;

/// Unanswered probes that are remembered of one way.
const WAITING_MAX: usize = 8;

/// How a way became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A controller, a peer or the roster told of it.
    Told,
    /// A packet came by it.
    Heard,
    /// A moon relays.
    Moon,
}

/// What is known of one way, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathView {
    /// The way.
    pub via: Via,
    /// How it became known.
    pub origin: Origin,
    /// The smoothed round trip; `None`: it never answered since the network changed.
    pub rtt: Option<Duration>,
    /// When it last answered.
    pub answered: Option<Instant>,
    /// Probes sent since.
    pub unanswered: usize,
    /// Whether packets take it.
    pub selected: bool,
}

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
}

/// What [`Paths::run`] wants done.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// The ways to be probed.
    pub(crate) probes: Vec<Via>,
    /// Whether the peer is to be asked where it is, so that both probe at the same time.
    pub(crate) ask: bool,
}

/// The ways to one peer.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    selected: Option<Via>,
    ways: BTreeMap<Via, Way>,
    doubt: Option<Doubt>,
    /// The silence that was doubted already: it is, once.
    doubted: Option<Instant>,
    /// When doubt last ended well, so that packets that keep coming by another way do not renew it at once.
    cleared: Option<Instant>,
    /// When bursts are sent again, and how long after that once more.
    retry: Option<(Instant, Duration)>,
    /// Whether there was traffic when last looked at.
    warm: bool,
    spent: u32,
    budget_at: Option<Instant>,
}

#[derive(Debug)]
struct Way {
    origin: Origin,
    rtt: Option<Duration>,
    answered: Option<Instant>,
    /// When each probe was sent that was not answered; those before the last answer are forgotten.
    waiting: Vec<Instant>,
    /// Answers to come before it may be chosen.
    owed: u32,
    /// The burst under way: when it began and how many of it are sent.
    burst: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Doubt {
    since: Instant,
    /// Probes of [`DOUBT`] that are sent.
    sent: usize,
}

impl Paths {
    /// The way that packets take.
    pub(crate) fn selected(&self) -> Option<Via> {
        self.selected
    }

    /// Ways that a handshake is tried on, the one in use first.
    pub(crate) fn all(&self) -> impl Iterator<Item = Via> + '_ {
        let others = self.ways.keys().copied();
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
        self.ways
            .iter()
            .filter(|(via, _)| via.udp().is_some_and(|endpoint| endpoint.is_ipv6() == ipv6))
            .min_by_key(|(_, way)| (way.rtt.is_none(), way.rtt))
            .map(|(via, _)| *via)
    }

    /// Hears of a way; true if it is new. It is probed from now on.
    pub(crate) fn learn(&mut self, via: Via, origin: Origin, now: Instant) -> bool {
        if let Some(way) = self.ways.get_mut(&via) {
            // What did not answer before may do so now that the peer speaks of it again.
            if way.rtt.is_none() && way.burst.is_none() && origin != Origin::Moon {
                way.burst = Some((now, 0));
            }
            return false;
        }
        if origin == Origin::Heard {
            self.forget_other_ports(via);
        }
        if self.ways.len() >= WAYS_MAX && !self.forget_one() {
            return false;
        }
        self.ways.insert(via, Way::new(origin, now));
        true
    }

    /// Hears from the peer itself where it is: what was told before and did not answer is no more.
    pub(crate) fn told(&mut self, ways: &[Via], now: Instant) {
        let selected = self.selected;
        self.ways.retain(|via, way| {
            way.is_proven()
                || via.is_relay()
                || way.burst.is_some()
                || Some(*via) == selected
                || ways.contains(via)
        });
        for via in ways {
            self.learn(*via, Origin::Told, now);
        }
    }

    /// Brings the relays in line with the moons that relay for this node.
    pub(crate) fn set_moons(&mut self, moons: &[WireguardPublicKey], now: Instant) {
        let open = |via: &Via| match via {
            Via::Relay(moon) => moons.contains(moon),
            Via::Direct(_) => true,
        };
        self.retain(open);
        for moon in moons {
            self.learn(Via::Relay(*moon), Origin::Moon, now);
        }
    }

    /// Brings the straight ways in line with the streams that there are; true if one is new.
    pub(crate) fn set_streams(&mut self, streams: &[StreamId], now: Instant) -> bool {
        let open = |via: &Via| match via {
            Via::Direct(Remote::Stream(stream)) => streams.contains(stream),
            Via::Direct(Remote::Udp(_)) | Via::Relay(_) => true,
        };
        self.retain(open);
        let mut new = false;
        for stream in streams {
            new |= self.learn(Via::Direct(Remote::Stream(*stream)), Origin::Told, now);
        }
        new
    }

    /// Forgets the ways that are not open, and leaves the one in use if it is among them.
    fn retain(&mut self, open: impl Fn(&Via) -> bool) {
        self.ways.retain(|via, _| open(via));
        if self.selected.is_some_and(|via| !open(&via)) {
            self.selected = None;
            self.select_best(None);
        }
    }

    /// A handshake came through by this way, to the peer and back.
    pub(crate) fn established(&mut self, via: Via, rtt: Option<Duration>, now: Instant) {
        self.learn(via, Origin::Heard, now);
        if let Some(way) = self.ways.get_mut(&via) {
            way.answer(rtt, now);
            way.owed = 0;
        }
        self.selected = Some(via);
        self.doubt = None;
        self.retry = Some((now + RETRY.0, RETRY.0));
        for (other, way) in &mut self.ways {
            if *other != via {
                way.burst = Some((now, 0));
            }
        }
    }

    /// Packets take this way, whatever is proven: of a peer that cannot be probed.
    pub(crate) fn follow(&mut self, via: Via) {
        self.selected = Some(via);
    }

    /// An authentic packet came by another way than the one in use.
    pub(crate) fn heard(&mut self, via: Via, now: Instant) {
        self.learn(via, Origin::Heard, now);
        let lately = self
            .cleared
            .is_some_and(|at| now.saturating_since(at) < SILENCE);
        if self.doubt.is_none() && !lately && self.selected.is_some() {
            self.doubt = Some(Doubt {
                since: now,
                sent: 0,
            });
        }
    }

    /// A probe went out.
    pub(crate) fn probed(&mut self, via: Via, now: Instant) {
        if let Some(way) = self.ways.get_mut(&via) {
            if way.waiting.len() >= WAITING_MAX {
                way.waiting.remove(0);
            }
            way.waiting.push(now);
        }
    }

    /// A probe came back on the way that it went out. True if packets take another way now.
    pub(crate) fn answered(&mut self, via: Via, rtt: Duration, now: Instant) -> bool {
        let Some(way) = self.ways.get_mut(&via) else {
            return false;
        };
        way.answer(Some(rtt), now);
        if self.selected == Some(via) {
            if self.doubt.take().is_some() {
                self.cleared = Some(now);
            }
            return false;
        }
        if self.demote(now) {
            return true;
        }
        let better = match self.selected.and_then(|selected| {
            let current = self.ways.get(&selected)?;
            Some((rank(selected), current.rtt))
        }) {
            None => true,
            Some((class, current)) => {
                let way = &self.ways[&via];
                way.owed == 0
                    && match rank(via).cmp(&class) {
                        std::cmp::Ordering::Less => true,
                        std::cmp::Ordering::Greater => false,
                        std::cmp::Ordering::Equal => match (way.rtt, current) {
                            (Some(new), Some(old)) => {
                                new + (old / 5).max(Duration::from_millis(2)) < old
                            }
                            (_, None) | (None, _) => false,
                        },
                    }
            }
        };
        if better {
            self.select(via);
        }
        better
    }

    /// The machine has another network, or woke up: nothing is proven any more, all is tried at once.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        for way in self.ways.values_mut() {
            way.answered = None;
            way.waiting.clear();
            way.owed = 0;
            way.burst = Some((now, 0));
        }
        self.retry = Some((now + RETRY.0, RETRY.0));
        self.spent = 0;
        self.doubt = self.selected.map(|_| Doubt {
            since: now,
            sent: 0,
        });
    }

    /// Does what is due.
    pub(crate) fn run(&mut self, facts: &Facts, now: Instant) -> Due {
        let mut due = Due::default();
        if !facts.session {
            self.doubt = None;
            return due;
        }
        self.run_warmth(facts, now);
        self.run_doubt(facts, now, &mut due.probes);
        self.demote(now);
        due.ask = self.run_retry(facts, now);
        self.run_bursts(facts, now, &mut due.probes);
        self.run_keep(facts, now, &mut due.probes);
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
                warm && (self.has_budget(now) || way.is_proven() || via.is_relay())
            })
            .filter_map(|(_, way)| way.burst_due())
            .min();
        let retry = self
            .retry
            .filter(|_| warm && !self.is_best_kind())
            .map(|(at, _)| at);
        let keep = self.keep_due(facts, now);
        // What lies in the past is done already, or waits for a fact to change.
        [doubt, bursts, retry, keep, self.cold_due(facts)]
            .into_iter()
            .flatten()
            .map(|at| at.max(now + Duration::from_millis(1)))
            .min()
    }

    /// What is known, for people.
    pub(crate) fn view(&self) -> Vec<PathView> {
        self.ways
            .iter()
            .map(|(via, way)| PathView {
                via: *via,
                origin: way.origin,
                rtt: way.rtt,
                answered: way.answered,
                unanswered: way.waiting.len(),
                selected: self.selected == Some(*via),
            })
            .collect()
    }

    fn run_doubt(&mut self, facts: &Facts, now: Instant, probes: &mut Vec<Via>) {
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
            self.doubt = Some(Doubt {
                since: now,
                sent: 0,
            });
        }
        let Some(doubt) = &mut self.doubt else {
            return;
        };
        let due = DOUBT
            .iter()
            .filter(|offset| doubt.since + **offset <= now)
            .count();
        if due <= doubt.sent {
            let over = doubt.sent >= DOUBT.len();
            if over && now >= doubt.since + DOUBT[DOUBT.len() - 1] + SILENCE_MAX {
                // Nobody answers anywhere: a handshake settles it.
                self.doubt = None;
                self.cleared = Some(now);
            }
            return;
        }
        doubt.sent = due;
        probes.push(selected);
        probes.extend(self.others(selected));
    }

    /// A relayed pair that speaks after a pause looks for a straight way at once. What it heard of during
    /// the pause is tried from here on: an idle pair sends nothing.
    fn run_warmth(&mut self, facts: &Facts, now: Instant) {
        self.run_cold(facts, now);
        let warm = is_warm(facts, now);
        if warm && !self.warm {
            for way in self.ways.values_mut() {
                way.burst = way.burst.map(|_| (now, 0));
            }
            if !self.is_best_kind() {
                self.retry = Some((now, RETRY.0 / 2));
            }
        }
        self.warm = warm;
    }

    /// An idle pair lets its straight way go: a NAT forgets it, and what comes first after a pause is not to
    /// be lost on it. Without a relay there is nothing to fall back on.
    fn run_cold(&mut self, facts: &Facts, now: Instant) {
        if self.cold_due(facts).is_none_or(|at| now < at) {
            return;
        }
        for (via, way) in &mut self.ways {
            if !via.is_relay() {
                way.rtt = None;
                way.burst = None;
            }
        }
        self.retry = Some((now, RETRY.0));
        self.select_best(None);
    }

    fn cold_due(&self, facts: &Facts) -> Option<Instant> {
        let relayed = self
            .ways
            .iter()
            .any(|(via, way)| via.is_relay() && way.is_proven());
        let straight = self.is_straight() && relayed;
        facts.traffic.filter(|_| straight).map(|at| at + WARM)
    }

    /// The ways that may take the place of `selected`: relays, and the straight ones that answered last.
    fn others(&self, selected: Via) -> Vec<Via> {
        let mut straight: Vec<_> = self
            .ways
            .iter()
            .filter(|(via, way)| **via != selected && !via.is_relay() && way.is_proven())
            .map(|(via, way)| (std::cmp::Reverse(way.answered), *via))
            .collect();
        straight.sort_unstable();
        let relays = self
            .ways
            .keys()
            .copied()
            .filter(|via| *via != selected && via.is_relay());
        relays
            .chain(straight.into_iter().take(DOUBT_OTHERS).map(|(_, via)| via))
            .collect()
    }

    fn doubt_due(&self, doubt: &Doubt, now: Instant) -> Option<Instant> {
        let next = DOUBT.get(doubt.sent).map(|offset| doubt.since + *offset);
        let end = doubt.since + DOUBT[DOUBT.len() - 1] + SILENCE_MAX;
        // An answer that is there already may only have to wait for a probe to be overdue.
        let overdue = self.selected.and_then(|via| {
            let way = self.ways.get(&via)?;
            let mut waiting = way.waiting.iter().filter(|sent| **sent >= doubt.since);
            Some(*waiting.nth(OVERDUE_MIN - 1)? + way.patience())
        });
        let overdue = overdue.filter(|at| *at >= now);
        [Some(next.unwrap_or(end)), overdue]
            .into_iter()
            .flatten()
            .min()
    }

    /// Leaves the way in use if it is silent and another is not.
    fn demote(&mut self, now: Instant) -> bool {
        let Some(selected) = self.selected else {
            return self.select_best(None);
        };
        let Some(doubt) = &self.doubt else {
            return false;
        };
        let since = doubt.since;
        let overdue = match self.ways.get(&selected) {
            Some(way) => way.overdue(since, now) >= OVERDUE_MIN,
            None => true,
        };
        if !overdue || !self.select_best(Some(since)) {
            return false;
        }
        if let Some(way) = self.ways.get_mut(&selected) {
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

    /// Chooses the best of the other ways that answered, at or after `since` if given.
    fn select_best(&mut self, since: Option<Instant>) -> bool {
        let best = self
            .ways
            .iter()
            .filter(|(via, way)| {
                Some(**via) != self.selected && way.is_proven() && way.answered >= since
            })
            .filter(|(_, way)| way.answered.is_some())
            .min_by_key(|(via, way)| (rank(**via), way.rtt))
            .map(|(via, _)| *via);
        if let Some(best) = best {
            self.select(best);
        }
        best.is_some()
    }

    fn select(&mut self, via: Via) {
        self.selected = Some(via);
        self.doubt = None;
    }

    fn run_retry(&mut self, facts: &Facts, now: Instant) -> bool {
        let Some((at, interval)) = self.retry else {
            return false;
        };
        if now < at || self.is_best_kind() || !is_warm(facts, now) {
            return false;
        }
        let next = (interval * 2).min(RETRY.1);
        self.retry = Some((now + next, next));
        for (via, way) in &mut self.ways {
            if !via.is_relay() && way.burst.is_none() {
                way.burst = Some((now, 0));
            }
        }
        true
    }

    fn run_bursts(&mut self, facts: &Facts, now: Instant, probes: &mut Vec<Via>) {
        if !is_warm(facts, now) {
            return;
        }
        let selected = self.selected;
        let mut budget = self.budget(now);
        for (via, way) in &mut self.ways {
            let Some((since, sent)) = way.burst else {
                continue;
            };
            if Some(*via) == selected || probes.contains(via) {
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
                self.spent += 1;
            }
            probes.push(*via);
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

    /// When the way in use needs a packet for its NAT to remember it.
    fn keep_due(&self, facts: &Facts, now: Instant) -> Option<Instant> {
        let selected = self.selected.filter(|via| !via.is_relay())?;
        if !is_warm(facts, now) {
            return None;
        }
        let probed = self.ways.get(&selected)?.waiting.last().copied();
        let last = facts
            .sent
            .max(probed)
            .max(self.ways.get(&selected)?.answered);
        last.map(|last| last + KEEP)
    }

    fn is_straight(&self) -> bool {
        self.selected.is_some_and(|via| !via.is_relay())
    }

    /// Whether neither the way in use nor any other has answered for a while.
    pub(crate) fn is_in_doubt(&self) -> bool {
        // The third probe went out 250 ms after the first.
        self.doubt.as_ref().is_some_and(|doubt| doubt.sent >= 3)
    }

    /// Whether packets go straight and by UDP: a stream is left like a relay once there is better.
    fn is_best_kind(&self) -> bool {
        self.selected.is_some_and(|via| rank(via) == 0)
    }

    /// How long the way in use may be silent.
    pub(crate) fn patience(&self) -> Duration {
        let rtt = self
            .selected
            .and_then(|via| self.ways.get(&via)?.rtt)
            .unwrap_or_default();
        (rtt * 2).clamp(SILENCE, SILENCE_MAX)
    }

    fn has_budget(&self, now: Instant) -> bool {
        self.refilled(now) < BUDGET_MAX
    }

    fn refilled(&self, now: Instant) -> u32 {
        let seconds = self
            .budget_at
            .map_or(0, |at| now.saturating_since(at).as_secs());
        let refill = u32::try_from(seconds)
            .unwrap_or(u32::MAX)
            .saturating_mul(BUDGET_PER_SECOND);
        self.spent.saturating_sub(refill)
    }

    /// How many probes may go to ways that never answered.
    fn budget(&mut self, now: Instant) -> u32 {
        let spent = self.refilled(now);
        if spent != self.spent || self.budget_at.is_none() || spent == 0 {
            self.spent = spent;
            self.budget_at = Some(now);
        }
        BUDGET_MAX.saturating_sub(self.spent)
    }

    /// Makes room for another port of an address that packets come from: a NAT may give each packet one of
    /// its own.
    fn forget_other_ports(&mut self, via: Via) {
        let address = via.udp().map(|endpoint| endpoint.ip());
        let mut others: Vec<_> = self
            .ways
            .iter()
            .filter(|(other, way)| {
                way.origin == Origin::Heard
                    && Some(**other) != self.selected
                    && other.udp().map(|endpoint| endpoint.ip()) == address
            })
            .map(|(other, way)| (way.answered, *other))
            .collect();
        others.sort_unstable();
        for (_, other) in others.iter().rev().skip(PORTS_HEARD_MAX - 1) {
            self.ways.remove(other);
        }
    }

    /// Makes room by forgetting the straight way that answered longest ago, or never; false if there is none but
    /// the one in use.
    fn forget_one(&mut self) -> bool {
        // Those under trial go last, and what the peer says after what only came.
        let forgotten = self
            .ways
            .iter()
            .filter(|(via, _)| !via.is_relay() && Some(**via) != self.selected)
            .min_by_key(|(_, way)| {
                let told = way.origin == Origin::Told;
                (way.burst.is_some(), way.answered, told)
            })
            .map(|(via, _)| *via);
        forgotten.is_some_and(|via| self.ways.remove(&via).is_some())
    }
}

impl Way {
    fn new(origin: Origin, now: Instant) -> Self {
        Self {
            origin,
            rtt: None,
            answered: None,
            waiting: Vec::new(),
            owed: 0,
            burst: Some((now, 0)),
        }
    }

    const fn is_proven(&self) -> bool {
        self.rtt.is_some()
    }

    fn answer(&mut self, rtt: Option<Duration>, now: Instant) {
        // RFC 6298's smoothing.
        self.rtt = match (self.rtt, rtt) {
            (Some(old), Some(new)) => Some((old * 7 + new) / 8),
            (old, new) => new.or(old),
        };
        self.answered = Some(now);
        self.waiting.clear();
        self.owed = self.owed.saturating_sub(1);
        self.burst = (self.owed > 0).then_some((now + OWED_INTERVAL, 0));
    }

    fn burst_due(&self) -> Option<Instant> {
        let (since, sent) = self.burst?;
        BURST.get(sent).map(|offset| since + *offset)
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        let rtt = self.rtt.unwrap_or(RTT_UNKNOWN);
        (rtt * 2).max(rtt + OVERDUE_SLACK)
    }

    /// Probes sent since `since` that should have been answered by now.
    fn overdue(&self, since: Instant, now: Instant) -> usize {
        let patience = self.patience();
        self.waiting
            .iter()
            .filter(|sent| **sent >= since && now >= **sent + patience)
            .count()
    }
}

/// Straight ways before streams before relays.
const fn rank(via: Via) -> u8 {
    match via {
        Via::Direct(Remote::Udp(_)) => 0,
        Via::Direct(Remote::Stream(_)) => 1,
        Via::Relay(_) => 2,
    }
}

/// Whether there was traffic lately.
pub(crate) fn is_warm(facts: &Facts, now: Instant) -> bool {
    facts
        .traffic
        .is_some_and(|traffic| now.saturating_since(traffic) < WARM)
}

#[cfg(test)]
mod tests;
