//! The words of a mesh as types: keys, identities, network ids, names, addresses and time.
//!
//! Everything here is pure. A value of one of these types is valid by construction: text and bytes are
//! parsed once, at the edge, and never checked again. The formulas are fixed (see `docs/formats.md`):
//! an address depends on the network id and the machine's name only, never on a key.
//!
//! Every other crate uses this one; it uses none of ours.

mod chain;
mod ecn;
mod identity;
mod internet_sum;
mod name;
mod network;
mod reverse;
mod serial;
mod time;

pub use chain::chain;
pub use ecn::Ecn;
pub use identity::{
    IdentitySeed, MemberKey, NodeId, ParseKeyError, ParseSeedError, PublicIdentity,
    WireguardPublicKey,
};
pub use internet_sum::InternetSum;
pub use name::{MachineName, ParseNameError};
pub use network::{AddressError, NetworkId, ParseNetworkIdError, Prefix};
pub use reverse::{reverse_name, reverse_zones};
pub use serial::{ParseSerialError, Serial};
pub use time::Instant;

/// The UDP port of an agent: WireGuard, and what shares its socket.
pub const AGENT_PORT: u16 = 4193;

/// The UDP port of a controller: QUIC.
pub const CONTROLLER_PORT: u16 = 4194;
