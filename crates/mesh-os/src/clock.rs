//! The clocks: one that only goes forward, and the wall's.

use std::time::{Duration, SystemTime};

use mesh_types::Instant;

/// The monotonic clock, which goes on while the machine sleeps.
///
/// `CLOCK_BOOTTIME` on Linux, `CLOCK_MONOTONIC_RAW` (`mach_continuous_time`) on macOS.
pub fn now() -> Instant {
    read(CONTINUOUS)
}

/// How long it is until `due` by [`now`]; for ever, if nothing is due.
pub fn until(due: Option<Instant>) -> Duration {
    due.map_or(Duration::MAX, |due| due.saturating_since(now()))
}

/// The monotonic clock that stands still while the machine sleeps; only the difference between two of its
/// readings means anything.
///
/// `CLOCK_MONOTONIC` on Linux, `CLOCK_UPTIME_RAW` (`mach_absolute_time`) on macOS.
pub fn awake() -> Instant {
    read(AWAKE)
}

#[cfg(target_os = "linux")]
const CONTINUOUS: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(target_os = "macos")]
const CONTINUOUS: libc::clockid_t = libc::CLOCK_MONOTONIC_RAW;
#[cfg(target_os = "linux")]
const AWAKE: libc::clockid_t = libc::CLOCK_MONOTONIC;
#[cfg(target_os = "macos")]
const AWAKE: libc::clockid_t = libc::CLOCK_UPTIME_RAW;

fn read(clock: libc::clockid_t) -> Instant {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec for the kernel to fill, alive for the whole call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "every supported kernel has this clock");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec / 1000).unwrap_or(0);
    Instant::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// The wall clock. It may jump, both ways.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_clock_goes_forward_in_microseconds() {
        let start = now();
        let start_awake = awake();
        let wall = std::time::Instant::now();
        while wall.elapsed() < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        let passed = now().saturating_since(start);
        assert!(passed >= Duration::from_millis(5), "{passed:?}");
        assert!(passed < Duration::from_secs(5), "{passed:?}");
        assert!(awake().saturating_since(start_awake) >= Duration::from_millis(5));
    }
}
