//! What a session remembers of the packets that it took.

use std::hint::black_box;

use mesh_core::ReplayWindow;

use super::{CALLS, Rounds};

/// Packets that come as they were sent.
#[derive(Default)]
pub(super) struct InOrder {
    window: ReplayWindow,
    next: u64,
}

impl Rounds for InOrder {
    fn prepare(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn run(&mut self) -> u32 {
        let begin = self.next;
        self.next += u64::from(CALLS);
        (begin..self.next)
            .map(|counter| u32::from(self.window.take(black_box(counter)).is_some()))
            .sum()
    }
}

/// Packets of which every second overtakes the one before it.
#[derive(Default)]
pub(super) struct Swapped {
    window: ReplayWindow,
    next: u64,
}

impl Rounds for Swapped {
    fn prepare(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn run(&mut self) -> u32 {
        let begin = self.next;
        self.next += u64::from(CALLS);
        (begin..self.next)
            .map(|counter| u32::from(self.window.take(black_box(counter ^ 1)).is_some()))
            .sum()
    }
}
