//! X25519, computed once for what is the same again: it would be most of what a simulation does.
//!
//! In a handshake each end computes what the other computes as well, and all machines of a simulation are on one
//! thread: the second to ask is told what the first has computed. The keys of handshakes are drawn from a few, so that
//! before long nearly every agreement was there before; sessions are told apart by their index. What two keys agree on is
//! what [`X25519`] says.

use std::{cell::RefCell, collections::HashMap};

use mesh_core::{Curve, X25519};
use x25519_dalek::StaticSecret;

/// X25519 with a memory, one on each thread.
pub(crate) const REMEMBERED: Curve = Curve { ephemeral, agree };

/// Keys of handshakes.
const EPHEMERALS: u8 = 64;

/// Agreements remembered, in two halves, of which the older goes: those of [`EPHEMERALS`] with one another, and with a
/// hundred machines.
const REMEMBERED_MAX: usize = 1 << 15;

type Pair = ([u8; 32], [u8; 32]);

#[derive(Default)]
struct Memory {
    ephemerals: HashMap<u8, (StaticSecret, [u8; 32])>,
    young: HashMap<Pair, [u8; 32]>,
    old: HashMap<Pair, [u8; 32]>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

fn ephemeral(random: &[u8; 32]) -> (StaticSecret, [u8; 32]) {
    let number = random[0] % EPHEMERALS;
    MEMORY.with_borrow_mut(|memory| {
        let ephemeral = memory
            .ephemerals
            .entry(number)
            .or_insert_with(|| (X25519.ephemeral)(&std::array::from_fn(|i| number ^ (i as u8))));
        ephemeral.clone()
    })
}

fn agree(own: &StaticSecret, own_public: &[u8; 32], peer: &[u8; 32]) -> [u8; 32] {
    let pair = (*own_public.min(peer), *own_public.max(peer));
    MEMORY.with_borrow_mut(|memory| {
        if let Some(shared) = memory.young.get(&pair) {
            return *shared;
        }
        let known = memory.old.get(&pair).copied();
        let shared = known.unwrap_or_else(|| (X25519.agree)(own, own_public, peer));
        memory.remember(pair, shared);
        shared
    })
}

impl Memory {
    fn remember(&mut self, pair: Pair, shared: [u8; 32]) {
        if self.young.len() >= REMEMBERED_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pair, shared);
    }
}

#[cfg(test)]
mod tests {
    use x25519_dalek::PublicKey;

    use super::*;

    #[test]
    fn both_ends_agree_on_what_x25519_says() {
        for seed in 0..40 {
            let own = StaticSecret::from([seed; 32]);
            let own_public = PublicKey::from(&own).to_bytes();
            let (other, other_public) = ephemeral(&[seed; 32]);
            assert_eq!(PublicKey::from(&other).to_bytes(), other_public);
            let shared = own.diffie_hellman(&other_public.into()).to_bytes();
            assert_eq!(agree(&own, &own_public, &other_public), shared);
            assert_eq!(agree(&other, &other_public, &own_public), shared);
        }
    }
}
