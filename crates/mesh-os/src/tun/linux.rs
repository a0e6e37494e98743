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

/// Flags of a device (`linux/if_tun.h`). `IFF_VNET_HDR`: a header in front of each packet says what the kernel left to the
/// device.
const HAS_HEADERS: libc::c_short = 0x4000;
/// `IFF_MULTI_QUEUE`: it may have several queues.
const HAS_QUEUES: libc::c_short = 0x0100;
/// `IFF_TUN_EXCL`: there is to be none of this name.
const IS_NEW: libc::c_short = libc::c_short::MIN;
/// `IFF_DETACH_QUEUE`: no packets come by this descriptor.
const IS_DETACHED: libc::c_short = 0x0400;

/// What the kernel leaves to a device (`linux/if_tun.h`): checksums, cutting TCP of both families, cutting UDP.
const LEAVES_CHECKSUMS: libc::c_uint = 0x01;
const LEAVES_TCP: libc::c_uint = 0x02 | 0x04 | 0x08;
const LEAVES_UDP: libc::c_uint = 0x20 | 0x40;

/// A TUN device. It vanishes, with its addresses and routes, when this is dropped or the process ends in whatever
/// way.
#[derive(Debug)]
pub struct Tun {
    queues: Vec<Queue>,
    /// What packets go to the kernel by where there are several queues: a descriptor that none come by. The kernel
    /// moves a flow to the queue that its answers are written to, and what waits in the other one would be overtaken.
    writer: Option<OwnedFd>,
    name: String,
    index: u32,
    offload: Offload,
}

/// A queue of packets from the kernel. All of one flow come by the same one, in their order.
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
    offload: Offload,
}

impl Tun {
    /// Makes the TUN device `name`, with so many queues; a `%d` in the name is replaced by the first free number. It is
    /// down and has no address: see [`crate::link`]. It does no more than `offload`, and what of that the kernel offers.
    ///
    /// # Errors
    ///
    /// [`CreateTunError`].
    pub fn create(name: &str, offload: Offload, queues: usize) -> Result<Self, CreateTunError> {
        let mut request = request_for(name)?;
        let has_several = queues > 1;
        let given = |flag: libc::c_short, is: bool| if is { flag } else { 0 };
        // SAFETY: `request_for` wrote the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags }
            | given(HAS_HEADERS, offload > Offload::None)
            | given(HAS_QUEUES, has_several);
        // Another process's device with several queues would be joined.
        request.ifr_ifru.ifru_flags = flags | given(IS_NEW, has_several);
        let first = open(&mut request, name)?;
        // `c_char` has a sign on some processors and none on others.
        let bytes = request.ifr_name.map(|byte| byte.to_ne_bytes()[0]);
        let length = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let name = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let index =
            nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| io_error(&name, error))?;
        let offload = if offload == Offload::None {
            offload
        } else {
            ask_for(&first, offload).map_err(|error| io_error(&name, error))?
        };
        let mut another = || {
            request.ifr_ifru.ifru_flags = flags;
            open(&mut request, &name)
        };
        let mut opened = vec![Queue { fd: first, offload }];
        for _ in 1..queues {
            let fd = another()?;
            opened.push(Queue { fd, offload });
        }
        let mut writer = None;
        if has_several {
            let fd = another()?;
            detach(&fd).map_err(|error| io_error(&name, error))?;
            writer = Some(fd);
        }
        Ok(Self {
            queues: opened,
            writer,
            name,
            index,
            offload,
        })
    }

    /// Goes on with a device that another process made, by its descriptors in any order, with what waits in it, its
    /// addresses and routes, and as many queues as it has. It does no more than `offload` from now on, except that what
    /// waits may come as it was made before.
    ///
    /// # Errors
    ///
    /// It is not the device `name` as [`Tun::create`] makes it, or it is gone. Then `fds` are closed, and if
    /// those were the last of its copies the device goes with them.
    pub fn adopt(fds: Vec<OwnedFd>, name: &str, offload: Offload) -> io::Result<Self> {
        let expected = request_for(name).map_err(io::Error::other)?;
        let mut queues = Vec::new();
        let mut writer = None;
        let mut has_headers = false;
        for fd in fds {
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
            // Whether headers come with packets was settled when it was made.
            has_headers = is & HAS_HEADERS != 0;
            match is & IS_DETACHED {
                0 => queues.push(fd),
                _ => writer = Some(fd),
            }
        }
        let index = nix::net::if_::if_nametoindex(name)?;
        let Some(first) = queues.first() else {
            return Err(io::Error::other("none of its queues was handed on"));
        };
        let offload = match has_headers {
            false => Offload::None,
            true => ask_for(first, offload)?,
        };
        let queues = queues.into_iter().map(|fd| Queue { fd, offload });
        Ok(Self {
            queues: queues.collect(),
            writer,
            name: name.to_owned(),
            index,
            offload,
        })
    }

    /// Its queues, one at least.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// All that another process needs to go on with it.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let queues = self.queues.iter().map(|queue| queue.fd.as_fd());
        queues.chain(self.writer.as_ref().map(AsFd::as_fd))
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

    /// Hands packets to the kernel. A packet that it does not take (malformed, its queue is full, or the
    /// device was taken down) is lost and the others go on, as on any network. Returns the number that it
    /// took.
    ///
    /// # Errors
    ///
    /// What `write` gives when the device is gone; the remaining packets are lost.
    pub fn send<'p>(&self, packets: impl IntoIterator<Item = &'p [u8]>) -> io::Result<usize> {
        let mut taken = 0;
        let writer = self.writer.as_ref().unwrap_or(&self.queues[0].fd);
        let mut write = |count: usize, parts: &[IoSlice<'_>]| {
            match nix::sys::uio::writev(writer, parts) {
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

impl Queue {
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
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a device, or another queue of one.
fn open(request: &mut libc::ifreq, name: &str) -> Result<OwnedFd, CreateTunError> {
    let fd = nix::fcntl::open(
        "/dev/net/tun",
        nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .map_err(|error| CreateTunError::Open {
        device: "`/dev/net/tun`",
        hint: "load the `tun` module, or let the sandbox pass the device",
        source: error.into(),
    })?;
    // SAFETY: TUNSETIFF reads and fills the ifreq that it is given, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut *request) };
    match Errno::result(result) {
        Ok(_) => Ok(fd),
        Err(Errno::EBUSY) => Err(CreateTunError::InUse(name.to_owned())),
        // One with several queues, which this one is not to be of.
        Err(Errno::EINVAL) if nix::net::if_::if_nametoindex(name).is_ok() => {
            Err(CreateTunError::InUse(name.to_owned()))
        }
        Err(error @ Errno::EPERM) => Err(CreateTunError::Forbidden {
            name: name.to_owned(),
            privilege: "CAP_NET_ADMIN; run as root or through the service manager",
            source: error.into(),
        }),
        Err(error) => Err(io_error(name, error)),
    }
}

/// Lets no more packets come by a descriptor.
fn detach(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: an ifreq is plain bytes, for which all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = IS_DETACHED;
    // SAFETY: TUNSETQUEUE reads the ifreq that it is given, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, &raw const request) };
    Errno::result(result)?;
    Ok(())
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
