//! The identity file: one line, read by its owner alone.

use std::{
    io,
    path::{Path, PathBuf},
};

use mesh_types::{IdentitySeed, ParseSeedError};

use crate::file::{ReadFileError, read_secret};

/// The longest file that is read, in bytes; an identity's line has 55.
const FILE_BYTES_MAX: usize = 256;

/// Where an identity is that no service manager handed over.
const IDENTITY_FILE: &str = "/etc/mesh/identity";

/// The name of the credential that the units pass to the daemons.
const CREDENTIAL: &str = "identity";

/// Where the identity is unless configured: the credential `identity` where the service manager gave one,
/// else `/etc/mesh/identity`.
pub fn default_path() -> PathBuf {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(|dir| Path::new(&dir).join(CREDENTIAL))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(IDENTITY_FILE))
}

/// Why an identity file is of no use. Shows nothing of the file's content, which may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ReadIdentityError {
    /// There is no file.
    #[error("there is no identity at `{}`; `mesh keygen --out {}` makes one", .0.display(), .0.display())]
    Missing(PathBuf),
    /// It cannot be read, or is open to others.
    #[error(transparent)]
    Read(ReadFileError),
    /// It holds something else.
    #[error("`{}` is {}", .0.display(), ParseSeedError)]
    Malformed(PathBuf),
}

/// Reads an identity file, which must belong to this user or root and be closed to others.
///
/// # Errors
///
/// [`ReadIdentityError`] names what is wrong with the file.
pub fn read_identity(path: &Path) -> Result<IdentitySeed, ReadIdentityError> {
    let malformed = || ReadIdentityError::Malformed(path.to_owned());
    let bytes = read_secret(path, FILE_BYTES_MAX).map_err(|error| match error {
        ReadFileError::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ReadIdentityError::Missing(path.to_owned())
        }
        ReadFileError::TooLong { .. } => malformed(),
        ReadFileError::Io { .. }
        | ReadFileError::NotAFile(_)
        | ReadFileError::LoosePermissions { .. }
        | ReadFileError::WrongOwner { .. } => ReadIdentityError::Read(error),
    })?;
    let line = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
    IdentitySeed::parse(line).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::write_once;

    #[test]
    fn an_identity_is_read_and_what_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        assert!(matches!(
            read_identity(&path),
            Err(ReadIdentityError::Missing(_))
        ));
        let seed = IdentitySeed::from_bytes([7; 32]);
        write_once(&path, seed.to_line().as_bytes(), 0o600).unwrap();
        assert_eq!(read_identity(&path).unwrap().public(), seed.public());
        for (name, content) in [("other", "hello\n".to_owned()), ("long", "x".repeat(1000))] {
            let path = dir.path().join(name);
            write_once(&path, content.as_bytes(), 0o600).unwrap();
            let error = read_identity(&path).unwrap_err();
            assert!(matches!(error, ReadIdentityError::Malformed(_)));
            assert!(!error.to_string().contains(content.trim_end()));
        }
        let open = dir.path().join("open");
        write_once(&open, seed.to_line().as_bytes(), 0o644).unwrap();
        assert!(matches!(
            read_identity(&open),
            Err(ReadIdentityError::Read(_))
        ));
    }
}
