use mesh_types::Instant;

use crate::sync::{AtomicBool, AtomicU64, Ordering, fence};

/// A point in time from which a timer of the engine counts.
///
/// Under traffic it is set and cleared with every packet and its answer. So the engine is not told each
/// time: once it watches, it looks again when its timer runs, and only if nothing is set then does it
/// ask to be told of the next. A busy peer wakes the engine once a timer, not once a packet.
#[derive(Default)]
pub(crate) struct Watched {
    since: Moment,
    watched: AtomicBool,
}

impl Watched {
    /// Sets the point unless one is set; true if the engine has to be told.
    pub(crate) fn start(&self, now: Instant) -> bool {
        if !self.since.set_if_empty(now) {
            return false;
        }
        // Here and in `watch`: of "set, then ask whether watched" and "stop watching, then ask whether set", at least
        // one must see the other.
        fence(Ordering::SeqCst);
        !self.watched.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn clear(&self) {
        self.since.clear();
    }

    pub(crate) fn get(&self) -> Option<Instant> {
        self.since.get()
    }

    /// The point, for the engine's timer. If there is none, and no timer is `armed` to look again, the
    /// next one will be told.
    pub(crate) fn watch(&self, armed: bool) -> Option<Instant> {
        let since = self.since.get();
        if since.is_some() || armed {
            self.watched.store(true, Ordering::Release);
            return since;
        }
        self.watched.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        let since = self.since.get();
        if since.is_some() {
            self.watched.store(true, Ordering::Release);
        }
        since
    }
}

/// A point in time, or none, that threads set without a lock.
pub(crate) struct Moment(AtomicU64);

/// Stands for "none"; the clock ends before it.
const NONE: u64 = u64::MAX;

impl Default for Moment {
    fn default() -> Self {
        Self(AtomicU64::new(NONE))
    }
}

impl Moment {
    pub(crate) fn get(&self) -> Option<Instant> {
        match self.0.load(Ordering::Acquire) {
            NONE => None,
            micros => Some(Instant::from_micros(micros)),
        }
    }

    pub(crate) fn set(&self, now: Instant) {
        self.0.store(now.as_micros(), Ordering::Release);
    }

    /// Sets it unless it is set; true if it was not.
    fn set_if_empty(&self, now: Instant) -> bool {
        self.0.load(Ordering::Relaxed) == NONE
            && self
                .0
                .compare_exchange(NONE, now.as_micros(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    fn clear(&self) {
        if self.0.load(Ordering::Relaxed) != NONE {
            self.0.store(NONE, Ordering::Release);
        }
    }
}
