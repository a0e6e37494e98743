use quinn::{ConnectionError, VarInt};

use crate::transport::IDLE_TIMEOUT;

/// Why one side closed the connection on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// It has what it wanted.
    Done,
    /// The client is not admitted, or no longer.
    NotAdmitted,
    /// The other side broke the protocol or a limit.
    Violation,
    /// The same node connected again.
    Replaced,
    /// The server is going down.
    GoingAway,
    /// A reason of a newer release.
    Unknown,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The other side closed it and says why, in words that only it vouches for.
    #[error("the other side closed the connection: {reason}")]
    ByPeer {
        /// What a program may act on.
        code: CloseCode,
        /// What a person reads; may be empty.
        reason: String,
    },
    /// The other side was not heard of for [`IDLE_TIMEOUT`].
    #[error("no answer for {} s", IDLE_TIMEOUT.as_secs())]
    TimedOut,
    /// The other side knows nothing of this connection: it was restarted.
    #[error("the other side was restarted")]
    Reset,
    /// This side closed it.
    #[error("closed by this side")]
    Locally,
    /// QUIC or TLS ended it.
    #[error("the connection failed: {0}")]
    Failed(String),
}

impl CloseCode {
    pub(crate) fn to_wire(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Done => 0,
            Self::NotAdmitted => 1,
            Self::Violation => 2,
            Self::Replaced => 3,
            Self::GoingAway => 4,
            Self::Unknown => 5,
        })
    }

    fn from_wire(code: VarInt) -> Self {
        match code.into_inner() {
            0 => Self::Done,
            1 => Self::NotAdmitted,
            2 => Self::Violation,
            3 => Self::Replaced,
            4 => Self::GoingAway,
            _ => Self::Unknown,
        }
    }
}

impl From<ConnectionError> for Closed {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ByPeer {
                code: CloseCode::from_wire(close.error_code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::LocallyClosed => Self::Locally,
            error @ (ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::CidsExhausted) => Self::Failed(error.to_string()),
        }
    }
}
