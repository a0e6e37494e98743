//! For how long the NATs and firewalls in front of this machine hold a mapping that nothing is sent on: how
//! seldom a keepalive does.
//!
//! It begins at [`Hold::BASE`], which every NAT stands. A mapping of its own, which nobody depends on, is
//! left silent for a while, and a moon then knocks at it: what was heard after a silence is held that long.
//! Each silence of [`SILENCES`] is tried in turn, and five sixths of the longest that held are in use. What
//! is in use goes on being watched: a mapping that was lost, by the words of a moon, brings the base back at
//! once.
//!
//! ```text
//!            held                      held
//!   base ───────────> 25 s in use ───────────> … ──> 150 s in use
//!    ↑                     │                             │  a mapping in use was lost
//!    └─────────────────────┴─────────────────────────────┘  the silence that held before is tried again
//! ```
//!
//! There is one for each address family. What was found is for one network: a change forgets it.

use std::time::Duration;

use mesh_types::Instant;

/// What is tried. Each is at most half as long again as the one before, so that five sixths of the longest
/// that holds are more than half of what the NAT holds. Linux holds 30 s, or 120 s after the first packets;
/// RFC 4787 asks for 120 s and recommends 300; sessions of WireGuard last 180.
const SILENCES: [Duration; 6] = [
    Duration::from_secs(30),
    Duration::from_secs(45),
    Duration::from_secs(60),
    Duration::from_secs(90),
    Duration::from_secs(120),
    Duration::from_secs(180),
];

/// A network is looked at once it has been there for so long: who passes through does not measure.
const SETTLED: Duration = Duration::from_secs(60);

/// A silence that did not hold is tried again after this: a knock may be lost. Twice in a row is an answer.
const AGAIN: Duration = Duration::from_secs(20);

/// After an answer that ends the search the next longer silence is tried again: a line has bad days.
const LATER: Duration = Duration::from_secs(3_600);

/// A measurement that came to nothing is repeated after this.
const FAILED: Duration = Duration::from_secs(600);

/// What was in use before a loss is tried again after this, and after four times as long with each further
/// loss, up to [`LATER`]; losses twice that far apart have nothing to do with each other.
const AFTER_LOSS: Duration = Duration::from_secs(10);

/// What is known of one network and one family.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    /// The longest silence that held, as a place in [`SILENCES`].
    held: Option<usize>,
    /// The one to try, from [`Hold::at`] on.
    next: usize,
    at: Instant,
    /// How often in a row it did not hold.
    missed: u32,
    /// Losses in a row, and when the last one was.
    losses: u32,
    lost: Option<Instant>,
}

impl Hold {
    /// Under the 30 s after which the most impatient NATs seen forget a UDP mapping.
    pub(crate) const BASE: Duration = Duration::from_secs(20);

    /// Of a network where this machine is from now on.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            held: None,
            next: 0,
            at: now + SETTLED,
            missed: 0,
            losses: 0,
            lost: None,
        }
    }

    /// The longest silence that was seen to hold.
    pub(crate) fn seen(&self) -> Option<Duration> {
        self.held.map(|held| SILENCES[held])
    }

    /// How long a mapping may be left silent.
    pub(crate) fn interval(&self) -> Duration {
        self.seen().map_or(Self::BASE, |seen| {
            Duration::from_secs(seen.as_secs() * 5 / 6)
        })
    }

    /// The silence that is to be tried, if it is time.
    pub(crate) fn due(&self, now: Instant) -> Option<Duration> {
        SILENCES.get(self.next).filter(|_| now >= self.at).copied()
    }

    /// The silence of [`Hold::due`] held.
    pub(crate) fn held(&mut self, now: Instant) {
        self.held = Some(self.next);
        self.next += 1;
        self.missed = 0;
        self.at = now;
    }

    /// The silence of [`Hold::due`] did not hold.
    pub(crate) fn missed(&mut self, now: Instant) {
        self.missed += 1;
        if self.missed < 2 {
            self.at = now + AGAIN;
            return;
        }
        self.missed = 0;
        let first = self.held.map_or(0, |held| held + 1);
        self.at = now + if self.next > first { AGAIN } else { LATER };
        self.next = first;
    }

    /// It could not be tried: no moon answers, or none knocks.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.at = now + FAILED;
    }

    /// It is to be tried another time.
    pub(crate) fn put_off(&mut self, now: Instant) {
        self.at = now + SETTLED;
    }

    /// A mapping in use was lost.
    pub(crate) fn lost(&mut self, now: Instant) {
        let lately = self
            .lost
            .is_some_and(|at| now.saturating_since(at) < LATER * 2);
        self.losses = if lately { self.losses + 1 } else { 0 };
        self.lost = Some(now);
        let pause = AFTER_LOSS * 4_u32.saturating_pow(self.losses.min(8));
        self.at = now + pause.min(LATER);
        if let Some(held) = self.held.take() {
            self.next = held;
            self.missed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    /// Lets it measure a NAT that holds a mapping for so many seconds, until nothing is tried for ten
    /// minutes.
    fn measure(hold: &mut Hold, holds_seconds: u64, mut now: u64) -> u64 {
        let mut rest = 0;
        while rest < 600 {
            match hold.due(at(now)) {
                None => {
                    rest += 1;
                    now += 1;
                }
                Some(silence) => {
                    rest = 0;
                    now += silence.as_secs() + 5;
                    if silence.as_secs() < holds_seconds {
                        hold.held(at(now));
                    } else {
                        hold.missed(at(now));
                    }
                }
            }
        }
        now
    }

    proptest! {
        #[test]
        fn what_is_found_is_below_what_the_nat_holds_and_above_half_of_it(holds in 21..400_u64) {
            let mut hold = Hold::new(at(0));
            prop_assert_eq!(hold.due(at(59)), None, "it waits until the network has settled");
            measure(&mut hold, holds, 0);
            let found = hold.interval().as_secs();
            prop_assert!(found < holds, "{found} of {holds}");
            prop_assert!(2 * found >= holds.min(300), "{found} of {holds}");
        }

        #[test]
        fn a_nat_that_changes_its_mind_is_followed_both_ways(before in 21..400_u64, after in 21..400_u64) {
            let mut hold = Hold::new(at(0));
            let mut now = measure(&mut hold, before, 0);
            if hold.interval().as_secs() >= after {
                hold.lost(at(now));
                prop_assert_eq!(hold.interval(), Hold::BASE, "at once");
            }
            // Long enough for what ended the search to be tried again.
            for _ in 0..8 {
                now = measure(&mut hold, after, now + 3_600);
            }
            let found = hold.interval().as_secs();
            prop_assert!(2 * found >= after.min(300), "{found} of {after}");
            prop_assert!(found < after, "{found} of {after}");
        }
    }

    #[test]
    fn one_lost_knock_decides_nothing() {
        let mut hold = Hold::new(at(0));
        hold.missed(at(60));
        assert_eq!(hold.due(at(79)), None);
        assert_eq!(hold.due(at(80)), Some(Duration::from_secs(30)));
        hold.held(at(115));
        assert_eq!(hold.interval(), Duration::from_secs(25));
    }

    #[test]
    fn a_loss_that_was_none_costs_one_measurement() {
        let mut hold = Hold::new(at(0));
        let now = measure(&mut hold, 400, 0);
        assert_eq!(hold.interval(), Duration::from_secs(150));
        hold.lost(at(now));
        assert_eq!(hold.interval(), Hold::BASE);
        assert_eq!(hold.due(at(now + 10)), Some(Duration::from_secs(180)));
        hold.held(at(now + 195));
        assert_eq!(hold.interval(), Duration::from_secs(150));
    }

    #[test]
    fn losses_in_a_row_are_followed_ever_more_slowly() {
        let mut hold = Hold::new(at(0));
        let mut now = measure(&mut hold, 400, 0);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            hold.lost(at(now));
            let before = now;
            while hold.due(at(now)).is_none() {
                now += 1;
            }
            pauses.push(now - before);
            hold.held(at(now));
            now += 1;
        }
        assert_eq!(pauses, [10, 40, 160, 640, 2_560, 3_600, 3_600]);
    }
}
