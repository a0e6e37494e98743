//! WireGuard sessions, peers and timers as state machines without I/O.
//!
//! Two halves share each session. The [`Engine`] has one owner and does what is rare: handshakes,
//! timers, changes of the roster, packets between agents. [`Forwarding`] is what data threads use for
//! every packet, without a lock between them: it finds the peer's session, seals, opens, and leaves
//! stamps that the engine's timers read.
//!
//! ```text
//!   TUN ──> Forwarding::route, Route::seal ──> UDP          no session: Engine::handle_packet
//!   UDP ──> Forwarding::open ──> TUN                        handshake:  Engine::handle_datagram
//!                        └─ attention ─> Engine::handle_timeout ─> poll_transmit, poll_event
//! ```
//!
//! A process hands its sessions on to the next one with [`Engine::hand_over`] and [`Engine::take_over`].
//!
//! Time, the wall clock and randomness are arguments: the same inputs give the same outputs, byte for
//! byte. Bytes from the network are authenticated before they change anything, and every queue and
//! table has a bound. This crate must never read a clock, open a socket or a file, or wait.
//!
//! Used by `mesh-agent`; `mesh-testkit` runs it over a simulated network. `docs/data-plane.md` tells
//! the rules and where they differ from the WireGuard whitepaper.

mod allowance;
mod allowed_ips;
mod attention;
mod backoff;
mod choice;
mod conversation;
mod cookie;
mod dialler;
mod engine;
mod forwarding;
mod gossip;
mod handover;
mod hearsay;
mod hold;
mod link;
pub mod names;
mod noise;
mod packet;
mod paths;
mod port_mapping;
mod reason;
mod relay;
mod replay;
mod rules;
mod session;
mod stamps;
mod sync;
mod time;
mod usage;
mod via;
mod watched;
mod word_hasher;

pub use conversation::{Conversation, Errand};
pub use dialler::{Dial, Dialler};
pub use engine::{
    Engine, EngineConfig, Event, Keeping, MoonView, OPENER_HOPS, PacketRefused, PeerConfig,
    PeerState, PeerStory, PeerView, Received, TakeOverError, TakenOver, Transmit,
};
pub use forwarding::{Forwarding, Opened, Refusal, Route, Run};
pub use gossip::{Gossip, Hint};
pub use handover::{HANDOVER_BYTES_MAX, HANDOVER_FORMAT, Handover, ParseHandoverError};
pub use hearsay::{Hearsay, usable_endpoints};
pub use noise::{Curve, Protocol, SelfTestError, X25519, self_test};
pub use packet::{
    AnswerRate, Cut, clamp as clamp_segments, cut, ecn, hand_on_ecn, prohibited, too_big,
};
pub use paths::{MTU_BASE, MTU_MAX, Origin, PathChange, PathEvent, PathView};
pub use port_mapping::{
    Gateway, GatewayAsk, MappedView, MappingProtocol, MappingView, PortMapper, Unmapped, is_public,
};
pub use reason::{Mapping, Prediction, Reach, Reason};
pub use relay::{Forwarded, Granted, RelayDropped, RelayLimits, RelayServer, RelayView};
/// For measurements: sessions alone have a use for it.
#[doc(hidden)]
pub use replay::{Order, ReplayWindow};
pub use rules::{Access, Asked, Grant, RuleCounts, judge_any};
pub use session::SealError;
pub use stamps::Stamp;
pub use time::{Now, WallTime};
pub use via::{Carrier, Remote, StreamId, Via};
