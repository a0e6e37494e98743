//! What a moon does with the frames of its clients.
//!
//! ```text
//!   client A                    moon                         client B
//!     │ RelayRequest (sealed)    │                              │
//!     ├─────────────────────────>│ grant: a token for this      │
//!     │      RelayGrant (sealed) │ address, not yet proven      │
//!     │<─────────────────────────┤                              │
//!     │ RelayRequest with token  │                              │
//!     ├─────────────────────────>│ the address is proven        │
//!     │ frame: A's token, B's tag│                              │
//!     ├─────────────────────────>│ frame: B's token, A's tag    │
//!     │                          ├─────────────────────────────>│
//! ```
//!
//! A request alone does not prove the address that it comes from: whoever is on the way can send it on from
//! another one first. What proves the address is the token coming back from there, in a frame or as the id
//! of a further request, because the token went there sealed. Until then frames for the client go to the
//! address before, or nowhere.
//!
//! Nothing waits in a moon. A frame is sent on at once or dropped, by two rules that every sender is
//! judged by: its own rate, and its equal share of what the moon sends ([`fair`]). So what a moon keeps
//! is a few hundred bytes a member.
//!
//! `docs/relay.md` has the limits with their reasons.

mod fair;
mod notices;
mod rate;
mod reflect;
mod server;

use std::time::Duration;

use mesh_types::WireguardPublicKey;
use mesh_wire::relay::HEADER_BYTES;

use crate::Remote;

pub use server::RelayServer;

/// What a moon spends on its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Clients at a time; further ones are refused. Each costs a few hundred bytes.
    pub clients_max: usize,
    /// What one client may send through the moon, in bytes a second.
    pub client_bytes_per_second: u64,
    /// What all clients together may, in bytes a second, shared equally among those that send.
    pub total_bytes_per_second: u64,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            // 100 Mbit/s: enough for a desktop or a backup until the direct path is there, a tenth of
            // the line of a usual server.
            client_bytes_per_second: 12_500_000,
            // 1 Gbit/s: the line of a usual server, and less than one core relays.
            total_bytes_per_second: 125_000_000,
        }
    }
}

/// What a moon gave a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// What frames from the client's address carry.
    pub token: u64,
    /// How long it counts unless the client asks again.
    pub lasts: Duration,
    /// Whether it came back from the address before, so that frames go there.
    pub proven: bool,
}

/// What became of a datagram that a moon looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The frame was rewritten in place and is to be sent there.
    To(Remote),
    /// This notice is to be sent to where the frame came from.
    Answer([u8; HEADER_BYTES]),
    /// Nothing is to be done.
    Dropped(RelayDropped),
    /// No frame towards a moon: the untouched datagram is for somebody else.
    NotOurs,
}

/// Why a moon drops a frame without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum RelayDropped {
    /// No header, or nothing behind it.
    #[error("a malformed frame")]
    Malformed,
    /// The client sends more than its rate.
    #[error("over the client's rate")]
    OverRate,
    /// The moon sends all that it may, and the client has more than its share of it under way.
    #[error("over the client's share of the moon's sending")]
    OverShare,
    /// A notice is due, but this source had enough of them.
    #[error("more notices than are sent")]
    Unanswered,
}

/// What a moon has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayView {
    /// Members with a session at this moon.
    pub clients: usize,
    /// Frames sent on.
    pub relayed_frames: u64,
    /// Their bytes, headers of frames included.
    pub relayed_bytes: u64,
    /// Frames dropped because their sender was over its rate or its share.
    pub limited_frames: u64,
    /// Notices sent in place of relaying.
    pub notices: u64,
}

/// Whether the roster lets two members talk. Members reach each other on everything.
fn may_talk(_sender: &WireguardPublicKey, _receiver: &WireguardPublicKey) -> bool {
    true
}
