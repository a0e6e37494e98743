//! The inner loops of the data plane: what is done for every packet, without the kernel's part.

mod checksum;
mod large;
mod lookup;
mod replay;
mod tunnel;

use std::hint::black_box;

use mesh_core::Protocol;

/// Calls in a round: as many as the agent has packets in a batch.
pub const CALLS: u32 = 64;

/// What is sealed and opened: a whole packet of the usual way, and about the smallest of TCP.
const PACKET_BYTES: [usize; 2] = [1420, 64];

/// The protocols of sessions, by the names of their ciphers.
const CIPHERS: [(&str, Protocol); 2] = [
    ("aes-256-gcm", Protocol::MeshAes),
    ("chacha20-poly1305", Protocol::Wireguard),
];

/// A loop that can be measured.
pub struct InnerLoop {
    /// What it does, and with what: `seal/aes-256-gcm/1420`.
    pub name: String,
    /// Bytes that one call handles; `None` where their number does not matter.
    pub bytes: Option<usize>,
    begin: Box<Begin>,
}

/// Makes a loop ready.
type Begin = dyn Fn() -> anyhow::Result<Box<dyn Rounds>>;

/// A loop, ready to run.
pub trait Rounds {
    /// Makes a round's work ready. This is not measured.
    ///
    /// # Errors
    ///
    /// There is nothing to be measured.
    fn prepare(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Does a round of [`CALLS`] calls. Returns how many of them came to what they should.
    fn run(&mut self) -> u32;
}

impl InnerLoop {
    fn new<R: Rounds + 'static>(
        name: impl Into<String>,
        bytes: Option<usize>,
        begin: impl Fn() -> anyhow::Result<R> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            bytes,
            begin: Box::new(move || Ok(Box::new(begin()?))),
        }
    }

    /// Makes it ready to run, and runs it once: what is done at the first call only is done then.
    ///
    /// # Errors
    ///
    /// It does not do what it should.
    pub fn begin(&self) -> anyhow::Result<Box<dyn Rounds>> {
        let mut rounds = (self.begin)()?;
        rounds.prepare()?;
        let done = rounds.run();
        anyhow::ensure!(
            done == CALLS,
            "of {CALLS} calls of `{}` only {done} did what they should",
            self.name
        );
        Ok(rounds)
    }
}

/// All loops.
pub fn all() -> Vec<InnerLoop> {
    let mut loops = Vec::new();
    for (cipher, protocol) in CIPHERS {
        for bytes in PACKET_BYTES {
            loops.push(InnerLoop::new(
                format!("seal/{cipher}/{bytes}"),
                Some(bytes),
                move || tunnel::Seal::new(protocol, bytes),
            ));
            loops.push(InnerLoop::new(
                format!("open/{cipher}/{bytes}"),
                Some(bytes),
                move || tunnel::Open::new(protocol, bytes),
            ));
        }
    }
    loops.extend([
        InnerLoop::new("replay/in-order", None, || Ok(replay::Replay::in_order())),
        InnerLoop::new("replay/swapped", None, || Ok(replay::Replay::swapped())),
        InnerLoop::new("lookup/1-peer", None, || lookup::Lookup::of_a_peer(1)),
        InnerLoop::new("lookup/1000-peers", None, || {
            lookup::Lookup::of_a_peer(1000)
        }),
        InnerLoop::new("lookup/1000-peers-network", None, || {
            lookup::Lookup::behind_a_peer(1000)
        }),
        InnerLoop::new("rules/1", Some(tunnel::RULED_BYTES), || {
            tunnel::Open::with_rules(1)
        }),
        InnerLoop::new("rules/5000", Some(tunnel::RULED_BYTES), || {
            tunnel::Open::with_rules(5000)
        }),
        InnerLoop::new("split/tcp-64k", Some(large::BYTES), large::Split::new),
        InnerLoop::new("join/tcp-64k", Some(large::BYTES), large::Join::new),
        InnerLoop::new("checksum/1420", Some(checksum::BYTES), || {
            Ok(checksum::Checksum::default())
        }),
    ]);
    loops
}

/// Does a round. Callgrind counts while this runs, and knows it by its name.
#[inline(never)]
pub fn counted_round(rounds: &mut dyn Rounds) -> u32 {
    let done = rounds.run();
    // Something is left to do here, so that this is on the stack while the round runs.
    black_box(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_does_what_it_should_in_every_round() {
        for inner in all() {
            let mut rounds = inner.begin().unwrap();
            for _ in 0..3 {
                rounds.prepare().unwrap();
                assert_eq!(counted_round(rounds.as_mut()), CALLS, "{}", inner.name);
            }
        }
    }
}
