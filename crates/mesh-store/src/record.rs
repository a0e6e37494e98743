use std::net::SocketAddr;

use mesh_types::{MachineName, PublicIdentity, Serial};
use serde::{Deserialize, Serialize};

/// A roster as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRoster {
    /// Its serial.
    pub serial: Serial,
    /// The roster file.
    pub file: Vec<u8>,
}

/// When and where a member was connected last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// When, in milliseconds since 1970.
    pub time_millis: u64,
    /// Where its packets came from.
    pub source: SocketAddr,
    /// Its release.
    pub release: String,
}

/// A key that asked to join and is in no roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRecord {
    /// The public identity.
    pub identity: PublicIdentity,
    /// The name that it claims.
    pub name: Option<MachineName>,
    /// Where it asked from last.
    pub source: SocketAddr,
    /// When it asked first, in milliseconds since 1970.
    pub first_millis: u64,
    /// When it asked last, in milliseconds since 1970.
    pub last_millis: u64,
    /// How often it asked.
    pub attempts: u64,
}

/// An invitation, of which a controller has the public half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRecord {
    /// The public half of its secret.
    pub key: PublicIdentity,
    /// The machine that is invited.
    pub name: MachineName,
    /// Until when it counts, in milliseconds since 1970.
    pub expires_millis: u64,
    /// Who used it; `None`: nobody yet.
    pub used_by: Option<PublicIdentity>,
}

/// Something that happened, for an auditor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When, in milliseconds since 1970 by the controller's clock. The order of the entries is that of
    /// the events even if the clock went back.
    pub time_millis: u64,
    /// What.
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum AuditEvent {
    /// A member connected and was admitted.
    Admitted {
        /// Its name in the roster.
        name: MachineName,
        /// Its identity.
        identity: PublicIdentity,
        /// Where it connected from.
        source: SocketAddr,
    },
    /// A machine was invited.
    Invited {
        /// Its name.
        name: MachineName,
        /// The public half of the invitation's secret.
        invitation: PublicIdentity,
    },
    /// A machine used its invitation.
    Joined {
        /// Its name.
        name: MachineName,
        /// Its identity.
        identity: PublicIdentity,
        /// Where it connected from.
        source: SocketAddr,
    },
    /// A connected member was cut off.
    Removed {
        /// Its name in the roster.
        name: MachineName,
        /// Its identity.
        identity: PublicIdentity,
        /// Why.
        reason: String,
    },
    /// Somebody was not admitted. One entry stands for the attempts of one key within a while.
    Refused {
        /// The identity.
        identity: PublicIdentity,
        /// The name that it claims.
        name: Option<MachineName>,
        /// Where it asked from.
        source: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A roster came into force.
    RosterAccepted {
        /// Its serial.
        serial: Serial,
        /// Hash of its head.
        head: String,
        /// Who signed it.
        signer: String,
        /// Who brought it: a file's path, or where it was pushed from.
        by: String,
        /// Whether force was used.
        forced: bool,
        /// Number of members.
        members: u64,
    },
    /// A roster was refused.
    RosterRefused {
        /// Who brought it.
        by: String,
        /// Why.
        reason: String,
    },
}

/// Two different heads with one serial: somebody signed both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When the second one was met, in milliseconds since 1970.
    pub time_millis: u64,
    /// The serial of both.
    pub serial: Serial,
    /// Hash of the head in force.
    pub in_force: String,
    /// Hash of the other head.
    pub other: String,
    /// Who brought the other.
    pub by: String,
    /// The other head and its signature, as its file has them.
    pub file: String,
}
