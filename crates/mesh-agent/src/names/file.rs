//! The names on disk, for the privileged step that sets the machine's resolver.

use std::path::{Path, PathBuf};

use mesh_api::{NAMES_BELL, NAMES_FILE, Names};
use mesh_os::file;
use tracing::warn;

use crate::chain;

/// Everyone may read what everyone may ask.
const MODE: u32 = 0o644;

/// The file, which goes when this does.
#[derive(Debug)]
pub(super) struct NamesFile {
    path: PathBuf,
    written: Option<Names>,
}

impl NamesFile {
    /// The file beside `socket`. What an agent left there that was killed is removed.
    pub(super) fn beside(socket: &Path) -> Self {
        let file = Self {
            path: socket.with_file_name(NAMES_FILE),
            written: None,
        };
        file.remove();
        file
    }

    /// Makes the file say `names`, or removes it; what it says already is not written again.
    pub(super) fn keep(&mut self, names: Option<&Names>) {
        if self.written.as_ref() == names {
            return;
        }
        let Some(names) = names else {
            self.remove();
            self.written = None;
            self.ring();
            return;
        };
        let written = serde_json::to_vec(names)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                tokio::task::block_in_place(|| file::write_atomic(&self.path, &bytes, MODE))
                    .map_err(|error| chain(&error))
            });
        match written {
            Ok(()) => {
                self.written = Some(names.clone());
                self.ring();
            }
            Err(error) => warn!(error, "could not write the names for the resolver"),
        }
    }

    /// After the change, or whoever hears it could look too early.
    fn ring(&self) {
        if let Err(error) = std::fs::write(self.path.with_file_name(NAMES_BELL), "") {
            warn!(%error, "could not tell that the names for the resolver changed");
        }
    }

    fn remove(&self) {
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => warn!(%error, "could not remove the names for the resolver"),
        }
    }
}

impl Drop for NamesFile {
    fn drop(&mut self) {
        self.remove();
        // With the agent gone there is nobody who would hear it.
        let _ = std::fs::remove_file(self.path.with_file_name(NAMES_BELL));
    }
}
