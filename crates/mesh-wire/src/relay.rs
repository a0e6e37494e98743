//! Frames that a moon relays, on the same UDP port as WireGuard's messages, and in streams.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 1 | kind: 0x20 data, 0x21 notice; WireGuard's messages begin with 1 to 4 |
//! | 1 | 1 | data: zero; notice: its code |
//! | 2 | 2 | zero |
//! | 4 | 8 | the client's token, which the moon gave it inside the tunnel ([`crate::tunnel`]) |
//! | 12 | 8 | the other member: the first 8 bytes of its X25519 public key |
//! | 20 | | data: a WireGuard message, as it is; notice: nothing |
//!
//! Towards the moon the token is the sender's and the member is the receiver; from the moon the token is
//! the receiver's and the member is the sender. The moon rewrites these 16 bytes and nothing else. As with
//! TURN's channels (RFC 8656 section 12) a frame is not sealed: the token counts only from the address
//! that it was given to, and what the frame carries is sealed between the members.

/// Bytes in front of the relayed message.
pub const HEADER_BYTES: usize = 20;

/// The longest relayed message, in bytes: a frame fits a UDP datagram.
pub const MESSAGE_BYTES_MAX: usize = 65_507 - HEADER_BYTES;

const KIND_DATA: u8 = 0x20;
const KIND_NOTICE: u8 = 0x21;

/// What a moon tells a client of a frame that it does not relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The token is not known, or was given to another address: ask for a new one.
    UnknownToken,
    /// The other member has no session with this moon.
    NotHere,
    /// The roster does not let the two talk, or the other is no member.
    NotAllowed,
}

/// The first bytes of a member's public key, by which frames name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberTag(pub [u8; 8]);

impl MemberTag {
    /// The tag of the member with this X25519 public key.
    pub fn of(public: &[u8; 32]) -> Self {
        let mut tag = [0; 8];
        tag.copy_from_slice(&public[..8]);
        Self(tag)
    }
}

/// What stands in front of a relayed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's token.
    pub token: u64,
    /// The other member.
    pub member: MemberTag,
}

impl Header {
    /// The bytes to stand in front of a message.
    pub fn emit(self) -> [u8; HEADER_BYTES] {
        emit(KIND_DATA, 0, self)
    }
}

/// A frame, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message follows at [`HEADER_BYTES`].
    Data(Header),
    /// The moon's answer to a frame with this header.
    Notice(Notice, Header),
}

/// Whether a datagram is a frame of a relay rather than a message of WireGuard.
pub fn is_frame(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(&(KIND_DATA | KIND_NOTICE)))
}

/// Whether a frame carries one of WireGuard's transport messages, rather than a handshake or a notice.
pub fn is_data(datagram: &[u8]) -> bool {
    datagram.first() == Some(&KIND_DATA)
        && datagram
            .get(HEADER_BYTES..)
            .is_some_and(crate::wireguard::is_data)
}

/// Reads a frame's header; `None`: malformed, or a notice of a later release.
pub fn parse(datagram: &[u8]) -> Option<Frame> {
    let header: &[u8; HEADER_BYTES] = datagram.first_chunk()?;
    if header[2..4] != [0, 0] {
        return None;
    }
    let parsed = Header {
        token: u64::from_be_bytes(*header[4..].first_chunk()?),
        member: MemberTag(*header[12..].first_chunk()?),
    };
    match (header[0], header[1]) {
        (KIND_DATA, 0) if datagram.len() > HEADER_BYTES => Some(Frame::Data(parsed)),
        (KIND_NOTICE, code) if datagram.len() == HEADER_BYTES => {
            Some(Frame::Notice(Notice::from_code(code)?, parsed))
        }
        _ => None,
    }
}

/// Writes a notice: as long as the shortest frame, so that it never is more than what it answers.
pub fn emit_notice(notice: Notice, header: Header) -> [u8; HEADER_BYTES] {
    emit(KIND_NOTICE, notice.code(), header)
}

fn emit(kind: u8, code: u8, header: Header) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = kind;
    bytes[1] = code;
    bytes[4..12].copy_from_slice(&header.token.to_be_bytes());
    bytes[12..].copy_from_slice(&header.member.0);
    bytes
}

impl Notice {
    const fn code(self) -> u8 {
        match self {
            Self::UnknownToken => 1,
            Self::NotHere => 2,
            Self::NotAllowed => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::UnknownToken),
            2 => Some(Self::NotHere),
            3 => Some(Self::NotAllowed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_has_its_golden_bytes() {
        let header = Header {
            token: 0x0102_0304_0506_0708,
            member: MemberTag::of(&[9; 32]),
        };
        let golden = [
            0x20, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9,
        ];
        assert_eq!(header.emit(), golden);
        let mut notice = golden;
        notice[..2].copy_from_slice(&[0x21, 2]);
        assert_eq!(emit_notice(Notice::NotHere, header), notice);
    }

    #[test]
    fn a_message_of_wireguard_is_no_frame() {
        for kind in 0..=4 {
            assert!(!is_frame(&[kind, 0, 0, 0]));
        }
        assert!(!is_frame(&[]));
    }

    proptest! {
        #[test]
        fn headers_survive_their_bytes(token in any::<u64>(), tag in any::<[u8; 8]>(), message in prop::collection::vec(any::<u8>(), 0..40)) {
            let header = Header { token, member: MemberTag(tag) };
            let frame = [header.emit().as_slice(), &message].concat();
            prop_assert!(is_frame(&frame));
            let expected = (!message.is_empty()).then_some(Frame::Data(header));
            prop_assert_eq!(parse(&frame), expected);
            for notice in [Notice::UnknownToken, Notice::NotHere, Notice::NotAllowed] {
                let bytes = emit_notice(notice, header);
                prop_assert_eq!(parse(&bytes), Some(Frame::Notice(notice, header)));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }
}
