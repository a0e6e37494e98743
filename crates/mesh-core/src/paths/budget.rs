//! How many probes may go to ways that never answered.

use std::time::Duration;

use mesh_types::Instant;

/// Probes to ways that never answered: this many at once, and then [`PER_SECOND`]. A peer that lies about
/// where it is can make us send that much to somebody else, and no more.
pub(super) const MAX: u32 = 160;
pub(super) const PER_SECOND: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: u32,
    /// When `spent` was last lowered.
    at: Option<Instant>,
}

impl Budget {
    pub(super) fn is_left(&self, now: Instant) -> bool {
        self.refilled(now) < MAX
    }

    /// What is left.
    pub(super) fn left(&mut self, now: Instant) -> u32 {
        let spent = self.refilled(now);
        if spent != self.spent || self.at.is_none() || spent == 0 {
            self.spent = spent;
            self.at = Some(now);
        }
        MAX.saturating_sub(self.spent)
    }

    pub(super) fn spend(&mut self) {
        self.spent += 1;
    }

    pub(super) fn refill(&mut self) {
        self.spent = 0;
    }

    fn refilled(&self, now: Instant) -> u32 {
        let elapsed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_since(at));
        let refill = u32::try_from(elapsed.as_secs())
            .unwrap_or(u32::MAX)
            .saturating_mul(PER_SECOND);
        self.spent.saturating_sub(refill)
    }
}
