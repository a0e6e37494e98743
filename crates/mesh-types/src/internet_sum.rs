/// Bytes added at once: a compiler makes wide registers of it.
const BLOCK: usize = 32;
const WORD: usize = 4;

/// The internet checksum (RFC 1071), at memory's pace: a sum of 16-bit words as they lie in memory. It comes out right
/// whatever the byte order of the machine is, so nothing is swapped on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct InternetSum(u64);

impl InternetSum {
    /// Adds bytes that begin at an even place; an odd last byte is filled with zero.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let mut lanes = [0; BLOCK / WORD];
        let mut blocks = bytes.chunks_exact(BLOCK);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(WORD)) {
                *lane += u64::from(native(word));
            }
        }
        let rest: u64 = blocks
            .remainder()
            .chunks(WORD)
            .map(|word| u64::from(native(word)))
            .sum();
        // Of a packet's 64 KiB each lane has 2^11 words of 32 bits: far from full.
        Self(self.0 + lanes.iter().sum::<u64>() + rest)
    }

    /// Adds a number as it stands in a header.
    #[must_use]
    pub fn with_number(self, number: u16) -> Self {
        self.with(&number.to_be_bytes())
    }

    /// The sum in 16 bits as it stands in a header, which a checksum that is still to be made begins with.
    pub fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let [a, b, ..] = sum.to_le_bytes();
        u16::from_le_bytes([a, b]).to_ne_bytes()
    }

    /// The checksum as it stands in a header.
    pub fn checksum(self) -> [u8; 2] {
        self.folded().map(|byte| !byte)
    }

    /// Whether these bytes, their checksum among them, are as their sender made them.
    pub fn is_whole(self) -> bool {
        self.folded() == [0xff; 2]
    }
}

/// Up to four bytes as a number of this machine.
fn native(bytes: &[u8]) -> u32 {
    let mut word = [0; WORD];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As RFC 1071 says it.
    fn naive(bytes: &[u8]) -> [u8; 2] {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!u16::try_from(sum).unwrap()).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1071_holds() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(InternetSum::default().with(&bytes).folded(), [0xdd, 0xf2]);
    }

    proptest! {
        #[test]
        fn it_is_the_checksum_that_the_rfc_says(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..150,
        ) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (a, b) = bytes.split_at(cut);
            prop_assert_eq!(InternetSum::default().with(a).with(b).checksum(), naive(&bytes));
        }

        #[test]
        fn with_its_checksum_it_is_whole(mut bytes in prop::collection::vec(any::<u8>(), 2..300)) {
            bytes[..2].fill(0);
            let checksum = InternetSum::default().with(&bytes).checksum();
            bytes[..2].copy_from_slice(&checksum);
            prop_assert!(InternetSum::default().with(&bytes).is_whole());
        }
    }
}
