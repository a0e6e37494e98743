//! Damage to the files is an error or is survived, and never a panic.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

use std::{fs, path::Path};

use mesh_store::{AuditEntry, AuditEvent, Store, StoredRoster, Write};
use mesh_types::Serial;

fn entry(number: u64) -> Vec<Write> {
    let serial = Serial::try_from(number).unwrap();
    vec![
        Write::Roster(StoredRoster {
            serial,
            file: vec![b'x'; 20_000],
        }),
        Write::Audit(AuditEntry {
            time_millis: number,
            event: AuditEvent::RosterRefused {
                by: "x".into(),
                reason: "y".into(),
            },
        }),
    ]
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Kinds of damage; those from [`EMPTYING`] on leave nothing that could be told from a store that was
/// never used.
const KINDS: usize = 7;
const EMPTYING: usize = 5;

/// One kind of damage at a place that `dice` picks.
fn damage(path: &Path, kind: usize, dice: u64) {
    let mut bytes = fs::read(path).unwrap();
    let length = u64::try_from(bytes.len()).unwrap();
    let place = usize::try_from(dice % length).unwrap().max(1);
    match kind {
        0 => bytes.truncate(place),
        1 => bytes[place..].iter_mut().take(64).for_each(|b| *b ^= 0x5a),
        2 => bytes[place..].iter_mut().take(4096).for_each(|b| *b = 0),
        3 => bytes = b"garbage".repeat(1000),
        4 => bytes[place] ^= 1,
        5 => bytes.clear(),
        _ => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

fn in_force(store: &Store) -> Option<u64> {
    let snapshot = store.load().unwrap();
    Some(snapshot.rosters.first()?.serial.get())
}

/// How often each file is damaged in each way.
const ROUNDS: u64 = 12;

#[test]
fn a_damaged_store_serves_whole_or_is_put_aside() {
    let whole = tempfile::tempdir().unwrap();
    {
        let mut store = Store::open(whole.path()).unwrap();
        for number in 1..100 {
            store.commit(entry(number)).unwrap();
        }
    }
    let (mut served, mut replaced) = (0, 0);
    for kind in 0..KINDS {
        for round in 0..ROUNDS {
            let room = tempfile::tempdir().unwrap();
            copy(whole.path(), room.path());
            let dice = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
            damage(&room.path().join("store.redb"), kind, dice);
            // A crash while opening is what a supervisor answers with a second start.
            let mut store = std::panic::catch_unwind(|| Store::open(room.path()))
                .unwrap_or_else(|_| Store::open(room.path()))
                .unwrap();
            match in_force(&store) {
                // Nothing that was acknowledged is lost.
                Some(serial) => {
                    assert_eq!(serial, 99);
                    assert_eq!(store.audit(usize::MAX).unwrap().len(), 99);
                    served += 1;
                }
                None => {
                    let aside = room.path().join("store.redb.damaged").exists();
                    assert_eq!(store.damage().is_some(), aside);
                    assert!(aside || kind >= EMPTYING, "lost without a word");
                    replaced += 1;
                }
            }
            store.commit(entry(100)).unwrap();
            drop(store);
            let store = Store::open(room.path()).unwrap();
            assert_eq!(in_force(&store), Some(100));
            assert_eq!(store.damage(), None);
        }
    }
    assert!(served > 0 && replaced > 0);
}

#[test]
fn a_store_has_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("another process has it"), "{source}");
    drop(first);
    assert_eq!(Store::open(dir.path()).unwrap().damage(), None);
}

#[test]
fn what_is_no_directory_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = Store::open(&file).err().unwrap().to_string();
    assert!(error.contains("cannot open the store"), "{error}");
    fs::create_dir(dir.path().join("store.redb")).unwrap();
    assert!(Store::open(dir.path()).is_err());
}
