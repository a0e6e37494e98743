//! The device of Linux: `/dev/net/tun`. Where the kernel can, several packets are read or written a system call.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;

use super::{
    CreateTunError, Offload, PacketBatch,
    offload::{HEADER_BYTES, Input, Room, join},
};

/// The longest interface name, in bytes (`IFNAMSIZ` without the final zero).
const NAME_BYTES_MAX: usize = 15;

/// What names an interface may have here.
const NAME_RULE: &str = "1 to 15 characters, no `/`, `:`, `%` or space";

/// `IFF_VNET_HDR`: a header in front of each packet says what the kernel left to the device.
const HAS_HEADERS: libc::c_short = 0x4000;

/// What the kernel leaves to a device (`linux/if_tun.h`): checksums, cutting TCP of both families, cutting UDP.
const LEAVES_CHECKSUMS: libc::c_uint = 0x01;
const LEAVES_TCP: libc::c_uint = 0x02 | 0x04 | 0x08;
const LEAVES_UDP: libc::c_uint = 0x20 | 0x40;

/// A TUN device, up to one queue. It vanishes, with its addresses and routes, when this is dropped or the
/// process ends in whatever way.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    index: u32,
    offload: Offload,
}

impl Tun {
    /// Makes the TUN device `name`; a `%d` in it is replaced by the first free number. It is down and has
    /// no address: see [`crate::link`]. It does no more than `offload`, and what of that the kernel offers.
    ///
    /// # Errors
    ///
    /// [`CreateTunError`].
    pub fn create(name: &str, offload: Offload) -> Result<Self, CreateTunError> {
        let mut request = request_for(name)?;
        if offload > Offload::None {
            // SAFETY: `request_for` wrote the flags.
            unsafe { request.ifr_ifru.ifru_flags |= HAS_HEADERS };
        }
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
        let offload = if offload == Offload::None {
            offload
        } else {
            ask_for(&fd, offload).map_err(|error| io_error(&name, error))?
        };
        Ok(Self {
            fd,
            name,
            index,
            offload,
        })
    }

    /// Goes on with a device that another process made, with what waits in it, its addresses and routes. It does no
    /// more than `offload` from now on, except that what waits may come as it was made before.
    ///
    /// # Errors
    ///
    /// It is not the device `name` as [`Tun::create`] makes it, or it is gone. Then `fd` is closed, and if
    /// that was the last of its copies the device goes with it.
    pub fn adopt(fd: OwnedFd, name: &str, offload: Offload) -> io::Result<Self> {
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
        // Whether headers come with packets was settled when it was made.
        let offload = match is & HAS_HEADERS {
            0 => Offload::None,
            _ => ask_for(&fd, offload)?,
        };
        Ok(Self {
            fd,
            name: name.to_owned(),
            index,
            offload,
        })
    }

    /// What it does in the kernel's place.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, by which netlink knows it.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Reads the packets that wait, as many as `batch` has room for, or those that one large packet is cut
    /// into. Where a large one did not fit, the next call goes on with it. Never blocks: sleep, once it read
    /// nothing, with
    /// [`crate::poll::wait_readable`].
    ///
    /// Returns the number of packets; [`PacketBatch::packets`] has them.
    ///
    /// # Errors
    ///
    /// What `read` gives: the device was removed. Packets read before are kept.
    pub fn recv(&self, batch: &mut PacketBatch) -> io::Result<usize> {
        batch.clear();
        if self.offload == Offload::None {
            while let Some(slot) = batch.free_slot() {
                match self.read(slot)? {
                    Some(length) => batch.push(length),
                    None => break,
                }
            }
            return Ok(batch.len());
        }
        // The batch is lent its own input.
        let mut input = std::mem::take(&mut batch.input);
        let result = self.recv_large(&mut input, batch);
        batch.input = input;
        // What was read before a failure is kept; the failure comes again.
        match result {
            Err(error) if batch.is_empty() => Err(error),
            _ => Ok(batch.len()),
        }
    }

    fn recv_large(&self, input: &mut Input, batch: &mut PacketBatch) -> io::Result<()> {
        let mut room = input.resume(batch);
        while room == Room::Left && batch.free_slot().is_some() {
            match self.read(input.room())? {
                Some(length) => room = input.take(length, batch),
                None => break,
            }
        }
        Ok(())
    }

    /// Reads once; `None`: nothing waits.
    fn read(&self, room: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match nix::unistd::read(&self.fd, room) {
                Ok(0) | Err(Errno::EAGAIN) => Ok(None),
                Ok(length) => Ok(Some(length)),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
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
        let mut write = |count: usize, parts: &[IoSlice<'_>]| {
            match nix::sys::uio::writev(&self.fd, parts) {
                Ok(_) => taken += count,
                Err(error @ (Errno::EBADFD | Errno::EBADF)) => return Err(error.into()),
                Err(error) => tracing::trace!(%error, count, "the kernel did not take packets"),
            }
            Ok(())
        };
        if self.offload == Offload::None {
            packets
                .into_iter()
                .try_for_each(|packet| write(1, &[IoSlice::new(packet)]))?;
            return Ok(taken);
        }
        join(packets, self.offload == Offload::TcpAndUdp, &mut write)?;
        Ok(taken)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Asks the kernel to leave to the device what it can, up to `most`, and returns what that is. Its headers are those
/// of the least offload at least.
fn ask_for(fd: &OwnedFd, most: Offload) -> io::Result<Offload> {
    let header_bytes = libc::c_int::try_from(HEADER_BYTES).expect("ten");
    // SAFETY: TUNSETVNETHDRSZ reads the number that it is given, which outlives the call.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETVNETHDRSZ,
            &raw const header_bytes,
        )
    };
    Errno::result(result)?;
    let asked = |leaves: libc::c_uint| {
        // SAFETY: TUNSETOFFLOAD takes a number and no pointer.
        let result = unsafe {
            libc::ioctl(
                fd.as_raw_fd(),
                libc::TUNSETOFFLOAD,
                libc::c_ulong::from(leaves),
            )
        };
        Errno::result(result).map(drop)
    };
    if most == Offload::TcpAndUdp && asked(LEAVES_CHECKSUMS | LEAVES_TCP | LEAVES_UDP).is_ok() {
        return Ok(Offload::TcpAndUdp);
    }
    match most {
        // It has headers, and they are empty: that is all that was asked for.
        Offload::None => asked(0)?,
        Offload::Tcp | Offload::TcpAndUdp => asked(LEAVES_CHECKSUMS | LEAVES_TCP)?,
    }
    Ok(Offload::Tcp)
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

fn io_error(name: &str, error: impl Into<io::Error>) -> CreateTunError {
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
