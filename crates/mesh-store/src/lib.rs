//! What a controller keeps: rosters, presence, pending keys, the audit log, evidence of conflicts.
//!
//! A [`Store`] is a directory. [`Store::commit`] takes several [`Write`]s, makes them together or not at
//! all, and returns when they are on the disk: what it acknowledged survives `kill -9`. Everything in it
//! has a bound. Values are JSON whose unknown fields are passed over, so an older release reads what a
//! newer one wrote.
//!
//! It decides nothing: which roster is in force, and who is pending, is the controller's to say.
//! Calls block on the disk; an asynchronous caller gives them a thread.

mod backend;
mod record;
mod store;

pub use backend::StoreError;
pub use record::{
    AuditEntry, AuditEvent, Evidence, InvitationRecord, PendingRecord, SeenRecord, StoredRoster,
};
pub use store::{
    AUDIT_MAX, EVIDENCE_MAX, HISTORY_MAX, INVITATIONS_MAX, PENDING_MAX, Snapshot, Store, Write,
};
