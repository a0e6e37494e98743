//! The agent: a machine's membership of the mesh.
//!
//! A shell. It opens what the operating system has (`mesh-os`), moves packets through the engine
//! (`mesh-core`) on two threads of their own, talks to controllers over QUIC (`mesh-control`), and
//! answers `mesh status` on a local socket. What it decides itself is pure and beside the shell: the
//! configuration, who is admitted and why not, what a peer's line says, when to try again.
//!
//! It must never take a roster that no configured signer signed, apply one that is older than that in
//! force, or hold a lock or allocate for a packet of an established session.
//!
//! The `mesh` binary calls [`run`] with a [`Config`]. [`supervise()`] and [`upgrade()`] see to it that one
//! process of the agent follows another without a packet lost.

mod agent;
mod config;
mod control;
mod daemon;
mod dataplane;
mod device;
mod gossip;
mod handover;
mod local;
mod logs;
mod measure;
mod metrics;
mod names;
mod netcheck;
mod overlay;
mod peers;
mod port_mapping;
mod pulse;
mod relay;
mod reload;
mod remembered;
pub mod resolver;
pub mod rules;
mod rumours;
mod self_check;
mod snapshot;
mod stored;
mod supervise;
#[cfg(test)]
mod testing;
mod underlay;
mod upgrade;
mod view;
mod why;

use std::io;

use mesh_types::chain;

pub use config::{
    At, Config, ConfigError, DEFAULT_PATH as CONFIG_PATH, HostPort, ParseHostPortError,
};
pub use daemon::run;
pub use logs::LogRing;
pub use names::hosts;
pub use self_check::{SelfCheck, SelfCheckError, self_check};
pub use supervise::{Supervise, ask_for_upgrade, supervise};
pub use upgrade::{Upgrade, Upgraded, upgrade};

/// Removes the stored roster, and with it the serial below which nothing is taken; `false` if there was
/// none. The agent must not be running.
///
/// # Errors
///
/// What the system says.
pub fn forget_roster(config: &Config) -> io::Result<bool> {
    stored::StoredRoster::in_dir(&config.state_dir).forget()
}
