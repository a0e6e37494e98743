//! The TUN device: packets between this process and the kernel's network stack.
//!
//! [`Queue::recv`] fills a [`PacketBatch`] with what is there; [`Tun::send`] takes any number of packets.
//! Whether several cross into the kernel in one call ([`Offload`]) is not seen outside of these two.
//!
//! What a system asks of its device is in a module of its own: `linux` opens `/dev/net/tun`, `darwin`
//! asks the `utun` control.

use std::{fmt, io, str::FromStr};

mod batch;
#[cfg(target_os = "macos")]
mod darwin;
#[cfg(target_os = "linux")]
mod linux;
#[doc(hidden)]
#[cfg(target_os = "linux")]
pub mod measured;
#[cfg(target_os = "linux")]
mod offload;

pub use batch::PacketBatch;
#[cfg(target_os = "macos")]
pub use darwin::{Queue, Tun};
#[cfg(target_os = "linux")]
pub use linux::{Queue, Tun};

/// The most queues that a device may have.
pub const QUEUES_MAX: usize = if cfg!(target_os = "linux") { 16 } else { 1 };

/// As many queues as suit this machine: each has a thread for either direction, and half of the processors are left
/// to programs.
pub fn usual_queues() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 4).clamp(1, 4).min(QUEUES_MAX)
}

/// What a device does in the kernel's place. What of it the kernel offers is found when the device is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offload {
    /// Nothing: a packet a call. There is no more on macOS.
    None,
    /// TCP comes and goes in pieces of up to 64 KiB.
    Tcp,
    /// UDP, too, where there is much of one length (Linux 6.2).
    #[default]
    TcpAndUdp,
}

/// For fuzzers: does with what a device might give in one read all that is done with it, and gives it back
/// joined.
///
/// # Panics
///
/// If a packet that came out is longer than a packet may be.
#[doc(hidden)]
#[cfg(target_os = "linux")]
pub fn cut_and_join(given: &[u8]) {
    offload::cut_and_join(given);
}

impl Offload {
    const ALL: [(Self, &str); 3] = [
        (Self::None, "none"),
        (Self::Tcp, "tcp"),
        (Self::TcpAndUdp, "tcp-and-udp"),
    ];
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(offload, _)| offload == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// The text names no offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("say `tcp-and-udp`, `tcp` or `none`")]
pub struct ParseOffloadError;

impl FromStr for Offload {
    type Err = ParseOffloadError;

    fn from_str(text: &str) -> Result<Self, ParseOffloadError> {
        let named = Self::ALL.iter().find(|(_, name)| *name == text);
        named.map(|(offload, _)| *offload).ok_or(ParseOffloadError)
    }
}

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
