//! The device of Linux: `/dev/net/tun`. One packet is read or written a system call.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;

use super::{CreateTunError, PacketBatch};

/// The longest interface name, in bytes (`IFNAMSIZ` without the final zero).
const NAME_BYTES_MAX: usize = 15;

/// What names an interface may have here.
const NAME_RULE: &str = "1 to 15 characters, no `/`, `:`, `%` or space";

/// A TUN device, up to one queue. It vanishes, with its addresses and routes, when this is dropped or the
/// process ends in whatever way.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    index: u32,
}

impl Tun {
    /// Makes the TUN device `name`; a `%d` in it is replaced by the first free number. It is down and has
    /// no address: see [`crate::link`].
    ///
    /// # Errors
    ///
    /// [`CreateTunError`].
    pub fn create(name: &str) -> Result<Self, CreateTunError> {
        let mut request = request_for(name)?;
        let fd = nix::fcntl::open(
            "/dev/net/tun",
            nix::fcntl::OFlag::O_RDWR
                | nix::fcntl::OFlag::O_NONBLOCK
                | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .map_err(|error| CreateTunError::Open {
            device: "`/dev/net/tun`",
            hint: "load the `tun` module, or let the sandbox pass the device",
            source: error.into(),
        })?;
        // SAFETY: TUNSETIFF reads and fills the ifreq that it is given, which outlives the call.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        match Errno::result(result) {
            Ok(_) => {}
            Err(Errno::EBUSY) => return Err(CreateTunError::InUse(name.to_owned())),
            Err(error @ Errno::EPERM) => {
                return Err(CreateTunError::Forbidden {
                    name: name.to_owned(),
                    privilege: "CAP_NET_ADMIN; run as root or through the service manager",
                    source: error.into(),
                });
            }
            Err(error) => return Err(io_error(name, error)),
        }
        // `c_char` has a sign on some processors and none on others.
        let bytes = request.ifr_name.map(|byte| byte.to_ne_bytes()[0]);
        let length = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let name = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let index =
            nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| io_error(&name, error))?;
        Ok(Self { fd, name, index })
    }

    /// Goes on with a device that another process made, with what waits in it, its addresses and routes.
    ///
    /// # Errors
    ///
    /// It is not the device `name` as [`Tun::create`] makes it, or it is gone. Then `fd` is closed, and if
    /// that was the last of its copies the device goes with it.
    pub fn adopt(fd: OwnedFd, name: &str) -> io::Result<Self> {
        let expected = request_for(name).map_err(io::Error::other)?;
        // SAFETY: an ifreq is plain bytes, for which all zero is a value.
        let mut found: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: TUNGETIFF fills the ifreq that it is given, which outlives the call; a descriptor of
        // something else does not know the request.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut found) };
        Errno::result(result)?;
        // SAFETY: TUNGETIFF and `request_for` both write the flags.
        let (is, wanted) = unsafe { (found.ifr_ifru.ifru_flags, expected.ifr_ifru.ifru_flags) };
        if found.ifr_name != expected.ifr_name || is & wanted != wanted {
            return Err(io::Error::other(
                "it is another device than the one configured",
            ));
        }
        let index = nix::net::if_::if_nametoindex(name)?;
        let name = name.to_owned();
        Ok(Self { fd, name, index })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, by which netlink knows it.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Reads the packets that wait, as many as `batch` has room for. Never blocks: sleep with
    /// [`crate::poll::wait_readable`].
    ///
    /// Returns the number of packets; [`PacketBatch::packets`] has them.
    ///
    /// # Errors
    ///
    /// What `read` gives: the device was removed. Packets read before are kept.
    pub fn recv(&self, batch: &mut PacketBatch) -> io::Result<usize> {
        batch.clear();
        while let Some(slot) = batch.free_slot() {
            match nix::unistd::read(&self.fd, slot) {
                Ok(0) => break,
                Ok(length) => batch.push(length),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) if !batch.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(batch.len())
    }

    /// Hands packets to the kernel. A packet that it does not take (malformed, its queue is full, or the
    /// device was taken down) is lost and the others go on, as on any network. Returns the number that it
    /// took.
    ///
    /// # Errors
    ///
    /// What `write` gives when the device is gone; the remaining packets are lost.
    pub fn send<'p>(&self, packets: impl IntoIterator<Item = &'p [u8]>) -> io::Result<usize> {
        let mut taken = 0;
        for packet in packets {
            match nix::unistd::write(&self.fd, packet) {
                Ok(_) => taken += 1,
                Err(error @ (Errno::EBADFD | Errno::EBADF)) => return Err(error.into()),
                Err(error) => tracing::trace!(%error, "the kernel did not take a packet"),
            }
        }
        Ok(taken)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn request_for(name: &str) -> Result<libc::ifreq, CreateTunError> {
    let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':');
    let pattern_ok = !name.replacen("%d", "", 1).contains('%');
    let valid = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && pattern_ok
        && name != "."
        && name != "..";
    if !valid {
        return Err(CreateTunError::Name {
            name: name.to_owned(),
            rule: NAME_RULE,
        });
    }
    // SAFETY: an ifreq is plain bytes, for which all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("both flags are small");
    Ok(request)
}

fn io_error(name: &str, error: Errno) -> CreateTunError {
    CreateTunError::Io {
        name: name.to_owned(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for good in ["mesh0", "mesh%d", "a", "abcdefghijklmno"] {
            assert!(request_for(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "abcdefghijklmnop",
            "a/b",
            "a b",
            "%s",
            "%d%d",
            "a:1",
            ".",
            "ä",
        ] {
            assert!(
                matches!(request_for(bad), Err(CreateTunError::Name { .. })),
                "{bad}"
            );
        }
    }
}
