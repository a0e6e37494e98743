//! Messages between an agent, an admin's `mesh inventory push`, and a controller.
//!
//! Each question is a QUIC stream of its own, opened by the client: one [`Request`] frame, answered by
//! one [`Reply`] frame. A controller speaks unasked in [`Notice`] frames, each on a unidirectional
//! stream. A frame is
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 4 | length of the message, big-endian, at most [`MESSAGE_BYTES_MAX`] |
//! | 4 | 4 | length of the attachment, big-endian, at most [`ATTACHMENT_BYTES_MAX`] |
//! | 8 | | the message: JSON, an object with a `type` |
//! | | | the attachment: a roster file, or nothing |
//!
//! Unknown fields are ignored, an unknown request is answered with [`ErrorCode::Unsupported`], and an
//! unknown notice is passed over: an old agent works with a new controller and the other way round.

use std::net::SocketAddr;

use mesh_types::{MachineName, NetworkId, PublicIdentity, Serial};
use serde::{Deserialize, Serialize};

mod frame;

pub use frame::{
    DecodeError, EncodeError, FrameError, FrameHeader, HEADER_BYTES, Message, decode_message,
    encode_message,
};

/// The protocol that client and server agree on during the TLS handshake (ALPN).
pub const ALPN: &[u8] = b"mesh-control/1";

/// The longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The longest attachment, in bytes: a roster of about 25 000 members.
pub const ATTACHMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most endpoints in one message; further ones are passed over.
pub const ENDPOINTS_MAX: usize = 16;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Request {
    /// The first question of an agent. Answered by [`Reply::Welcome`] or [`Reply::Refused`].
    Hello {
        /// Its public identity, whose Ed25519 half is the key of this connection; an Ed25519 half that
        /// is not is refused.
        identity: PublicIdentity,
        /// The name that the agent believes to have; the controller goes by the key alone.
        name: Option<MachineName>,
        /// The agent's release, such as `0.1.0`.
        release: String,
        /// Serial of the roster it holds; `None`: it holds none.
        serial: Option<Serial>,
        /// Hash of that roster's head, in lower-case hex; `None`: it holds none, or does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head: Option<String>,
        /// Underlay endpoints under which its WireGuard socket may be reached.
        endpoints: Vec<SocketAddr>,
    },
    /// Asks for the roster. Answered by [`Reply::Roster`] with the file attached, or [`Reply::UpToDate`].
    Roster {
        /// Serial of the roster that the client holds; `None`: it holds none.
        have: Option<Serial>,
    },
    /// Tells the agent's endpoints after they changed. Answered by [`Reply::Done`].
    Report {
        /// As in [`Request::Hello`].
        endpoints: Vec<SocketAddr>,
    },
    /// Asks where a peer may be reached; the peer is told of the asker in [`Notice::Introduce`].
    /// Answered by [`Reply::Endpoints`].
    Endpoints {
        /// The peer's name in the roster.
        peer: MachineName,
    },
    /// A new machine proves that it was invited. Answered by [`Reply::Joined`].
    Join {
        /// The network that it was invited to.
        network: NetworkId,
        /// The name that it was invited as.
        name: MachineName,
        /// Its public identity, whose Ed25519 half is the key of this connection.
        identity: PublicIdentity,
        /// The public half of the invitation's secret.
        invitation: PublicIdentity,
        /// By that secret, of network, name and identity.
        proof: String,
    },
    /// Hands over a signed roster, the attachment. Needs no identity. Answered by [`Reply::Accepted`].
    Push {
        /// Take it in spite of an unexpected predecessor, or of over half the members being gone.
        force: bool,
    },
}

/// What a controller answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Reply {
    /// The agent is admitted.
    Welcome {
        /// Its name in the controller's roster.
        name: MachineName,
        /// Serial of the controller's roster.
        serial: Serial,
        /// The controller's wall clock, in milliseconds since 1970.
        time_millis: u64,
        /// Where the client's packets come from, as the controller sees it.
        observed: SocketAddr,
    },
    /// The agent is not admitted; the controller closes the connection after this.
    Refused {
        /// Why, as a sentence without a full stop, such as `this key is not in the roster (serial 7)`.
        reason: String,
    },
    /// The roster is attached.
    Roster {
        /// Its serial.
        serial: Serial,
    },
    /// The client's roster is the controller's.
    UpToDate,
    /// Where a peer may be reached.
    Endpoints {
        /// Whether the peer is connected to this controller.
        online: bool,
        /// Its endpoints, empty if none is known.
        endpoints: Vec<SocketAddr>,
    },
    /// The pushed roster is in force.
    Accepted {
        /// Its serial.
        serial: Serial,
        /// Its number of members.
        members: u64,
    },
    /// The invitation counts, and the machine's key is known.
    Joined {
        /// Whether the roster in force has it; else somebody with a signer's key has to sign one.
        admitted: bool,
    },
    /// The request was carried out.
    Done,
    /// The request was not carried out.
    Error {
        /// What a program may act on.
        code: ErrorCode,
        /// What a person reads.
        message: String,
    },
}

/// What a controller says unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Notice {
    /// There is a newer roster: a reason to ask for it.
    Roster {
        /// Its serial.
        serial: Serial,
    },
    /// A peer wants to talk: open this side towards it.
    Introduce {
        /// The peer's name in the roster.
        peer: MachineName,
        /// Where it may be reached.
        endpoints: Vec<SocketAddr>,
    },
    /// The client is no longer admitted; the controller closes the connection after this.
    Refused {
        /// As in [`Reply::Refused`].
        reason: String,
    },
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is not one that this release knows.
    Unsupported,
    /// The request is malformed.
    Malformed,
    /// Only an admitted machine may ask this.
    NotAdmitted,
    /// The roster is forged, stale, or not what this controller may take.
    RosterRefused,
    /// The roster is genuine, but `force` is needed to take it.
    ForceNeeded,
    /// The invitation does not count.
    InvitationRefused,
    /// Too many requests; try again later.
    RateLimited,
    /// The controller has no roster yet.
    NoRoster,
    /// Something broke on the controller's side; its log says what.
    Internal,
}
