//! What the operating system does for a node: TUN, sockets, addresses, routes, privileges, clocks, files.
//!
//! The one home of `cfg(target_os)` and, with mesh-aead, of `unsafe`. It moves data and decides nothing:
//! no roster, no session, no policy is known here. The agent, the controller and the lab use it.
//!
//! Every module has one API on all systems; what a system does differently is in a `linux.rs` or a
//! `darwin.rs` beneath it. Only [`netlink`] is Linux's alone.
//!
//! [`udp::UdpSocket`] and [`tun::Tun`] are made for plain threads: their calls never block, and
//! [`poll::wait_readable`] sleeps until there is something to read or somebody calls [`poll::Wake::wake`].

pub mod allocator;
pub mod clock;
pub mod confine;
#[cfg(any(target_os = "macos", test))]
mod darwin;
pub mod descriptors;
pub mod file;
pub mod host;
pub mod identity;
pub mod link;
pub mod log_file;
pub mod memory;
#[cfg(target_os = "linux")]
pub mod netlink;
pub mod notify;
pub mod paths;
pub mod poll;
pub mod priority;
pub mod privilege;
pub mod resolver;
pub mod sleep;
pub mod socket;
pub mod tun;
pub mod udp;
pub mod unix;
pub mod watch;
