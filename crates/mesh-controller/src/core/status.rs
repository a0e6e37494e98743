//! What the controller says of itself.

use mesh_api::{
    ControllerCounters, ControllerReport, MachineReport, Pending as PendingAnswer, PendingKey,
    ProblemReport, RosterStatus, VERSION, rfc3339,
};
use mesh_inventory::roster::Roster;

use super::{Core, Mode, Now};

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) admitted: u64,
    pub(super) refused: u64,
    pub(super) removed: u64,
    pub(super) rosters: u64,
    pub(super) rosters_refused: u64,
    pub(super) introductions: u64,
    pub(super) rate_limited: u64,
}

impl Core {
    pub(crate) fn pending_answer(&self, now: Now) -> PendingAnswer {
        let keys = self.pending.latest_first();
        let pending = keys.into_iter().map(|key| PendingKey {
            key: key.identity.to_string(),
            name: key.name,
            source: key.source,
            first_seen: rfc3339(key.first_millis / 1000),
            last_seen: rfc3339(key.last_millis / 1000),
            last_seen_seconds: now.millis.saturating_sub(key.last_millis) / 1000,
            attempts: key.attempts,
        });
        PendingAnswer {
            version: VERSION,
            pending: pending.collect(),
        }
    }

    pub(crate) fn report_answer(&self, now: Now) -> ControllerReport {
        let roster = self.roster.as_deref();
        let counters = self.counters;
        ControllerReport {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            identity: self.own.to_string(),
            network: self.network.to_string(),
            mode: match self.mode {
                Mode::Inventory(_) => "inventory",
                Mode::Roster(_) => "roster",
                Mode::Push => "push",
            }
            .to_owned(),
            roster: roster.map(|roster| RosterStatus {
                serial: roster.head().serial,
                signer: String::from(roster.signer().clone()),
                signed_by_controller: self.is_own(roster),
                age_seconds: (now.millis / 1000).saturating_sub(roster.head().time),
                members: roster.head().member_count,
            }),
            machines: roster.map_or_else(Vec::new, |roster| self.machines(roster, now)),
            pending: u64::try_from(self.pending.latest_first().len()).unwrap_or(u64::MAX),
            counters: ControllerCounters {
                admitted: counters.admitted,
                refused: counters.refused,
                removed: counters.removed,
                rosters: counters.rosters,
                rosters_refused: counters.rosters_refused,
                introductions: counters.introductions,
                rate_limited: counters.rate_limited,
            },
            problems: self
                .problems
                .iter()
                .map(|(what, problem)| ProblemReport {
                    what: (*what).to_owned(),
                    problem: problem.clone(),
                })
                .collect(),
        }
    }

    fn machines(&self, roster: &Roster, now: Now) -> Vec<MachineReport> {
        let members = roster.members().values();
        members
            .map(|member| {
                let online = self.online.get(&member.name);
                let client = online.and_then(|id| self.clients.get(id));
                let id = member.public_key.and_then(|key| key.node_id());
                let seen = id.and_then(|id| self.seen.get(&id));
                MachineReport {
                    name: member.name.clone(),
                    address: member.address,
                    enabled: member.enabled,
                    keyed: member.public_key.is_some(),
                    online: client.is_some(),
                    source: client.map(|client| client.source),
                    endpoints: client.map_or_else(Vec::new, |client| self.endpoints_of(client)),
                    serial: client.and_then(|client| client.serial),
                    release: seen.map(|seen| seen.release.clone()),
                    last_seen: seen.map(|seen| rfc3339(seen.time_millis / 1000)),
                    last_seen_seconds: seen
                        .map(|seen| now.millis.saturating_sub(seen.time_millis) / 1000),
                }
            })
            .collect()
    }
}
