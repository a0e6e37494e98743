//! What a session remembers of the packets that it took.

use std::hint::black_box;

use mesh_core::ReplayWindow;

use super::{CALLS, Rounds};

/// Counters that a window takes.
pub(super) struct Replay {
    window: ReplayWindow,
    next: u64,
    /// What changes places: 0 nothing, 1 neighbours.
    swap: u64,
}

impl Replay {
    /// Packets that come as they were sent.
    pub(super) fn in_order() -> Self {
        Self {
            window: ReplayWindow::default(),
            next: 0,
            swap: 0,
        }
    }

    /// Packets of which every second overtakes the one before it.
    pub(super) fn swapped() -> Self {
        Self {
            swap: 1,
            ..Self::in_order()
        }
    }
}

impl Rounds for Replay {
    fn run(&mut self) -> u32 {
        let begin = self.next;
        self.next += u64::from(CALLS);
        (begin..self.next)
            .map(|counter| u32::from(self.window.take(black_box(counter ^ self.swap)).is_some()))
            .sum()
    }
}
