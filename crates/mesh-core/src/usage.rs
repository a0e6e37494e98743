use std::sync::PoisonError;

use crate::{
    replay::{Order, ReplayWindow},
    sync::{AtomicBool, AtomicU64, Mutex, Ordering},
};

/// What threads change of a session: which numbers its packets have, and whether it goes on.
pub(crate) struct Usage {
    /// The number of the next packet that is sealed.
    next: AtomicU64,
    /// One thread opens what comes from one place, so this lock is free when it is taken.
    window: Mutex<ReplayWindow>,
    /// The peer has proven to hold the keys.
    confirmed: AtomicBool,
    /// Taken away: what still holds the session may not use it.
    retired: AtomicBool,
}

impl Usage {
    pub(crate) fn new(next: u64, window: ReplayWindow, confirmed: bool) -> Self {
        Self {
            next: AtomicU64::new(next),
            window: Mutex::new(window),
            confirmed: AtomicBool::new(confirmed),
            retired: AtomicBool::new(false),
        }
    }

    /// A number that nobody else gets.
    pub(crate) fn take_number(&self) -> u64 {
        // Relaxed is enough: what matters is that no two calls get one number.
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the next packet.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Takes the number of an authentic packet; `None` if it was taken before, is too old to tell, or belongs to the
    /// process that follows.
    pub(crate) fn accept(&self, number: u64) -> Option<Order> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at once more: after `record` took the lock the window is another's.
        match self.retired.load(Ordering::Relaxed) {
            true => None,
            false => window.take(number),
        }
    }

    /// Notes that an authentic packet came; true for the first where the peer had not proven anything.
    pub(crate) fn confirm(&self) -> bool {
        !self.is_confirmed() && !self.confirmed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    /// Ends it for everyone who holds it.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The number of the next packet and the numbers that were taken, for the process that follows, to which they belong
    /// from here on. Threads that are just sealing may still take a number.
    pub(crate) fn record(&self) -> (u64, ReplayWindow) {
        self.retire();
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        (self.next.fetch_add(0, Ordering::AcqRel), window.clone())
    }

    #[cfg(test)]
    pub(crate) fn set_next(&self, next: u64) {
        self.next.store(next, Ordering::Relaxed);
    }
}
