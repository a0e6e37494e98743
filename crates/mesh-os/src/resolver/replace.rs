//! Changes a system file as a whole, and leaves it otherwise as it was: owner, mode, extended attributes, the
//! link that leads to it.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Component, Path, PathBuf},
};

use nix::unistd::{AccessFlags, access, geteuid};

use crate::file::{self, ReadFileError};

/// How often to start over because somebody else changed the file meanwhile.
const ATTEMPTS: usize = 5;

/// The most links on the way to a file, as in Linux.
const LINKS_MAX: usize = 40;

/// Why a file is not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplaceError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFileError),
    /// What is there belongs to a configuration system.
    #[error("`{}` is in the Nix store, which is never changed; use systemd-resolved (`services.resolved.enable`)", .0.display())]
    NixStore(PathBuf),
    /// Somebody else could change where it leads.
    #[error("`{}` is a link through `{}`, which others than root may change", .path.display(), .loose.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// The directory or file that is not root's alone.
        loose: PathBuf,
    },
    /// Its attributes forbid it.
    #[error("`{}` is immutable; `chattr -i` changes that", .0.display())]
    Immutable(PathBuf),
    /// Somebody else changes it again and again.
    #[error("`{}` changes all the time", .0.display())]
    Busy(PathBuf),
    /// The system refuses.
    #[error("cannot change `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Whether `path` can be changed, without doing it.
///
/// # Errors
///
/// [`ReplaceError`] is why not.
pub(super) fn check(path: &Path) -> Result<(), ReplaceError> {
    let target = resolve(path)?;
    if is_immutable(&target) {
        return Err(ReplaceError::Immutable(target));
    }
    if !geteuid().is_root() {
        // Who only looks wants to know what root could do.
        return Ok(());
    }
    access(&target, AccessFlags::W_OK).map_err(|error| failed(&target)(error.into()))
}

/// Replaces the content of `path`, of at most `max` bytes, by what `change` makes of it; nothing is written
/// if that is the same.
///
/// # Errors
///
/// [`ReplaceError`]; the file is then as it was.
pub(super) fn edit(
    path: &Path,
    max: usize,
    change: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<(), ReplaceError> {
    check(path)?;
    let target = resolve(path)?;
    for _ in 0..ATTEMPTS {
        let before = fs::metadata(&target).map_err(failed(&target))?;
        let old = file::read_bounded(&target, max)?;
        let new = change(&old);
        if new == old {
            return Ok(());
        }
        match replace(&target, &before, &new) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if needs_overwriting(&error) => {
                return overwrite(&target, &old, &new).map_err(failed(&target));
            }
            Err(error) => return Err(failed(&target)(error)),
        }
    }
    Err(ReplaceError::Busy(target))
}

/// Puts a new file in the place of `target`; false if that is not what `before` tells of any more.
fn replace(target: &Path, before: &Metadata, bytes: &[u8]) -> io::Result<bool> {
    let temporary = target.with_file_name(".hosts.mesh-new");
    // Left by a crash. One name, so that there is never more than one.
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        fchown(&file, Some(before.uid()), Some(before.gid()))?;
        attributes::copy(&File::open(target)?, &file);
        file.set_permissions(before.permissions())?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if !is_same(before, &fs::metadata(target)?) {
            return Ok(false);
        }
        fs::rename(&temporary, target)?;
        Ok(true)
    })();
    if !matches!(result, Ok(true)) {
        let _ = fs::remove_file(&temporary);
        return result;
    }
    if let Some(dir) = target.parent() {
        File::open(dir)?.sync_all()?;
    }
    result
}

/// Whether only the file itself can be written: it is mounted by itself, as in a container, its owner cannot
/// be kept, or its directory is closed.
fn needs_overwriting(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EPERM | libc::EACCES | libc::EROFS | libc::EXDEV)
    )
}

/// Writes what differs, from the first byte that does. The block is mostly the last thing in the file; a
/// crash then leaves a torn one, which the next start mends.
fn overwrite(target: &Path, old: &[u8], new: &[u8]) -> io::Result<()> {
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let mut file = OpenOptions::new().write(true).open(target)?;
    file.seek(SeekFrom::Start(
        u64::try_from(same).map_err(io::Error::other)?,
    ))?;
    file.write_all(&new[same..])?;
    file.set_len(u64::try_from(new.len()).map_err(io::Error::other)?)?;
    file.sync_all()
}

/// The file that `path` leads to, if nobody but root, or who runs this, can make it lead elsewhere: where
/// there is a link on the way, whatever the way goes through must be theirs alone.
fn resolve(path: &Path) -> Result<PathBuf, ReplaceError> {
    let mut at = PathBuf::from("/");
    let mut ahead = components(&std::path::absolute(path).map_err(failed(path))?);
    let mut loose = None;
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let metadata = next.symlink_metadata().map_err(failed(path))?;
        if !metadata.is_symlink() {
            if !is_ours_alone(&metadata) {
                loose.get_or_insert_with(|| next.clone());
            }
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(failed(path)(io::Error::from_raw_os_error(libc::ELOOP)));
        }
        if ![0, geteuid().as_raw()].contains(&metadata.uid()) {
            loose.get_or_insert_with(|| next.clone());
        }
        let target = fs::read_link(&next).map_err(failed(&next))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        ahead.extend(components(&target));
    }
    if at.starts_with("/nix/store") {
        return Err(ReplaceError::NixStore(at));
    }
    match loose.filter(|_| links > 0) {
        Some(loose) => Err(ReplaceError::Link {
            path: path.to_owned(),
            loose,
        }),
        None => Ok(at),
    }
}

/// The parts of a path, the first one last.
fn components(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut parts: Vec<_> = parts.collect();
    parts.reverse();
    parts
}

/// Whether only root, or who runs this, can write to it. In a directory like `/tmp`, what is there stays.
fn is_ours_alone(metadata: &Metadata) -> bool {
    let own = [0, geteuid().as_raw()].contains(&metadata.uid());
    let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    own && (metadata.mode() & 0o022 == 0 || sticky)
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    let identity = |it: &Metadata| {
        let times = (it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec());
        (it.dev(), it.ino(), it.size(), times)
    };
    identity(a) == identity(b)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ReplaceError + use<> {
    let path = path.to_owned();
    move |source| ReplaceError::Io {
        path: path.clone(),
        source,
    }
}

#[cfg(target_os = "linux")]
fn is_immutable(path: &Path) -> bool {
    use std::os::fd::AsRawFd as _;

    /// `FS_IMMUTABLE_FL` of ioctl_iflags(2).
    const IMMUTABLE: libc::c_int = 0x10;
    nix::ioctl_read!(flags_of, b'f', 1, libc::c_long);
    let Ok(file) = File::open(path) else {
        return false;
    };
    // The kernel writes an int for all that the request's number says long (ioctl_iflags(2)).
    let mut flags: libc::c_long = 0;
    // SAFETY: `flags` lives through the call and is as large as the request says, which is what is written
    // at most.
    let read = unsafe { flags_of(file.as_raw_fd(), &raw mut flags) };
    #[cfg(target_endian = "big")]
    let flags = flags >> 32;
    read.is_ok() && flags & libc::c_long::from(IMMUTABLE) != 0
}

#[cfg(not(target_os = "linux"))]
fn is_immutable(_path: &Path) -> bool {
    false
}

/// Extended attributes: access lists and labels of security modules.
#[cfg(target_os = "linux")]
mod attributes {
    use std::{ffi::CStr, fs::File, os::fd::AsRawFd as _};

    /// The most of names, and of a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
    const BYTES_MAX: usize = 1 << 16;

    /// Gives `to` the attributes of `from`, as far as the system lets it.
    pub(super) fn copy(from: &File, to: &File) {
        let mut names = vec![0u8; BYTES_MAX];
        // SAFETY: `names` is writable for the length that is passed, and the descriptor is open.
        let length =
            unsafe { libc::flistxattr(from.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
        let Ok(length) = usize::try_from(length) else {
            return;
        };
        names.truncate(length);
        let mut value = vec![0u8; BYTES_MAX];
        for name in names.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            // SAFETY: `name` ends with a zero byte, `value` is writable for the length that is passed.
            let length = unsafe {
                libc::fgetxattr(
                    from.as_raw_fd(),
                    name.as_ptr(),
                    value.as_mut_ptr().cast(),
                    value.len(),
                )
            };
            let Ok(length) = usize::try_from(length) else {
                continue;
            };
            // SAFETY: `name` as above; the kernel filled `length` bytes of `value`.
            // What the system does not let be set, it sets itself.
            let _ = unsafe {
                libc::fsetxattr(
                    to.as_raw_fd(),
                    name.as_ptr(),
                    value.as_ptr().cast(),
                    length,
                    0,
                )
            };
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod attributes {
    /// The hosts file of macOS has none that matter.
    pub(super) fn copy(_from: &std::fs::File, _to: &std::fs::File) {}
}

#[cfg(test)]
mod tests;
