//! Packets of 64 KiB on their way from and to the kernel: what the device's reads and writes do themselves.

use std::{hint::black_box, io};

use anyhow::{Context as _, ensure};
use mesh_core::MTU_MAX;
use mesh_os::tun::{
    PacketBatch,
    measured::{Large, join},
};

use super::{CALLS, Rounds};
use crate::pair::tcp;

/// The longest packet that IP can tell of.
pub(super) const BYTES: usize = 65_535;

const IPV6_BYTES: u16 = 40;
const TCP_BYTES: u16 = 32;

/// What a connection puts in one packet, on a way that carries 1420 bytes.
const PAYLOAD_BYTES: u16 = 1420 - IPV6_BYTES - TCP_BYTES;

/// A packet from the kernel is cut into what its connection would have sent.
pub(super) struct Split {
    large: Large,
    batch: PacketBatch,
    /// In how many pieces it is cut.
    pieces: usize,
}

impl Split {
    pub(super) fn new() -> anyhow::Result<Self> {
        let large = Large::new(&given()).context("longer than a device gives")?;
        // As the agent has it.
        let batch = PacketBatch::new(64, MTU_MAX.into(), 36, 32);
        let payload = BYTES - usize::from(IPV6_BYTES + TCP_BYTES);
        Ok(Self {
            large,
            batch,
            pieces: payload.div_ceil(PAYLOAD_BYTES.into()),
        })
    }
}

impl Rounds for Split {
    fn run(&mut self) -> u32 {
        let mut done = 0;
        for _ in 0..CALLS {
            let pieces = self.large.cut(black_box(&mut self.batch));
            done += u32::from(pieces == self.pieces);
        }
        done
    }
}

/// Packets from a peer become one for the kernel.
pub(super) struct Join(Vec<Vec<u8>>);

impl Join {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut large = Large::new(&given()).context("longer than a device gives")?;
        let mut batch = PacketBatch::new(64, MTU_MAX.into(), 0, 0);
        let pieces = large.cut(&mut batch);
        ensure!(pieces > 1, "{pieces} pieces are not to be joined");
        Ok(Self(
            batch.packets().map(|packet| packet.to_vec()).collect(),
        ))
    }
}

impl Rounds for Join {
    fn run(&mut self) -> u32 {
        let mut done = 0;
        for _ in 0..CALLS {
            let mut whole = 0;
            let packets = black_box(&self.0).iter().map(Vec::as_slice);
            let joined = join(packets, |parts: &[io::IoSlice<'_>]| {
                // The device's header, the packet's, and the payload of each.
                whole += u32::from(black_box(parts).len() == self.0.len() + 2);
                Ok(())
            });
            done += u32::from(joined.is_ok() && whole == 1);
        }
        done
    }
}

/// A packet of a connection over IPv6 as the kernel gives it, with its header (`struct virtio_net_hdr`).
fn given() -> Vec<u8> {
    const NEEDS_CHECKSUM: u8 = 1;
    const TCP_V6: u8 = 4;
    const CHECKSUM_OFFSET: u16 = 16;
    let mut given = vec![NEEDS_CHECKSUM, TCP_V6];
    for number in [
        IPV6_BYTES + TCP_BYTES,
        PAYLOAD_BYTES,
        IPV6_BYTES,
        CHECKSUM_OFFSET,
    ] {
        given.extend(number.to_ne_bytes());
    }
    // Stamps, as nearly every connection has them.
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    given.extend(tcp(0, 1, BYTES, &options));
    given
}
