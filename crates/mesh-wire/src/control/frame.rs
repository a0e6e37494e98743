use serde::{Serialize, de::DeserializeOwned};

use super::{ATTACHMENT_BYTES_MAX, MESSAGE_BYTES_MAX, Notice, Reply, Request};

/// Length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 8;

/// What a frame's header says of the bytes after it, both within their bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    message_bytes: usize,
    attachment_bytes: usize,
}

/// A header that announces more than a frame may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes; at most {MESSAGE_BYTES_MAX} are taken")]
    Message(u32),
    /// The attachment is longer than [`ATTACHMENT_BYTES_MAX`].
    #[error("an attachment of {0} bytes; at most {ATTACHMENT_BYTES_MAX} are taken")]
    Attachment(u32),
}

/// Why a message cannot be put in a frame.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message has {0} bytes; at most {MESSAGE_BYTES_MAX} fit a frame")]
    Message(usize),
    /// The attachment is longer than [`ATTACHMENT_BYTES_MAX`].
    #[error("the attachment has {0} bytes; at most {ATTACHMENT_BYTES_MAX} fit a frame")]
    Attachment(usize),
    /// The message has no JSON form.
    #[error("the message has no JSON form")]
    Json(#[source] serde_json::Error),
}

/// Why the bytes of a message are not one.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A message of a kind that this release does not know; its `type`.
    #[error("a message of unknown type `{}`", .0.escape_debug())]
    Unknown(String),
    /// Not a message at all, or one whose fields are wrong.
    #[error("a malformed message")]
    Malformed(#[source] serde_json::Error),
}

/// A message of the control channel.
pub trait Message: Serialize + DeserializeOwned {
    /// The values of `type` that this release knows.
    const TYPES: &'static [&'static str];
}

impl Message for Request {
    const TYPES: &'static [&'static str] = &["hello", "roster", "report", "endpoints", "push"];
}

impl Message for Reply {
    const TYPES: &'static [&'static str] = &[
        "welcome",
        "refused",
        "roster",
        "up-to-date",
        "endpoints",
        "accepted",
        "done",
        "error",
    ];
}

impl Message for Notice {
    const TYPES: &'static [&'static str] = &["roster", "introduce", "refused"];
}

impl FrameHeader {
    /// Reads a header.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if it announces more than a frame may have.
    pub fn parse(header: [u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [a, b, c, d, e, f, g, h] = header;
        let message = u32::from_be_bytes([a, b, c, d]);
        let attachment = u32::from_be_bytes([e, f, g, h]);
        Ok(Self {
            message_bytes: within(message, MESSAGE_BYTES_MAX)
                .ok_or(FrameError::Message(message))?,
            attachment_bytes: within(attachment, ATTACHMENT_BYTES_MAX)
                .ok_or(FrameError::Attachment(attachment))?,
        })
    }

    /// Length of the message, in bytes.
    pub const fn message_bytes(self) -> usize {
        self.message_bytes
    }

    /// Length of the attachment, in bytes.
    pub const fn attachment_bytes(self) -> usize {
        self.attachment_bytes
    }
}

/// The header and the message of a frame; `attachment_bytes` bytes of attachment follow it.
///
/// # Errors
///
/// [`EncodeError`] if either part is too long.
pub fn encode_message(
    message: &impl Message,
    attachment_bytes: usize,
) -> Result<Vec<u8>, EncodeError> {
    if attachment_bytes > ATTACHMENT_BYTES_MAX {
        return Err(EncodeError::Attachment(attachment_bytes));
    }
    let attachment = u32::try_from(attachment_bytes)
        .map_err(|_| EncodeError::Attachment(attachment_bytes))?
        .to_be_bytes();
    let mut frame = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut frame, message).map_err(EncodeError::Json)?;
    let message_bytes = frame.len() - HEADER_BYTES;
    if message_bytes > MESSAGE_BYTES_MAX {
        return Err(EncodeError::Message(message_bytes));
    }
    let message = u32::try_from(message_bytes)
        .map_err(|_| EncodeError::Message(message_bytes))?
        .to_be_bytes();
    frame[..4].copy_from_slice(&message);
    frame[4..HEADER_BYTES].copy_from_slice(&attachment);
    Ok(frame)
}

/// Reads the message of a frame.
///
/// # Errors
///
/// [`DecodeError::Unknown`] for a type that a newer release may know, [`DecodeError::Malformed`] for
/// anything else.
pub fn decode_message<M: Message>(message: &[u8]) -> Result<M, DecodeError> {
    serde_json::from_slice(message).map_err(|error| match tag_of(message) {
        Some(tag) if !M::TYPES.contains(&tag.as_str()) => DecodeError::Unknown(tag),
        Some(_) | None => DecodeError::Malformed(error),
    })
}

fn within(length: u32, max: usize) -> Option<usize> {
    usize::try_from(length).ok().filter(|length| *length <= max)
}

/// The `type` of a message of any kind.
fn tag_of(message: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Tag {
        r#type: String,
    }
    serde_json::from_slice(message)
        .ok()
        .map(|tag: Tag| tag.r#type)
}

#[cfg(test)]
mod tests {
    use mesh_types::{IdentitySeed, Serial};
    use proptest::prelude::*;

    use super::*;
    use crate::control::ErrorCode;

    fn header_of(frame: &[u8]) -> Result<FrameHeader, FrameError> {
        FrameHeader::parse(frame[..HEADER_BYTES].try_into().unwrap())
    }

    fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
        let frame = encode_message(message, 7).unwrap();
        let header = header_of(&frame).unwrap();
        assert_eq!(header.attachment_bytes(), 7);
        assert_eq!(header.message_bytes(), frame.len() - HEADER_BYTES);
        assert_eq!(
            &decode_message::<M>(&frame[HEADER_BYTES..]).unwrap(),
            message
        );
        let tag = tag_of(&frame[HEADER_BYTES..]).unwrap();
        assert!(M::TYPES.contains(&tag.as_str()), "{tag} is not listed");
    }

    fn hello() -> Request {
        Request::Hello {
            identity: IdentitySeed::from_bytes([7; 32]).public(),
            name: Some("electrum".parse().unwrap()),
            release: "0.1.0".into(),
            serial: Some(Serial::FIRST),
            head: Some("00ff".into()),
            endpoints: vec!["192.0.2.1:4193".parse().unwrap()],
        }
    }

    #[test]
    fn every_message_survives_its_frame() {
        round_trip(&hello());
        round_trip(&Request::Roster { have: None });
        round_trip(&Request::Report { endpoints: vec![] });
        round_trip(&Request::Endpoints {
            peer: "galena".parse().unwrap(),
        });
        round_trip(&Request::Push { force: true });
        round_trip(&Reply::Welcome {
            name: "electrum".parse().unwrap(),
            serial: Serial::FIRST,
            time_millis: 1,
            observed: "[2001:db8::1]:4194".parse().unwrap(),
        });
        round_trip(&Reply::Refused { reason: "x".into() });
        round_trip(&Reply::Roster {
            serial: Serial::MAX,
        });
        round_trip(&Reply::UpToDate);
        round_trip(&Reply::Endpoints {
            online: true,
            endpoints: vec![],
        });
        round_trip(&Reply::Accepted {
            serial: Serial::FIRST,
            members: 2,
        });
        round_trip(&Reply::Done);
        round_trip(&Reply::Error {
            code: ErrorCode::RateLimited,
            message: "x".into(),
        });
        round_trip(&Notice::Roster {
            serial: Serial::FIRST,
        });
        round_trip(&Notice::Introduce {
            peer: "galena".parse().unwrap(),
            endpoints: vec![],
        });
        round_trip(&Notice::Refused { reason: "x".into() });
    }

    #[test]
    fn a_frame_has_the_documented_bytes() {
        let frame = encode_message(&Request::Push { force: false }, 258).unwrap();
        assert_eq!(
            frame,
            b"\0\0\0\x1d\0\0\x01\x02{\"type\":\"push\",\"force\":false}"
        );
    }

    #[test]
    fn what_a_newer_release_says_is_told_from_nonsense() {
        let unknown = decode_message::<Request>(br#"{"type":"teleport","x":1}"#);
        assert!(matches!(unknown, Err(DecodeError::Unknown(tag)) if tag == "teleport"));
        for malformed in [
            &b""[..],
            b"{}",
            b"[]",
            br#"{"type":7}"#,
            br#"{"type":"push"}"#,
            br#"{"type":"push","force":true} x"#,
            b"\xff",
        ] {
            let result = decode_message::<Request>(malformed);
            assert!(matches!(result, Err(DecodeError::Malformed(_))));
        }
        let extended = br#"{"type":"push","force":true,"since":"2.0"}"#;
        assert_eq!(
            decode_message::<Request>(extended).unwrap(),
            Request::Push { force: true }
        );
    }

    #[test]
    fn what_is_too_long_is_neither_announced_nor_believed() {
        let long = Request::Report {
            endpoints: vec!["192.0.2.1:4193".parse().unwrap(); 8192],
        };
        assert!(matches!(
            encode_message(&long, 0),
            Err(EncodeError::Message(_))
        ));
        assert!(matches!(
            encode_message(&Request::Push { force: false }, ATTACHMENT_BYTES_MAX + 1),
            Err(EncodeError::Attachment(_))
        ));
        assert_eq!(
            FrameHeader::parse([0, 1, 0, 1, 0, 0, 0, 0]),
            Err(FrameError::Message(65_537))
        );
        assert_eq!(
            FrameHeader::parse([0, 1, 0, 0, 1, 0, 0, 1]),
            Err(FrameError::Attachment(16 * 1024 * 1024 + 1))
        );
        assert!(FrameHeader::parse([0, 1, 0, 0, 1, 0, 0, 0]).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(header in any::<[u8; 8]>(), message in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = FrameHeader::parse(header);
            let _ = decode_message::<Request>(&message);
            let _ = decode_message::<Reply>(&message);
            let _ = decode_message::<Notice>(&message);
        }
    }
}
