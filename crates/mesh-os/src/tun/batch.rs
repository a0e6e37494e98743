//! Room for packets on their way out of the TUN device.

/// Room for many packets, each with free bytes before and after it, so that it can be sealed in place.
///
/// They follow each other without gaps, so a batch of small ones touches little memory.
#[derive(Debug)]
pub struct PacketBatch {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    /// Where the next one's room begins.
    used: usize,
    slots: usize,
    head_room: usize,
    packet_bytes_max: usize,
    tail_room: usize,
    /// What the device gave last, if that is more than one packet.
    #[cfg(target_os = "linux")]
    pub(super) input: super::offload::Input,
}

impl PacketBatch {
    /// Room for `slots` packets of at most `packet_bytes_max` bytes with `head_room` bytes before and
    /// `tail_room` bytes after each.
    pub fn new(slots: usize, packet_bytes_max: usize, head_room: usize, tail_room: usize) -> Self {
        Self {
            bytes: vec![0; slots * (head_room + packet_bytes_max + tail_room)],
            lengths: Vec::with_capacity(slots),
            used: 0,
            slots,
            head_room,
            packet_bytes_max,
            tail_room,
            #[cfg(target_os = "linux")]
            input: super::offload::Input::default(),
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
        let mut rest = &mut self.bytes[..];
        self.lengths.iter().map(move |length| {
            rest.split_off_mut(..room + length)
                .expect("a length counts only with its room")
        })
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.lengths.clear();
        self.used = 0;
    }

    /// Says that there is a packet of `length` bytes in the free slot.
    pub(super) fn push(&mut self, length: usize) {
        debug_assert!(length <= self.packet_bytes_max, "a slot holds no more");
        self.lengths.push(length);
        self.used += self.head_room + length + self.tail_room;
    }

    /// Where the next packet goes; `None` when all slots are taken.
    pub(super) fn free_slot(&mut self) -> Option<&mut [u8]> {
        if self.lengths.len() == self.slots {
            return None;
        }
        let start = self.used + self.head_room;
        self.bytes.get_mut(start..start + self.packet_bytes_max)
    }
}

/// For packets whose lengths are known before they are there.
#[cfg(any(test, target_os = "linux"))]
impl PacketBatch {
    /// The longest packet that it takes.
    pub(super) const fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    /// Adds a packet of `length` bytes and returns its place; `None` if there is no room for it.
    pub(super) fn reserve(&mut self, length: usize) -> Option<&mut [u8]> {
        if length > self.packet_bytes_max {
            return None;
        }
        self.free_slot()?;
        let start = self.used + self.head_room;
        self.push(length);
        self.bytes.get_mut(start..start + length)
    }

    /// Takes the last packet out again.
    pub(super) fn take_back(&mut self) {
        if let Some(length) = self.lengths.pop() {
            self.used -= self.head_room + length + self.tail_room;
        }
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
        assert!(batch.reserve(9).is_none(), "longer than a packet is");
        batch.reserve(2).unwrap().copy_from_slice(b"xy");
        batch.take_back();
        batch.reserve(2).unwrap().copy_from_slice(b"ab");
        assert!(batch.free_slot().is_none() && batch.reserve(1).is_none());
        let packets: Vec<_> = batch.packets().map(|p| p.to_vec()).collect();
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[0], b"\0\0\x0012345678\0\0");
        // What was there before is in the room of the next.
        assert_eq!(packets[1][3..5], *b"ab");
        assert_eq!(packets[1].len(), 7);
    }
}
