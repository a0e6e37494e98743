//! Room for packets on their way out of the TUN device.

/// Room for many packets, each with free bytes before and after it, so that it can be sealed in place.
///
/// Slots follow each other without gaps: when all packets are full-sized, the sealed datagrams are one
/// contiguous run.
#[derive(Debug)]
pub struct PacketBatch {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    slots: usize,
    head_room: usize,
    packet_bytes_max: usize,
    tail_room: usize,
}

impl PacketBatch {
    /// Room for `slots` packets of at most `packet_bytes_max` bytes with `head_room` bytes before and
    /// `tail_room` bytes after each.
    pub fn new(slots: usize, packet_bytes_max: usize, head_room: usize, tail_room: usize) -> Self {
        Self {
            bytes: vec![0; slots * (head_room + packet_bytes_max + tail_room)],
            lengths: Vec::with_capacity(slots),
            slots,
            head_room,
            packet_bytes_max,
            tail_room,
        }
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The packets, each as its head room, the packet, and its tail room, in one slice: the packet is
    /// `slice[head_room..slice.len() - tail_room]`.
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let room = self.head_room + self.tail_room;
        let stride = room + self.packet_bytes_max;
        self.bytes
            .chunks_exact_mut(stride)
            .zip(&self.lengths)
            .map(move |(slot, length)| &mut slot[..room + length])
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.lengths.clear();
    }

    /// Says that there is a packet of `length` bytes in the free slot.
    pub(super) fn push(&mut self, length: usize) {
        debug_assert!(length <= self.packet_bytes_max, "a slot holds no more");
        self.lengths.push(length);
    }

    /// Where the next packet goes; `None` when all slots are taken.
    pub(super) fn free_slot(&mut self) -> Option<&mut [u8]> {
        let used = self.lengths.len();
        if used == self.slots {
            return None;
        }
        let stride = self.head_room + self.packet_bytes_max + self.tail_room;
        let start = used * stride + self.head_room;
        self.bytes.get_mut(start..start + self.packet_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_each_packet_its_room() {
        let mut batch = PacketBatch::new(2, 8, 3, 2);
        batch.free_slot().unwrap().copy_from_slice(b"12345678");
        batch.push(8);
        batch.free_slot().unwrap()[..2].copy_from_slice(b"ab");
        batch.push(2);
        assert!(batch.free_slot().is_none());
        let packets: Vec<_> = batch.packets().map(|p| p.to_vec()).collect();
        assert_eq!(
            packets,
            [b"\0\0\x0012345678\0\0".to_vec(), b"\0\0\0ab\0\0".to_vec()]
        );
    }
}
