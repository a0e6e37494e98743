//! Where peers were reached last, kept over a restart: without it, a machine that restarts while no
//! controller answers would find nobody but the peers with static endpoints.
//!
//! A hint and nothing more: whoever answers there must hold the peer's key.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mesh_inventory::roster::Roster;
use mesh_os::file::{self, ReadFileError};
use mesh_types::MachineName;
use tracing::warn;

use crate::chain;

/// The longest file, in bytes: 10 000 machines of the longest names and endpoints.
const FILE_BYTES_MAX: usize = 2 << 20;

/// The peers' last endpoints.
#[derive(Debug)]
pub(crate) struct Remembered {
    path: PathBuf,
    endpoints: BTreeMap<MachineName, SocketAddr>,
    /// Whether the file says something else.
    changed: bool,
}

impl Remembered {
    /// What is stored in `state_dir`; nothing if that is torn or missing.
    pub(crate) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("endpoints.json");
        let endpoints = load(&path);
        Self {
            path,
            endpoints,
            changed: false,
        }
    }

    /// Where `peer` was reached last.
    pub(crate) fn endpoint(&self, peer: &MachineName) -> Option<SocketAddr> {
        self.endpoints.get(peer).copied()
    }

    /// All of them.
    pub(crate) const fn endpoints(&self) -> &BTreeMap<MachineName, SocketAddr> {
        &self.endpoints
    }

    /// Notes that `peer` was reached at `endpoint`; true if that is news, to be [stored](Self::store). Who is in `roster`
    /// no more is forgotten.
    pub(crate) fn reached(
        &mut self,
        peer: MachineName,
        endpoint: SocketAddr,
        roster: Option<&Roster>,
    ) -> bool {
        if self.endpoints.insert(peer, endpoint) == Some(endpoint) {
            return false;
        }
        if let Some(roster) = roster {
            let members = roster.members();
            self.endpoints.retain(|name, _| members.contains_key(name));
        }
        self.changed = true;
        true
    }

    /// Stores what was noted since the last time.
    pub(crate) fn store(&mut self) {
        if std::mem::take(&mut self.changed) {
            store(&self.path, &self.endpoints);
        }
    }
}

/// What was noted last is stored at the end, too, however soon that comes.
impl Drop for Remembered {
    fn drop(&mut self) {
        self.store();
    }
}

/// The machines' endpoints stored at `path`; none if that is torn, missing, or too long to be ours.
pub(crate) fn load(path: &Path) -> BTreeMap<MachineName, SocketAddr> {
    match file::read_bounded(path, FILE_BYTES_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "the remembered endpoints are torn and passed over");
            BTreeMap::new()
        }),
        Err(ReadFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            BTreeMap::new()
        }
        Err(error) => {
            warn!(
                error = chain(&error),
                "the remembered endpoints are passed over"
            );
            BTreeMap::new()
        }
    }
}

/// Stores them as a whole.
pub(crate) fn store(path: &Path, endpoints: &BTreeMap<MachineName, SocketAddr>) {
    let text = serde_json::to_vec(endpoints).unwrap_or_default();
    if let Err(error) = file::write_atomic(path, &text, 0o600) {
        warn!(error = chain(&error), "could not remember endpoints");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fleet, name};

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn endpoints_come_back_after_a_restart_and_those_of_removed_members_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = Fleet::new(&["cinnabar", "galena"]);
        let both = fleet.roster(1);
        let mut remembered = Remembered::load(dir.path());
        assert!(remembered.reached(name("galena"), at(1), Some(&both)));
        assert!(remembered.reached(name("cinnabar"), at(2), Some(&both)));
        assert!(!remembered.reached(name("cinnabar"), at(2), Some(&both)));
        drop(remembered);
        let mut again = Remembered::load(dir.path());
        assert_eq!(again.endpoint(&name("galena")), Some(at(1)));

        fleet.members.remove(&name("galena"));
        let one = fleet.roster(2);
        again.reached(name("cinnabar"), at(3), Some(&one));
        again.store();
        let last = Remembered::load(dir.path());
        assert_eq!(last.endpoint(&name("galena")), None);
        assert_eq!(last.endpoint(&name("cinnabar")), Some(at(3)));
    }

    #[test]
    fn a_torn_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("endpoints.json"), "{\"galena\": \"192.0").unwrap();
        assert_eq!(Remembered::load(dir.path()).endpoint(&name("galena")), None);
    }
}
