//! The TUN device: packets between this process and the kernel's network stack.
//!
//! [`Tun::recv`] fills a [`PacketBatch`] with what is there; [`Tun::send`] takes any number of packets.
//! Offloads and several queues change the inside of these two calls only.
//!
//! What a system asks of its device is in a module of its own: `linux` opens `/dev/net/tun`, `darwin`
//! asks the `utun` control.

use std::io;

mod batch;
#[cfg(target_os = "macos")]
mod darwin;
#[cfg(target_os = "linux")]
mod linux;

pub use batch::PacketBatch;
#[cfg(target_os = "macos")]
pub use darwin::Tun;
#[cfg(target_os = "linux")]
pub use linux::Tun;

/// Why a TUN device was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTunError {
    /// The name does not suit an interface.
    #[error("`{name}` is no name for the interface: {rule}")]
    Name {
        /// The name.
        name: String,
        /// What names this system takes.
        rule: &'static str,
    },
    /// The kernel has no TUN, or a sandbox hides it.
    #[error("cannot open {device}; {hint}")]
    Open {
        /// What was to be opened.
        device: &'static str,
        /// The next step.
        hint: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has an interface of this name.
    #[error("interface `{0}` is in use; stop the other process, or choose another `interface`")]
    InUse(String),
    /// Without the privilege.
    #[error("creating interface `{name}` needs {privilege}")]
    Forbidden {
        /// The interface.
        name: String,
        /// What is missing, and how to get it.
        privilege: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot create interface `{name}`")]
    Io {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}
