//! When to try a controller again.

use std::time::Duration;

use rand::Rng;

/// The shortest wait, so that a controller that hangs up at once is not hammered.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// The longest wait while no controller is connected: rosters and introductions hang on one.
const WAIT_MAX_ALONE: Duration = Duration::from_secs(5);

/// The longest wait while another controller is connected.
const WAIT_MAX_SERVED: Duration = Duration::from_secs(60);

/// Counts failures in a row, and says how long to wait before the next attempt.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure, between 1 s and a bound that doubles up to 5 s, or up to 60 s
    /// while another controller is connected (`served`). Spread evenly, so that a fleet that lost its
    /// controller does not come back all at once.
    pub(crate) fn next_wait(&mut self, served: bool, random: &mut impl Rng) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = WAIT_MIN.saturating_mul(2_u32.saturating_pow(self.failures));
        let longest = if served {
            WAIT_MAX_SERVED
        } else {
            WAIT_MAX_ALONE
        };
        random.gen_range(WAIT_MIN..=doubled.min(longest))
    }

    /// Forgets the failures, after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn waits_stay_within_their_bounds_and_spread() {
        let mut random = StdRng::seed_from_u64(1);
        for (served, longest) in [(false, WAIT_MAX_ALONE), (true, WAIT_MAX_SERVED)] {
            let mut backoff = Backoff::default();
            assert!(backoff.next_wait(served, &mut random) <= 2 * WAIT_MIN);
            let waits: Vec<_> = (0..1_000)
                .map(|_| backoff.next_wait(served, &mut random))
                .collect();
            assert!(waits.iter().all(|wait| (WAIT_MIN..=longest).contains(wait)));
            assert!(waits.iter().any(|wait| *wait > longest * 9 / 10));
            backoff.reset();
            assert!(backoff.next_wait(served, &mut random) <= 2 * WAIT_MIN);
        }
    }
}
