//! Token buckets.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_types::Instant;

/// Sources that are told apart; further ones share what is for all.
const SOURCES_MAX: usize = 4096;

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// At once.
    pub(super) burst: u32,
    /// For good.
    pub(super) a_second: u32,
}

/// Lets something happen at a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    millionths: u64,
    at: Instant,
}

/// A bucket a source.
#[derive(Debug)]
pub(super) struct Buckets {
    rate: Rate,
    by_source: BTreeMap<IpAddr, Bucket>,
}

impl Bucket {
    pub(super) const fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            millionths: Self::full(rate),
            at: now,
        }
    }

    /// Whether it may happen now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        match self.millionths.checked_sub(1_000_000) {
            Some(left) => {
                self.millionths = left;
                true
            }
            None => false,
        }
    }

    /// Takes one back that was no burden.
    pub(super) fn give_back(&mut self) {
        self.millionths = (self.millionths + 1_000_000).min(Self::full(self.rate));
    }

    fn refill(&mut self, now: Instant) {
        let micros = u64::try_from(now.saturating_since(self.at).as_micros()).unwrap_or(u64::MAX);
        let gained = micros.saturating_mul(u64::from(self.rate.a_second));
        self.millionths = self
            .millionths
            .saturating_add(gained)
            .min(Self::full(self.rate));
        self.at = now;
    }

    const fn full(rate: Rate) -> u64 {
        rate.burst as u64 * 1_000_000
    }
}

impl Buckets {
    pub(super) const fn new(rate: Rate) -> Self {
        Self {
            rate,
            by_source: BTreeMap::new(),
        }
    }

    /// The bucket of a source; `None` while too many sources are told apart.
    pub(super) fn of(&mut self, source: IpAddr, now: Instant) -> Option<&mut Bucket> {
        let key = holder_of(source);
        if self.by_source.len() >= SOURCES_MAX && !self.by_source.contains_key(&key) {
            // A full bucket says nothing that a fresh one does not.
            self.by_source.retain(|_, bucket| {
                bucket.refill(now);
                bucket.millionths < Bucket::full(bucket.rate)
            });
            if self.by_source.len() >= SOURCES_MAX {
                return None;
            }
        }
        let rate = self.rate;
        Some(
            self.by_source
                .entry(key)
                .or_insert_with(|| Bucket::new(rate, now)),
        )
    }
}

/// What one party has at least of an address: whoever has an IPv6 address has its /64.
pub(crate) fn holder_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate {
            burst: 3,
            a_second: 2,
        };
        let now = Instant::ZERO;
        let mut bucket = Bucket::new(rate, now);
        assert!((0..3).all(|_| bucket.take(now)));
        assert!(!bucket.take(now));
        assert!(!bucket.take(now + Duration::from_millis(499)));
        assert!(bucket.take(now + Duration::from_millis(500)));
        // A clock that stands still, or a long time, gives no more than the burst.
        let later = now + Duration::from_secs(1_000_000);
        assert_eq!((0..9).filter(|_| bucket.take(later)).count(), 3);
        bucket.give_back();
        assert!(bucket.take(later));
    }

    #[test]
    fn sources_are_told_apart_up_to_a_bound() {
        let rate = Rate {
            burst: 1,
            a_second: 1,
        };
        let now = Instant::ZERO;
        let mut buckets = Buckets::new(rate);
        let source = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..5000 {
            let bucket = buckets.of(source(number), now);
            assert_eq!(bucket.is_some_and(|bucket| bucket.take(now)), number < 4096);
        }
        // Those that behaved for a while make room.
        let later = now + Duration::from_secs(1);
        assert!(buckets.of(source(9999), later).is_some());
        let neighbours = ["2001:db8::1", "2001:db8::2"].map(|ip| ip.parse().unwrap());
        assert!(buckets.of(neighbours[0], later).unwrap().take(later));
        assert!(!buckets.of(neighbours[1], later).unwrap().take(later));
    }
}
