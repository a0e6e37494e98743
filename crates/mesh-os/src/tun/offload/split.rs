//! What the kernel leaves to a device that can segment: one packet of up to 64 KiB, to be cut into packets of
//! the size that its connection chose, and checksums that are still to be made.

use mesh_types::InternetSum;

use super::{
    header::{Checksum, Header, Kind, Segments},
    transport::{TCP, Transport, UDP, flags, nonzero, number},
};

/// A packet of which the kernel says what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet whose offload header does not fit it")]
pub(super) struct Misfit;

/// How far a packet has been cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    transport: Transport,
    payload_bytes: usize,
    /// Where the rest of the payload begins.
    rest: usize,
    /// How many came before.
    index: u16,
}

impl Split {
    /// Begins to cut `packet`. The kernel's word counts for the kind and the size; where the headers are is read
    /// from the packet.
    pub(super) fn begin(
        packet: &[u8],
        segments: Segments,
        checksum: Option<Checksum>,
    ) -> Result<Self, Misfit> {
        // A packet that is to be cut always leaves its checksum to the device, and so says where TCP or UDP is,
        // behind IPv6's extensions, too.
        let start = usize::from(checksum.ok_or(Misfit)?.start);
        let version = packet.first().ok_or(Misfit)? >> 4;
        let is_ipv4 = match (version, segments.kind) {
            (4, Kind::TcpV4 | Kind::Udp) => true,
            (6, Kind::TcpV6 | Kind::Udp) => false,
            _ => return Err(Misfit),
        };
        let ip_bytes = match is_ipv4 {
            true => usize::from(packet[0] & 0xf) * 4,
            false => 40,
        };
        let follows = if is_ipv4 {
            start == ip_bytes
        } else {
            start >= ip_bytes
        };
        if ip_bytes < 20 || !follows {
            return Err(Misfit);
        }
        let protocol = match segments.kind {
            Kind::TcpV4 | Kind::TcpV6 => TCP,
            Kind::Udp => UDP,
        };
        let transport = Transport::at(packet, is_ipv4, start, protocol).ok_or(Misfit)?;
        let payload_bytes = usize::from(segments.payload_bytes);
        if payload_bytes == 0 || packet.len() > usize::from(u16::MAX) {
            return Err(Misfit);
        }
        Ok(Self {
            transport,
            payload_bytes,
            rest: transport.payload,
            index: 0,
        })
    }

    /// The length of the next packet; `None` after the last.
    pub(super) fn next_bytes(&self, packet: &[u8]) -> Option<usize> {
        let rest = packet.len() - self.rest;
        let is_first = self.index == 0;
        (rest > 0 || is_first).then(|| self.transport.payload + rest.min(self.payload_bytes))
    }

    /// Writes the next packet, of [`Split::next_bytes`].
    pub(super) fn write_next(&mut self, packet: &[u8], next: &mut [u8]) {
        let transport = self.transport;
        let header_bytes = transport.payload;
        let payload_bytes = next.len() - header_bytes;
        let (header, payload) = next.split_at_mut(header_bytes);
        header.copy_from_slice(&packet[..header_bytes]);
        payload.copy_from_slice(&packet[self.rest..self.rest + payload_bytes]);
        let before = self.rest - header_bytes;
        self.rest += payload_bytes;
        let is_last = self.rest == packet.len();
        if transport.is_ipv4 {
            let id = number(packet, 4) as u16;
            header[4..6].copy_from_slice(&id.wrapping_add(self.index).to_be_bytes());
        }
        if transport.protocol == TCP {
            let at = transport.start + 4;
            let first =
                u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
            let sequence = first.wrapping_add(u32::try_from(before).expect("at most 64 KiB"));
            header[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
            let flags = &mut header[transport.start + flags::AT];
            if !is_last {
                *flags &= !(flags::FIN | flags::PSH);
            }
            if self.index > 0 {
                *flags &= !flags::CWR;
            }
        }
        transport.set_lengths(next, header_bytes + payload_bytes);
        transport.set_checksum(next);
        self.index = self.index.wrapping_add(1);
    }
}

/// Makes the checksum that the kernel left out.
pub(super) fn complete(packet: &mut [u8], header: Header) -> Result<(), Misfit> {
    let Some(Checksum { start, offset }) = header.checksum else {
        return Ok(());
    };
    let covered = packet.get_mut(usize::from(start)..).ok_or(Misfit)?;
    let at = usize::from(offset);
    // Its place holds the sum of the pseudo-header, and is covered, too.
    let checksum = InternetSum::default().with(covered).checksum();
    let place = covered.get_mut(at..at + 2).ok_or(Misfit)?;
    // Only UDP's is there.
    let protocol = if at == super::transport::UDP_CHECKSUM {
        UDP
    } else {
        TCP
    };
    place.copy_from_slice(&nonzero(protocol, checksum));
    Ok(())
}
