//! The bytes that macOS's kernel takes and gives, built and parsed without a system call.
//!
//! Compiled into the tests of every system; on macOS [`crate::tun`], [`crate::link`] and [`crate::udp`] are
//! made of them, and `check` holds the layouts against those of the `libc` crate whenever the code is
//! compiled for macOS. Sources: xnu's `net/route.h`, `net/if.h`, `net/if_var.h`, `net/if_dl.h`,
//! `netinet/in.h`, `netinet6/in6_var.h`, `sys/kern_control.h` and `net/if_utun.h`.

#[cfg(target_os = "macos")]
mod check;
pub(crate) mod ioctl;
pub(crate) mod route;
pub(crate) mod sockaddr;
pub(crate) mod underlay;
pub(crate) mod utun;

#[cfg(test)]
mod tests;
