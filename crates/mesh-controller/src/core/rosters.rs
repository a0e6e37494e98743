//! Which roster is in force, and when this controller signs one itself.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mesh_inventory::{
    Resolution,
    roster::{
        HeadFields, Member, NetworkPart, Roster, RosterError, RosterRefused, SERIAL_JUMP_MAX,
        Signer, Unsigned, admit,
    },
};
use mesh_store::{AuditEvent, Evidence, Snapshot, StoredRoster, Write};
use mesh_types::{Instant, MachineName, Serial};
use mesh_wire::control::{ErrorCode, Reply};

use super::{Core, Effect, Now, audit};

/// A clock that is this far behind the roster in force went back: signers' clocks differ by less.
const CLOCK_BEHIND_SECONDS: u64 = 300;

/// How long a controller rests between rosters that it signs only for what members say they hold: one that
/// lies can make the fleet fetch a roster, and not all the time.
const OVERTAKEN_REST: Duration = Duration::from_secs(10);

/// Where a controller's rosters come from, besides pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It signs the inventory that it watches.
    Inventory(PathBuf),
    /// It watches a roster file.
    Roster(PathBuf),
    /// Pushes only.
    Push,
}

/// Who brought a roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The watched file.
    File(PathBuf),
    /// A push.
    Push {
        /// From where.
        source: SocketAddr,
        /// Whether it was forced.
        force: bool,
    },
}

/// What this controller has signed and heard, so that it never signs a serial twice.
#[derive(Debug)]
pub(crate) struct Signing {
    /// The highest serial that it heard of or signed.
    highest: Option<Serial>,
    /// What it signed last; a pushed roster stays in force until the inventory says something else.
    content: Option<(NetworkPart, std::collections::BTreeMap<MachineName, Member>)>,
    /// A member holds the serial in force, or a higher one, of another roster: sign again above it.
    overtaken: bool,
    /// When it did that last.
    followed: Option<Instant>,
}

/// What becomes of a roster.
#[derive(Debug)]
pub enum Judgement {
    /// It is to come into force.
    Accept(Arc<Roster>),
    /// It is in force already.
    InForce(Serial),
    /// It is not taken.
    Refused(PushRefused),
}

/// Why a roster is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PushRefused {
    /// It is forged or broken.
    #[error(transparent)]
    Forged(#[from] RosterError),
    /// It may not replace the one in force.
    #[error(transparent)]
    Refused(#[from] RosterRefused),
}

impl Signing {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let stored = snapshot.rosters.iter().map(|roster| roster.serial).max();
        Self {
            highest: snapshot.highest_serial.max(stored),
            content: None,
            overtaken: false,
            followed: None,
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Push { source, .. } => write!(f, "push from {source}"),
        }
    }
}

impl By {
    const fn is_forced(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Push { force, .. } => *force,
        }
    }
}

impl Core {
    /// Takes the stored rosters up: the latest that the configured signers vouch for is in force.
    pub(super) fn restore(&mut self, stored: &[StoredRoster], now: Now) {
        for stored in stored {
            let Ok(roster) = Roster::verify(&stored.file, &self.network, &self.trusted) else {
                continue;
            };
            if self.signing.content.is_none() && self.is_own(&roster) {
                self.signing.content = Some((roster.network().clone(), roster.members().clone()));
            }
            if self.roster.is_none() {
                self.file = Arc::new(roster.to_file());
                self.roster = Some(Arc::new(roster));
            }
        }
        if self.roster.is_none() && !stored.is_empty() {
            self.set_problem(
                "signers",
                Some("no stored roster is signed by one of the configured `signers`".to_owned()),
            );
        }
        self.watch_clock(now);
    }

    /// Replaces the trusted signers; the roster in force stays.
    pub(crate) fn trust(&mut self, trusted: Vec<Signer>) {
        self.trusted = trusted;
    }

    /// What a roster is verified with, so that it can be done without holding the core.
    pub(crate) fn trusted(&self) -> Vec<Signer> {
        self.trusted.clone()
    }

    /// Whether a push of this source may be looked at now.
    pub(crate) fn may_push(&mut self, now: Now, source: SocketAddr) -> Result<(), Reply> {
        let allowed = self
            .pushes_a_source
            .of(source.ip(), now.instant)
            .is_none_or(|bucket| bucket.take(now.instant))
            && self.pushes.take(now.instant);
        if allowed {
            return Ok(());
        }
        self.counters.rate_limited += 1;
        Err(Reply::Error {
            code: ErrorCode::RateLimited,
            message: "too many pushes that were not accepted; try again in a minute".to_owned(),
        })
    }

    /// A push was accepted: it does not count.
    pub(crate) fn pushed_well(&mut self, now: Now, source: SocketAddr) {
        self.pushes.give_back();
        if let Some(bucket) = self.pushes_a_source.of(source.ip(), now.instant) {
            bucket.give_back();
        }
    }

    /// Decides on a roster that was verified (or not), and says what to keep of a refused one.
    ///
    /// A watched file is whatever the admin put there: its predecessors may have been there while the
    /// controller was down, so only the signature and the serial count, as for any node.
    pub fn judge(
        &mut self,
        now: Now,
        verified: Result<Roster, RosterError>,
        by: &By,
    ) -> (Judgement, Vec<Write>) {
        let roster = match verified {
            Ok(roster) => roster,
            Err(error) => return self.refuse_roster(now, by, error.into()),
        };
        let force = match by {
            By::File(_) => true,
            By::Push { force, .. } => *force,
        };
        // The signers may have changed while it was verified.
        if !self.trusted.contains(roster.signer()) {
            let error = RosterError::UntrustedSigner {
                signer: roster.signer().fingerprint(),
                trusted: self.trusted.len(),
            };
            return self.refuse_roster(now, by, error.into());
        }
        match admit(self.roster.as_deref(), &roster, None, force) {
            Ok(()) => (Judgement::Accept(Arc::new(roster)), Vec::new()),
            Err(RosterRefused::AlreadyInForce(serial)) => (Judgement::InForce(serial), Vec::new()),
            Err(refused) => {
                let evidence = evidence(now, &refused, &roster, by);
                let (judgement, mut writes) = self.refuse_roster(now, by, refused.into());
                writes.extend(evidence);
                (judgement, writes)
            }
        }
    }

    /// What must be on the disk before `roster` comes into force.
    pub(crate) fn writes_of(&self, now: Now, roster: &Roster, by: &By) -> Vec<Write> {
        let head = roster.head();
        let highest = self.signing.highest.max(Some(head.serial));
        let mut writes = vec![
            Write::Roster(StoredRoster {
                serial: head.serial,
                file: roster.to_file(),
            }),
            audit(
                now,
                AuditEvent::RosterAccepted {
                    serial: head.serial,
                    head: roster.head_hash().to_string(),
                    signer: String::from(roster.signer().clone()),
                    by: by.to_string(),
                    forced: by.is_forced(),
                    members: head.member_count,
                },
            ),
        ];
        writes.extend(highest.map(Write::HighestSerial));
        writes
    }

    /// What a store that lost everything needs to be as this controller is.
    pub(crate) fn everything(&self) -> Vec<Write> {
        let mut writes = vec![
            Write::Pending(self.pending.latest_first()),
            self.kept_invitations(),
        ];
        writes.extend(self.signing.highest.map(Write::HighestSerial));
        writes.extend(self.roster.as_deref().map(|roster| {
            Write::Roster(StoredRoster {
                serial: roster.head().serial,
                file: roster.to_file(),
            })
        }));
        let seen = self.seen.iter();
        writes.extend(seen.map(|(id, record)| Write::Seen(*id, record.clone())));
        writes
    }

    /// Puts a judged roster in force. Every admitted client is to be told of the serial, apart from the
    /// effects, which are for those that are members no more.
    pub fn install(&mut self, now: Now, roster: Arc<Roster>) -> (Vec<Effect>, Vec<Write>) {
        let serial = roster.head().serial;
        self.signing.highest = self.signing.highest.max(Some(serial));
        if std::mem::take(&mut self.signing.overtaken) {
            self.signing.followed = Some(now.instant);
        }
        for what in ["signers", "serial"] {
            self.set_problem(what, None);
        }
        if self.is_own(&roster) {
            self.signing.content = Some((roster.network().clone(), roster.members().clone()));
        }
        self.counters.rosters += 1;
        self.pending
            .forget(|id| roster.member_by_node_id(id).is_some());
        let gone: Vec<_> = self
            .seen
            .keys()
            .filter(|id| roster.member_by_node_id(id).is_none())
            .copied()
            .collect();
        let members = roster.members();
        self.last_endpoints
            .retain(|name, _| members.get(name).is_some_and(|member| member.enabled));
        let forgotten = self.forget_signed(&roster);
        self.file = Arc::new(roster.to_file());
        self.roster = Some(roster);
        let (effects, mut writes) = self.cut_strangers(now);
        writes.extend(forgotten);
        for id in gone {
            self.seen.remove(&id);
            writes.push(Write::Forget(id));
        }
        self.watch_clock(now);
        (effects, writes)
    }

    /// A member says that it holds `serial`, with this head: word of mouth, which never changes the roster in
    /// force, and makes a controller that signs its own skip serials by a bounded step.
    pub(super) fn hear(&mut self, serial: Serial, head: Option<&str>) -> Option<Write> {
        let roster = self.roster.as_deref()?;
        let current = roster.head().serial;
        let other = head.is_some_and(|head| head != roster.head_hash().to_string());
        if serial < current || (serial == current && !other) {
            return None;
        }
        if serial.get() - current.get() > SERIAL_JUMP_MAX {
            let problem = format!(
                "a member says that it holds serial {serial}, over {SERIAL_JUMP_MAX} above {current}; not believed"
            );
            self.set_problem("serial", Some(problem));
            return None;
        }
        if !(self.is_signing() && self.is_own(roster)) {
            let problem = if serial == current {
                format!(
                    "a member says that it holds another roster with serial {serial}, which is in force here; sign and push the next one"
                )
            } else {
                format!(
                    "a member holds serial {serial}, and {current} is in force here; push the newer roster"
                )
            };
            self.set_problem("serial", Some(problem));
            return None;
        }
        self.signing.overtaken = true;
        if self.signing.highest >= Some(serial) {
            return None;
        }
        self.signing.highest = Some(serial);
        Some(Write::HighestSerial(serial))
    }

    /// Notes that a client has the roster in force from this controller.
    pub fn gave(&mut self, id: super::ClientId, serial: Serial) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.serial = Some(serial);
        }
    }

    /// Whether the inventory is to be signed again now, because of what a member holds.
    pub(crate) fn is_overtaken(&self, now: Now) -> bool {
        let rested = |at: Instant| now.instant.saturating_since(at) >= OVERTAKEN_REST;
        self.signing.overtaken && self.signing.followed.is_none_or(rested)
    }

    /// The roster to sign for a resolved inventory; `None`: what is in force says the same.
    ///
    /// # Errors
    ///
    /// [`RosterError`] if the inventory makes no roster, or the serials are used up.
    pub(crate) fn to_sign(
        &self,
        now: Now,
        resolution: &Resolution,
    ) -> Result<Option<Unsigned>, RosterError> {
        let same = |network: &NetworkPart, members| {
            network == resolution.network() && members == resolution.members()
        };
        let unchanged = match (&self.signing.content, self.roster.as_deref()) {
            (Some((network, members)), _) => same(network, members),
            (None, Some(roster)) => same(roster.network(), roster.members()),
            (None, None) => false,
        };
        if unchanged && self.roster.is_some() && !self.signing.overtaken {
            return Ok(None);
        }
        let own = Signer::from(self.own);
        if !self.trusted.contains(&own) {
            return Err(RosterError::UntrustedSigner {
                signer: own.fingerprint(),
                trusted: self.trusted.len(),
            });
        }
        let current = self.roster.as_deref().map(Roster::head);
        let last = self.signing.highest.max(current.map(|head| head.serial));
        let serial = match last {
            Some(last) => last.next().ok_or_else(|| {
                RosterError::Inconsistent("the highest serial there is was used".to_owned())
            })?,
            None => Serial::FIRST,
        };
        // Never before its predecessor, whatever the clock says.
        let time = (now.millis / 1000).max(current.map_or(0, |head| head.time));
        let fields = HeadFields {
            serial,
            time,
            revision: None,
            previous: self.roster.as_deref().map(Roster::head_hash),
        };
        resolution.unsigned(fields).map(Some)
    }

    pub(super) fn is_own(&self, roster: &Roster) -> bool {
        *roster.signer() == Signer::from(self.own)
    }

    const fn is_signing(&self) -> bool {
        match self.mode {
            Mode::Inventory(_) => true,
            Mode::Roster(_) | Mode::Push => false,
        }
    }

    fn cut_strangers(&mut self, now: Now) -> (Vec<Effect>, Vec<Write>) {
        let (mut effects, mut writes) = (Vec::new(), Vec::new());
        let ids: Vec<_> = self.clients.keys().copied().collect();
        for id in ids {
            let identity = self.clients[&id].identity;
            match self.standing(&identity).map(|member| member.name.clone()) {
                Ok(name) => self.rename(id, name),
                Err(reason) => {
                    let Some(client) = self.clients.remove(&id) else {
                        continue;
                    };
                    if self.online.get(&client.name) == Some(&id) {
                        self.online.remove(&client.name);
                    }
                    self.counters.removed += 1;
                    let event = AuditEvent::Removed {
                        name: client.name,
                        identity,
                        reason: reason.clone(),
                    };
                    writes.push(audit(now, event));
                    effects.push(Effect::Cut(id, reason));
                }
            }
        }
        (effects, writes)
    }

    /// The key stayed and the machine's name changed.
    fn rename(&mut self, id: super::ClientId, name: MachineName) {
        let Some(client) = self
            .clients
            .get_mut(&id)
            .filter(|client| client.name != name)
        else {
            return;
        };
        let old = std::mem::replace(&mut client.name, name.clone());
        if self.online.get(&old) == Some(&id) {
            self.online.remove(&old);
            self.online.insert(name, id);
        }
    }

    fn refuse_roster(
        &mut self,
        now: Now,
        by: &By,
        refused: PushRefused,
    ) -> (Judgement, Vec<Write>) {
        self.counters.rosters_refused += 1;
        let is_noted = match by {
            By::File(_) => true,
            By::Push { .. } => self.refusals.take(now.instant),
        };
        let event = is_noted.then(|| AuditEvent::RosterRefused {
            by: by.to_string(),
            reason: refused.to_string(),
        });
        let writes = event.map(|event| audit(now, event)).into_iter().collect();
        (Judgement::Refused(refused), writes)
    }

    pub(crate) fn watch_clock(&mut self, now: Now) {
        let signed = self
            .roster
            .as_deref()
            .map_or(0, |roster| roster.head().time);
        let behind = signed.saturating_sub(now.millis / 1000);
        let problem = (behind > CLOCK_BEHIND_SECONDS).then(|| {
            let minutes = behind / 60;
            format!("the clock is {minutes} min behind the time when the roster in force was signed; set it")
        });
        self.set_problem("clock", problem);
    }
}

/// Two heads with one serial are kept, whoever brings the second.
fn evidence(now: Now, refused: &RosterRefused, roster: &Roster, by: &By) -> Option<Write> {
    let RosterRefused::Conflict {
        serial,
        current,
        candidate,
    } = refused
    else {
        return None;
    };
    Some(Write::Evidence(Evidence {
        time_millis: now.millis,
        serial: *serial,
        in_force: current.to_string(),
        other: candidate.to_string(),
        by: by.to_string(),
        // The head and its signature come first in a file; the members are in no dispute.
        file: String::from_utf8_lossy(&roster.to_file())
            .chars()
            .take(32 * 1024)
            .collect(),
    }))
}
