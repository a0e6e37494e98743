//! The roster on disk, with which the agent starts when no controller answers.

use std::{
    io,
    path::{Path, PathBuf},
};

use mesh_inventory::roster::{ROSTER_BYTES_MAX, Roster, RosterError, Signer};
use mesh_os::file::{self, ReadFileError, WriteFileError};
use mesh_types::NetworkId;

/// Who else may read the roster: nobody needs to, and it names the whole fleet.
const MODE: u32 = 0o600;

/// The stored roster's place in a state directory.
#[derive(Clone, Debug)]
pub(crate) struct StoredRoster(PathBuf);

/// Why a stored roster is passed over. The agent goes on without it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadRosterError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFileError),
    /// It is torn, forged, or of a signer that is no longer trusted.
    #[error("the stored roster `{}` is passed over", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RosterError,
    },
}

impl StoredRoster {
    /// The roster of the agent whose state is in `state_dir`.
    pub(crate) fn in_dir(state_dir: &Path) -> Self {
        Self(state_dir.join("roster.json"))
    }

    /// Reads and verifies it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`LoadRosterError`] if what is there is not a roster by one of `signers`.
    pub(crate) fn load(
        &self,
        network: &NetworkId,
        signers: &[Signer],
    ) -> Result<Option<Roster>, LoadRosterError> {
        let bytes = match file::read_bounded(&self.0, ROSTER_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(ReadFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match Roster::verify(&bytes, network, signers) {
            Ok(roster) => Ok(Some(roster)),
            Err(source) => Err(LoadRosterError::Refused {
                path: self.0.clone(),
                source,
            }),
        }
    }

    /// Writes it as a whole: a crash leaves the old one or this one.
    ///
    /// # Errors
    ///
    /// [`WriteFileError`]; the old one is then still there.
    pub(crate) fn store(&self, roster: &Roster) -> Result<(), WriteFileError> {
        file::write_atomic(&self.0, &roster.to_file(), MODE)
    }

    /// Removes it; `false` if there was none.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn forget(&self) -> io::Result<bool> {
        match std::fs::remove_file(&self.0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fleet, network};

    #[test]
    fn a_stored_roster_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let stored = StoredRoster::in_dir(dir.path());
        let fleet = Fleet::new(&["cinnabar", "galena"]);
        let signers = [fleet.signer()];
        assert!(stored.load(&network(), &signers).unwrap().is_none());
        let roster = fleet.roster(7);
        stored.store(&roster).unwrap();
        let loaded = stored.load(&network(), &signers).unwrap().unwrap();
        assert_eq!(loaded, roster);
        assert!(stored.forget().unwrap());
        assert!(!stored.forget().unwrap());
    }

    #[test]
    fn a_torn_or_forged_roster_is_passed_over_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let stored = StoredRoster::in_dir(dir.path());
        let fleet = Fleet::new(&["cinnabar", "galena"]);
        stored.store(&fleet.roster(7)).unwrap();

        let whole = std::fs::read(&stored.0).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 2] {
            std::fs::write(&stored.0, &whole[..length]).unwrap();
            let error = stored.load(&network(), &[fleet.signer()]).unwrap_err();
            assert!(matches!(error, LoadRosterError::Refused { .. }), "{error}");
        }

        std::fs::write(&stored.0, &whole).unwrap();
        let stranger = Fleet::new(&["cinnabar"]);
        let error = stored.load(&network(), &[stranger.signer()]).unwrap_err();
        assert!(
            matches!(
                error,
                LoadRosterError::Refused {
                    source: RosterError::UntrustedSigner { .. },
                    ..
                }
            ),
            "{error}"
        );
    }
}
