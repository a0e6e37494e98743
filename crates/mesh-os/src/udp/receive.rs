//! Datagrams as they came: many of one peer in one buffer.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use mesh_types::Ecn;
use quinn_udp::RecvMeta;

/// Buffers filled by one receive call. Where the system joins the datagrams of one peer into one buffer a
/// few are enough; macOS gives one datagram a buffer.
const BURSTS: usize = if cfg!(target_os = "macos") {
    quinn_udp::BATCH_SIZE
} else {
    8
};

/// The length of each: the longest UDP payload, and as much as keeps the next one aligned.
const BUFFER_BYTES: usize = 1 << 16;

/// Room for what one [`UdpSocket::recv`](super::UdpSocket::recv) gives. Made once, used for ever.
#[derive(Debug)]
pub struct RecvBatch {
    bytes: Vec<u8>,
    meta: [RecvMeta; BURSTS],
    filled: usize,
}

/// A received datagram.
#[derive(Debug)]
pub struct Datagram<'b> {
    /// Who sent it. An IPv4 sender is given as such, also on a socket of both families.
    pub from: SocketAddr,
    /// To which of this machine's addresses; `None` where the system does not say.
    pub to: Option<IpAddr>,
    /// What it says of congestion.
    pub ecn: Ecn,
    /// What was sent; may be changed in place.
    pub payload: &'b mut [u8],
}

impl RecvBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BURSTS * BUFFER_BYTES],
            meta: [RecvMeta::default(); BURSTS],
            filled: 0,
        }
    }

    /// Whether nothing was received.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Lets `receive` fill the buffers and say how many it filled.
    pub(super) fn fill(
        &mut self,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.filled = 0;
        let mut chunks = self.bytes.chunks_exact_mut(BUFFER_BYTES);
        let mut buffers: [IoSliceMut<'_>; BURSTS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.filled = receive(&mut buffers, &mut self.meta)?;
        Ok(())
    }

    /// The datagrams of the last [`UdpSocket::recv`](super::UdpSocket::recv), in the order of their arrival.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.bytes
            .chunks_exact_mut(BUFFER_BYTES)
            .zip(&self.meta[..self.filled])
            .flat_map(|(bytes, meta)| {
                let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
                let from = keep_scope(from, meta.addr);
                let to = meta.dst_ip.map(|ip| ip.to_canonical());
                let ecn = meta
                    .ecn
                    .map_or(Ecn::NotCapable, |ecn| Ecn::from_bits(ecn as u8));
                // An empty datagram has stride 0, and is of no use to anybody.
                let stride = meta.stride.max(1);
                bytes[..meta.len]
                    .chunks_mut(stride)
                    .map(move |payload| Datagram {
                        from,
                        to,
                        ecn,
                        payload,
                    })
            })
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// A link-local sender is reached only with its interface.
fn keep_scope(canonical: SocketAddr, raw: SocketAddr) -> SocketAddr {
    match canonical {
        SocketAddr::V4(_) => canonical,
        SocketAddr::V6(_) => raw,
    }
}
