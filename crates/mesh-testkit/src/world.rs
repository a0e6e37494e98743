//! A world on a virtual clock: sites behind NATs and firewalls, lines that lose and delay, and hosts that
//! move between them.
//!
//! ```text
//!   host ── site (home: NAT, firewall) ── site (carrier: NAT) ── the internet ── host
//! ```
//!
//! An [`Underlay`] carries datagrams between hosts and knows nothing of what is in them. [`reference`] says
//! which pairs of hosts must have a direct path, from the behaviour of what lies between them alone.
//! A [`Fleet`] is machines with real engines on it.
//!
//! The same seed gives the same world.

mod campaign;
mod changes;
mod channels;
mod client;
mod controller;
mod filter;
mod fleet;
mod gateway;
mod history;
mod line;
mod machine;
mod machines;
mod nat;
pub mod recovery;
pub mod reference;
mod rosters;
mod shape;
mod streams;
mod talk;
mod underlay;

pub use campaign::Campaign;
pub use changes::{Change, Isolation, Weather};
pub use filter::{Dependence, Filter};
pub use fleet::{Arrived, Fleet, Traffic};
pub use gateway::{Firewall, Gateway, Passage};
pub use history::{Failure, History, Summary, WIDE_FROM, run_bytes, run_seed};
pub use line::{Carried, Line, Way};
pub use nat::{Nat, NatBehaviour, Ports};
pub use reference::Verdict;
pub use talk::Talk;
pub use underlay::{Arrival, Families, HostId, PORT, SiteId, TooBig, Underlay};
