//! Frames on QUIC streams.

use std::time::Duration;

use mesh_wire::control::{
    DecodeError, EncodeError, FrameError, FrameHeader, HEADER_BYTES, Message, decode_message,
    encode_message,
};
use quinn::{ReadExactError, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use crate::Closed;

/// How long a message may take from its first byte to its last.
pub(crate) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an attachment may take: 16 MiB at 2 Mbit/s.
pub(crate) const ATTACHMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the other side may take to confirm what it got.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// Read at a time, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection is gone.
    #[error("the connection was lost")]
    Lost(#[source] Closed),
    /// The frame did not come in time.
    #[error("the message did not come in time")]
    TimedOut,
    /// The stream ended within the frame, or was given up by its sender.
    #[error("the message was cut short")]
    CutShort,
    /// The header announces too much.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The message is not one that this release knows.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The attachment is longer than is taken here.
    #[error("an attachment of {found} bytes; at most {max} are taken here")]
    Attachment {
        /// What was announced.
        found: usize,
        /// What is taken.
        max: usize,
    },
}

/// Why a frame could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The connection is gone.
    #[error("the connection was lost")]
    Lost(#[source] Closed),
    /// The other side does not take it.
    #[error("the other side did not take the message in time")]
    TimedOut,
    /// The other side gave the stream up.
    #[error("the other side gave the question up")]
    Stopped,
    /// It does not fit a frame.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Reads a frame's message; what is left on the stream is its attachment, of the returned length.
pub(crate) async fn read_message<M: Message>(
    stream: &mut RecvStream,
) -> Result<(M, usize), ReadError> {
    let read = async {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await?;
        let header = FrameHeader::parse(header)?;
        let message = read_bytes(stream, header.message_bytes()).await?;
        Ok((decode_message(&message)?, header.attachment_bytes()))
    };
    within(MESSAGE_TIMEOUT, read).await
}

/// Reads the attachment of a frame whose message was read.
pub(crate) async fn read_attachment(
    stream: &mut RecvStream,
    length: usize,
    max: usize,
) -> Result<Vec<u8>, ReadError> {
    if length > max {
        return Err(ReadError::Attachment { found: length, max });
    }
    within(ATTACHMENT_TIMEOUT, read_bytes(stream, length)).await
}

/// Reads the end of a stream whose frame was read. To drop it before that would tell the sender that the
/// frame is not wanted, if the end travels in a packet of its own. What follows the frame is passed over.
pub(crate) async fn read_end(stream: &mut RecvStream) {
    let _ = timeout(MESSAGE_TIMEOUT, stream.read_chunk(1, true)).await;
}

/// Writes a frame and the stream's end, and waits until the other side has all of it.
pub(crate) async fn write(
    stream: &mut SendStream,
    message: &impl Message,
    attachment: &[u8],
) -> Result<(), WriteError> {
    send(stream, message, attachment).await?;
    match timeout(CONFIRM_TIMEOUT, stream.stopped()).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(_))) => Err(WriteError::Stopped),
        Ok(Err(error)) => Err(lost_stopped(error)),
        Err(_) => Err(WriteError::TimedOut),
    }
}

/// Writes a frame and the stream's end.
pub(crate) async fn send(
    stream: &mut SendStream,
    message: &impl Message,
    attachment: &[u8],
) -> Result<(), WriteError> {
    let head = encode_message(message, attachment.len())?;
    let limit = if attachment.is_empty() {
        MESSAGE_TIMEOUT
    } else {
        ATTACHMENT_TIMEOUT
    };
    let write = async {
        stream.write_all(&head).await?;
        stream.write_all(attachment).await
    };
    match timeout(limit, write).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(lost_write(error)),
        Err(_) => {
            // The other side is to know that what it has is not all.
            let _ = stream.reset(VarInt::from_u32(0));
            return Err(WriteError::TimedOut);
        }
    }
    // Fails only on a stream that is finished or reset already.
    let _ = stream.finish();
    Ok(())
}

/// Grows with what comes, not with what is announced.
async fn read_bytes(stream: &mut RecvStream, length: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let wanted = (length - bytes.len()).min(CHUNK_BYTES);
        let chunk = stream
            .read_chunk(wanted, true)
            .await
            .map_err(lost_read)?
            .ok_or(ReadError::CutShort)?;
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(bytes)
}

async fn within<T>(
    limit: Duration,
    read: impl Future<Output = Result<T, ReadError>>,
) -> Result<T, ReadError> {
    timeout(limit, read)
        .await
        .unwrap_or(Err(ReadError::TimedOut))
}

impl From<ReadExactError> for ReadError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Self::CutShort,
            ReadExactError::ReadError(error) => lost_read(error),
        }
    }
}

fn lost_read(error: quinn::ReadError) -> ReadError {
    match error {
        quinn::ReadError::ConnectionLost(error) => ReadError::Lost(error.into()),
        quinn::ReadError::Reset(_)
        | quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => ReadError::CutShort,
    }
}

fn lost_write(error: quinn::WriteError) -> WriteError {
    match error {
        quinn::WriteError::ConnectionLost(error) => WriteError::Lost(error.into()),
        quinn::WriteError::Stopped(_)
        | quinn::WriteError::ClosedStream
        | quinn::WriteError::ZeroRttRejected => WriteError::Stopped,
    }
}

fn lost_stopped(error: quinn::StoppedError) -> WriteError {
    match error {
        quinn::StoppedError::ConnectionLost(error) => WriteError::Lost(error.into()),
        quinn::StoppedError::ZeroRttRejected => WriteError::Stopped,
    }
}
