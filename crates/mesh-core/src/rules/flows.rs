//! The flows that are remembered: so many and no more, without a lock.

use std::{
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_types::Instant;
use siphasher::sip::SipHasher13;

use super::flow::Flow;
use crate::packet::protocol::TCP;

/// A flow has so many places, of which that one is taken which was silent longest.
const PLACES: usize = 8;

/// A power of two; with [`PLACES`] 32 768 flows in 400 KiB, made when the first is noted.
const SETS: usize = 4096;

/// The most that are remembered.
pub(crate) const FLOWS_MAX: usize = SETS * PLACES;

/// A silent TCP connection is one for a day: a shell over night. RFC 5382 wants two hours at least, of machines that serve
/// thousands of networks.
const TCP_LASTS: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything else for five minutes (RFC 4787 section 4.3).
const OTHERS_LAST: Duration = Duration::from_secs(5 * 60);

/// What another process of this node remembered: hashes, each with when something was last seen of its flow, in seconds of
/// the monotonic clock.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowsRecord {
    pub(crate) keys: [u64; 2],
    pub(crate) ours: Vec<(u64, u32)>,
    pub(crate) theirs: Vec<(u64, u32)>,
}

/// Flows by keyed hashes of 64 bits. Two have the same once in 2^64, and who does not know the key cannot make them; so the
/// hash stands for the flow.
pub(super) struct Flows {
    keys: [AtomicU64; 2],
    sets: OnceLock<Box<[Set]>>,
}

/// What a flow is known by.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    hash: u64,
    lasts_seconds: u64,
}

struct Set {
    /// 0: a place that is free.
    hashes: [AtomicU64; PLACES],
    /// When something was last seen of each, in seconds of the monotonic clock.
    seen: [AtomicU32; PLACES],
}

impl Flows {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        let word = |offset: usize| {
            let bytes: &[u8; 8] = seed[offset..].first_chunk().expect("32 bytes");
            u64::from_le_bytes(*bytes)
        };
        Self {
            keys: [word(0), word(8)].map(AtomicU64::new),
            sets: OnceLock::new(),
        }
    }

    pub(super) fn keys(&self) -> [u64; 2] {
        let [one, other] = &self.keys;
        [one, other].map(|key| key.load(Ordering::Relaxed))
    }

    /// All hashes, each with when something was last seen of its flow.
    pub(super) fn record(&self) -> Vec<(u64, u32)> {
        let sets = self.sets.get().into_iter().flatten();
        let places = sets.flat_map(|set| set.hashes.iter().zip(&set.seen));
        places
            .map(|(hash, seen)| (hash.load(Ordering::Relaxed), seen.load(Ordering::Relaxed)))
            .filter(|(hash, _)| *hash != 0)
            .collect()
    }

    /// The opposite of [`Self::record`], before a flow is noted.
    pub(super) fn restore(&self, keys: [u64; 2], flows: &[(u64, u32)]) {
        for (own, key) in self.keys.iter().zip(keys) {
            own.store(key, Ordering::Relaxed);
        }
        for (hash, seen) in flows.iter().filter(|(hash, _)| *hash != 0) {
            self.put(*hash, *seen);
        }
    }

    /// The mark of a flow, in all tables with the same keys.
    pub(super) fn mark(&self, flow: &Flow) -> Mark {
        Mark {
            hash: self.hash(flow),
            lasts_seconds: match flow.protocol {
                TCP => TCP_LASTS,
                _ => OTHERS_LAST,
            }
            .as_secs(),
        }
    }

    /// Whether it is remembered.
    pub(super) fn knows(&self, mark: Mark, now: Instant) -> bool {
        self.find(mark, now).is_some()
    }

    /// Whether it is remembered; it is for longer then.
    pub(super) fn renews(&self, mark: Mark, now: Instant) -> bool {
        let found = self.find(mark, now);
        if let Some((set, place)) = found {
            set.renew(place, seconds(now));
        }
        found.is_some()
    }

    /// Remembers it.
    pub(super) fn note(&self, mark: Mark, now: Instant) {
        self.put(mark.hash, seconds(now));
    }

    fn put(&self, hash: u64, now: u32) {
        let sets = self
            .sets
            .get_or_init(|| (0..SETS).map(|_| Set::new()).collect());
        let set = &sets[index(hash)];
        if let Some(place) = set.place(hash) {
            return set.renew(place, now);
        }
        // Two threads may both find no place of it and take one each; the second is never found and grows old.
        let first = first_place(hash);
        let places = (0..PLACES).map(|place| (first + place) % PLACES);
        let oldest = places.min_by_key(|place| {
            let is_taken = set.hashes[*place].load(Ordering::Relaxed) != 0;
            (is_taken, set.seen[*place].load(Ordering::Relaxed))
        });
        let place = oldest.expect("there are some");
        set.seen[place].store(now, Ordering::Relaxed);
        set.hashes[place].store(hash, Ordering::Relaxed);
    }

    fn find(&self, mark: Mark, now: Instant) -> Option<(&Set, usize)> {
        let sets = self.sets.get()?;
        let set = &sets[index(mark.hash)];
        let place = set.place(mark.hash)?;
        let silent = seconds(now).saturating_sub(set.seen[place].load(Ordering::Relaxed));
        (u64::from(silent) <= mark.lasts_seconds).then_some((set, place))
    }

    fn hash(&self, flow: &Flow) -> u64 {
        let address = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        // In one piece, which takes a third of the time of piece by piece. Mapped addresses are never in a packet that came here
        // by IPv6: they are nobody's.
        let mut bytes = [0; 37];
        bytes[..16].copy_from_slice(&address(flow.local));
        bytes[16..32].copy_from_slice(&address(flow.remote));
        bytes[32..34].copy_from_slice(&flow.local_port.to_be_bytes());
        bytes[34..36].copy_from_slice(&flow.remote_port.to_be_bytes());
        bytes[36] = flow.protocol;
        let [one, other] = self.keys();
        let hash = SipHasher13::new_with_keys(one, other).hash(&bytes);
        // 0 is nobody's.
        hash.max(1)
    }
}

impl Set {
    fn new() -> Self {
        Self {
            hashes: std::array::from_fn(|_| AtomicU64::new(0)),
            seen: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    fn place(&self, hash: u64) -> Option<usize> {
        let mut hashes = self.hashes.iter();
        hashes.position(|place| place.load(Ordering::Relaxed) == hash)
    }

    /// Written once a second, so that threads do not take the line from each other.
    fn renew(&self, place: usize, now: u32) {
        let seen = &self.seen[place];
        if seen.load(Ordering::Relaxed) != now {
            seen.store(now, Ordering::Relaxed);
        }
    }
}

/// The lowest bits choose the set.
fn index(hash: u64) -> usize {
    let bits = hash % u64::try_from(SETS).expect("a small number");
    usize::try_from(bits).expect("below the number of sets")
}

/// Of places whose flows are equally old, the first from here on is taken: else one place would be taken all the time
/// when many flows begin in one second.
fn first_place(hash: u64) -> usize {
    index(hash >> 32) % PLACES
}

fn seconds(now: Instant) -> u32 {
    u32::try_from(now.as_micros() / 1_000_000).unwrap_or(u32::MAX)
}
