//! Machines that were invited, and what became of it.

use std::net::SocketAddr;

use mesh_inventory::{
    is_proof,
    roster::{Member, Roster},
};
use mesh_store::{AuditEvent, INVITATIONS_MAX, InvitationRecord, Write};
use mesh_types::{MachineName, MemberKey, NodeId, PublicIdentity};
use mesh_wire::control::{ErrorCode, Reply};

use super::{Core, Mode, Now, Outcome, audit, limits::Rate};

/// Attempts of one source that came to nothing.
pub(super) const JOINS_A_SOURCE: Rate = Rate {
    burst: 8,
    a_second: 1,
};

/// How long an invitation that expired is remembered, so that it can be called that, in milliseconds.
const REMEMBERED_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// The longest that one counts, in milliseconds: a month.
const LASTS_MAX_MILLIS: u64 = 31 * 24 * 60 * 60 * 1000;

/// A new machine's proof that it was invited.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub(crate) network: mesh_types::NetworkId,
    pub(crate) name: MachineName,
    pub(crate) identity: PublicIdentity,
    pub(crate) invitation: PublicIdentity,
    pub(crate) proof: String,
}

impl Core {
    /// Invites a machine that is in the roster and has no key there.
    ///
    /// # Errors
    ///
    /// A sentence that says why not.
    pub(crate) fn invite(
        &mut self,
        now: Now,
        name: &MachineName,
        key: PublicIdentity,
        expires_millis: u64,
    ) -> Result<Vec<Write>, String> {
        let lasts = expires_millis.saturating_sub(now.millis);
        if lasts == 0 || lasts > LASTS_MAX_MILLIS {
            return Err("an invitation lasts for a month at most".to_owned());
        }
        let roster = self.roster.as_ref().ok_or("there is no roster yet")?;
        let serial = roster.head().serial;
        match roster.members().get(name) {
            None => {
                return Err(format!(
                    "there is no machine `{name}` in the roster (serial {serial}); declare it in the inventory: `\"{name}\": {{}}`"
                ));
            }
            Some(member) if member.public_key.is_some() => {
                return Err(format!(
                    "`{name}` has a key in the roster (serial {serial}); take that away first, with `mesh machine rekey {name}`"
                ));
            }
            Some(member) if !member.enabled => {
                return Err(format!(
                    "`{name}` is switched off in the roster (serial {serial})"
                ));
            }
            Some(_) => {}
        }
        self.invitations.retain(|known| {
            let expired = known.expires_millis.saturating_add(REMEMBERED_MILLIS) < now.millis;
            known.used_by.is_some() || !expired
        });
        if self.invitations.len() >= INVITATIONS_MAX {
            return Err(format!(
                "there are {INVITATIONS_MAX} invitations already; take some back with `mesh invite --revoke NAME`"
            ));
        }
        self.invitations.push(InvitationRecord {
            key,
            name: name.clone(),
            expires_millis,
            used_by: None,
        });
        let event = AuditEvent::Invited {
            name: name.clone(),
            invitation: key,
        };
        Ok(vec![self.kept_invitations(), audit(now, event)])
    }

    /// Takes back all invitations of a machine, and the key that it joined with; how many there were.
    pub(crate) fn uninvite(&mut self, name: &MachineName) -> (u64, Vec<Write>) {
        let before = self.invitations.len();
        self.invitations.retain(|known| known.name != *name);
        let gone = u64::try_from(before - self.invitations.len()).unwrap_or(u64::MAX);
        match gone {
            0 => (0, Vec::new()),
            _ => (gone, vec![self.kept_invitations()]),
        }
    }

    /// Judges a proof. `proven` is the key of its connection. With [`Reply::Joined`] the machine's key counts once the writes
    /// are on the disk.
    pub(crate) fn join(
        &mut self,
        now: Now,
        proven: Option<NodeId>,
        source: SocketAddr,
        joining: &Joining,
    ) -> Outcome {
        let allowed = self.joins_a_source.of(source.ip(), now.instant);
        if !allowed.is_some_and(|bucket| bucket.take(now.instant)) {
            self.counters.rate_limited += 1;
            return Outcome::reply(Reply::Error {
                code: ErrorCode::RateLimited,
                message: "too many attempts to join; try again in a minute".to_owned(),
            });
        }
        match self.judge_joining(now, proven, joining) {
            Err(message) => {
                self.counters.refused += 1;
                Outcome::reply(Reply::Error {
                    code: ErrorCode::InvitationRefused,
                    message,
                })
            }
            Ok(number) => {
                if let Some(bucket) = self.joins_a_source.of(source.ip(), now.instant) {
                    bucket.give_back();
                }
                let mut outcome = Outcome::reply(Reply::Joined { admitted: false });
                let record = &mut self.invitations[number];
                let is_first = record.used_by.replace(joining.identity).is_none();
                // Also when it is said again: the first time it may not have come to the disk.
                outcome.writes = vec![self.kept_invitations()];
                if is_first {
                    let event = AuditEvent::Joined {
                        name: joining.name.clone(),
                        identity: joining.identity,
                        source,
                    };
                    outcome.writes.push(audit(now, event));
                }
                outcome
            }
        }
    }

    /// The number of the invitation that counts.
    fn judge_joining(
        &self,
        now: Now,
        proven: Option<NodeId>,
        joining: &Joining,
    ) -> Result<usize, String> {
        if proven != Some(joining.identity.node_id()) {
            return Err(
                "the identity is not the one that this connection proved to have".to_owned(),
            );
        }
        if joining.network != self.network {
            let (theirs, ours) = (joining.network, self.network);
            return Err(format!(
                "the invitation is to network `{theirs}`, and this controller serves `{ours}`"
            ));
        }
        let found = (0..).zip(&self.invitations);
        let mut found = found.filter(|(_, known)| known.key == joining.invitation);
        let (number, known) = found.next().ok_or(
            "this controller does not know the invitation; it was taken back, or is long over",
        )?;
        let Joining {
            network,
            name,
            identity,
            invitation,
            proof,
        } = joining;
        // Before anything is told of it.
        if known.name != *name || !is_proof(invitation, network, name, identity, proof) {
            return Err("the proof is not by this invitation".to_owned());
        }
        match known.used_by {
            // Its answer was lost, perhaps.
            Some(user) if user == *identity => return Ok(number),
            Some(_) => return Err("the invitation was used by another machine".to_owned()),
            None => {}
        }
        let mut others = self.invitations.iter().filter(|other| other.name == *name);
        if others.any(|other| other.used_by.is_some()) {
            return Err(format!(
                "another machine has joined as `{name}` by another invitation"
            ));
        }
        if known.expires_millis <= now.millis {
            return Err("the invitation has expired; ask for another".to_owned());
        }
        let taken = self.roster.as_ref().and_then(|roster| {
            let by_node = roster.member_by_node_id(&identity.node_id());
            by_node.or_else(|| roster.member_by_wireguard(&identity.wireguard()))
        });
        if let Some(Member { name, .. }) = taken {
            return Err(format!("this identity is that of `{name}` already"));
        }
        Ok(number)
    }

    /// The keys of machines that used their invitations.
    pub(crate) fn joined(&self) -> Vec<(MachineName, MemberKey)> {
        let used = self.invitations.iter();
        used.filter_map(|known| Some((known.name.clone(), MemberKey::Mesh(known.used_by?))))
            .collect()
    }

    /// Forgets those that were used and are settled: the machine has a key without that, or is gone.
    pub(crate) fn forget_joined(
        &mut self,
        is_settled: impl Fn(&MachineName, MemberKey) -> bool,
    ) -> Vec<Write> {
        let before = self.invitations.len();
        self.invitations.retain(|known| {
            let user = known.used_by.map(MemberKey::Mesh);
            !user.is_some_and(|user| is_settled(&known.name, user))
        });
        match self.invitations.len() == before {
            true => Vec::new(),
            false => vec![self.kept_invitations()],
        }
    }

    /// Where others sign, the same for machines that have a key in their roster.
    pub(super) fn forget_signed(&mut self, roster: &Roster) -> Vec<Write> {
        if matches!(self.mode, Mode::Inventory(_)) {
            return Vec::new();
        }
        self.forget_joined(|name, _| {
            let member = roster.members().get(name);
            member.is_some_and(|member| member.public_key.is_some())
        })
    }

    pub(super) fn kept_invitations(&self) -> Write {
        Write::Invitations(self.invitations.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{at, core_with, identity, roster_with, source, unkeyed},
        *,
    };

    fn joining(core: &Core, invitation: u16, newcomer: u16) -> Joining {
        let (name, identity) = (unkeyed(), identity(newcomer).public());
        let token = mesh_inventory::Invitation {
            network: core.network,
            name: name.clone(),
            expires: 0,
            signers: Vec::new(),
            controllers: Vec::new(),
            secret: super::super::tests::identity(invitation),
        };
        Joining {
            network: core.network,
            name,
            identity,
            invitation: token.secret.public(),
            proof: token.proof(&identity),
        }
    }

    fn joins(core: &mut Core, seconds: u64, joining: &Joining) -> Reply {
        let proven = Some(joining.identity.node_id());
        core.join(at(seconds), proven, source(1), joining).reply
    }

    fn refusal(reply: Reply) -> String {
        let shown = format!("{reply:?}");
        let Reply::Error { code, message } = reply else {
            panic!("{shown}");
        };
        assert_eq!(code, ErrorCode::InvitationRefused);
        message
    }

    const HOUR: u64 = 3600 * 1000;

    fn invited() -> Core {
        let mut core = core_with(at(1000));
        core.invite(
            at(1000),
            &unkeyed(),
            identity(500).public(),
            1_000_000 + HOUR,
        )
        .unwrap();
        core
    }

    #[test]
    fn an_invitation_lets_one_machine_in_and_answers_it_twice() {
        let mut core = invited();
        let first = joining(&core, 500, 600);
        for _ in 0..2 {
            assert_eq!(
                joins(&mut core, 1001, &first),
                Reply::Joined { admitted: false }
            );
        }
        let key = MemberKey::Mesh(identity(600).public());
        assert_eq!(core.joined(), [(unkeyed(), key)]);
        let second = joining(&core, 500, 601);
        assert_eq!(
            refusal(joins(&mut core, 1002, &second)),
            "the invitation was used by another machine"
        );
        // Once the inventory has a key, or the machine is gone.
        assert_eq!(core.forget_joined(|_, _| false).len(), 0);
        assert_eq!(core.forget_joined(|_, _| true).len(), 1);
        assert_eq!(core.joined(), []);
    }

    #[test]
    fn of_two_invitations_of_one_machine_one_is_used() {
        let mut core = invited();
        let later = 1_000_000 + HOUR;
        core.invite(at(1000), &unkeyed(), identity(501).public(), later)
            .unwrap();
        let [first, second] = [(500, 600), (501, 601)].map(|(by, who)| joining(&core, by, who));
        assert_eq!(
            joins(&mut core, 1001, &first),
            Reply::Joined { admitted: false }
        );
        assert!(refusal(joins(&mut core, 1001, &second)).contains("another invitation"));
        // Settled for a key that is not the one that joined meanwhile.
        let settled = MemberKey::Mesh(identity(601).public());
        assert_eq!(core.forget_joined(|_, key| key == settled).len(), 0);
        assert_eq!(core.joined().len(), 1);
    }

    #[test]
    fn where_others_sign_an_invitation_is_forgotten_once_the_key_is_signed() {
        let mut core = invited();
        core.mode = Mode::Push;
        let first = joining(&core, 500, 600);
        joins(&mut core, 1001, &first);
        core.install(at(1002), roster_with(2, None));
        assert_eq!(core.joined().len(), 1);
        core.install(at(1003), roster_with(3, Some(identity(600).public())));
        assert_eq!(core.joined(), []);
    }

    #[test]
    fn what_does_not_count_is_refused_with_the_reason() {
        let mut core = invited();
        let good = joining(&core, 500, 600);
        let late = refusal(joins(&mut core, 1000 + 3600, &good));
        assert_eq!(late, "the invitation has expired; ask for another");
        let unknown = joining(&core, 501, 600);
        assert!(refusal(joins(&mut core, 1001, &unknown)).contains("does not know"));
        let elsewhere = Joining {
            network: mesh_types::NetworkId::from_bytes([9; 16]),
            ..good.clone()
        };
        assert!(refusal(joins(&mut core, 1001, &elsewhere)).contains("this controller serves"));
        let other_name = Joining {
            name: "machine-1".parse().unwrap(),
            ..good.clone()
        };
        let not_by_it = "the proof is not by this invitation";
        assert_eq!(refusal(joins(&mut core, 1001, &other_name)), not_by_it);
        // A controller, or who listens, puts another key in its place.
        let swapped = Joining {
            identity: identity(601).public(),
            ..good.clone()
        };
        assert_eq!(refusal(joins(&mut core, 1001, &swapped)), not_by_it);
        let stolen = core.join(
            at(1001),
            Some(identity(601).public().node_id()),
            source(1),
            &good,
        );
        assert!(refusal(stolen.reply).contains("this connection proved"));
        let member = joining(&core, 500, 1);
        assert!(refusal(joins(&mut core, 1001, &member)).contains("`machine-1` already"));
        assert_eq!(core.joined(), []);
        let (gone, _) = core.uninvite(&unkeyed());
        assert_eq!(gone, 1);
        assert!(refusal(joins(&mut core, 1009, &good)).contains("taken back"));
    }

    #[test]
    fn guessing_is_limited_for_each_source() {
        let mut core = invited();
        let replies = (0..20).map(|guess| {
            let guess = joining(&core, 700 + guess, 600);
            joins(&mut core, 1001, &guess)
        });
        let replies: Vec<_> = replies.collect();
        let limited = |reply: &&Reply| matches!(reply, Reply::Error { code, .. } if *code == ErrorCode::RateLimited);
        assert_eq!(replies.iter().filter(limited).count(), 12);
        let good = joining(&core, 500, 600);
        let proven = Some(good.identity.node_id());
        let elsewhere = "203.0.113.1:1".parse().unwrap();
        let reply = core.join(at(1001), proven, elsewhere, &good).reply;
        assert_eq!(reply, Reply::Joined { admitted: false });
    }

    #[test]
    fn only_a_machine_that_waits_for_a_key_is_invited() {
        let mut core = core_with(at(1000));
        let mut invite = |name: &str, expires| {
            core.invite(
                at(1000),
                &name.parse().unwrap(),
                identity(500).public(),
                expires,
            )
        };
        let soon = 1_000_000 + HOUR;
        assert!(invite("nobody", soon).unwrap_err().contains("declare it"));
        assert!(invite("machine-1", soon).unwrap_err().contains("has a key"));
        for never in [0, 1_000_000, 1_000_000 + 32 * 24 * HOUR] {
            assert!(
                invite(unkeyed().as_str(), never)
                    .unwrap_err()
                    .contains("a month")
            );
        }
        for _ in 0..INVITATIONS_MAX {
            invite(unkeyed().as_str(), soon).unwrap();
        }
        assert!(
            invite(unkeyed().as_str(), soon)
                .unwrap_err()
                .contains("already")
        );
    }
}
