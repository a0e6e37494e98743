//! Notices that a file changed.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often a watched file is looked at: seldom enough for a laptop's battery, often enough that a machine
/// that leaves an inventory is cut off everywhere well within a second.
const PERIOD: Duration = Duration::from_millis(250);

/// Watches one file by looking at it four times a second.
///
/// Looking survives what notifications do not: replacement by rename, a symbolic link that is turned to
/// another file (as a NixOS switch does), a directory that comes later, a network file system.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    seen: Option<Fingerprint>,
    interval: Interval,
}

/// What tells one content from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileWatch {
    /// Watches `path` from its present content on, following symbolic links. Needs a Tokio runtime.
    ///
    /// Make the watch before reading the file, so that no change falls between the two.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let mut interval = interval(PERIOD);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            seen: fingerprint(&path),
            path,
            interval,
        }
    }

    /// Returns when the file's content changed since the last call, or since the watch was made.
    ///
    /// A file that vanishes is no change; one that comes back different is. May be cancelled at any time.
    pub async fn changed(&mut self) {
        loop {
            self.interval.tick().await;
            if self.look() {
                return;
            }
        }
    }

    fn look(&mut self) -> bool {
        let now = fingerprint(&self.path);
        let changed = now.is_some() && now != self.seen;
        if changed {
            self.seen = now;
        }
        changed
    }
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let metadata = path.metadata().ok()?;
    Some(Fingerprint {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_rewritten_a_replaced_and_a_relinked_file_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "one").unwrap();
        fs::write(at("b"), "two").unwrap();
        symlink("a", at("link")).unwrap();
        let mut watch = FileWatch::new(at("link"));

        fs::write(at("a"), "other").unwrap();
        timeout(DEADLINE, watch.changed()).await.unwrap();

        fs::write(at("new"), "three").unwrap();
        fs::rename(at("new"), at("a")).unwrap();
        timeout(DEADLINE, watch.changed()).await.unwrap();

        symlink("b", at("turned")).unwrap();
        fs::rename(at("turned"), at("link")).unwrap();
        timeout(DEADLINE, watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn an_untouched_or_missing_file_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(&path);
        assert!(!watch.look());
        fs::remove_file(&path).unwrap();
        assert!(!watch.look());
        fs::write(&path, "two").unwrap();
        assert!(watch.look());
        assert!(!watch.look());
    }
}
