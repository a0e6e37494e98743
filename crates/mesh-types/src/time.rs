use std::time::Duration;

/// A point on the monotonic clock that goes on while the machine sleeps, in whole microseconds since
/// an origin of the clock's choosing.
///
/// State machines take it as an argument; only `mesh-os` reads a clock (`CLOCK_BOOTTIME` on Linux,
/// `mach_continuous_time` on macOS). [`std::time::Instant`] does not serve: on Linux it stands still
/// during sleep, and it cannot be made up for a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);

    /// The point `micros` microseconds after the origin.
    #[inline]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    #[inline]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of the clock, half a million years on.
    #[inline]
    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}
