//! A simulated network on a virtual clock: engines joined by a link that delays, loses, reorders and
//! doubles datagrams. Only ever a dev-dependency.
//!
//! [`Network`] steps from one arrival or timer to the next, so an hour passes in milliseconds, and the
//! same seed gives the same run. It checks at every step what must always hold: after a timer has run
//! the next one is later, no payload is ever readable on the wire, and no number is used twice under one key.
//!
//! [`world`] is where nodes are behind NATs and firewalls, and move.
//!
//! [`packets`] makes the IP packets that tests send.

mod curve;
mod network;
mod node;
pub mod packets;
pub mod world;

pub use network::{LinkQuality, Network};
pub use node::{Delivered, Node};
