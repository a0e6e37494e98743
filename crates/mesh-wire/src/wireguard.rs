//! WireGuard's four messages (whitepaper section 5.4), as they are on the wire.
//!
//! All integers are little-endian. A message is one UDP datagram; its first byte is its type, and the
//! three after it are zero. Nothing here is authenticated: that is the work of `mesh-core`.

/// Bytes of a handshake initiation.
pub const INITIATION_BYTES: usize = 148;

/// Bytes of a handshake response.
pub const RESPONSE_BYTES: usize = 92;

/// Bytes of a cookie reply.
pub const COOKIE_REPLY_BYTES: usize = 64;

/// Bytes in front of a transport message's sealed packet.
pub const DATA_HEADER_BYTES: usize = 16;

/// Bytes that sealing adds to a packet.
pub const TAG_BYTES: usize = 16;

/// The shortest transport message: a keepalive, which seals nothing.
pub const DATA_BYTES_MIN: usize = DATA_HEADER_BYTES + TAG_BYTES;

/// Packets are filled with zeros to a multiple of this before they are sealed (section 5.4.6).
pub const PADDING_BYTES: usize = 16;

const TYPE_INITIATION: u8 = 1;
const TYPE_RESPONSE: u8 = 2;
const TYPE_COOKIE_REPLY: u8 = 3;
const TYPE_DATA: u8 = 4;

/// A datagram that is one of WireGuard's messages by type and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Type 1.
    Initiation(&'a [u8; INITIATION_BYTES]),
    /// Type 2.
    Response(&'a [u8; RESPONSE_BYTES]),
    /// Type 3.
    CookieReply(&'a [u8; COOKIE_REPLY_BYTES]),
    /// Type 4.
    Data(DataHeader),
}

/// Why a datagram is no WireGuard message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than the four bytes of a type.
    #[error("a datagram of {0} bytes has no message type")]
    Short(usize),
    /// The first four bytes are no type of a message.
    #[error("unknown message type {0:#010x}")]
    Type(u32),
    /// The length does not fit the type.
    #[error("a message of type {message_type} cannot have {length} bytes")]
    Length {
        /// The message's type, 1 to 4.
        message_type: u8,
        /// The datagram's length in bytes.
        length: usize,
    },
}

impl<'a> Message<'a> {
    /// Tells which message a datagram is. The fields stay where they are.
    ///
    /// # Errors
    ///
    /// [`ParseError`] for an unknown type or a length that the type cannot have. A transport message may
    /// have any length from [`DATA_BYTES_MIN`]: boringtun does not pad.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let Some((head, _)) = datagram.split_first_chunk::<4>() else {
            return Err(ParseError::Short(datagram.len()));
        };
        let length = |message_type| ParseError::Length {
            message_type,
            length: datagram.len(),
        };
        match head {
            [TYPE_INITIATION, 0, 0, 0] => datagram
                .try_into()
                .map(Self::Initiation)
                .map_err(|_| length(TYPE_INITIATION)),
            [TYPE_RESPONSE, 0, 0, 0] => datagram
                .try_into()
                .map(Self::Response)
                .map_err(|_| length(TYPE_RESPONSE)),
            [TYPE_COOKIE_REPLY, 0, 0, 0] => datagram
                .try_into()
                .map(Self::CookieReply)
                .map_err(|_| length(TYPE_COOKIE_REPLY)),
            [TYPE_DATA, 0, 0, 0] => DataHeader::parse(datagram)
                .map(Self::Data)
                .ok_or_else(|| length(TYPE_DATA)),
            other => Err(ParseError::Type(u32::from_le_bytes(*other))),
        }
    }
}

/// Whether a datagram says of itself to be a transport message, the one kind that is frequent.
pub fn is_data(datagram: &[u8]) -> bool {
    datagram.starts_with(&[TYPE_DATA, 0, 0, 0])
}

/// The header of a transport message.
///
/// | offset | bytes | meaning |
/// |---|---|---|
/// | 0 | 4 | type: 4, 0, 0, 0 |
/// | 4 | 4 | index of the session at its receiver |
/// | 8 | 8 | counter, the nonce |
/// | 16 | n | the packet, padded to a multiple of 16 by most senders, and sealed; n = 0: a keepalive |
/// | 16+n | 16 | tag |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The index that the receiver gave the session.
    pub receiver: u32,
    /// The counter, from zero, never used twice with one key.
    pub counter: u64,
}

impl DataHeader {
    /// Reads the header of a whole transport message; `None` if it is none or has an impossible length.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        if !is_data(datagram) || datagram.len() < DATA_BYTES_MIN {
            return None;
        }
        Some(Self {
            receiver: u32::from_le_bytes(*field(datagram, 4)?),
            counter: u64::from_le_bytes(*field(datagram, 8)?),
        })
    }

    /// The header's bytes.
    pub fn emit(self) -> [u8; DATA_HEADER_BYTES] {
        let mut bytes = [0; DATA_HEADER_BYTES];
        bytes[0] = TYPE_DATA;
        bytes[4..8].copy_from_slice(&self.receiver.to_le_bytes());
        bytes[8..].copy_from_slice(&self.counter.to_le_bytes());
        bytes
    }
}

/// Length of the transport message that carries a packet of `packet_bytes` bytes.
pub const fn data_message_bytes(packet_bytes: usize) -> usize {
    DATA_BYTES_MIN + packet_bytes.next_multiple_of(PADDING_BYTES)
}

/// Defines a message of fixed length: its fields at their offsets, a parser and an emitter.
macro_rules! fixed_message {
    (
        $(#[$docs:meta])* $name:ident, $type:expr, $length:expr,
        indices { $( $(#[$index_docs:meta])* $index:ident at $index_offset:literal, )* }
        $( $(#[$field_docs:meta])* $field:ident: $bytes:literal at $offset:literal, )*
    ) => {
        $(#[$docs])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$index_docs])* pub $index: u32, )*
            $( $(#[$field_docs])* pub $field: [u8; $bytes], )*
        }

        impl $name {
            /// Reads the fields of a message, as [`Message::parse`] gives it.
            pub fn parse(bytes: &[u8; $length]) -> Self {
                Self {
                    $( $index: u32::from_le_bytes(part(bytes, $index_offset)), )*
                    $( $field: part(bytes, $offset), )*
                }
            }

            /// The message's bytes.
            pub fn emit(&self) -> [u8; $length] {
                let mut bytes = [0; $length];
                bytes[0] = $type;
                $( bytes[$index_offset..$index_offset + 4].copy_from_slice(&self.$index.to_le_bytes()); )*
                $( bytes[$offset..$offset + $bytes].copy_from_slice(&self.$field); )*
                bytes
            }
        }
    };
}

fixed_message! {
    /// Message 1, by which an initiator asks for a session.
    ///
    /// | offset | bytes | meaning |
    /// |---|---|---|
    /// | 0 | 4 | type: 1, 0, 0, 0 |
    /// | 4 | 4 | the initiator's index of the session |
    /// | 8 | 32 | its ephemeral public key |
    /// | 40 | 48 | its static public key, sealed |
    /// | 88 | 28 | a TAI64N stamp, sealed |
    /// | 116 | 16 | MAC keyed by the responder's public key |
    /// | 132 | 16 | MAC keyed by a cookie, or zeros |
    Initiation, TYPE_INITIATION, INITIATION_BYTES,
    indices {
        /// The sender's index.
        sender at 4,
    }
    /// Ephemeral public key.
    ephemeral: 32 at 8,
    /// Sealed static public key.
    sealed_static: 48 at 40,
    /// Sealed TAI64N stamp.
    sealed_stamp: 28 at 88,
    /// MAC over the bytes before it, see `mesh-core`.
    mac1: 16 at 116,
    /// MAC over the bytes before it, keyed by a cookie; zeros without one.
    mac2: 16 at 132,
}

fixed_message! {
    /// Message 2, the answer to an initiation.
    ///
    /// | offset | bytes | meaning |
    /// |---|---|---|
    /// | 0 | 4 | type: 2, 0, 0, 0 |
    /// | 4 | 4 | the responder's index of the session |
    /// | 8 | 4 | the initiator's index of the session |
    /// | 12 | 32 | the responder's ephemeral public key |
    /// | 44 | 16 | nothing, sealed: a tag |
    /// | 60 | 16 | MAC keyed by the initiator's public key |
    /// | 76 | 16 | MAC keyed by a cookie, or zeros |
    Response, TYPE_RESPONSE, RESPONSE_BYTES,
    indices {
        /// The sender's index.
        sender at 4,
        /// The receiver's index, from the initiation.
        receiver at 8,
    }
    /// Ephemeral public key.
    ephemeral: 32 at 12,
    /// Tag of the empty payload.
    sealed_nothing: 16 at 44,
    /// MAC over the bytes before it.
    mac1: 16 at 60,
    /// MAC over the bytes before it, keyed by a cookie; zeros without one.
    mac2: 16 at 76,
}

fixed_message! {
    /// Message 3, a responder's answer under load: repeat, and prove where you are with this cookie.
    ///
    /// | offset | bytes | meaning |
    /// |---|---|---|
    /// | 0 | 4 | type: 3, 0, 0, 0 |
    /// | 4 | 4 | index from the message that is answered |
    /// | 8 | 24 | random nonce |
    /// | 32 | 32 | the cookie, sealed |
    CookieReply, TYPE_COOKIE_REPLY, COOKIE_REPLY_BYTES,
    indices {
        /// The sender's index in the message that is answered.
        receiver at 4,
    }
    /// Random nonce of XChaCha20-Poly1305.
    nonce: 24 at 8,
    /// Sealed cookie: 16 bytes and the tag.
    sealed_cookie: 32 at 32,
}

/// Offset of `mac1` in an initiation: what the MAC covers ends here, and `mac2` covers 16 bytes more.
pub const INITIATION_MACS_OFFSET: usize = 116;

/// Offset of `mac1` in a response.
pub const RESPONSE_MACS_OFFSET: usize = 60;

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<&[u8; N]> {
    bytes.get(offset..)?.first_chunk()
}

fn part<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    *field(bytes, offset).expect("the layout tables keep every field inside its message")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counting<const N: usize>(first: u8) -> [u8; N] {
        std::array::from_fn(|i| first.wrapping_add(i as u8))
    }

    #[test]
    fn an_initiation_has_its_golden_bytes() {
        let message = Initiation {
            sender: 0x0403_0201,
            ephemeral: counting(0x10),
            sealed_static: counting(0x40),
            sealed_stamp: counting(0x80),
            mac1: counting(0xa0),
            mac2: counting(0xc0),
        };
        let bytes = message.emit();
        let mut golden = vec![1, 0, 0, 0, 1, 2, 3, 4];
        golden.extend(0x10..0x30);
        golden.extend(0x40..0x70);
        golden.extend(0x80..0x9c);
        golden.extend(0xa0..0xb0);
        golden.extend(0xc0..0xd0);
        assert_eq!(bytes.as_slice(), golden);
        assert_eq!(Message::parse(&bytes), Ok(Message::Initiation(&bytes)));
    }

    #[test]
    fn a_response_has_its_golden_bytes() {
        let message = Response {
            sender: 0x0403_0201,
            receiver: 0x0807_0605,
            ephemeral: counting(0x10),
            sealed_nothing: counting(0x40),
            mac1: counting(0xa0),
            mac2: counting(0xc0),
        };
        let bytes = message.emit();
        let mut golden = vec![2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        golden.extend(0x10..0x30);
        golden.extend(0x40..0x50);
        golden.extend(0xa0..0xb0);
        golden.extend(0xc0..0xd0);
        assert_eq!(bytes.as_slice(), golden);
        assert_eq!(Message::parse(&bytes), Ok(Message::Response(&bytes)));
    }

    #[test]
    fn a_cookie_reply_has_its_golden_bytes() {
        let message = CookieReply {
            receiver: 0x0403_0201,
            nonce: counting(0x10),
            sealed_cookie: counting(0x40),
        };
        let bytes = message.emit();
        let mut golden = vec![3, 0, 0, 0, 1, 2, 3, 4];
        golden.extend(0x10..0x28);
        golden.extend(0x40..0x60);
        assert_eq!(bytes.as_slice(), golden);
        assert_eq!(Message::parse(&bytes), Ok(Message::CookieReply(&bytes)));
    }

    #[test]
    fn a_data_header_has_its_golden_bytes() {
        let header = DataHeader {
            receiver: 0x0403_0201,
            counter: 0x0807_0605_0403_0201,
        };
        let golden = [4, 0, 0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(header.emit(), golden);
        let mut message = golden.to_vec();
        assert_eq!(DataHeader::parse(&message), None, "the tag is missing");
        message.resize(DATA_BYTES_MIN, 0);
        assert_eq!(Message::parse(&message), Ok(Message::Data(header)));
        message.push(0);
        assert_eq!(
            Message::parse(&message),
            Ok(Message::Data(header)),
            "not padded"
        );
    }

    #[test]
    fn other_types_and_reserved_bits_are_refused() {
        assert_eq!(Message::parse(&[4, 0, 0]), Err(ParseError::Short(3)));
        for head in [[0, 0, 0, 0], [5, 0, 0, 0], [1, 0, 0, 1], [4, 1, 0, 0]] {
            let mut datagram = head.to_vec();
            datagram.resize(INITIATION_BYTES, 0);
            assert!(matches!(
                Message::parse(&datagram),
                Err(ParseError::Type(_))
            ));
        }
    }

    #[test]
    fn a_packet_is_padded_to_sixteen() {
        assert_eq!(data_message_bytes(0), 32);
        assert_eq!(data_message_bytes(1), 48);
        assert_eq!(data_message_bytes(16), 48);
        assert_eq!(data_message_bytes(1280), 1312);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&datagram);
        }

        #[test]
        fn messages_survive_their_bytes(kind in 1u8..4, bytes in any::<[u8; 32]>()) {
            let length = [INITIATION_BYTES, RESPONSE_BYTES, COOKIE_REPLY_BYTES][usize::from(kind) - 1];
            let mut datagram: Vec<u8> = bytes.iter().copied().cycle().take(length).collect();
            datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            match Message::parse(&datagram).unwrap() {
                Message::Initiation(m) => prop_assert_eq!(Initiation::parse(m).emit(), *m),
                Message::Response(m) => prop_assert_eq!(Response::parse(m).emit(), *m),
                Message::CookieReply(m) => prop_assert_eq!(CookieReply::parse(m).emit(), *m),
                Message::Data(_) => prop_assert!(false),
            }
        }
    }
}
