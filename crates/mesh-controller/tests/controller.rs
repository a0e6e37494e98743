//! A controller in this process, asked by real QUIC clients over loopback.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

#[path = "controller/admission.rs"]
mod admission;
#[path = "controller/fleet.rs"]
mod fleet;
#[path = "controller/node.rs"]
mod node;
#[path = "controller/pushes.rs"]
mod pushes;
#[path = "controller/sources.rs"]
mod sources;
#[path = "controller/state.rs"]
mod state;
