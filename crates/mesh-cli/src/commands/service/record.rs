//! What was installed, so that exactly that is removed again.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::layout::Daemon;

/// The form of the record that this release writes.
pub(super) const VERSION: u32 = 1;

/// The file that `install` leaves for `uninstall`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The form of this file, [`VERSION`].
    pub(super) version: u32,
    /// What the agent's installation wrote.
    #[serde(default)]
    pub(super) agent: BTreeSet<PathBuf>,
    /// What the controller's installation wrote.
    #[serde(default)]
    pub(super) controller: BTreeSet<PathBuf>,
    /// The directories that were made for either, which go when they are empty.
    #[serde(default)]
    pub(super) dirs: BTreeSet<PathBuf>,
    /// The accounts that were made for either, which go with `--purge`.
    #[serde(default)]
    pub(super) users: BTreeSet<String>,
}

impl Record {
    /// The files of one daemon.
    pub(super) fn files(&self, daemon: Daemon) -> &BTreeSet<PathBuf> {
        match daemon {
            Daemon::Agent => &self.agent,
            Daemon::Controller => &self.controller,
        }
    }

    /// The files of one daemon, to change.
    pub(super) fn files_mut(&mut self, daemon: Daemon) -> &mut BTreeSet<PathBuf> {
        match daemon {
            Daemon::Agent => &mut self.agent,
            Daemon::Controller => &mut self.controller,
        }
    }

    /// Whether either installation wrote `path`.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.agent.contains(path) || self.controller.contains(path)
    }

    /// The file's text.
    pub(super) fn to_text(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("paths that came from text");
        format!("{json}\n")
    }
}
