use std::time::Duration;

use crate::WallTime;

/// How far ahead of the clock stamps are reserved: one write to disk in so long, and no more than that
/// is skipped by a restart.
const AHEAD_OF_CLOCK: Duration = Duration::from_secs(600);

/// How many stamps are reserved at once while the clock is behind the last stamp. One is spent a
/// handshake, so a million outlast any outage, and being a millisecond they cost nothing to skip.
const AHEAD_WHEN_BEHIND: Duration = Duration::from_millis(1);

/// The clock is cut to this many nanoseconds (17 ms), so that a stamp tells little about it.
const CLOCK_GRAIN_NANOS: u64 = 1 << 24;

/// What a responder orders initiations by: nanoseconds since 1970, sent as TAI64N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// Before every stamp: what a machine that never made a handshake starts from.
    pub const ZERO: Self = Self(0);

    /// The stamp `nanos` nanoseconds after 1970, as it was stored.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970, to be stored.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The stamp as TAI64N: seconds since 1970 plus 2^62 and 10, then nanoseconds, both big-endian.
    pub(crate) fn to_tai64n(self) -> [u8; 12] {
        const NANOS: u64 = 1_000_000_000;
        let seconds = (1 << 62) + 10 + self.0 / NANOS;
        let nanos = u32::try_from(self.0 % NANOS).expect("a remainder below 10^9");
        let mut label = [0; 12];
        label[..8].copy_from_slice(&seconds.to_be_bytes());
        label[8..].copy_from_slice(&nanos.to_be_bytes());
        label
    }
}

/// Hands out stamps that always grow, and only those that are reserved on disk.
///
/// After a crash the next process starts above everything reserved, so no stamp is ever sent twice and
/// a clock that goes back locks nobody out.
#[derive(Debug)]
pub(crate) struct Stamps {
    last: Stamp,
    reserved: Stamp,
    /// The reservation that the shell was asked for and has not confirmed.
    asked: Option<Stamp>,
    clock_trusted: bool,
}

impl Stamps {
    /// `floor`: the highest stamp that may have been sent before; nothing above it is reserved yet.
    pub(crate) const fn new(floor: Stamp) -> Self {
        Self {
            last: floor,
            reserved: floor,
            asked: None,
            clock_trusted: true,
        }
    }

    /// The last stamp given.
    pub(crate) const fn last(&self) -> Stamp {
        self.last
    }

    /// Goes on after `last`, which another process of this node gave: not needed as long as the disk kept
    /// what was reserved.
    pub(crate) fn continue_after(&mut self, last: Stamp) {
        self.last = self.last.max(last);
        self.reserved = self.reserved.max(last);
    }

    pub(crate) const fn trust_clock(&mut self, trusted: bool) {
        self.clock_trusted = trusted;
    }

    /// The next stamp, or `None` while it waits for a reservation.
    pub(crate) fn take(&mut self, wall: WallTime) -> Option<Stamp> {
        let next = self.next(wall);
        if next > self.reserved {
            return None;
        }
        self.last = next;
        Some(next)
    }

    /// What to reserve, if a reservation is due and not asked for yet: early enough that a handshake
    /// seldom waits for the disk.
    pub(crate) fn reservation_due(&mut self, wall: WallTime) -> Option<Stamp> {
        let next = self.next(wall);
        let (margin, ahead) = if next == Stamp(self.last.0.saturating_add(1)) {
            (AHEAD_WHEN_BEHIND / 2, AHEAD_WHEN_BEHIND)
        } else {
            (AHEAD_OF_CLOCK / 2, AHEAD_OF_CLOCK)
        };
        let bound = |ahead: Duration| {
            Stamp(
                next.0
                    .saturating_add(u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX)),
            )
        };
        if bound(margin) <= self.reserved || self.asked.is_some_and(|asked| asked >= next) {
            return None;
        }
        self.asked = Some(bound(ahead));
        self.asked
    }

    /// The shell has stored `until`.
    pub(crate) fn reserved(&mut self, until: Stamp) {
        self.reserved = self.reserved.max(until);
        if self.asked.is_some_and(|asked| asked <= until) {
            self.asked = None;
        }
    }

    fn next(&self, wall: WallTime) -> Stamp {
        let after_last = Stamp(self.last.0.saturating_add(1));
        if !self.clock_trusted {
            return after_last;
        }
        Stamp(wall.as_nanos() & !(CLOCK_GRAIN_NANOS - 1)).max(after_last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stamp_is_written_as_tai64n() {
        // 1970 plus 1.5 s.
        let label = Stamp(1_500_000_000).to_tai64n();
        assert_eq!(label[..8], (0x4000_0000_0000_000b_u64).to_be_bytes());
        assert_eq!(label[8..], 500_000_000_u32.to_be_bytes());
    }

    #[test]
    fn no_stamp_is_given_before_it_is_reserved() {
        let wall = WallTime::from_millis(1_700_000_000_000);
        let mut stamps = Stamps::new(Stamp::ZERO);
        assert_eq!(stamps.take(wall), None);
        let until = stamps.reservation_due(wall).unwrap();
        assert_eq!(stamps.reservation_due(wall), None, "asked once");
        assert_eq!(stamps.take(wall), None);
        stamps.reserved(until);
        let first = stamps.take(wall).unwrap();
        assert!(first.as_nanos() <= wall.as_nanos());
        assert!(stamps.take(wall).unwrap() > first);
    }

    #[test]
    fn a_clock_that_went_back_or_is_not_trusted_does_not_hold_stamps_back() {
        let floor = Stamp::from_nanos(1_700_000_000_000_000_000);
        let mut stamps = Stamps::new(floor);
        let long_ago = WallTime::from_millis(1_000);
        let until = stamps.reservation_due(long_ago).unwrap();
        assert!(until.as_nanos() - floor.as_nanos() <= 1_000_001);
        stamps.reserved(until);
        assert_eq!(stamps.take(long_ago), Some(Stamp(floor.0 + 1)));
        stamps.trust_clock(false);
        let far_ahead = WallTime::from_millis(4_000_000_000_000);
        assert_eq!(stamps.take(far_ahead), Some(Stamp(floor.0 + 2)));
    }

    proptest! {
        #[test]
        fn stamps_grow_through_clock_changes_and_crashes(
            steps in prop::collection::vec((0u64..4_000_000_000_000, any::<bool>()), 1..100),
        ) {
            let mut disk = Stamp::ZERO;
            let mut last = Stamp::ZERO;
            let mut stamps = Stamps::new(disk);
            for (millis, crash) in steps {
                let wall = WallTime::from_millis(millis);
                if crash {
                    stamps = Stamps::new(disk);
                }
                if let Some(until) = stamps.reservation_due(wall) {
                    disk = disk.max(until);
                    stamps.reserved(until);
                }
                let stamp = stamps.take(wall).expect("reserved above");
                prop_assert!(stamp > last && stamp <= disk);
                prop_assert!(stamp.to_tai64n() > last.to_tai64n());
                last = stamp;
            }
        }
    }
}
