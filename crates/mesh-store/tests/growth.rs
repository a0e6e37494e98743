//! The files stay small, whatever happens how often.

use mesh_store::{AUDIT_MAX, AuditEntry, AuditEvent, HISTORY_MAX, Store, StoredRoster, Write};
use mesh_types::Serial;

/// Roster changes, twice what the audit log keeps.
const CHANGES: u64 = 10_000;

#[test]
fn ten_thousand_rosters_leave_the_last_ones_in_a_small_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    // Several at a time, as the controller's thread does when it is behind.
    for first in (1..=CHANGES).step_by(50) {
        let writes = (first..first + 50).flat_map(|number| {
            let serial = Serial::try_from(number).unwrap();
            let event = AuditEvent::RosterAccepted {
                serial,
                head: "00".repeat(32),
                signer: "somebody".to_owned(),
                by: "a push".to_owned(),
                forced: false,
                members: 10,
            };
            [
                Write::Roster(StoredRoster {
                    serial,
                    file: vec![b'x'; 10_000],
                }),
                Write::Audit(AuditEntry {
                    time_millis: number,
                    event,
                }),
            ]
        });
        store.commit(writes.collect()).unwrap();
    }
    assert_eq!(store.audit(usize::MAX).unwrap().len(), AUDIT_MAX);
    let rosters = store.load().unwrap().rosters;
    assert_eq!(rosters.len(), HISTORY_MAX);
    assert_eq!(rosters[0].serial.get(), CHANGES);
    let bytes = dir.path().join("store.redb").metadata().unwrap().len();
    assert!(bytes < 16 * 1024 * 1024, "{bytes} bytes");
}
