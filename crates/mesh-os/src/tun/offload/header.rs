//! The header in front of each packet of the device: `struct virtio_net_hdr` of `linux/virtio_net.h`.

/// Its length.
pub(crate) const BYTES: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

const NONE: u8 = 0;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
/// May stand beside the type: the first segment alone says that the window was reduced.
const ECN: u8 = 0x80;

/// What the kernel says of a packet, or is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// If it is several in one.
    pub(super) segments: Option<Segments>,
    /// If its checksum is still to be made.
    pub(super) checksum: Option<Checksum>,
}

/// How a packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segments {
    pub(super) kind: Kind,
    /// Of headers in front of the payload. The kernel's own is a hint.
    pub(super) header_bytes: u16,
    /// Of payload in each but the last.
    pub(super) payload_bytes: u16,
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    TcpV4,
    TcpV6,
    Udp,
}

/// Where a checksum goes that is still to be made. Its place holds the sum of the pseudo-header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    /// The first byte that it covers; it covers all behind.
    pub(super) start: u16,
    /// Its own place, from there.
    pub(super) offset: u16,
}

impl Header {
    /// A packet as it is.
    pub(super) const PLAIN: [u8; BYTES] = [0; BYTES];

    /// `None`: a kind of packet that was not asked for.
    pub(super) fn parse(bytes: &[u8; BYTES]) -> Option<Self> {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match bytes[1] & !ECN {
            NONE => None,
            TCP_V4 => Some(Kind::TcpV4),
            TCP_V6 => Some(Kind::TcpV6),
            UDP => Some(Kind::Udp),
            _ => return None,
        };
        Some(Self {
            segments: kind.map(|kind| Segments {
                kind,
                header_bytes: number(2),
                payload_bytes: number(4),
            }),
            checksum: (bytes[0] & NEEDS_CHECKSUM != 0).then(|| Checksum {
                start: number(6),
                offset: number(8),
            }),
        })
    }

    pub(super) fn emit(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        if let Some(segments) = self.segments {
            bytes[1] = match segments.kind {
                Kind::TcpV4 => TCP_V4,
                Kind::TcpV6 => TCP_V6,
                Kind::Udp => UDP,
            };
            bytes[2..4].copy_from_slice(&segments.header_bytes.to_ne_bytes());
            bytes[4..6].copy_from_slice(&segments.payload_bytes.to_ne_bytes());
        }
        if let Some(checksum) = self.checksum {
            bytes[0] = NEEDS_CHECKSUM;
            bytes[6..8].copy_from_slice(&checksum.start.to_ne_bytes());
            bytes[8..10].copy_from_slice(&checksum.offset.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_unknown_kinds_do_not() {
        let header = Header {
            segments: Some(Segments {
                kind: Kind::TcpV6,
                header_bytes: 72,
                payload_bytes: 1368,
            }),
            checksum: Some(Checksum {
                start: 40,
                offset: 16,
            }),
        };
        let bytes = header.emit();
        assert_eq!(Header::parse(&bytes), Some(header));
        let mut with_ecn = bytes;
        with_ecn[1] |= ECN;
        assert_eq!(Header::parse(&with_ecn), Some(header));
        let plain = Header::parse(&Header::PLAIN).unwrap();
        assert_eq!((plain.segments, plain.checksum), (None, None));
        // UDP in IP fragments, which was never asked for.
        assert_eq!(Header::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
