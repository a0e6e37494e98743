//! How large packets may be on one way, towards the peer: found by echoes of their size inside the session
//! (after RFC 8899, with WireGuard's silence as the rule).
//!
//! ```text
//!             answers: `proven` grows
//!              ┌─────────┐
//!   New ──> Searching ──┴─> Settled ── 10 min ──> Searching, for what is larger
//!              ^               │
//!              └── a proven size stays unanswered and small ones do not: nothing is proven
//! ```
//!
//! Sizes are those of the packets inside the tunnel. Until one is proven, packets of up to [`MTU_BASE`]
//! bytes are promised and those over [`FLOOR`] go in two pieces, so nothing is lost by its size meanwhile.
//! The answer to an echo is small: it proves this direction alone, and the peer proves its own.

use std::time::Duration;

use mesh_types::Instant;

use crate::{Remote, Via};

/// What is promised on every way: the least that IPv6 allows (RFC 8200 section 5).
pub const MTU_BASE: u16 = 1280;

/// The largest that is ever tried: jumbo frames of 9000 bytes, by IPv4.
pub const MTU_MAX: u16 = 9000 - HEADERS_V4;

/// What any IPv6 network carries whole, also through a moon: 1280 without the headers.
pub(crate) const FLOOR: u16 = 1280 - HEADERS_V6 - HEADERS_RELAY;

/// IPv4, UDP, and WireGuard's 32 bytes; IPv6 has 20 more; a moon's frame.
const HEADERS_V4: u16 = 20 + 8 + 32;
const HEADERS_V6: u16 = HEADERS_V4 + 20;
const HEADERS_RELAY: u16 = 20;

/// What usual networks carry, outside: jumbo frames (Ethernet, and what clouds have), Ethernet, PPPoE, tunnels of
/// IPv6 in IPv4 or GRE, Google's cloud, VXLAN, WireGuard, other VPNs, the least of IPv6, the least of IPv4. What lies
/// between is not looked for: the gaps that matter are 2 to 6 percent.
const USUAL: [u16; 14] = [
    9000, 8896, 8500, 3900, 1500, 1492, 1480, 1460, 1450, 1420, 1400, 1380, 1280, 576,
];

/// Those tried first, with [`MTU_BASE`] inside: on nearly every network one round trip settles it.
const FIRST: [u16; 2] = [9000, 1500];

/// How often a size is tried, as an echo or its answer may be lost.
const TRIES: u32 = 3;

/// Sizes above Ethernet's are tried in the first two rounds alone: few networks carry them, and they are many bytes.
const ORDINARY: u16 = 1500;
const ROUNDS_OF_JUMBO: u32 = 1;

/// When larger sizes are tried again (RFC 8899 section 5.1.1, `PMTU_RAISE_TIMER`).
const RAISE: Duration = Duration::from_secs(600);

/// When all is tried again if not even [`MTU_BASE`] was answered: doubled each time, up to [`RAISE`].
const RETRY: Duration = Duration::from_secs(10);

/// How often the proven size is asked for while packets larger than [`FLOOR`] are sent: a size that does not
/// pass any more is found and left within 2 s on round trips of up to 300 ms.
pub(crate) const CHECK: Duration = Duration::from_millis(500);

/// Echoes of the proven size, each with a small one, after one that is overdue.
const SUSPECT: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// Small ones that must be answered before the large ones are held to be too large, not just lost.
const SMALL_ANSWERS_MIN: u32 = 2;

/// What is known of the sizes that one way carries.
#[derive(Debug, Default)]
pub(super) struct Mtu {
    proven: Option<u16>,
    phase: Phase,
    check: Check,
    /// Answers to what was sent before do not count: the way was another then.
    valid_since: Option<Instant>,
    /// How long after a search without any answer the next one begins.
    retry: Option<Duration>,
}

#[derive(Debug, Default)]
enum Phase {
    /// Nothing was tried.
    #[default]
    New,
    /// Sizes are tried: so many rounds are sent, and the next is due.
    Searching { rounds: u32, next: Instant },
    /// The search is over, and is repeated for what is larger.
    Settled { again: Instant },
}

#[derive(Debug, Default)]
enum Check {
    /// No echo is out; the last one was sent then.
    #[default]
    Idle,
    /// One was sent, and is not answered.
    Asked { sent: Instant },
    /// It was answered.
    Confirmed { sent: Instant },
    /// It is overdue: so many of [`SUSPECT`] are sent.
    Suspected {
        since: Instant,
        sent: usize,
        small_answers: u32,
    },
}

/// What the state of a way means for its sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct MtuFacts {
    /// Whether there are packets of programs, not just of agents.
    pub(super) warm: bool,
    /// Whether packets larger than [`FLOOR`] were sent since the last check.
    pub(super) large: bool,
    /// How long an answer may take.
    pub(super) patience: Duration,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct MtuDue {
    /// Echoes of these sizes.
    pub(super) sizes: Vec<u16>,
    /// A small echo.
    pub(super) small: bool,
    /// Large packets are counted from here on.
    pub(super) checked: bool,
}

impl Mtu {
    /// The largest size that was answered; `None`: [`MTU_BASE`] is promised, and [`FLOOR`] goes whole.
    pub(super) const fn proven(&self) -> Option<u16> {
        self.proven
    }

    /// The network changed, or the way does not carry what it did: nothing is proven.
    pub(super) fn reset(&mut self, now: Instant) {
        *self = Self {
            valid_since: Some(now),
            ..Self::default()
        };
    }

    /// Packets take this way from here on. What it carried before is asked for at once.
    pub(super) fn taken(&mut self, now: Instant) {
        if let (Phase::Settled { .. }, Some(_)) = (&self.phase, self.proven) {
            // Overdue, as if it had been sent before.
            self.valid_since = Some(now);
            self.check = Check::Suspected {
                since: now,
                sent: 0,
                small_answers: 0,
            };
        }
    }

    /// A small echo was answered.
    pub(super) fn small_answered(&mut self) {
        if let Check::Suspected { small_answers, .. } = &mut self.check {
            *small_answers += 1;
        }
    }

    /// An echo of this size, sent then, was answered. True if that proves more than was known.
    pub(super) fn answered(&mut self, size: u16, sent: Instant) -> bool {
        if Some(sent) < self.valid_since {
            return false;
        }
        if Some(size) >= self.proven {
            self.check = Check::Confirmed { sent };
        }
        let more = Some(size) > self.proven;
        if more {
            self.proven = Some(size);
        }
        more
    }

    /// Does what is due on the way in use.
    pub(super) fn run(&mut self, via: Via, facts: MtuFacts, now: Instant) -> MtuDue {
        let mut due = MtuDue::default();
        self.run_check(facts, now, &mut due);
        self.run_search(via, facts, now, &mut due);
        due
    }

    /// When there is something to do next on the way in use.
    pub(super) fn due(&self, facts: MtuFacts) -> Option<Instant> {
        let search = match self.phase {
            // Begun by the next run, for which traffic is the reason.
            Phase::New => None,
            Phase::Searching { next, .. } => Some(next),
            Phase::Settled { again } => self.may_search(facts).then_some(again),
        };
        search.into_iter().chain(self.check_due(facts)).min()
    }

    /// A search after the first is for those who send what is large, or have nothing proven.
    const fn may_search(&self, facts: MtuFacts) -> bool {
        facts.warm && (facts.large || self.proven.is_none())
    }

    fn run_search(&mut self, via: Via, facts: MtuFacts, now: Instant, due: &mut MtuDue) {
        let rounds = match self.phase {
            Phase::New if facts.warm => 0,
            Phase::Searching { rounds, next } if now >= next => rounds,
            // What is known is asked for in the first round already.
            Phase::Settled { again } if now >= again && self.may_search(facts) => 1,
            Phase::New | Phase::Searching { .. } | Phase::Settled { .. } => return,
        };
        let sizes: Vec<u16> = sizes(via, rounds == 0)
            .filter(|size| Some(*size) > self.proven)
            .filter(|size| *size <= ORDINARY || rounds <= ROUNDS_OF_JUMBO)
            .collect();
        if sizes.is_empty() || rounds > TRIES {
            let again = match self.proven {
                Some(_) => RAISE,
                None => self.retry.map_or(RETRY, |retry| (retry * 2).min(RAISE)),
            };
            self.retry = self.proven.is_none().then_some(again);
            self.phase = Phase::Settled { again: now + again };
            return;
        }
        due.sizes.extend(sizes);
        self.phase = Phase::Searching {
            rounds: rounds + 1,
            next: now + facts.patience,
        };
    }

    fn run_check(&mut self, facts: MtuFacts, now: Instant, due: &mut MtuDue) {
        let Some(proven) = self.proven.filter(|proven| *proven > FLOOR) else {
            return;
        };
        if self.check_due(facts).is_none_or(|at| at > now) {
            return;
        }
        match &mut self.check {
            Check::Idle | Check::Confirmed { .. } => {
                self.check = Check::Asked { sent: now };
                due.checked = true;
                due.sizes.push(proven);
            }
            Check::Asked { .. } => {
                self.check = Check::Suspected {
                    since: now,
                    sent: 0,
                    small_answers: 0,
                };
                self.run_check(facts, now, due);
            }
            Check::Suspected { since, sent, .. } if *sent < SUSPECT.len() => {
                *sent = SUSPECT
                    .iter()
                    .filter(|offset| *since + **offset <= now)
                    .count();
                due.sizes.push(proven);
                due.small = true;
            }
            Check::Suspected { small_answers, .. } => {
                // The way itself is silent: its doubts are the path agent's.
                if *small_answers < SMALL_ANSWERS_MIN {
                    self.check = Check::Confirmed { sent: now };
                    return;
                }
                self.reset(now);
                // All sizes at once: those tried first are known not to pass.
                self.phase = Phase::Searching {
                    rounds: 1,
                    next: now,
                };
            }
        }
    }

    fn check_due(&self, facts: MtuFacts) -> Option<Instant> {
        self.proven.filter(|proven| *proven > FLOOR)?;
        match &self.check {
            Check::Idle => facts.large.then_some(Instant::ZERO),
            Check::Confirmed { sent } => facts.large.then_some(*sent + CHECK),
            Check::Asked { sent } => Some(*sent + facts.patience),
            Check::Suspected { since, sent, .. } => Some(match SUSPECT.get(*sent) {
                Some(offset) => *since + *offset,
                None => *since + SUSPECT[SUSPECT.len() - 1] + facts.patience,
            }),
        }
    }
}

/// The sizes inside the tunnel that are tried on a way, the largest first.
fn sizes(via: Via, first: bool) -> impl Iterator<Item = u16> {
    let headers = match via {
        Via::Direct(Remote::Udp(endpoint)) if endpoint.is_ipv6() => HEADERS_V6,
        Via::Direct(_) => HEADERS_V4,
        // Whether the moon reaches the peer by IPv6 is not known.
        Via::Relay(_) => HEADERS_V6 + HEADERS_RELAY,
    };
    let outer = if first { &FIRST[..] } else { &USUAL[..] };
    outer
        .iter()
        .map(move |outer| outer - headers)
        .chain([MTU_BASE])
}

#[cfg(test)]
mod tests;
