//! What is set, on record: for whoever undoes it when the agent and its configuration are gone.
//!
//! Below `/run`, so a reboot forgets it together with what it speaks of; only the hosts file and
//! `/etc/resolver` outlive one, and those carry marks.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use mesh_types::NetworkId;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::Backend;
use crate::file;

/// The format of the record.
const VERSION: u32 = 1;

/// A record has a few lines.
const BYTES_MAX: usize = 1 << 16;

/// Something that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "backend")]
pub(super) enum Record {
    /// In systemd-resolved, for an interface.
    Resolved {
        /// The interface.
        interface: String,
        /// Its number, which another interface of that name has not.
        index: u32,
    },
    /// In openresolv.
    Resolvconf {
        /// The entry.
        key: String,
    },
    /// In `/etc/resolver`.
    EtcResolver {
        /// Whose marks the files have.
        network: NetworkId,
    },
    /// In the hosts file.
    Hosts {
        /// Whose marks the block has.
        network: NetworkId,
    },
}

/// All that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Records {
    version: u32,
    pub(super) set: Vec<Record>,
}

impl Record {
    pub(super) fn backend(&self) -> Backend {
        match self {
            Self::Resolved { .. } => Backend::Resolved,
            Self::Resolvconf { .. } => Backend::Resolvconf,
            Self::EtcResolver { .. } => Backend::EtcResolver,
            Self::Hosts { .. } => Backend::Hosts,
        }
    }
}

impl Records {
    pub(super) fn of(record: Record) -> Self {
        Self {
            version: VERSION,
            set: vec![record],
        }
    }

    /// These and `record`.
    pub(super) fn with(&self, record: &Record) -> Self {
        let mut set = self.set.clone();
        if !set.contains(record) {
            set.push(record.clone());
        }
        Self {
            version: VERSION,
            set,
        }
    }

    pub(super) fn path(root: &Path) -> PathBuf {
        dir(root).join("state.json")
    }

    /// What is on record; nothing where there is none that can be trusted.
    pub(super) fn read(root: &Path) -> Self {
        let nothing = Self {
            version: VERSION,
            set: Vec::new(),
        };
        let Ok(bytes) = file::read_bounded(&Self::path(root), BYTES_MAX) else {
            return nothing;
        };
        serde_json::from_slice(&bytes)
            .ok()
            .filter(|records: &Self| records.version == VERSION)
            .unwrap_or(nothing)
    }

    pub(super) fn write(&self, root: &Path) -> io::Result<()> {
        if Self::path(root).exists() && Self::read(root) == *self {
            return Ok(());
        }
        let bytes = serde_json::to_vec(self)?;
        file::write_atomic(&Self::path(root), &bytes, 0o644).map_err(io::Error::other)
    }

    pub(super) fn remove(root: &Path) {
        // An empty record is as good as none.
        let _ = fs::remove_file(Self::path(root));
    }
}

/// Keeps a second command from doing the opposite at the same time, for as long as it lives.
pub(super) fn lock(root: &Path) -> io::Result<Flock<File>> {
    let dir = dir(root);
    match fs::DirBuilder::new().mode(0o755).create(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = dir.symlink_metadata()?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!(
            "`{}` is not a directory of this user's",
            dir.display()
        )));
    }
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}

/// Root's own directory: the agent's must not decide what is undone.
fn dir(root: &Path) -> PathBuf {
    let run = if cfg!(target_os = "macos") {
        "var/run"
    } else {
        "run"
    };
    root.join(run).join("mesh-resolver")
}
