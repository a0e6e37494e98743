//! One client's own rate.

use std::time::Duration;

use mesh_types::Instant;

/// A client may be this far ahead of its rate: a burst is a window of TCP, and a quarter of a second is a
/// long round trip.
const BURST: Duration = Duration::from_millis(250);

/// The least burst, in bytes, so that a slow rate carries whole datagrams.
const BURST_BYTES_MIN: u64 = 65_536;

/// A token bucket, kept as what is owed: each frame adds its bytes, time pays them off.
///
/// In millionths of a byte, so that a rate in bytes a second times a time in microseconds is exact.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    owed: u64,
    paid_until: Instant,
}

impl Rate {
    /// Whether a frame may pass. One that finds nothing owed always may, however long it is.
    pub(super) fn admits(&mut self, bytes_per_second: u64, now: Instant) -> bool {
        let since = now.saturating_since(self.paid_until);
        self.owed = self.owed.saturating_sub(earned(bytes_per_second, since));
        self.paid_until = self.paid_until.max(now);
        self.owed < earned(bytes_per_second, BURST).max(BURST_BYTES_MIN.saturating_mul(1_000_000))
    }

    /// Charges a frame that passes.
    pub(super) fn charge(&mut self, bytes: u64) {
        self.owed = self.owed.saturating_add(bytes.saturating_mul(1_000_000));
    }
}

fn earned(bytes_per_second: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    bytes_per_second.saturating_mul(micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that pass when frames of `bytes` are offered every `gap` for `time`.
    fn carried(rate: u64, bytes: u64, gap: Duration, time: Duration) -> u64 {
        let mut bucket = Rate::default();
        let mut now = Instant::from_micros(7);
        let end = now + time;
        let mut carried = 0;
        while now < end {
            if bucket.admits(rate, now) {
                bucket.charge(bytes);
                carried += bytes;
            }
            now = now + gap;
        }
        carried
    }

    #[test]
    fn a_client_below_its_rate_loses_nothing() {
        let time = Duration::from_secs(10);
        assert_eq!(
            carried(1_000_000, 1_000, Duration::from_micros(1_000), time),
            10_000_000
        );
    }

    #[test]
    fn a_slow_rate_is_exact_however_short_the_gaps_are() {
        let time = Duration::from_secs(20);
        let bytes = carried(1_000, 100, Duration::from_micros(50), time);
        assert!(
            (20_000..=20_000 + BURST_BYTES_MIN + 100).contains(&bytes),
            "{bytes}"
        );
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_burst_and_rate(
            rate in 1_000..2_000_000_000_u64,
            bytes in 21..65_507_u64,
            gap_micros in 1..5_000_u64,
        ) {
            let time = Duration::from_millis(500);
            let carried = carried(rate, bytes, Duration::from_micros(gap_micros), time);
            let burst = (rate / 4).max(BURST_BYTES_MIN);
            prop_assert!(carried <= burst + rate / 2 + 2 * bytes);
        }

        #[test]
        fn a_clock_that_stands_still_or_goes_back_pays_nothing(micros in prop::collection::vec(0..1_000_u64, 1..200)) {
            let mut bucket = Rate::default();
            let mut carried = 0;
            for at in micros {
                if bucket.admits(1_000, Instant::from_micros(at)) {
                    bucket.charge(10_000);
                    carried += 10_000;
                }
            }
            prop_assert!(carried <= BURST_BYTES_MIN + 10_000);
        }
    }
}
