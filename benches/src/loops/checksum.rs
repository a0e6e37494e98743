//! The internet checksum of a packet.

use std::hint::black_box;

use mesh_types::InternetSum;

use super::{CALLS, Rounds};

/// A packet of the usual way.
pub(super) const BYTES: usize = 1420;

/// The checksum of the same packet again and again, as it is in the cache when its turn comes.
pub(super) struct Checksum {
    packet: Vec<u8>,
    /// What it should be.
    checksum: [u8; 2],
}

impl Default for Checksum {
    fn default() -> Self {
        let packet: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
        let checksum = InternetSum::default().with(&packet).checksum();
        Self { packet, checksum }
    }
}

impl Rounds for Checksum {
    fn run(&mut self) -> u32 {
        let mut done = 0;
        for _ in 0..CALLS {
            let sum = InternetSum::default().with(black_box(&self.packet));
            done += u32::from(sum.checksum() == self.checksum);
        }
        done
    }
}
