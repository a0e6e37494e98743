//! Datagrams on their way out: neighbours of one length to one destination leave in one system call.

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr},
};

use arrayvec::ArrayVec;
use mesh_types::Ecn;

use super::{BURST_BYTES_MAX, UdpSocket};

/// The most datagrams in one call (`UDP_MAX_SEGMENTS` of kernels up to 6.9).
const SEGMENTS_MAX: usize = 64;

/// Datagrams that are gathered where they lie, for whoever holds them until they are sent.
///
/// Nothing is sent before [`Gather::flush`], except when one does not continue the burst so far. What is not
/// flushed when this is dropped is lost.
#[derive(Debug)]
pub struct Gather<'d> {
    datagrams: ArrayVec<IoSlice<'d>, SEGMENTS_MAX>,
    burst: Burst,
}

/// Datagrams that are gathered in memory of its own. Made once, used for ever; else as [`Gather`].
#[derive(Debug)]
pub struct SendBatch {
    bytes: Vec<u8>,
    burst: Burst,
}

/// What of a burst decides whether another datagram continues it.
#[derive(Debug)]
struct Burst {
    destination: SocketAddr,
    /// What all of them say of congestion.
    ecn: Ecn,
    /// The length of all but the last.
    segment_bytes: usize,
    segments: usize,
    bytes: usize,
    /// A datagram shorter than its predecessors ends a burst.
    ended: bool,
}

impl<'d> Gather<'d> {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            datagrams: ArrayVec::new(),
            burst: Burst::new(),
        }
    }

    /// Adds a datagram, which is to say `ecn` of congestion, after sending the burst so far if this one does not
    /// continue it.
    ///
    /// # Errors
    ///
    /// As [`Gather::flush`], for the datagrams before this one; this one is kept.
    pub fn push(
        &mut self,
        socket: &UdpSocket,
        destination: SocketAddr,
        ecn: Ecn,
        datagram: &'d [u8],
    ) -> io::Result<()> {
        let result = match self.burst.takes(destination, ecn, datagram.len(), socket) {
            true => Ok(()),
            false => self.flush(socket),
        };
        self.burst.add(destination, ecn, datagram.len());
        self.datagrams.push(IoSlice::new(datagram));
        result
    }

    /// Sends what was gathered; nothing is left afterwards, also after an error.
    ///
    /// # Errors
    ///
    /// What `sendmsg` gives, such as an unreachable network: the datagrams are lost, the socket goes on.
    pub fn flush(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let burst = std::mem::replace(&mut self.burst, Burst::new());
        let result = burst.send(socket, &self.datagrams);
        self.datagrams.clear();
        result
    }
}

impl Default for Gather<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl SendBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(BURST_BYTES_MAX),
            burst: Burst::new(),
        }
    }

    /// Adds a copy of a datagram, after sending the burst so far if this one does not continue it.
    ///
    /// # Errors
    ///
    /// As [`Gather::push`].
    pub fn push(
        &mut self,
        socket: &UdpSocket,
        destination: SocketAddr,
        ecn: Ecn,
        datagram: &[u8],
    ) -> io::Result<()> {
        let result = match self.burst.takes(destination, ecn, datagram.len(), socket) {
            true => Ok(()),
            false => self.flush(socket),
        };
        self.burst.add(destination, ecn, datagram.len());
        self.bytes.extend_from_slice(datagram);
        result
    }

    /// Sends what was gathered. The batch is empty afterwards, also after an error.
    ///
    /// # Errors
    ///
    /// As [`Gather::flush`].
    pub fn flush(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let burst = std::mem::replace(&mut self.burst, Burst::new());
        let result = {
            // An empty datagram has no length to cut by, and is of no use to anybody.
            let datagrams = self.bytes.chunks(burst.segment_bytes.max(1));
            let datagrams: ArrayVec<_, SEGMENTS_MAX> = datagrams.map(IoSlice::new).collect();
            burst.send(socket, &datagrams)
        };
        self.bytes.clear();
        result
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Burst {
    const fn new() -> Self {
        Self {
            destination: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            ecn: Ecn::NotCapable,
            segment_bytes: 0,
            segments: 0,
            bytes: 0,
            ended: false,
        }
    }

    /// Whether a datagram can leave together with those so far.
    fn takes(&self, destination: SocketAddr, ecn: Ecn, bytes: usize, socket: &UdpSocket) -> bool {
        self.segments == 0
            || !self.ended
                && destination == self.destination
                && ecn == self.ecn
                && (1..=self.segment_bytes).contains(&bytes)
                && self.segments < socket.segments_max().min(SEGMENTS_MAX)
                && self.bytes + bytes <= BURST_BYTES_MAX
    }

    fn add(&mut self, destination: SocketAddr, ecn: Ecn, bytes: usize) {
        if self.segments == 0 {
            self.destination = destination;
            self.ecn = ecn;
            self.segment_bytes = bytes;
        }
        self.ended = bytes < self.segment_bytes;
        self.segments += 1;
        self.bytes += bytes;
    }

    /// Sends the datagrams that it is of.
    fn send(&self, socket: &UdpSocket, datagrams: &[IoSlice<'_>]) -> io::Result<()> {
        match datagrams {
            [] => Ok(()),
            [datagram] => socket.transmit(self.destination, None, self.ecn, datagram, None),
            datagrams => socket.send_run(self.destination, self.ecn, self.segment_bytes, datagrams),
        }
    }
}
