//! Keys that asked to join and are in no roster.

use std::{collections::BTreeMap, net::SocketAddr};

use mesh_store::{PENDING_MAX, PendingRecord};
use mesh_types::NodeId;

use super::{Hello, holder_of};

/// Keys that one source may have pending.
const PENDING_A_SOURCE: usize = 32;

#[derive(Debug)]
pub(super) struct Pending {
    keys: BTreeMap<NodeId, PendingRecord>,
    changed: bool,
}

impl Pending {
    pub(super) fn new(records: Vec<PendingRecord>) -> Self {
        let keyed = |record: PendingRecord| (record.identity.node_id(), record);
        Self {
            keys: records.into_iter().take(PENDING_MAX).map(keyed).collect(),
            changed: false,
        }
    }

    /// Notes an attempt. When full, the key that was heard of least recently makes room; a source with many
    /// keys makes room among its own, so that nobody alone pushes out the machines of others.
    pub(super) fn note(&mut self, millis: u64, source: SocketAddr, hello: &Hello) {
        let id = hello.identity.node_id();
        if !self.keys.contains_key(&id) {
            let holder = holder_of(source.ip());
            let same = |key: &PendingRecord| holder_of(key.source.ip()) == holder;
            if self.keys.values().filter(|key| same(key)).count() >= PENDING_A_SOURCE {
                self.remove_stalest(same);
            } else if self.keys.len() >= PENDING_MAX {
                self.remove_stalest(|_| true);
            }
        }
        let record = self.keys.entry(id).or_insert_with(|| PendingRecord {
            identity: hello.identity,
            name: None,
            source,
            first_millis: millis,
            last_millis: millis,
            attempts: 0,
        });
        record.identity = hello.identity;
        record.name.clone_from(&hello.name);
        record.source = source;
        record.last_millis = millis;
        record.attempts += 1;
        self.changed = true;
    }

    fn remove_stalest(&mut self, among: impl Fn(&PendingRecord) -> bool) {
        let stalest = self.keys.iter().filter(|(_, key)| among(key));
        let stalest = stalest.min_by_key(|(_, key)| key.last_millis);
        if let Some(id) = stalest.map(|(id, _)| *id) {
            self.keys.remove(&id);
        }
    }

    /// Drops the keys for which `is_known` holds.
    pub(super) fn forget(&mut self, is_known: impl Fn(&NodeId) -> bool) {
        let before = self.keys.len();
        self.keys.retain(|id, _| !is_known(id));
        self.changed |= self.keys.len() != before;
    }

    /// All of them, if they changed since the last call.
    pub(super) fn unsaved(&mut self) -> Option<Vec<PendingRecord>> {
        std::mem::take(&mut self.changed).then(|| self.latest_first())
    }

    pub(super) fn latest_first(&self) -> Vec<PendingRecord> {
        let mut records: Vec<_> = self.keys.values().cloned().collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.last_millis));
        records
    }
}
