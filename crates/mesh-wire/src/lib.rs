//! Every byte format of the mesh: WireGuard's messages, the agents' own packets inside the tunnel, what
//! moons relay, the messages of the control channel, and what routers are asked.
//!
//! Pure: bytes in, values out, and back. A parser never panics and never allocates more than its input.

pub mod control;
mod endpoint;
pub mod gateway;
pub mod reflect;
pub mod relay;
pub mod tunnel;
pub mod wireguard;
