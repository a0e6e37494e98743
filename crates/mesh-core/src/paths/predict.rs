//! Ports of NATs that give each destination another one, foretold: where both sides have such a NAT, and both
//! NATs count.
//!
//! ```text
//!    few                two moons of each                many
//!     │ where is this socket? │ │                          │
//!     ├──────────────────────>│ │                          │
//!     │ the next port and the stride, inside the session   │
//!     ├───────────────────────────────────────────────────>│
//!     │                       │ │    where is this socket? │
//!     │                       │ │<─────────────────────────┤
//!     │              the same; 16 openers, to each port    │
//!     │<───────────────────────────────────────────────────┤
//!     │ 9 probes, to every second port                     │
//!     ├───────────────────────────────────────────────────>│
//!     ┆ 500 ms after its first ones each sends its probes once more
//! ```
//!
//! Each probe of a sweep makes a mapping of its own. Let the next port of *few* be `p` and that of *many* `q`,
//! counted in strides. *Few* sends its probe `i` to `q + 2i`, *many* its probe `j` to `p + j`. Where the NATs made
//! `f` and `m` other mappings since the forecasts, these leave from `p + f + i` and `q + m + j`. So each comes
//! from where the other one goes to with `i = f + m` and `j = 2f + m`, always. Nine and sixteen are enough for four
//! other mappings at each NAT.
//!
//! A forecast is as good as it is fresh, so it is made when it is needed and used once. A NAT that does not
//! count gets nothing: 256 probes from one socket would find a random port once in 250 attempts.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mesh_types::Instant;

use super::{Facts, OwnSide, Paths, is_warm, why::SEARCH};
use crate::{Prediction, Reason};

/// Between the ports that two moons see of one socket: a stride, of a NAT that counts. Of two random ports one pair
/// in 4 000 is so near.
const STRIDE_MAX: u32 = 8;

/// How long the moons are given to answer, and the peer. A forecast grows old meanwhile.
const MEASURING_MAX: Duration = Duration::from_secs(1);
const ASKING_MAX: Duration = Duration::from_secs(2);

/// A moon that did not answer is asked again after this, from the same socket: that takes no other port.
const REPEAT: Duration = Duration::from_millis(250);

/// Each side sends its probes again after this: for loss, and because the other side's mappings may have been
/// made only then.
const AGAIN: Duration = Duration::from_millis(500);

/// When all answers have come that come at all.
const LANDED: Duration = Duration::from_millis(1500);

/// Between two forecasts that a peer can ask for: a little less than between two attempts of an honest one.
const ASKED_EVERY: Duration = Duration::from_secs(8);

/// Attempts in one network. Each is at the mercy of what else the NATs do, but six have failed for a reason.
const ATTEMPTS_MAX: u32 = 6;

/// Measurements in a row that show no order. One may have met with a busy moment.
const UNORDERED_MAX: u32 = 2;

/// While another peer's ports are being foretold.
const BUSY: Duration = Duration::from_secs(1);

/// The two parts in an attempt. Which one a side has is settled by the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Begins, and sends few probes, to every second port.
    Few,
    /// Answers, and sends many, to each port.
    Many,
}

impl Part {
    const fn probes(self) -> u16 {
        match self {
            Self::Few => 9,
            Self::Many => 16,
        }
    }

    const fn step(self) -> u16 {
        match self {
            Self::Few => 2,
            Self::Many => 1,
        }
    }

    /// What an attempt may cost: all probes, twice.
    fn cost(self) -> u32 {
        u32::from(self.probes()) * 2
    }
}

/// What a NAT does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forecast {
    /// The endpoint that it gives next.
    pub(crate) next: SocketAddr,
    /// From each port to the next; not 0.
    pub(crate) stride: i8,
}

impl Forecast {
    /// From where two moons see a fresh socket that spoke to one right after the other; `None`: there is no order.
    fn of(first: SocketAddr, second: SocketAddr) -> Option<Self> {
        let distance = i32::from(second.port()) - i32::from(first.port());
        let counts = (1..=STRIDE_MAX).contains(&distance.unsigned_abs());
        let stride = i8::try_from(distance).ok()?;
        let last = Self {
            next: second,
            stride,
        };
        let next = SocketAddr::new(second.ip(), last.port(1)?);
        let same = first.is_ipv4() && first.ip() == second.ip();
        (counts && same).then_some(Self { next, stride })
    }

    /// As a peer tells it.
    pub(crate) fn told(next: SocketAddr, stride: i8) -> Option<Self> {
        let counts = (1..=STRIDE_MAX).contains(&u32::from(stride.unsigned_abs()));
        (counts && next.is_ipv4()).then_some(Self { next, stride })
    }

    /// The one so many after the next; `None`: it would begin from the other end.
    fn port(self, places: u16) -> Option<u16> {
        let port = i32::from(self.next.port()) + i32::from(self.stride) * i32::from(places);
        u16::try_from(port).ok().filter(|port| *port > 0)
    }

    /// Where the other side sends its probes, in their order. All or none: one left out would move the rest.
    fn targets(self, part: Part) -> Option<Vec<SocketAddr>> {
        (0..part.probes())
            .map(|probe| {
                let port = self.port(probe * part.step())?;
                Some(SocketAddr::new(self.next.ip(), port))
            })
            .collect()
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Two moons are to be asked where they see a fresh socket; what they say goes to [`Paths::measured`].
    Measure,
    /// Those of them that have not answered are to be asked again.
    Repeat,
    /// The peer is to be told, and asked if that is wanted.
    Tell {
        id: u64,
        tell_yours: bool,
        forecast: Option<Forecast>,
    },
    /// These are to be probed in this order.
    Sweep {
        targets: Vec<SocketAddr>,
        /// By probes that get past this side's NATs and no further: the other side's know nothing of them yet.
        openers: bool,
    },
}

/// The attempts to foretell the ports of one peer.
#[derive(Debug, Default)]
pub(super) struct Predict {
    /// When one is made, if it is of use.
    at: Option<Instant>,
    state: State,
    /// Since the network changed, or a straight way was found.
    attempts: u32,
    /// Measurements in a row that showed no order.
    unordered: u32,
    /// When the peer last had one made.
    asked: Option<Instant>,
    outcome: Prediction,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Rest,
    /// Two moons are asked. The peer's forecast is here if it asked for this.
    Measuring {
        until: Instant,
        repeat: Instant,
        asked: Option<(u64, Forecast)>,
    },
    /// The peer is asked.
    Asking { until: Instant, id: u64 },
    /// The first probes are sent, the second ones follow if the time for them is not over.
    Swept {
        targets: Vec<SocketAddr>,
        again: Option<Instant>,
        until: Instant,
    },
}

impl Predict {
    /// An attempt is made then: once in each search, and after all probes of it.
    pub(super) fn schedule(&mut self, began: Instant) {
        self.at = Some(began + SEARCH);
    }

    /// Another network, or a straight way: what was found is about something else.
    pub(super) fn forget(&mut self) {
        *self = Self {
            at: self.at,
            asked: self.asked,
            ..Self::default()
        };
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Rest => None,
            State::Measuring { until, repeat, .. } => Some(*until.min(repeat)),
            State::Asking { until, .. } => Some(*until),
            State::Swept { again, until, .. } => Some(again.unwrap_or(*until)),
        };
        self.at.into_iter().chain(state).min()
    }

    pub(super) const fn outcome(&self) -> Prediction {
        self.outcome
    }

    fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    /// Ends an attempt.
    fn end(&mut self, outcome: Prediction) {
        self.unordered = match outcome {
            Prediction::UnorderedHere | Prediction::UnorderedThere => self.unordered + 1,
            Prediction::Pending | Prediction::Unmeasured => self.unordered,
            Prediction::Unanswered | Prediction::Missed { .. } => 0,
        };
        self.outcome = outcome;
        self.state = State::Rest;
    }

    fn missed(&mut self) {
        let before = match self.outcome {
            Prediction::Missed { attempts } => attempts,
            Prediction::Pending
            | Prediction::Unmeasured
            | Prediction::UnorderedHere
            | Prediction::UnorderedThere
            | Prediction::Unanswered => 0,
        };
        let attempts = before.saturating_add(1);
        self.end(Prediction::Missed { attempts });
    }

    /// Does what is due; `may`: whether an attempt is of use.
    fn run(&mut self, may: bool, now: Instant) -> Option<Step> {
        match &mut self.state {
            State::Measuring { until, .. } if *until <= now => self.end(Prediction::Unmeasured),
            State::Measuring { repeat, .. } if *repeat <= now => {
                *repeat = now + REPEAT;
                return Some(Step::Repeat);
            }
            State::Asking { until, .. } if *until <= now => self.end(Prediction::Unanswered),
            State::Swept { targets, again, .. } if again.is_some_and(|at| at <= now) => {
                *again = None;
                return Some(Step::Sweep {
                    targets: targets.clone(),
                    openers: false,
                });
            }
            State::Swept { until, .. } if *until <= now => self.missed(),
            State::Rest | State::Measuring { .. } | State::Asking { .. } | State::Swept { .. } => {}
        }
        self.at.take_if(|at| *at <= now)?;
        let left = self.attempts < ATTEMPTS_MAX && self.unordered < UNORDERED_MAX;
        if !may || !left || !matches!(self.state, State::Rest) {
            return None;
        }
        self.attempts += 1;
        Some(self.measure(None, now))
    }

    fn measure(&mut self, asked: Option<(u64, Forecast)>, now: Instant) -> Step {
        let until = now + MEASURING_MAX;
        self.state = State::Measuring {
            until,
            repeat: now + REPEAT,
            asked,
        };
        Step::Measure
    }

    /// The moons said where they see a fresh socket, or did not.
    fn measured(
        &mut self,
        seen: Option<(SocketAddr, SocketAddr)>,
        own_id: u64,
        now: Instant,
    ) -> (Option<Step>, Option<Step>) {
        let State::Measuring { asked, .. } = self.state else {
            return (None, None);
        };
        let Some((first, second)) = seen else {
            self.end(Prediction::Unmeasured);
            return (None, None);
        };
        let forecast = Forecast::of(first, second);
        let tell = |id| Step::Tell {
            id,
            tell_yours: asked.is_none(),
            forecast,
        };
        match (forecast, asked) {
            (Some(_), None) => {
                let until = now + ASKING_MAX;
                self.state = State::Asking { until, id: own_id };
                (None, Some(tell(own_id)))
            }
            // Its own mappings first: what the peer then sends finds them.
            (Some(_), Some((id, theirs))) => (self.sweep(theirs, Part::Many, now), Some(tell(id))),
            (None, asked) => {
                self.end(Prediction::UnorderedHere);
                (None, asked.map(|(id, _)| tell(id)))
            }
        }
    }

    /// The peer asks, and tells of its NAT.
    fn asked(&mut self, id: u64, theirs: Forecast, now: Instant) -> Option<Step> {
        let lately = self
            .asked
            .is_some_and(|at| now.saturating_since(at) < ASKED_EVERY);
        if lately || !matches!(self.state, State::Rest) {
            return None;
        }
        self.asked = Some(now);
        Some(self.measure(Some((id, theirs)), now))
    }

    /// The peer answers.
    fn answered(&mut self, answer: u64, theirs: Option<Forecast>, now: Instant) -> Option<Step> {
        match (&self.state, theirs) {
            (State::Asking { id, .. }, Some(theirs)) if *id == answer => {
                self.sweep(theirs, Part::Few, now)
            }
            (State::Asking { id, .. }, None) if *id == answer => {
                self.end(Prediction::UnorderedThere);
                None
            }
            (
                State::Asking { .. } | State::Rest | State::Measuring { .. } | State::Swept { .. },
                _,
            ) => None,
        }
    }

    fn sweep(&mut self, theirs: Forecast, part: Part, now: Instant) -> Option<Step> {
        let Some(targets) = theirs.targets(part) else {
            // Its ports begin from the other end.
            self.missed();
            return None;
        };
        self.state = State::Swept {
            targets: targets.clone(),
            again: Some(now + AGAIN),
            until: now + LANDED,
        };
        Some(Step::Sweep {
            targets,
            openers: part == Part::Many,
        })
    }
}

impl Paths {
    /// Does what is due of foretelling ports.
    pub(crate) fn run_predict(
        &mut self,
        part: Part,
        own: impl FnOnce() -> OwnSide,
        facts: &Facts,
        now: Instant,
    ) -> Option<Step> {
        if !self.predict.is_due(now) {
            return None;
        }
        if self.is_best_kind() {
            self.predict.forget();
        }
        if self.is_best_kind() || !facts.session {
            self.predict.at = None;
            self.predict.state = State::Rest;
            return None;
        }
        let may = part == Part::Few
            && is_warm(facts, now)
            && matches!(self.why_relayed(&own(), now), Reason::BothNatsVary { .. })
            && self.budget.left(now) >= part.cost();
        let step = self.predict.run(may, now);
        self.pay(step, now)
    }

    /// Two moons said where they see a fresh socket, or did not. `id` is a random one.
    pub(crate) fn measured(
        &mut self,
        seen: Option<(SocketAddr, SocketAddr)>,
        id: u64,
        now: Instant,
    ) -> impl Iterator<Item = Step> + use<> {
        let (sweep, tell) = self.predict.measured(seen, id, now);
        let sweep = self.pay(sweep, now);
        sweep.into_iter().chain(tell)
    }

    /// Another peer's ports are being foretold, which takes some of this NAT's.
    pub(crate) fn put_off_predict(&mut self, now: Instant) {
        if let State::Measuring { asked: None, .. } = self.predict.state {
            self.predict.attempts -= 1;
            self.predict.at = Some(now + BUSY);
        }
        self.predict.state = State::Rest;
    }

    /// The peer tells what its NAT does next, as an answer or in order to ask.
    pub(crate) fn hear_forecast(
        &mut self,
        (id, asks): (u64, bool),
        theirs: Option<Forecast>,
        facts: &Facts,
        now: Instant,
    ) -> Option<Step> {
        let relayed = self.selected.is_some() && !self.is_best_kind() && !self.relay_only;
        let known = |theirs: &Forecast| self.is_told_at(theirs.next.ip());
        if !relayed || !theirs.as_ref().is_none_or(known) {
            return None;
        }
        if !asks {
            let step = self.predict.answered(id, theirs, now);
            return self.pay(step, now);
        }
        if !is_warm(facts, now) || self.budget.left(now) < Part::Many.cost() {
            return None;
        }
        self.predict.asked(id, theirs?, now)
    }

    /// Whether an attempt is under way for which nothing else is to take ports of this NAT.
    pub(crate) const fn is_foretelling(&self) -> bool {
        match self.predict.state {
            State::Measuring { .. } | State::Asking { .. } => true,
            State::Rest | State::Swept { .. } => false,
        }
    }

    /// Whether this was the target of a sweep, and may answer yet.
    pub(crate) fn is_swept(&self, endpoint: SocketAddr) -> bool {
        match &self.predict.state {
            State::Swept { targets, .. } => targets.contains(&endpoint),
            State::Rest | State::Measuring { .. } | State::Asking { .. } => false,
        }
    }

    /// Whether the peer says that it is at this address.
    pub(super) fn is_told_at(&self, address: IpAddr) -> bool {
        self.ways
            .iter()
            .any(|(via, way)| way.told && via.udp().is_some_and(|at| at.ip() == address))
    }

    /// Nobody may be at the targets of a sweep: it counts as all probes of ways that never answered.
    fn pay(&mut self, step: Option<Step>, now: Instant) -> Option<Step> {
        if let Some(Step::Sweep { targets, .. }) = &step {
            self.budget.left(now);
            for _ in targets {
                self.budget.spend();
            }
        }
        step
    }
}

#[cfg(test)]
mod tests;
