//! Many packets in one: what the kernel hands to a device that can segment, and takes from it
//! (`IFF_VNET_HDR`, `TUNSETOFFLOAD`). A connection's data crosses the kernel's stack in pieces of 64 KiB
//! instead of 1 400 bytes, and costs a tenth of the calls.

mod header;
mod join;
mod split;
mod transport;

pub(super) use header::BYTES as HEADER_BYTES;
use std::io;

use header::Header;
use join::{Joiner, Parts};
use split::{Split, complete};

use super::PacketBatch;

/// The longest that the device gives: its header, and what an IP header can tell.
const INPUT_BYTES: usize = HEADER_BYTES + u16::MAX as usize;

/// A packet as the device gave it, on its way into a batch.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    filled: usize,
    /// If it is several: what was cut off so far.
    split: Option<Split>,
}

/// Whether more can be read from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Left,
    /// Enough for now: one large packet is a batch.
    Used,
}

impl Input {
    /// Where the device's next packet goes.
    pub(super) fn room(&mut self) -> &mut [u8] {
        // Devices without offloads never ask.
        self.bytes.resize(INPUT_BYTES, 0);
        &mut self.bytes
    }

    /// Puts a packet of so many bytes, as it was read, into `batch`; what there is no room for waits for
    /// [`Input::resume`]. A packet that is not as its header says is dropped.
    pub(super) fn take(&mut self, filled: usize, batch: &mut PacketBatch) -> Room {
        self.filled = filled;
        let Some((header, packet)) = self.bytes[..filled].split_first_chunk() else {
            return Room::Left;
        };
        let Some(header) = Header::parse(header) else {
            return Room::Left;
        };
        if let Some(segments) = header.segments {
            self.split = Split::begin(packet, segments, header.checksum)
                .ok()
                .filter(|split| split.next_bytes(packet) <= Some(batch.packet_bytes_max()));
            return self.resume(batch);
        }
        if let Some(slot) = batch.reserve(packet.len()) {
            slot.copy_from_slice(packet);
            if complete(slot, header).is_err() {
                batch.take_back();
            }
        }
        Room::Left
    }

    /// Goes on with a packet that is several.
    pub(super) fn resume(&mut self, batch: &mut PacketBatch) -> Room {
        let Some(split) = &mut self.split else {
            return Room::Left;
        };
        let packet = &self.bytes[HEADER_BYTES..self.filled];
        while let Some(bytes) = split.next_bytes(packet) {
            let Some(slot) = batch.reserve(bytes) else {
                return Room::Used;
            };
            split.write_next(packet, slot);
        }
        self.split = None;
        Room::Used
    }
}

/// Hands packets to `write`, with how many they are; those of a connection that follow each other as one.
pub(super) fn join<'p>(
    packets: impl IntoIterator<Item = &'p [u8]>,
    joins_udp: bool,
    write: &mut impl FnMut(usize, Parts<'_, '_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut joiner = Joiner::new(joins_udp);
    packets
        .into_iter()
        .try_for_each(|packet| joiner.push(packet, write))?;
    joiner.flush(write)
}

/// See [`super::cut_and_join`].
pub(super) fn cut_and_join(given: &[u8]) {
    const BYTES_MAX: usize = 9_000;
    let given = &given[..given.len().min(INPUT_BYTES)];
    let mut batch = PacketBatch::new(64, BYTES_MAX, 0, 0);
    let mut input = Input::default();
    input.room()[..given.len()].copy_from_slice(given);
    input.take(given.len(), &mut batch);
    while !batch.is_empty() {
        let packets: Vec<_> = batch.packets().map(|packet| packet.to_vec()).collect();
        let mut joined = 0;
        let mut write = |count: usize, parts: &[io::IoSlice<'_>]| {
            let bytes: usize = parts.iter().map(|part| part.len()).sum();
            assert!(bytes <= INPUT_BYTES, "no packet is longer");
            joined += count;
            Ok(())
        };
        let each = packets.iter().map(Vec::as_slice);
        join(each, true, &mut write).expect("nothing fails here");
        assert_eq!(joined, packets.len(), "nothing is lost or doubled");
        batch.clear();
        input.resume(&mut batch);
    }
}

#[cfg(test)]
mod tests;
