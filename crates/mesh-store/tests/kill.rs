//! A writer is killed with `kill -9` again and again and loses nothing that it acknowledged.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

use std::{
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use mesh_store::{AUDIT_MAX, AuditEntry, AuditEvent, HISTORY_MAX, Store, StoredRoster, Write};
use mesh_types::Serial;

const KILLS: u32 = 200;

/// Where the child finds the store.
const STORE: &str = "MESH_TEST_STORE";

/// The bytes of roster `number`: of many lengths, so that pages and blobs of all kinds are torn.
fn file(number: u64) -> Vec<u8> {
    let length = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 60_000;
    number
        .to_be_bytes()
        .into_iter()
        .cycle()
        .take(usize::try_from(length).unwrap())
        .collect()
}

fn writes(number: u64) -> Vec<Write> {
    let serial = Serial::try_from(number).unwrap();
    vec![
        Write::Roster(StoredRoster {
            serial,
            file: file(number),
        }),
        Write::HighestSerial(serial),
        Write::Audit(AuditEntry {
            time_millis: number,
            event: AuditEvent::RosterAccepted {
                serial,
                head: String::new(),
                signer: String::new(),
                by: String::new(),
                forced: false,
                members: 0,
            },
        }),
    ]
}

fn in_force(store: &Store) -> u64 {
    let snapshot = store.load().unwrap();
    snapshot
        .rosters
        .first()
        .map_or(0, |roster| roster.serial.get())
}

/// What holds in a store that was written to by the child alone. Returns the last number.
fn check(dir: &Path, acknowledged: u64) -> u64 {
    let store = Store::open(dir).unwrap();
    let snapshot = store.load().unwrap();
    let last = in_force(&store);
    assert!(
        last == acknowledged || last == acknowledged + 1,
        "{last} is in force, {acknowledged} was acknowledged"
    );
    assert_eq!(snapshot.highest_serial.map_or(0, Serial::get), last);
    let kept = u64::try_from(HISTORY_MAX).unwrap().min(last);
    let rosters: Vec<_> = (last - kept + 1..=last)
        .rev()
        .map(|number| StoredRoster {
            serial: Serial::try_from(number).unwrap(),
            file: file(number),
        })
        .collect();
    assert!(snapshot.rosters == rosters, "rosters are torn at {last}");
    let times: Vec<_> = store
        .audit(usize::MAX)
        .unwrap()
        .into_iter()
        .map(|entry| entry.time_millis)
        .collect();
    let kept = u64::try_from(AUDIT_MAX).unwrap().min(last);
    let expected: Vec<_> = (last - kept + 1..=last).rev().collect();
    assert_eq!(times, expected);
    last
}

#[test]
#[ignore = "the child of the test below"]
fn writer() {
    let Some(dir) = std::env::var_os(STORE) else {
        return;
    };
    let mut store = Store::open(Path::new(&dir)).unwrap();
    let mut number = in_force(&store);
    loop {
        number += 1;
        store.commit(writes(number)).unwrap();
        println!("acknowledged {number}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn two_hundred_kills_lose_no_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let random = RandomState::new();
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(STORE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut number_in = |line: Option<std::io::Result<String>>| {
            let line = line?.ok()?;
            let (_, number) = line.split_once("acknowledged ")?;
            acknowledged = number.parse().unwrap();
            Some(())
        };
        // Some writes, and then a moment within the next one.
        let dice = random.hash_one(kill);
        let mut wanted = 1 + dice % 5;
        while wanted > 0 {
            let line = lines.next();
            assert!(line.is_some(), "the writer died by itself");
            wanted -= u64::from(number_in(line).is_some());
        }
        let moment = Instant::now() + Duration::from_micros((dice >> 8) % 8_000);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            number_in(Some(line));
        }
        acknowledged = check(dir.path(), acknowledged);
    }
    assert!(acknowledged >= u64::from(KILLS));
}
