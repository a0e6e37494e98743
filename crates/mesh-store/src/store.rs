use std::{collections::VecDeque, path::Path};

use mesh_types::{NodeId, Serial};
use serde::{Serialize, de::DeserializeOwned};
use tracing::warn;

use crate::{
    AuditEntry, AuditEvent, Evidence, InvitationRecord, PendingRecord, SeenRecord, StoreError,
    StoredRoster,
    backend::{Backend, Batch},
};

/// Rosters that are kept, the one in force among them.
pub const HISTORY_MAX: usize = 8;

/// Pending keys that are kept.
pub const PENDING_MAX: usize = 256;

/// Invitations that are kept.
pub const INVITATIONS_MAX: usize = 256;

/// Audit entries that are kept of each class: rosters, admissions, refusals. Strangers who knock all
/// day thus never push the record of a roster out.
pub const AUDIT_MAX: usize = 4096;

/// Conflicts that are kept; further ones are only in the audit log.
pub const EVIDENCE_MAX: usize = 16;

/// The first byte of each kind of key.
const ROSTER: u8 = b'r';
const SEEN: u8 = b's';
const PENDING: u8 = b'p';
const AUDIT: u8 = b'a';
const EVIDENCE: u8 = b'e';
const HIGHEST: u8 = b'h';
const INVITATIONS: u8 = b'i';

/// A change.
#[derive(Clone, Debug)]
pub enum Write {
    /// A roster came into force.
    Roster(StoredRoster),
    /// The highest serial that was heard of, which this controller will never sign at or below.
    HighestSerial(Serial),
    /// A member was connected.
    Seen(NodeId, SeenRecord),
    /// A machine is no member any more: its presence is forgotten.
    Forget(NodeId),
    /// The pending keys, all of them, at most [`PENDING_MAX`].
    Pending(Vec<PendingRecord>),
    /// The invitations, all of them, at most [`INVITATIONS_MAX`].
    Invitations(Vec<InvitationRecord>),
    /// An entry of the audit log.
    Audit(AuditEntry),
    /// Evidence of a conflict.
    Evidence(Evidence),
}

/// What a controller starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The roster in force and those before it, latest first.
    pub rosters: Vec<StoredRoster>,
    /// The highest serial that was heard of.
    pub highest_serial: Option<Serial>,
    /// When members were connected last.
    pub seen: Vec<(NodeId, SeenRecord)>,
    /// The pending keys.
    pub pending: Vec<PendingRecord>,
    /// The invitations.
    pub invitations: Vec<InvitationRecord>,
    /// Conflicts, oldest first.
    pub evidence: Vec<Evidence>,
}

/// A controller's store.
pub struct Store {
    backend: Backend,
    damage: Option<String>,
    /// Sequence numbers of the audit entries on disk, by class.
    audit: [VecDeque<u64>; 3],
    /// Sequence numbers of rosters in the order of their acceptance.
    rosters: VecDeque<u64>,
    evidence: usize,
    next: u64,
}

impl Store {
    /// Opens the store in the directory `path`, or makes one there.
    ///
    /// A store with damaged files is put aside whole, under another name, and an empty one takes its
    /// place; [`Store::damage`] then says so.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the directory or what is in it cannot be used.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (backend, damage) = Backend::open(path)?;
        let mut store = Self {
            backend,
            damage,
            audit: Default::default(),
            rosters: VecDeque::new(),
            evidence: 0,
            next: 1,
        };
        for class in 0..3_u8 {
            store.audit[usize::from(class)] = store.sequences(&[AUDIT, class])?;
        }
        store.rosters = store.sequences(&[ROSTER])?;
        let evidence = store.sequences(&[EVIDENCE])?;
        store.evidence = evidence.len();
        let last = store
            .audit
            .iter()
            .chain([&store.rosters, &evidence])
            .filter_map(VecDeque::back)
            .max();
        store.next = last.map_or(1, |last| last.saturating_add(1));
        Ok(store)
    }

    /// What was wrong with the store that was put aside when this one was opened; `None`: nothing.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Reads everything but the audit log. A value that cannot be understood is passed over and logged.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub fn load(&self) -> Result<Snapshot, StoreError> {
        let mut rosters: Vec<_> = self
            .backend
            .scan(&[ROSTER])?
            .into_iter()
            .filter_map(|(_, value)| stored_roster(&value))
            .collect();
        rosters.reverse();
        let seen = self
            .backend
            .scan(&[SEEN])?
            .into_iter()
            .filter_map(|(key, value)| {
                let id = NodeId::try_from(key.get(1..)?).ok()?;
                Some((id, parse("presence", &value)?))
            })
            .collect();
        let evidence = self.backend.scan(&[EVIDENCE])?;
        Ok(Snapshot {
            rosters,
            highest_serial: self
                .backend
                .read(&[HIGHEST])?
                .and_then(|value| parse("highest serial", &value)),
            seen,
            pending: self
                .backend
                .read(&[PENDING])?
                .and_then(|value| parse("pending keys", &value))
                .unwrap_or_default(),
            invitations: self
                .backend
                .read(&[INVITATIONS])?
                .and_then(|value| parse("invitations", &value))
                .unwrap_or_default(),
            evidence: evidence
                .iter()
                .filter_map(|(_, value)| parse("evidence", value))
                .collect(),
        })
    }

    /// Makes the changes, all or none, and returns when they are on the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if they are not, or may not be, on the disk: open the store again before trying
    /// again.
    pub fn commit(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for write in writes {
            self.add(&mut batch, write);
        }
        self.backend.commit(batch)
    }

    /// The last `limit` entries of the audit log, latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let mut numbers: Vec<(u64, u8)> = (0..3_u8)
            .flat_map(|class| {
                let numbers = &self.audit[usize::from(class)];
                numbers.iter().map(move |number| (*number, class))
            })
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut entries = Vec::new();
        for (number, class) in numbers.into_iter().take(limit) {
            if let Some(value) = self.backend.read(&numbered(&[AUDIT, class], number))? {
                entries.extend(parse("audit entry", &value));
            }
        }
        Ok(entries)
    }

    fn add(&mut self, batch: &mut Batch, write: Write) {
        match write {
            Write::Roster(roster) => {
                let number = self.take_number();
                let value = [&roster.serial.get().to_be_bytes()[..], &roster.file].concat();
                batch.push((numbered(&[ROSTER], number), Some(value)));
                self.rosters.push_back(number);
                trim(batch, &[ROSTER], &mut self.rosters, HISTORY_MAX);
            }
            Write::HighestSerial(serial) => insert(batch, vec![HIGHEST], &serial),
            Write::Seen(id, record) => insert(batch, seen_key(&id), &record),
            Write::Forget(id) => batch.push((seen_key(&id), None)),
            Write::Pending(mut pending) => {
                pending.truncate(PENDING_MAX);
                insert(batch, vec![PENDING], &pending);
            }
            Write::Invitations(mut invitations) => {
                invitations.truncate(INVITATIONS_MAX);
                insert(batch, vec![INVITATIONS], &invitations);
            }
            Write::Audit(entry) => {
                let number = self.take_number();
                let class = class_of(&entry.event);
                insert(batch, numbered(&[AUDIT, class], number), &entry);
                let numbers = &mut self.audit[usize::from(class)];
                numbers.push_back(number);
                trim(batch, &[AUDIT, class], numbers, AUDIT_MAX);
            }
            Write::Evidence(evidence) => {
                // The first ones are the telling ones.
                if self.evidence < EVIDENCE_MAX {
                    self.evidence += 1;
                    let number = self.take_number();
                    insert(batch, numbered(&[EVIDENCE], number), &evidence);
                }
            }
        }
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next = number.saturating_add(1);
        number
    }

    fn sequences(&self, prefix: &[u8]) -> Result<VecDeque<u64>, StoreError> {
        let entries = self.backend.scan(prefix)?;
        Ok(entries
            .iter()
            .filter_map(|(key, _)| Some(u64::from_be_bytes(*key.last_chunk()?)))
            .collect())
    }
}

fn class_of(event: &AuditEvent) -> u8 {
    match event {
        AuditEvent::RosterAccepted { .. } => 0,
        AuditEvent::Admitted { .. }
        | AuditEvent::Removed { .. }
        | AuditEvent::Invited { .. }
        | AuditEvent::Joined { .. } => 1,
        AuditEvent::Refused { .. } | AuditEvent::RosterRefused { .. } => 2,
    }
}

fn numbered(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}

fn seen_key(id: &NodeId) -> Vec<u8> {
    [&[SEEN][..], id.as_bytes()].concat()
}

fn insert(batch: &mut Batch, key: Vec<u8>, value: &impl Serialize) {
    let value = serde_json::to_vec(value).expect("records have string keys only");
    batch.push((key, Some(value)));
}

/// Removes the oldest entries until there are at most `max`.
fn trim(batch: &mut Batch, prefix: &[u8], numbers: &mut VecDeque<u64>, max: usize) {
    while numbers.len() > max {
        if let Some(oldest) = numbers.pop_front() {
            batch.push((numbered(prefix, oldest), None));
        }
    }
}

fn stored_roster(value: &[u8]) -> Option<StoredRoster> {
    let (serial, file) = value.split_first_chunk()?;
    Some(StoredRoster {
        serial: Serial::try_from(u64::from_be_bytes(*serial)).ok()?,
        file: file.to_vec(),
    })
}

fn parse<T: DeserializeOwned>(what: &str, value: &[u8]) -> Option<T> {
    serde_json::from_slice(value)
        .inspect_err(|error| warn!(what, %error, "a stored value was not understood"))
        .ok()
}
