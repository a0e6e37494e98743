//! X25519, computed less often than in a real network: it is most of what a simulation does.
//!
//! In a handshake each end computes what the other computes as well, and all machines of a simulation are on
//! one thread: the second to ask is told what the first has computed. And nearly all of it is with the keys of
//! a few machines, for which a table of multiples pays. The results are those of [`x25519`].

use std::{cell::RefCell, collections::HashMap};

use curve25519_dalek::{
    edwards::EdwardsBasepointTable, montgomery::MontgomeryPoint, traits::BasepointTable,
};
use mesh_core::x25519;
use x25519_dalek::StaticSecret;

/// Agreements remembered, in two halves, of which the older goes: a handshake takes a second, in which even
/// many machines make few.
const REMEMBERED_MAX: usize = 1 << 14;

type Pair = ([u8; 32], [u8; 32]);

#[derive(Default)]
struct Memory {
    young: HashMap<Pair, [u8; 32]>,
    old: HashMap<Pair, [u8; 32]>,
    /// Multiples of the machines' own keys, 30 KB each; `None` until one is used.
    tables: HashMap<[u8; 32], Option<Box<EdwardsBasepointTable>>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Hears of a machine's own key, with which others will agree again and again.
pub(crate) fn expect(key: &[u8; 32]) {
    MEMORY.with_borrow_mut(|memory| {
        memory.tables.entry(*key).or_default();
    });
}

/// What [`x25519`] says.
pub(crate) fn agree(own: &StaticSecret, own_public: &[u8; 32], peer: &[u8; 32]) -> [u8; 32] {
    let pair = (*own_public.min(peer), *own_public.max(peer));
    MEMORY.with_borrow_mut(|memory| {
        let known = memory.young.get(&pair).or_else(|| memory.old.get(&pair));
        let shared = known.copied().or_else(|| memory.multiply(own, peer));
        let shared = shared.unwrap_or_else(|| x25519(own, own_public, peer));
        memory.remember(pair, shared);
        shared
    })
}

impl Memory {
    /// The same with the table of `peer`, if it is a machine's own key.
    fn multiply(&mut self, own: &StaticSecret, peer: &[u8; 32]) -> Option<[u8; 32]> {
        let table = self.tables.get_mut(peer)?;
        if table.is_none() {
            // Of the two points with this coordinate either will do: so have all their multiples.
            let point = MontgomeryPoint(*peer).to_edwards(0)?;
            *table = Some(Box::new(EdwardsBasepointTable::create(&point)));
        }
        let product = table.as_ref()?.mul_base_clamped(own.to_bytes());
        Some(product.to_montgomery().to_bytes())
    }

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
            let [a, b] = [seed, seed + 100].map(|byte| StaticSecret::from([byte; 32]));
            let [public_a, public_b] = [&a, &b].map(|key| PublicKey::from(key).to_bytes());
            let shared = a.diffie_hellman(&public_b.into()).to_bytes();
            if seed % 2 == 0 {
                expect(&public_b);
            }
            assert_eq!(agree(&a, &public_a, &public_b), shared);
            assert_eq!(agree(&b, &public_b, &public_a), shared);
        }
    }
}
