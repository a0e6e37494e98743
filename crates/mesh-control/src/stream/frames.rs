//! Datagrams in a stream of bytes.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 2 | length of the datagram, big-endian; zero: none, to be passed over |
//! | 2 | | the datagram |

use std::{io, ops::Range};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is read at a time, in bytes: the longest datagram fits, so behind a part of one there is always room.
const READ_BYTES: usize = LENGTH_BYTES + DATAGRAM_BYTES_MAX;

const LENGTH_BYTES: usize = 2;

/// The longest datagram, in bytes.
pub const DATAGRAM_BYTES_MAX: usize = 0xffff;

/// Reads datagrams from a stream.
pub(super) struct FrameReader<R> {
    read: R,
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
}

/// Appends a datagram with its length in front, if it is not longer than [`DATAGRAM_BYTES_MAX`].
pub(super) fn push(frames: &mut Vec<u8>, datagram: &[u8]) {
    if let Ok(length) = u16::try_from(datagram.len()) {
        frames.extend(length.to_be_bytes());
        frames.extend_from_slice(datagram);
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(read: R) -> Self {
        Self {
            read,
            bytes: vec![0; READ_BYTES].into(),
            begin: 0,
            end: 0,
        }
    }

    /// Waits for the next datagram, and says where it is; `None`: the other side has ended the stream. Dropping
    /// the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Range<usize>>> {
        loop {
            if let Some(length) = self.ready() {
                let datagram = self.begin + LENGTH_BYTES..self.begin + LENGTH_BYTES + length;
                self.begin = datagram.end;
                if length > 0 {
                    return Ok(Some(datagram));
                }
                continue;
            }
            // Half of a datagram at most is left: it goes to the front, and the longest has room behind it.
            self.bytes.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
            let read = self.read.read(&mut self.bytes[self.end..]).await?;
            if read == 0 {
                return match self.end {
                    0 => Ok(None),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            self.end += read;
        }
    }

    /// What is where [`FrameReader::next`] said.
    pub(super) fn at(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[range]
    }

    /// The length of the datagram that is there as a whole.
    fn ready(&self) -> Option<usize> {
        let held = &self.bytes[self.begin..self.end];
        let (length, rest) = held.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        (rest.len() >= length).then_some(length)
    }
}
