//! Where a packet's TCP or UDP is, and what its headers say that matters for cutting and joining.

use mesh_types::InternetSum;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// The checksum's place in each header.
pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const UDP_CHECKSUM: usize = 6;

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

/// The most bytes of headers that are cut off or joined: IPv6 without extensions, or IPv4 with options, and TCP.
pub(super) const HEADER_BYTES_MAX: usize = 120;

/// TCP's flags.
pub(super) mod flags {
    pub(in super::super) const FIN: u8 = 0x01;
    pub(in super::super) const PSH: u8 = 0x08;
    pub(in super::super) const ACK: u8 = 0x10;
    pub(in super::super) const CWR: u8 = 0x80;
    /// Where they are in the header.
    pub(in super::super) const AT: usize = 13;
}

/// A packet with a whole TCP or UDP header behind IPv4, or behind IPv6 without extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) is_ipv4: bool,
    pub(super) protocol: u8,
    /// Where its own header begins.
    pub(super) start: usize,
    /// Where the payload begins.
    pub(super) payload: usize,
}

impl Transport {
    /// Reads the headers of a packet; `None` for a fragment, and where something else is in the packet, or in the
    /// way, or says another length than there is.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (is_ipv4, start, protocol, says) = match packet.first()? >> 4 {
            4 => {
                let header: &[u8; IPV4_BYTES] = packet.first_chunk()?;
                let start = usize::from(header[0] & 0xf) * 4;
                // Neither more fragments nor a place in one.
                let is_whole = header[6] & 0x3f == 0 && header[7] == 0;
                (start >= IPV4_BYTES && is_whole).then_some(())?;
                (true, start, header[9], number(header, 2))
            }
            6 => {
                let header: &[u8; IPV6_BYTES] = packet.first_chunk()?;
                let says = IPV6_BYTES + number(header, 4);
                (false, IPV6_BYTES, header[6], says)
            }
            _ => return None,
        };
        Self::at(packet, is_ipv4, start, protocol).filter(|_| says == packet.len())
    }

    /// As [`Self::of`], without asking IP.
    pub(super) fn at(packet: &[u8], is_ipv4: bool, start: usize, protocol: u8) -> Option<Self> {
        let header = packet.get(start..)?;
        let (bytes, least) = match protocol {
            TCP => (usize::from(header.get(12)? >> 4) * 4, TCP_BYTES),
            UDP => (UDP_BYTES, UDP_BYTES),
            _ => return None,
        };
        (bytes >= least && header.len() >= bytes).then_some(Self {
            is_ipv4,
            protocol,
            start,
            payload: start + bytes,
        })
    }

    /// Where the checksum is, from where the header begins.
    pub(super) const fn checksum_offset(self) -> usize {
        if self.protocol == TCP {
            TCP_CHECKSUM
        } else {
            UDP_CHECKSUM
        }
    }

    /// The sum of the pseudo-header of so many bytes of header and payload.
    pub(super) fn pseudo_header(self, packet: &[u8], bytes: usize) -> InternetSum {
        let addresses = if self.is_ipv4 { 12..20 } else { 8..40 };
        let bytes = u16::try_from(bytes).expect("a packet is no longer than 64 KiB");
        InternetSum::default()
            .with(&packet[addresses])
            .with_number(u16::from(self.protocol))
            .with_number(bytes)
    }

    /// Writes the lengths of a packet of `packet` bytes, and IPv4's own checksum.
    pub(super) fn set_lengths(self, packet: &mut [u8], bytes: usize) {
        let set = |packet: &mut [u8], at: usize, number: usize| {
            let number = u16::try_from(number).expect("a packet is no longer than 64 KiB");
            packet[at..at + 2].copy_from_slice(&number.to_be_bytes());
        };
        if self.is_ipv4 {
            set(packet, 2, bytes);
            packet[10..12].fill(0);
            let checksum = InternetSum::default()
                .with(&packet[..self.start])
                .checksum();
            packet[10..12].copy_from_slice(&checksum);
        } else {
            set(packet, 4, bytes - IPV6_BYTES);
        }
        if self.protocol == UDP {
            set(packet, self.start + 4, bytes - self.start);
        }
    }

    /// Makes the checksum of a whole packet.
    pub(super) fn set_checksum(self, packet: &mut [u8]) {
        let at = self.start + self.checksum_offset();
        packet[at..at + 2].fill(0);
        let checksum = self
            .pseudo_header(packet, packet.len() - self.start)
            .with(&packet[self.start..])
            .checksum();
        packet[at..at + 2].copy_from_slice(&nonzero(self.protocol, checksum));
    }
}

/// A number of two bytes in a header.
pub(super) fn number(header: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([header[at], header[at + 1]]))
}

/// UDP has a checksum of zero for none.
pub(super) fn nonzero(protocol: u8, checksum: [u8; 2]) -> [u8; 2] {
    match (protocol, checksum) {
        (UDP, [0, 0]) => [0xff; 2],
        (_, checksum) => checksum,
    }
}
