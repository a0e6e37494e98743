//! A world on a virtual clock: sites behind NATs and firewalls, lines that lose and delay, and hosts that
//! move between them.
//!
//! ```text
//!   host ── site (home: NAT, firewall) ── site (carrier: NAT) ── the internet ── host
//! ```
//!
//! An [`Underlay`] carries datagrams between hosts and knows nothing of what is in them. [`reference`] says
//! which pairs of hosts must have a direct path, from the behaviour of what lies between them alone.
//! The same seed gives the same world.

mod filter;
mod gateway;
mod line;
mod nat;
pub mod reference;
mod underlay;

pub use filter::{Dependence, Filter};
pub use gateway::{Firewall, Gateway, Passage};
pub use line::{Carried, Line, Way};
pub use nat::{Nat, NatBehaviour, Ports};
pub use underlay::{Arrival, Families, HostId, PORT, SiteId, TooBig, Underlay};
