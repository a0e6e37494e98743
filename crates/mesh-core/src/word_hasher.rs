use std::hash::{BuildHasherDefault, Hasher};

/// Makes the hashers of tables that packets wait for.
pub(crate) type HashesWords = BuildHasherDefault<WordHasher>;

/// Hashes numbers by a multiplication for each 64 bits. It has no random seed: the keys are random already, or come
/// from the signed roster, and not from whoever sends packets.
#[derive(Default)]
pub(crate) struct WordHasher(u64);

impl WordHasher {
    fn mix(&mut self, word: u64) {
        // The odd constant nearest to 2^64 divided by the golden ratio. Of the two halves of the product one depends on
        // all lower bits and the other on all higher ones.
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = low(product ^ (product >> 64));
    }
}

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix((*byte).into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_u128(&mut self, number: u128) {
        self.mix(low(number >> 64));
        self.mix(low(number));
    }
}

fn low(number: u128) -> u64 {
    u64::try_from(number & u128::from(u64::MAX)).expect("64 bits")
}
