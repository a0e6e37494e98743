//! Much data over TCP, of which every byte is compared with what was sent.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Context as _;

use crate::namespace::Namespace;

/// What is written and read at a time, in words of eight bytes.
const BLOCK_WORDS: usize = 8 << 10;

/// No byte for so long, and the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Sends so many bytes, rounded up to a block, from one namespace to `address` in another, and compares what arrives
/// there. `seed` tells the bytes from those of other connections.
///
/// # Errors
///
/// A byte is another than the one sent, or the connection breaks or stands still.
pub fn carry(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    bytes: u64,
    seed: u64,
) -> anyhow::Result<()> {
    let listener = to.run(|| Ok(TcpListener::bind((address, 0))?))?;
    let at = listener.local_addr()?;
    let sender = from.run(|| TcpStream::connect(at).context("cannot connect"))?;
    let (receiver, _) = listener.accept()?;
    sender.set_write_timeout(Some(SILENCE_MAX))?;
    receiver.set_read_timeout(Some(SILENCE_MAX))?;
    let blocks = bytes.div_ceil(8 * BLOCK_WORDS as u64);
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(sender, blocks, seed));
        let received = receive(receiver, blocks, seed);
        let sent = sending.join();
        let sent = sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        received.and(sent)
    })
}

fn send(mut stream: TcpStream, blocks: u64, seed: u64) -> anyhow::Result<()> {
    let mut block = vec![0; 8 * BLOCK_WORDS];
    for number in 0..blocks {
        fill(&mut block, number, seed);
        stream.write_all(&block).context("cannot send")?;
    }
    Ok(())
}

fn receive(mut stream: TcpStream, blocks: u64, seed: u64) -> anyhow::Result<()> {
    let mut expected = vec![0; 8 * BLOCK_WORDS];
    let mut block = expected.clone();
    for number in 0..blocks {
        stream.read_exact(&mut block).context("cannot receive")?;
        fill(&mut expected, number, seed);
        if block != expected {
            let at = block.iter().zip(&expected).position(|(is, was)| is != was);
            anyhow::bail!("byte {} of block {number} was changed", at.unwrap_or(0));
        }
    }
    anyhow::ensure!(stream.read(&mut block)? == 0, "more came than was sent");
    Ok(())
}

/// The bytes of a block: no two words of a connection are alike, nor of two connections.
fn fill(block: &mut [u8], number: u64, seed: u64) {
    let first = number * BLOCK_WORDS as u64;
    for (word, place) in block.chunks_exact_mut(8).zip(first..) {
        word.copy_from_slice(&mixed(seed.rotate_left(32) ^ place).to_le_bytes());
    }
}

/// A bijection (the end of SplitMix64).
const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_connections_differ() {
        let block = |number, seed| {
            let mut block = vec![0; 8 * BLOCK_WORDS];
            fill(&mut block, number, seed);
            block
        };
        assert_eq!(block(1, 2), block(1, 2));
        assert_ne!(block(1, 2), block(2, 2));
        assert_ne!(block(1, 2), block(1, 3));
    }
}
