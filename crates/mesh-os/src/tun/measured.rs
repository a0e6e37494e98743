//! For measurements: what the device's reads and writes do themselves, without a device and its kernel.

use std::io::{self, IoSlice};

use super::{
    PacketBatch,
    offload::{self, Input},
};

/// A packet of up to 64 KiB, as the device gave it.
#[derive(Debug)]
pub struct Large {
    input: Input,
    bytes: usize,
}

impl Large {
    /// `given` is the header of `IFF_VNET_HDR` and the packet. `None`: it is longer than what a device gives.
    pub fn new(given: &[u8]) -> Option<Self> {
        let mut input = Input::default();
        input.room().get_mut(..given.len())?.copy_from_slice(given);
        Some(Self {
            input,
            bytes: given.len(),
        })
    }

    /// Cuts it as [`Queue::recv`](super::Queue::recv) does, once more. Returns the number of packets, which are in
    /// `batch`.
    pub fn cut(&mut self, batch: &mut PacketBatch) -> usize {
        batch.clear();
        self.input.take(self.bytes, batch);
        batch.len()
    }
}

/// Hands packets to `write` as [`Tun::send`](super::Tun::send) hands them to a kernel that takes all there is.
///
/// # Errors
///
/// What `write` gives.
pub fn join<'p>(
    packets: impl IntoIterator<Item = &'p [u8]>,
    mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
) -> io::Result<()> {
    offload::join(packets, true, &mut |_, parts| write(parts))
}
