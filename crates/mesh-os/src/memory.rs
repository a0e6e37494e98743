//! Memory that outlives a process without ever being a file on a disk: what one process hands on to the
//! next through a descriptor.
//!
//! On Linux a memfd that cannot be executed, grown or shrunk; elsewhere POSIX shared memory whose name is
//! taken away at once. It may be swapped out like any memory of the process that wrote it. `memfd_secret`
//! would not be, but many kernels are built without it and it keeps the machine from hibernating; locking
//! pages ends with the process that locked them, which is just when these begin to matter.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;
use zeroize::{Zeroize, Zeroizing};

/// The length of what follows comes first: shared memory may be rounded up to whole pages.
const LENGTH_BYTES: usize = 8;

/// Puts `bytes` into memory of their own, which lives as long as the descriptor or a copy of it.
///
/// # Errors
///
/// What the system says: no memory, no descriptors, or a sandbox that hides it.
pub fn store(bytes: &[u8]) -> io::Result<OwnedFd> {
    let size = LENGTH_BYTES + bytes.len();
    let fd = create(size)?;
    let mut map = Map::new(fd.as_fd(), size)?;
    let (length, body) = map.bytes().split_at_mut(LENGTH_BYTES);
    length.copy_from_slice(&u64::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
    body.copy_from_slice(bytes);
    Ok(fd)
}

/// Takes out what [`store`] put in, and leaves zeros: whoever else has the descriptor, nobody gets it a
/// second time.
///
/// # Errors
///
/// It is no such memory, or holds more than `bytes_max` bytes, or what the system says.
pub fn take(fd: &OwnedFd, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let wrong = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
    if !is_fixed(fd.as_fd()) {
        return Err(wrong("this is not memory of a fixed size"));
    }
    let size = usize::try_from(nix::sys::stat::fstat(fd)?.st_size).unwrap_or(usize::MAX);
    let page =
        usize::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096))
            .unwrap_or(4096);
    if size < LENGTH_BYTES || size > LENGTH_BYTES + bytes_max + page {
        return Err(wrong("its size is not one that was written"));
    }
    let mut map = Map::new(fd.as_fd(), size)?;
    let (length, body) = map.bytes().split_at_mut(LENGTH_BYTES);
    let length: [u8; LENGTH_BYTES] = (&*length).try_into().expect("split there");
    let length = usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX);
    let taken = body
        .get(..length)
        .filter(|taken| taken.len() <= bytes_max)
        .map(|taken| Zeroizing::new(taken.to_vec()));
    map.bytes().zeroize();
    taken
        .filter(|taken| !taken.is_empty())
        .ok_or_else(|| wrong("it is empty, or was taken before"))
}

#[cfg(target_os = "linux")]
fn create(size: usize) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let name = c"mesh-handover";
    let create = |flags| {
        // SAFETY: the name is a C string that outlives the call.
        let fd = Errno::result(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
        // SAFETY: the kernel made this descriptor for us.
        Ok::<_, Errno>(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let fd = match create(flags | libc::MFD_NOEXEC_SEAL) {
        // A kernel before 6.3 does not know that flag.
        Err(Errno::EINVAL) => create(flags)?,
        other => other?,
    };
    nix::unistd::ftruncate(&fd, libc::off_t::try_from(size).map_err(io::Error::other)?)?;
    // Not against writing: whoever takes the bytes leaves zeros. Its size is fixed, so that reading it
    // through a map cannot fail half-way.
    let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: this fcntl takes plain numbers.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(fd)
}

#[cfg(target_os = "linux")]
fn is_fixed(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: this fcntl takes plain numbers.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    let fixed = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK;
    seals >= 0 && seals & fixed == fixed
}

#[cfg(not(target_os = "linux"))]
fn create(size: usize) -> io::Result<OwnedFd> {
    use nix::{fcntl::OFlag, sys::mman, sys::stat::Mode};
    // A name that nobody has; it is gone before anyone could open it.
    let mut random = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    let name = format!("/mesh-{:016x}", u64::from_be_bytes(random));
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
    let fd = mman::shm_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    mman::shm_unlink(name.as_str())?;
    nix::unistd::ftruncate(&fd, libc::off_t::try_from(size).map_err(io::Error::other)?)?;
    Ok(fd)
}

/// Shared memory gets its size once, and only from its maker.
#[cfg(not(target_os = "linux"))]
const fn is_fixed(_: BorrowedFd<'_>) -> bool {
    true
}

/// A mapping of a whole descriptor.
struct Map {
    start: std::ptr::NonNull<libc::c_void>,
    size: usize,
}

impl Map {
    fn new(fd: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = std::ptr::NonNull::new(start).ok_or(Errno::EFAULT)?;
        Ok(Self { start, size })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `size` bytes are mapped, readable and writable, until drop; the object's size is fixed;
        // and the one process that has it besides (the writer) has ended or is us.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.size) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_taken_once() {
        let fd = store(b"keys").unwrap();
        let copy = fd.try_clone().unwrap();
        assert_eq!(take(&fd, 4).unwrap().as_slice(), b"keys");
        let again = take(&copy, 4).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn more_than_is_allowed_or_another_thing_is_refused_and_leaves_zeros() {
        let fd = store(&[1; 100]).unwrap();
        assert!(take(&fd, 99).is_err());
        assert!(take(&fd, 100).is_err(), "it was taken away all the same");
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        assert!(take(&file, 100).is_err());
        let (reader, _writer) = io::pipe().unwrap();
        assert!(take(&reader.into(), 100).is_err());
        assert!(take(&store(&[]).unwrap(), 100).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn its_size_is_fixed_and_programs_do_not_inherit_it() {
        let fd = store(b"keys").unwrap();
        assert!(nix::unistd::ftruncate(&fd, 1).is_err());
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
