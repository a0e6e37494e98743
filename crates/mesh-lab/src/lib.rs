//! Namespaces and fleets of real processes on one machine: the demo, the system tests, the benches.
//!
//! A [`Lab`] is a network of namespaces, joined by a switch whose links can be cut and renumbered. A
//! [`Fleet`] runs a controller and agents in it, as separate processes of the program under test. All of
//! it goes with its owner: on drop, on panic, and when the owner is killed.
//!
//! Nothing here needs root where user namespaces are allowed; [`sandbox::enter`] says what is missing.
//! Linux only. It must never touch the network of the machine that it runs on.

#![cfg(target_os = "linux")]

pub mod bulk;
pub mod fleet;
mod namespace;
mod network;
pub mod ping;
mod process;
mod promise;
mod router;
pub mod sandbox;
mod site;
pub mod stream;
mod talk;
mod wait;

pub use fleet::{Fleet, program_under_test};
pub use namespace::Namespace;
pub use network::{Families, Lab, SiteId};
pub use process::{Cage, Process};
pub use promise::Promise;
pub use router::Router;
pub use talk::Talk;
pub use wait::wait_until;
