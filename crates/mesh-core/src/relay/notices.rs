//! How many notices a moon sends.
//!
//! A notice is shorter than the frame that it answers, so it helps nobody to flood another. The limits
//! keep a flood of frames that are not relayed from costing the moon as much again in sending.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use mesh_types::Instant;

use crate::Remote;

/// Time between notices to one source, and how many at once: a client needs one after the moon has
/// started anew, one for each member that is not there; many clients may share one address.
const INTERVAL_PER_SOURCE_MICROS: u64 = 20_000;
const BURST_PER_SOURCE: u64 = 100;

/// Time between notices to anybody, and how many at once: 10 000 clients of a moon that started anew
/// hear of it within half a second.
const INTERVAL_MICROS: u64 = 50;
const BURST: u64 = 1_000;

/// Places for sources. Two may share one, and then they share the limit too; who can send from addresses
/// of his choice uses up the limit for all as easily, so the choice of the place is no secret.
const SOURCES: usize = 1_024;

/// The limits' state: token buckets, each kept as the microsecond at which it is full again.
pub(super) struct Notices {
    sources: Box<[AtomicU64]>,
    all: AtomicU64,
}

impl Notices {
    pub(super) fn new() -> Self {
        Self {
            sources: (0..SOURCES).map(|_| AtomicU64::new(0)).collect(),
            all: AtomicU64::new(0),
        }
    }

    /// Whether one more notice may go to `to`.
    pub(super) fn admit(&self, to: Remote, now: Instant) -> bool {
        let source = &self.sources[place(to)];
        take(source, INTERVAL_PER_SOURCE_MICROS, BURST_PER_SOURCE, now)
            && take(&self.all, INTERVAL_MICROS, BURST, now)
    }
}

fn take(bucket: &AtomicU64, interval: u64, burst: u64, now: Instant) -> bool {
    let now = now.as_micros();
    bucket
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            (full_at < now.saturating_add(interval * burst))
                .then(|| full_at.max(now).saturating_add(interval))
        })
        .is_ok()
}

/// An IPv6 source is its /64, of which one machine has all addresses.
fn place(source: Remote) -> usize {
    let mut hasher = DefaultHasher::new();
    match source {
        Remote::Udp(endpoint) => match endpoint.ip() {
            IpAddr::V4(address) => address.octets().hash(&mut hasher),
            IpAddr::V6(address) => address.octets()[..8].hash(&mut hasher),
        },
        Remote::Stream(stream) => stream.hash(&mut hasher),
    }
    usize::try_from(hasher.finish() % SOURCES as u64).expect("below the number of places")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn source(number: u32) -> Remote {
        Remote::Udp(SocketAddr::from((Ipv4Addr::from(number), 4193)))
    }

    #[test]
    fn one_source_gets_its_burst_and_then_fifty_a_second() {
        let notices = Notices::new();
        let told = (0..10_000_000)
            .step_by(100)
            .filter(|micros| notices.admit(source(1), Instant::from_micros(*micros)))
            .count();
        assert_eq!(told, 100 + 500);
        assert!(notices.admit(source(2), Instant::from_micros(10_000_000)));
    }

    #[test]
    fn a_flood_from_anywhere_gets_no_more_than_the_moon_spends() {
        let notices = Notices::new();
        let told = (0..1_000_000_u32)
            .filter(|micros| {
                notices.admit(source(*micros), Instant::from_micros(u64::from(*micros)))
            })
            .count();
        assert!((15_000..=21_000).contains(&told), "{told}");
    }
}
