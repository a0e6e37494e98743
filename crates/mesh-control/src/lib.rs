//! The control plane's channel: QUIC between raw public keys, one framed message a question.
//!
//! Both ends prove their Ed25519 key in the TLS 1.3 handshake (raw public keys, RFC 7250); a client may
//! come without one, because a signed roster needs no identity to be handed over. What the keys mean,
//! and who may ask what, is for the callers to decide: `mesh-controller` with [`Server`], `mesh-agent`
//! and `mesh inventory push` with [`connect`]. The messages are `mesh_wire::control`'s.
//!
//! [`mod@stream`] has the same keys over TCP, for datagrams where a network lets no UDP through.
//!
//! Nothing here buffers more than its bounds, whatever the other side sends, and each wait has a
//! deadline.

mod client;
mod closed;
mod crypto;
mod framing;
mod server;
pub mod stream;
mod transport;

pub use client::{ConnectError, Connection, Expect, RequestError, connect, connect_to};
pub use closed::{CloseCode, Closed};
pub use framing::{ReadError, WriteError};
pub use server::{Client, Handshake, Question, Server};
pub use transport::{IDLE_TIMEOUT, KEEP_ALIVE};

#[cfg(test)]
mod tests;
