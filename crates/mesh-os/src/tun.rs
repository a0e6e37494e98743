//! The TUN device: packets between this process and the kernel's network stack.
//!
//! [`Tun::recv`] fills a [`PacketBatch`] with what is there; [`Tun::send`] takes any number of packets.
//! One packet is read or written a system call today. Offloads (the virtio-net header: one read gives a
//! super-packet that is split into the batch's slots, one write takes a run of packets) and several queues
//! (one [`Tun`] a queue) change the inside of these two calls only.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;

/// The longest interface name, in bytes (`IFNAMSIZ` without the final zero).
const NAME_BYTES_MAX: usize = 15;

/// A TUN device, up to one queue. It vanishes, with its addresses and routes, when this is dropped or the
/// process ends in whatever way.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    index: u32,
}

/// Why a TUN device was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTunError {
    /// The name does not suit an interface.
    #[error("`{0}` is no interface name: 1 to 15 characters, no `/`, `:`, `%` or space")]
    Name(String),
    /// The kernel has no TUN, or a sandbox hides it.
    #[error(
        "cannot open `/dev/net/tun`; load the `tun` module, or let the sandbox pass the device"
    )]
    Open(#[source] io::Error),
    /// Another process has an interface of this name.
    #[error("interface `{0}` is in use; stop the other process, or choose another `interface`")]
    InUse(String),
    /// Without CAP_NET_ADMIN.
    #[error(
        "creating interface `{name}` needs CAP_NET_ADMIN; run as root or through the service manager"
    )]
    Forbidden {
        /// The interface.
        name: String,
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

/// Room for many packets, each with free bytes before and after it, so that it can be sealed in place.
///
/// Slots follow each other without gaps: when all packets are full-sized, the sealed datagrams are one
/// contiguous run.
#[derive(Debug)]
pub struct PacketBatch {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    slots: usize,
    head_room: usize,
    packet_bytes_max: usize,
    tail_room: usize,
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
        .map_err(|error| CreateTunError::Open(error.into()))?;
        // SAFETY: TUNSETIFF reads and fills the ifreq that it is given, which outlives the call.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        match Errno::result(result) {
            Ok(_) => {}
            Err(Errno::EBUSY) => return Err(CreateTunError::InUse(name.to_owned())),
            Err(error @ Errno::EPERM) => {
                return Err(CreateTunError::Forbidden {
                    name: name.to_owned(),
                    source: error.into(),
                });
            }
            Err(error) => return Err(io_error(name, error)),
        }
        let bytes = request.ifr_name.map(|byte| byte.cast_unsigned());
        let length = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let name = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let index =
            nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| io_error(&name, error))?;
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
        batch.lengths.clear();
        while let Some(slot) = batch.free_slot() {
            match nix::unistd::read(&self.fd, slot) {
                Ok(0) => break,
                Ok(length) => batch.lengths.push(length),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) if !batch.lengths.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(batch.lengths.len())
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

impl PacketBatch {
    /// Room for `slots` packets of at most `packet_bytes_max` bytes with `head_room` bytes before and
    /// `tail_room` bytes after each.
    pub fn new(slots: usize, packet_bytes_max: usize, head_room: usize, tail_room: usize) -> Self {
        Self {
            bytes: vec![0; slots * (head_room + packet_bytes_max + tail_room)],
            lengths: Vec::with_capacity(slots),
            slots,
            head_room,
            packet_bytes_max,
            tail_room,
        }
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The packets, each as its head room, the packet, and its tail room, in one slice: the packet is
    /// `slice[head_room..slice.len() - tail_room]`.
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let room = self.head_room + self.tail_room;
        let stride = room + self.packet_bytes_max;
        self.bytes
            .chunks_exact_mut(stride)
            .zip(&self.lengths)
            .map(move |(slot, length)| &mut slot[..room + length])
    }

    fn free_slot(&mut self) -> Option<&mut [u8]> {
        let used = self.lengths.len();
        if used == self.slots {
            return None;
        }
        let stride = self.head_room + self.packet_bytes_max + self.tail_room;
        let start = used * stride + self.head_room;
        self.bytes.get_mut(start..start + self.packet_bytes_max)
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
        return Err(CreateTunError::Name(name.to_owned()));
    }
    // SAFETY: an ifreq is plain bytes, for which all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
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
                matches!(request_for(bad), Err(CreateTunError::Name(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_batch_gives_each_packet_its_room() {
        let mut batch = PacketBatch::new(2, 8, 3, 2);
        batch.free_slot().unwrap().copy_from_slice(b"12345678");
        batch.lengths.push(8);
        batch.free_slot().unwrap()[..2].copy_from_slice(b"ab");
        batch.lengths.push(2);
        assert!(batch.free_slot().is_none());
        let packets: Vec<_> = batch.packets().map(|p| p.to_vec()).collect();
        assert_eq!(
            packets,
            [b"\0\0\x0012345678\0\0".to_vec(), b"\0\0\0ab\0\0".to_vec()]
        );
    }
}
