//! Neighbouring packets of a connection as one, for the kernel to take in one call and to carry through its stack
//! once. What it is handed says how to cut it again, so nothing is lost of what the sender's sizes say.

use std::io::{self, IoSlice};

use arrayvec::ArrayVec;

use super::{
    header::{self, Checksum, Header, Kind, Segments},
    transport::{HEADER_BYTES_MAX, TCP, Transport, UDP_CHECKSUM, flags, number},
};

/// Connections that are joined side by side. More than these at once are seldom in one batch.
const RUNS: usize = 8;

/// Packets in one. The kernel's own limit for UDP.
const PACKETS_MAX: usize = 64;

/// The longest that an IP header can tell.
const BYTES_MAX: usize = u16::MAX as usize;

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// The parts of what is handed over in one call.
pub(crate) type Parts<'a, 'p> = &'a [IoSlice<'p>];

/// Packets that wait for their neighbours. Those of one connection keep their order.
pub(crate) struct Joiner<'p> {
    /// In the order in which they began.
    runs: ArrayVec<Run<'p>, RUNS>,
    joins_udp: bool,
}

/// Packets of one connection that follow each other.
struct Run<'p> {
    transport: Transport,
    /// Of the first packet.
    header: [u8; HEADER_BYTES_MAX],
    first: &'p [u8],
    payloads: ArrayVec<&'p [u8], PACKETS_MAX>,
    bytes: usize,
    /// Of the last packet.
    flags: u8,
    /// Nothing goes behind a packet that is shorter than those before it, or that is to be pushed.
    is_closed: bool,
}

impl<'p> Joiner<'p> {
    pub(crate) fn new(joins_udp: bool) -> Self {
        Self {
            runs: ArrayVec::new(),
            joins_udp,
        }
    }

    /// Takes a packet. `write` is handed what need not wait, with how many packets it is.
    pub(crate) fn push(
        &mut self,
        packet: &'p [u8],
        write: &mut impl FnMut(usize, Parts<'_, '_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(transport) = Transport::of(packet) else {
            // A fragment may belong to any of them.
            if !is_icmp(packet) {
                self.flush(write)?;
            }
            return write_one(packet, write);
        };
        let joins = self.is_joined(transport, packet);
        let found = self
            .runs
            .iter()
            .position(|run| run.is_of(transport, packet));
        if let Some(found) = found {
            let run = &mut self.runs[found];
            if joins && run.is_followed_by(transport, packet) && run.take(packet) {
                return Ok(());
            }
            self.runs.remove(found).write(write)?;
        }
        if !joins || is_pushed(transport, packet) {
            return write_one(packet, write);
        }
        if self.runs.is_full() {
            self.runs.remove(0).write(write)?;
        }
        self.runs.push(Run::begin(transport, packet));
        Ok(())
    }

    /// Hands over all that waits.
    pub(crate) fn flush(
        &mut self,
        write: &mut impl FnMut(usize, Parts<'_, '_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.runs.drain(..).try_for_each(|run| run.write(write))
    }

    /// Whether a packet may be one of several.
    fn is_joined(&self, transport: Transport, packet: &[u8]) -> bool {
        let has_payload = packet.len() > transport.payload;
        let is_fit = if transport.protocol == TCP {
            // Data as it usually is; what begins or ends a connection goes by itself.
            tcp_flags(transport, packet) & !flags::PSH == flags::ACK
        } else {
            self.joins_udp && number(packet, transport.start + UDP_CHECKSUM) != 0
        };
        has_payload && is_fit && transport.payload <= HEADER_BYTES_MAX
    }
}

impl<'p> Run<'p> {
    fn begin(transport: Transport, packet: &'p [u8]) -> Self {
        let mut header = [0; HEADER_BYTES_MAX];
        let (headers, payload) = packet.split_at(transport.payload);
        header[..headers.len()].copy_from_slice(headers);
        let mut payloads = ArrayVec::new();
        payloads.push(payload);
        Self {
            transport,
            header,
            first: packet,
            payloads,
            bytes: packet.len(),
            flags: 0,
            is_closed: false,
        }
    }

    /// Whether a packet is of this connection.
    fn is_of(&self, transport: Transport, packet: &[u8]) -> bool {
        let same_kind = transport.is_ipv4 == self.transport.is_ipv4
            && transport.protocol == self.transport.protocol;
        same_kind && {
            let ports = |packet: &'_ [u8], at: usize| -> [u8; 4] {
                *packet[at..].first_chunk().expect("a header has ports")
            };
            let addresses = if transport.is_ipv4 { 12..20 } else { 8..40 };
            packet[addresses.clone()] == self.header[addresses]
                && ports(packet, transport.start) == ports(&self.header, self.transport.start)
        }
    }

    /// Whether a packet of this connection is what the kernel would make by cutting the run.
    fn is_followed_by(&self, transport: Transport, packet: &[u8]) -> bool {
        let payload_bytes = packet.len() - transport.payload;
        let has_room = !self.is_closed
            && !self.payloads.is_full()
            && payload_bytes <= self.payloads[0].len()
            && self.bytes + payload_bytes <= BYTES_MAX;
        has_room && transport == self.transport && self.has_same_headers(packet)
    }

    fn has_same_headers(&self, packet: &[u8]) -> bool {
        let same = |range: std::ops::Range<usize>| packet[range.clone()] == self.header[range];
        let count = self.payloads.len();
        let start = self.transport.start;
        let ip = if self.transport.is_ipv4 {
            // Where packets may be cut, their numbers matter and count up; else they are anything.
            let may_be_cut = self.header[6] & 0x40 == 0;
            let id = (number(&self.header, 4) + count) & 0xffff;
            same(0..2) && same(6..10) && same(20..start) && (!may_be_cut || number(packet, 4) == id)
        } else {
            same(0..4) && same(6..8)
        };
        ip && (self.transport.protocol != TCP || {
            let sent = self.bytes - self.transport.payload;
            let sequence = tcp_sequence(&self.header, start)
                .wrapping_add(u32::try_from(sent).expect("at most 64 KiB"));
            tcp_sequence(packet, start) == sequence
                // What it acknowledges, its length, its window, its options.
                && same(start + 8..start + 13)
                && same(start + 14..start + 16)
                && same(start + 18..self.transport.payload)
        })
    }

    /// Appends a packet that follows. `false`: it, or the first one, was changed on its way from its sender, which
    /// the kernel is to see.
    fn take(&mut self, packet: &'p [u8]) -> bool {
        let transport = self.transport;
        let is_whole = |packet: &[u8]| {
            transport
                .pseudo_header(packet, packet.len() - transport.start)
                .with(&packet[transport.start..])
                .is_whole()
        };
        if !is_whole(packet) || (self.payloads.len() == 1 && !is_whole(self.first)) {
            return false;
        }
        let payload = &packet[transport.payload..];
        if transport.protocol == TCP {
            self.flags = tcp_flags(transport, packet);
        }
        self.is_closed = payload.len() < self.payloads[0].len() || is_pushed(transport, packet);
        self.bytes += payload.len();
        self.payloads.push(payload);
        true
    }

    fn write(
        mut self,
        write: &mut impl FnMut(usize, Parts<'_, '_>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.payloads.len() == 1 {
            return write_one(self.first, write);
        }
        let transport = self.transport;
        let header = &mut self.header[..transport.payload];
        transport.set_lengths(header, self.bytes);
        if transport.protocol == TCP {
            header[transport.start + flags::AT] = self.flags;
        }
        let at = transport.start + transport.checksum_offset();
        let sum = transport.pseudo_header(header, self.bytes - transport.start);
        header[at..at + 2].copy_from_slice(&sum.folded());
        let small = |number: usize| u16::try_from(number).expect("of a packet of 64 KiB");
        let offload = Header {
            segments: Some(Segments {
                kind: match (transport.protocol, transport.is_ipv4) {
                    (TCP, true) => Kind::TcpV4,
                    (TCP, false) => Kind::TcpV6,
                    _ => Kind::Udp,
                },
                header_bytes: small(transport.payload),
                payload_bytes: small(self.payloads[0].len()),
            }),
            checksum: Some(Checksum {
                start: small(transport.start),
                offset: small(transport.checksum_offset()),
            }),
        };
        let offload = offload.emit();
        let mut parts: ArrayVec<IoSlice<'_>, { PACKETS_MAX + 2 }> = ArrayVec::new();
        parts.push(IoSlice::new(&offload));
        parts.push(IoSlice::new(header));
        parts.extend(self.payloads.iter().map(|payload| IoSlice::new(payload)));
        write(self.payloads.len(), &parts)
    }
}

fn write_one(
    packet: &[u8],
    write: &mut impl FnMut(usize, Parts<'_, '_>) -> io::Result<()>,
) -> io::Result<()> {
    const PLAIN: [u8; header::BYTES] = Header::PLAIN;
    write(1, &[IoSlice::new(&PLAIN), IoSlice::new(packet)])
}

/// What goes ahead of everything: nobody depends on its place among others.
fn is_icmp(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(9) == Some(&ICMP),
        Some(6) => packet.get(6) == Some(&ICMP_V6),
        _ => false,
    }
}

fn is_pushed(transport: Transport, packet: &[u8]) -> bool {
    transport.protocol == TCP && tcp_flags(transport, packet) & flags::PSH != 0
}

fn tcp_flags(transport: Transport, packet: &[u8]) -> u8 {
    packet[transport.start + flags::AT]
}

fn tcp_sequence(packet: &[u8], start: usize) -> u32 {
    let at = start + 4;
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}
