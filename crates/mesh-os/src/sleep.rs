//! Notices that the machine slept.

use std::time::Duration;

use mesh_types::Instant;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::clock;

/// How often the clocks are compared: what the machine missed is made good this soon after it wakes.
/// Sleep does not let the timer run on, so the first look comes within this time of being awake.
const PERIOD: Duration = Duration::from_millis(500);

/// What the clocks may drift apart between two looks without any sleep. A shorter sleep costs no session
/// and no hole in a NAT.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Watches for the difference between the clock that goes on while the machine sleeps and the one that
/// does not.
#[derive(Debug)]
pub struct SleepWatch {
    sleeps: Sleeps,
    interval: Interval,
}

/// How long the machine slept in its life, as far as was looked.
#[derive(Debug, PartialEq, Eq)]
struct Sleeps {
    asleep: Duration,
}

impl SleepWatch {
    /// Watches from now on. Needs a Tokio runtime.
    pub fn new() -> Self {
        let mut interval = interval(PERIOD);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            sleeps: Sleeps::new(clock::now(), clock::awake()),
            interval,
        }
    }

    /// Returns after the machine slept for a second or more, with how long; at most half a second after it
    /// woke. May be cancelled at any time.
    pub async fn slept(&mut self) -> Duration {
        loop {
            self.interval.tick().await;
            if let Some(slept) = self.sleeps.look(clock::now(), clock::awake()) {
                return slept;
            }
        }
    }
}

impl Default for SleepWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Sleeps {
    fn new(now: Instant, awake: Instant) -> Self {
        Self {
            asleep: now.saturating_since(awake),
        }
    }

    fn look(&mut self, now: Instant, awake: Instant) -> Option<Duration> {
        let before = std::mem::replace(self, Self::new(now, awake)).asleep;
        let slept = self.asleep.saturating_sub(before);
        if slept < TOLERANCE {
            // Slow drift is not to be forgotten, nor to add up to a sleep.
            self.asleep = self.asleep.max(before);
            return None;
        }
        Some(slept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    #[test]
    fn a_sleep_is_noticed_once_with_its_length() {
        let mut sleeps = Sleeps::new(at(5_000), at(5_000));
        assert_eq!(sleeps.look(at(5_500), at(5_500)), None);
        let slept = sleeps.look(at(126_000), at(6_000));
        assert_eq!(slept, Some(Duration::from_secs(120)));
        assert_eq!(sleeps.look(at(126_500), at(6_500)), None);
        let slept = sleeps.look(at(129_000), at(7_000));
        assert_eq!(slept, Some(Duration::from_secs(2)));
    }

    #[test]
    fn clocks_that_drift_or_are_read_apart_are_no_sleep() {
        let mut sleeps = Sleeps::new(at(5_000), at(5_003));
        for step in 1..100_000_u64 {
            let now = 5_000 + step * 500;
            // A scheduler that pauses between the two readings, and a drift of 200 ppm.
            let apart = if step % 7 == 0 { 300 } else { 0 };
            assert_eq!(
                sleeps.look(at(now + now / 5_000), at(now + apart)),
                None,
                "{step}"
            );
        }
    }

    #[tokio::test]
    async fn a_machine_that_is_awake_did_not_sleep() {
        let mut watch = SleepWatch::new();
        let slept = tokio::time::timeout(Duration::from_millis(600), watch.slept());
        assert!(slept.await.is_err());
    }
}
