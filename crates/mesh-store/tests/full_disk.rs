//! A full disk is an error, loses nothing that was acknowledged, and is over when there is room again.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

use std::{fs, path::Path, process::Command};

use mesh_store::{Store, StoredRoster, Write};
use mesh_types::Serial;

/// A small file system of its own, gone with this value.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `None` where this user may not mount.
    fn mount(path: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(path)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn roster(number: u64) -> Vec<Write> {
    vec![Write::Roster(StoredRoster {
        serial: Serial::try_from(number).unwrap(),
        file: vec![b'x'; 300_000],
    })]
}

fn in_force(store: &Store) -> u64 {
    let snapshot = store.load().unwrap();
    snapshot
        .rosters
        .first()
        .map_or(0, |roster| roster.serial.get())
}

#[test]
fn a_full_disk_is_an_error_and_not_the_end() {
    let room = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(room.path()) else {
        println!("skipped: mounting a file system needs root");
        return;
    };
    let filler = room.path().join("filler");
    fs::write(&filler, vec![0; 5 * 1024 * 1024]).unwrap();
    let mut store = Store::open(room.path()).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match store.commit(roster(acknowledged + 1)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1000, "the disk never was full");
    };
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("No space left"), "{source}");
    drop(store);

    fs::remove_file(&filler).unwrap();
    let mut store = Store::open(room.path()).unwrap();
    assert_eq!(store.damage(), None);
    let last = in_force(&store);
    assert!(last == acknowledged || last == acknowledged + 1);
    store.commit(roster(last + 1)).unwrap();
    assert_eq!(in_force(&store), last + 1);
}
