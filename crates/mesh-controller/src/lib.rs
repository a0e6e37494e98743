//! The controller: admits machines, distributes rosters, introduces peers.
//!
//! `core` decides and is pure: who is admitted, which roster comes into force, who is told what. Around it
//! are thin shells: `serve` (QUIC), `http` (the local socket), `keeper` (the store's thread), `controller`
//! (what was decided is written down, then told) `opened` (what needs privileges) and `daemon` (start and
//! stop). A roster that is not on
//! the disk is announced to nobody, and nothing that is broken (a file, the store, a push) replaces the
//! roster in force.
//!
//! `mesh controller run` uses [`run`]; tests use [`Running`], and the simulator [`core`] alone. `docs/controller.md` is for its operators.

mod config;
mod controller;
pub mod core;
mod daemon;
mod http;
mod keeper;
mod opened;
mod places;
mod serve;

pub use config::{Config, ConfigError, DEFAULT_CONFIG, DEFAULT_SOCKET};
pub use daemon::{Running, run};
pub use opened::StartError;
