//! Files that are never half-written, and secrets that nobody else can read.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, PersistError};
use zeroize::Zeroizing;

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteFileError {
    /// The file is there already, and was to be written only once.
    #[error("`{}` exists already and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// A directory is in the way.
    #[error("`{}` is a directory; name a file", .0.display())]
    Directory(PathBuf),
    /// The system refused.
    #[error("cannot write `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFileError {
    /// It is longer than what is read.
    #[error("`{}` is longer than {max} bytes", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most bytes that are read.
        max: usize,
    },
    /// It is a directory, a device or a pipe.
    #[error("`{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A secret that others can read or write.
    #[error(
        "`{}` is open to others (mode {mode:04o}); close it with `chmod 600 {}`",
        .path.display(), .path.display()
    )]
    LoosePermissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A secret that belongs to another user.
    #[error("`{}` belongs to user id {owner}, not to this user ({user}) or root", .path.display())]
    WrongOwner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who reads it.
        user: u32,
    },
    /// The system refused.
    #[error("cannot read `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes a file as a whole: after a crash there is the old content or the new one, and after this
/// returns the new one survives a loss of power.
///
/// `mode` is the permission bits of the file, whatever the umask. A symbolic link at `path` is replaced.
///
/// # Errors
///
/// [`WriteFileError`]; the old content is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteFileError> {
    if path.is_dir() {
        return Err(WriteFileError::Directory(path.to_owned()));
    }
    let io_error = |source| WriteFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = write_temporary(path, bytes, mode).map_err(io_error)?;
    file.persist(path).map_err(|error| io_error(error.error))?;
    sync_directory(path).map_err(io_error)
}

/// As [`write_atomic`], but never in place of something that is there, also not when two processes try
/// at the same time.
///
/// # Errors
///
/// [`WriteFileError::Exists`] if there is anything at `path`, and the others.
pub fn write_once(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteFileError> {
    if path.is_dir() {
        return Err(WriteFileError::Directory(path.to_owned()));
    }
    // Told before the secret is written anywhere; `persist_noclobber` decides.
    if path.symlink_metadata().is_ok() {
        return Err(WriteFileError::Exists(path.to_owned()));
    }
    let io_error = |source| WriteFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = write_temporary(path, bytes, mode).map_err(io_error)?;
    match file.persist_noclobber(path) {
        Ok(_) => sync_directory(path).map_err(io_error),
        Err(PersistError { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(WriteFileError::Exists(path.to_owned()))
        }
        Err(PersistError { error, .. }) => Err(io_error(error)),
    }
}

/// As [`write_atomic`], in the place of a file that was read: mode and owner stay. `before` is what the
/// system said of the file when it was read; `false`: that is not so any more, and nothing was written.
///
/// # Errors
///
/// [`WriteFileError`]; the old content is then still there.
pub fn replace(path: &Path, bytes: &[u8], before: &Metadata) -> Result<bool, WriteFileError> {
    let replaced = || {
        let file = write_temporary(path, bytes, before.mode() & 0o7777)?;
        let made = file.as_file().metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            fchown(file.as_file(), Some(before.uid()), Some(before.gid()))?;
            // A change of the owner takes the bits that change the user away.
            file.as_file().set_permissions(before.permissions())?;
        }
        if !is_unchanged(before, &fs::symlink_metadata(path)?) {
            return Ok(false);
        }
        file.persist(path).map_err(|error| error.error)?;
        sync_directory(path)?;
        Ok(true)
    };
    replaced().map_err(|source| WriteFileError::Io {
        path: path.to_owned(),
        source,
    })
}

fn is_unchanged(before: &Metadata, now: &Metadata) -> bool {
    let told = |of: &Metadata| (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec());
    told(before) == told(now)
}

/// Makes a directory that only its owner may enter, unless there is one. Parents that are missing are
/// open to all, so that a process can reach its own directory after it changed its user.
///
/// # Errors
///
/// What the system says.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        create_dirs(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Makes the directory `path` and those above it that are missing, open to all to pass through (0755)
/// whatever the umask. What is there already stays as it is.
///
/// # Errors
///
/// What the system says.
pub fn create_dirs(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .collect();
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether this process is root's, which may write where the system's own files are.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
///
/// [`ReadFileError`].
pub fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, ReadFileError> {
    let mut file = open_regular(path, 0)?;
    let mut bytes = Vec::new();
    read_at_most(&mut file, path, max, &mut bytes)?;
    Ok(bytes)
}

/// As [`read_bounded`], of a file in a directory that others may write to: a symbolic link is not followed.
///
/// # Errors
///
/// [`ReadFileError`].
pub fn read_bounded_unlinked(path: &Path, max: usize) -> Result<Vec<u8>, ReadFileError> {
    let mut file = open_regular(path, libc::O_NOFOLLOW)?;
    let mut bytes = Vec::new();
    read_at_most(&mut file, path, max, &mut bytes)?;
    Ok(bytes)
}

/// Reads a secret of at most `max` bytes that nobody but this user, or root, can read or write.
///
/// A symbolic link is followed; what counts is the file behind it. Credentials that the service manager
/// placed in `$CREDENTIALS_DIRECTORY` may show a group-read bit, which stands for an access list there, and
/// belong to the service's user although root reads them, to check a program before the service runs it.
///
/// # Errors
///
/// [`ReadFileError`].
pub fn read_secret(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, ReadFileError> {
    let mut file = open_regular(path, 0)?;
    let metadata = file.metadata().map_err(|source| ReadFileError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.mode() & 0o7777;
    let is_credential = is_credential(path);
    let forbidden = if is_credential { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(ReadFileError::LoosePermissions {
            path: path.to_owned(),
            mode,
        });
    }
    let user = nix::unistd::geteuid().as_raw();
    if !may_own(metadata.uid(), user, is_credential) {
        return Err(ReadFileError::WrongOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    // Room for everything, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max.saturating_add(1)));
    read_at_most(&mut file, path, max, &mut bytes)?;
    Ok(bytes)
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".mesh-")
        .suffix(".tmp")
        .tempfile_in(directory_of(path))?;
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn open_regular(path: &Path, flags: libc::c_int) -> Result<File, ReadFileError> {
    let io_error = |source| ReadFileError::Io {
        path: path.to_owned(),
        source,
    };
    // Not blocking, or opening a pipe would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags)
        .open(path)
        .map_err(io_error)?;
    if !file.metadata().map_err(io_error)?.is_file() {
        return Err(ReadFileError::NotAFile(path.to_owned()));
    }
    Ok(file)
}

fn read_at_most(
    file: &mut File,
    path: &Path,
    max: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), ReadFileError> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit)
        .read_to_end(bytes)
        .map_err(|source| ReadFileError::Io {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() > max {
        return Err(ReadFileError::TooLong {
            path: path.to_owned(),
            max,
        });
    }
    Ok(())
}

/// Whether `owner` may be whose secret `user` reads.
fn may_own(owner: u32, user: u32, is_credential: bool) -> bool {
    owner == user || owner == 0 || (user == 0 && is_credential)
}

fn is_credential(path: &Path) -> bool {
    let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
        return false;
    };
    match (fs::canonicalize(path), fs::canonicalize(dir)) {
        (Ok(path), Ok(dir)) => path.starts_with(dir),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
