//! The device of macOS: a socket to the kernel's `utun` control.
//!
//! Each packet has a header of four bytes before it, which is read into and written from a place of its
//! own beside the packet's buffer, so that no packet is copied for it. One packet is read or written a
//! system call: there is `recvmsg_x` for such sockets too, but it is undocumented and could not be tried.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    sys::uio::{readv, writev},
};

use super::{CreateTunError, Offload, PacketBatch};
use crate::darwin::{
    ioctl::{self, GET_CONTROL_ID, NAME_BYTES},
    sockaddr, utun,
};

/// What names an interface may have here.
const NAME_RULE: &str = "`utun` for the first free one, or `utun` and a number";

/// A `utun` interface. It vanishes, with its addresses and routes, when this is dropped or the process ends
/// in whatever way.
#[derive(Debug)]
pub struct Tun {
    queues: [Queue; 1],
    name: String,
    index: u32,
}

/// The queue of packets from the kernel.
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
}

impl Tun {
    /// Makes the interface `name`: `utun` for the first free number, or one with a number. It has no
    /// address: see [`crate::link`].
    ///
    /// # Errors
    ///
    /// [`CreateTunError`].
    pub fn create(name: &str, _: Offload, _: usize) -> Result<Self, CreateTunError> {
        let unit = utun::unit(name).ok_or_else(|| CreateTunError::Name {
            name: name.to_owned(),
            rule: NAME_RULE,
        })?;
        let fd = open_control().map_err(|error| CreateTunError::Open {
            device: "the kernel's `utun` control",
            hint: "let the sandbox pass sockets of the family PF_SYSTEM",
            source: error.into(),
        })?;
        let control = control_id(&fd).map_err(|error| io_error(name, error))?;
        match connect(&fd, &sockaddr::control(control, unit)) {
            Ok(()) => {}
            Err(Errno::EBUSY) => return Err(CreateTunError::InUse(name.to_owned())),
            Err(error @ Errno::EPERM) => {
                return Err(CreateTunError::Forbidden {
                    name: name.to_owned(),
                    privilege: "root; run it with `sudo` or through launchd",
                    source: error.into(),
                });
            }
            Err(error) => return Err(io_error(name, error)),
        }
        let name = interface_name(&fd).map_err(|error| io_error(name, error))?;
        let index =
            nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| io_error(&name, error))?;
        let queues = [Queue { fd }];
        Ok(Self {
            queues,
            name,
            index,
        })
    }

    /// Goes on with an interface that another process made, with what waits in it, its addresses and
    /// routes. `name` as for [`Tun::create`]: one without a number takes any.
    ///
    /// # Errors
    ///
    /// It is no `utun`, or has another number. Then it is closed, and if that was the last of its copies
    /// the interface goes with it.
    pub fn adopt(fds: Vec<OwnedFd>, name: &str, _: Offload) -> io::Result<Self> {
        let [fd] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| io::Error::other("an interface has one descriptor"))?;
        let found = interface_name(&fd)?;
        let wanted = utun::unit(name).is_some_and(|unit| unit == 0 || found == name);
        if !wanted || utun::unit(&found).is_none() {
            return Err(io::Error::other(
                "it is another device than the one configured",
            ));
        }
        let index = nix::net::if_::if_nametoindex(found.as_str())?;
        Ok(Self {
            queues: [Queue { fd }],
            name: found,
            index,
        })
    }

    /// Its queue.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// All that another process needs to go on with it.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(AsFd::as_fd)
    }

    /// What it does in the kernel's place: nothing.
    pub fn offload(&self) -> Offload {
        Offload::None
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, by which routes know it.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Hands packets to the kernel. A packet that it does not take (malformed, its queue is full, or the
    /// interface was taken down) is lost and the others go on, as on any network. Returns the number that
    /// it took.
    ///
    /// # Errors
    ///
    /// What `writev` gives when the interface is gone; the remaining packets are lost.
    pub fn send<'p>(&self, packets: impl IntoIterator<Item = &'p [u8]>) -> io::Result<usize> {
        let mut taken = 0;
        for packet in packets {
            let Some(header) = utun::header(packet) else {
                tracing::trace!("not an IP packet");
                continue;
            };
            match writev(
                &self.queues[0].fd,
                &[IoSlice::new(&header), IoSlice::new(packet)],
            ) {
                Ok(_) => taken += 1,
                Err(error @ (Errno::EBADF | Errno::ENOTCONN | Errno::ENXIO)) => {
                    return Err(error.into());
                }
                Err(error) => tracing::trace!(%error, "the kernel did not take a packet"),
            }
        }
        Ok(taken)
    }
}

impl Queue {
    /// Reads the packets that wait, as many as `batch` has room for. Never blocks: sleep with
    /// [`crate::poll::wait_readable`].
    ///
    /// Returns the number of packets; [`PacketBatch::packets`] has them.
    ///
    /// # Errors
    ///
    /// What `readv` gives: the interface was removed. Packets read before are kept.
    pub fn recv(&self, batch: &mut PacketBatch) -> io::Result<usize> {
        batch.clear();
        while let Some(slot) = batch.free_slot() {
            let mut header = [0; utun::HEADER_BYTES];
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(slot)];
            match readv(&self.fd, &mut parts) {
                Ok(0) => break,
                Ok(length) if length > utun::HEADER_BYTES => {
                    batch.push(length - utun::HEADER_BYTES);
                }
                // What is not longer than the header is no packet.
                Ok(_) => {}
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) if !batch.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(batch.len())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket for kernel controls, which does not block and is closed in programs that this one runs.
fn open_control() -> nix::Result<OwnedFd> {
    // SAFETY: `socket` takes plain numbers.
    let fd = unsafe { libc::socket(libc::PF_SYSTEM, libc::SOCK_DGRAM, libc::SYSPROTO_CONTROL) };
    let fd = Errno::result(fd)?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd)
}

fn control_id(fd: &OwnedFd) -> nix::Result<u32> {
    let mut info = ioctl::control_info(utun::CONTROL);
    // SAFETY: the request reads and fills a `struct ctl_info`, which `info` is as long as.
    let asked = unsafe { libc::ioctl(fd.as_raw_fd(), GET_CONTROL_ID, info.as_mut_ptr()) };
    Errno::result(asked)?;
    Ok(ioctl::control_id(&info))
}

fn connect(fd: &OwnedFd, address: &[u8; 32]) -> nix::Result<()> {
    let length = libc::socklen_t::try_from(address.len()).expect("32 fits");
    // SAFETY: `address` is a `struct sockaddr_ctl` of `length` bytes, which are only read.
    let connected = unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), length) };
    Errno::result(connected).map(drop)
}

fn interface_name(fd: &OwnedFd) -> nix::Result<String> {
    let mut name = [0_u8; NAME_BYTES];
    let mut length = libc::socklen_t::try_from(name.len()).expect("16 fits");
    // SAFETY: the kernel writes at most `length` bytes to `name`, and how many to `length`.
    let asked = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SYSPROTO_CONTROL,
            libc::UTUN_OPT_IFNAME,
            name.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(asked)?;
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

fn io_error(name: &str, error: Errno) -> CreateTunError {
    CreateTunError::Io {
        name: name.to_owned(),
        source: error.into(),
    }
}
