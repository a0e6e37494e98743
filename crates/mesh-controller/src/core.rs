//! What a controller decides. Pure: owns no socket, file, clock or task.
//!
//! Every call returns what to do about it: a reply, [`Effect`]s on connected clients, and [`Write`]s for
//! the store. The shell does them in this order: writes that must be on the disk first, then the rest.

mod invitations;
mod limits;
mod pending;
mod rosters;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use mesh_inventory::roster::{Member, Roster, Signer};
use mesh_store::{AuditEntry, AuditEvent, InvitationRecord, SeenRecord, Snapshot, Write};
use mesh_types::{Instant, MachineName, NetworkId, NodeId, PublicIdentity, Serial};
use mesh_wire::control::{ENDPOINTS_MAX, ErrorCode, Notice, Reply};

pub(crate) use self::invitations::Joining;
pub(crate) use self::limits::holder_of;
pub(crate) use self::rosters::Signing;
pub use self::rosters::{By, Judgement, Mode, PushRefused};
use self::{
    limits::{Bucket, Buckets, Rate},
    pending::Pending,
    status::Counters,
};

/// Questions of one client: a node that starts in a fleet of a thousand asks for all of them at once.
const QUESTIONS: Rate = Rate {
    burst: 1024,
    a_second: 50,
};

/// Pushes of one source that are not accepted; accepted ones are free.
const PUSHES_A_SOURCE: Rate = Rate {
    burst: 16,
    a_second: 1,
};

/// Pushes of all sources that are not accepted. A bad one costs about a millisecond: enough that a few who
/// push junk all day do not keep the admin out.
const PUSHES: Rate = Rate {
    burst: 256,
    a_second: 50,
};

/// Audit entries of refused strangers and their pushes.
const REFUSALS: Rate = Rate {
    burst: 64,
    a_second: 1,
};

/// How long one audit entry stands for further attempts of the same key.
const REFUSAL_QUIET: Duration = Duration::from_secs(3600);

/// A connection, numbered by the shell; no number comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// The time of a call.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The wall clock, in milliseconds since 1970; it may go back.
    pub millis: u64,
    /// The monotonic clock, for what depends on time that passed.
    pub instant: Instant,
}

/// What is to be done to a connected client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell it.
    Notify(ClientId, Notice),
    /// Tell it that it is not admitted any more, and close.
    Cut(ClientId, String),
    /// Close: the same node has a newer connection.
    Replace(ClientId),
}

/// What comes of a question.
#[derive(Debug)]
pub struct Outcome {
    /// What is answered.
    pub reply: Reply,
    /// What is done to connected clients.
    pub effects: Vec<Effect>,
    /// What is kept.
    pub writes: Vec<Write>,
}

/// What an agent says of itself at first.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Whose it is.
    pub identity: PublicIdentity,
    /// The name that it believes to have.
    pub name: Option<MachineName>,
    /// Its release.
    pub release: String,
    /// The serial of the roster that it holds.
    pub serial: Option<Serial>,
    /// The hash of that roster's head.
    pub head: Option<String>,
    /// Where it says to be reached.
    pub endpoints: Vec<SocketAddr>,
}

/// An admitted client.
#[derive(Clone, Debug)]
struct Client {
    identity: PublicIdentity,
    name: MachineName,
    release: String,
    source: SocketAddr,
    reported: Vec<SocketAddr>,
    serial: Option<Serial>,
    questions: Bucket,
}

/// What a controller knows, and decides by it.
#[derive(Debug)]
pub struct Core {
    network: NetworkId,
    own: PublicIdentity,
    mode: Mode,
    trusted: Vec<Signer>,
    roster: Option<Arc<Roster>>,
    /// The roster in force as a file, one for all who ask for it at the same time.
    file: Arc<Vec<u8>>,
    signing: Signing,
    clients: BTreeMap<ClientId, Client>,
    online: BTreeMap<MachineName, ClientId>,
    /// Where machines that are not connected were reached last.
    last_endpoints: BTreeMap<MachineName, Vec<SocketAddr>>,
    seen: BTreeMap<NodeId, SeenRecord>,
    pending: Pending,
    invitations: Vec<InvitationRecord>,
    joins_a_source: Buckets,
    refusals: Bucket,
    refused: BTreeMap<NodeId, Instant>,
    pushes: Bucket,
    pushes_a_source: Buckets,
    counters: Counters,
    problems: BTreeMap<&'static str, String>,
}

impl Core {
    /// A controller with what it kept.
    pub fn new(
        network: NetworkId,
        own: PublicIdentity,
        mode: Mode,
        trusted: Vec<Signer>,
        snapshot: Snapshot,
        now: Now,
    ) -> Self {
        let mut core = Self {
            network,
            own,
            mode,
            trusted,
            roster: None,
            file: Arc::default(),
            signing: Signing::new(&snapshot),
            clients: BTreeMap::new(),
            online: BTreeMap::new(),
            last_endpoints: BTreeMap::new(),
            seen: BTreeMap::new(),
            pending: Pending::new(snapshot.pending),
            invitations: snapshot.invitations,
            joins_a_source: Buckets::new(invitations::JOINS_A_SOURCE),
            refusals: Bucket::new(REFUSALS, now.instant),
            refused: BTreeMap::new(),
            pushes: Bucket::new(PUSHES, now.instant),
            pushes_a_source: Buckets::new(PUSHES_A_SOURCE),
            counters: Counters::default(),
            problems: BTreeMap::new(),
        };
        core.seen = snapshot.seen.into_iter().collect();
        core.restore(&snapshot.rosters, now);
        core
    }

    /// The roster in force.
    pub fn roster(&self) -> Option<&Arc<Roster>> {
        self.roster.as_ref()
    }

    /// Says what is wrong with `what`, or that nothing is any more; true if that is news.
    pub(crate) fn set_problem(&mut self, what: &'static str, problem: Option<String>) -> bool {
        let before = self.problems.remove(what);
        let is_news = before != problem;
        self.problems.extend(problem.map(|problem| (what, problem)));
        is_news
    }

    /// What is wrong with `what`; `None`: nothing.
    pub(crate) fn problem(&self, what: &str) -> Option<&str> {
        self.problems.get(what).map(String::as_str)
    }

    /// Whether something is wrong with `what`.
    pub(crate) fn has_problem(&self, what: &str) -> bool {
        self.problems.contains_key(what)
    }

    /// Decides on an agent's first question. `proven` is the key of its connection.
    pub fn hello(
        &mut self,
        now: Now,
        id: ClientId,
        proven: Option<NodeId>,
        source: SocketAddr,
        hello: Hello,
    ) -> Outcome {
        if proven != Some(hello.identity.node_id()) {
            // The identity is somebody else's, perhaps: nothing is remembered of it.
            self.counters.refused += 1;
            return Outcome::reply(Reply::Refused {
                reason: "the identity is not the one that this connection proved to have"
                    .to_owned(),
            });
        }
        if self.clients.contains_key(&id)
            && let Err(refusal) = self.question(now, id)
        {
            return Outcome::reply(refusal);
        }
        match self.standing(&hello.identity) {
            Ok(member) => {
                let name = member.name.clone();
                self.admit(now, id, source, name, hello)
            }
            Err(reason) => self.refuse(now, source, hello, reason),
        }
    }

    /// Forgets a connection that ended.
    pub fn disconnected(&mut self, now: Now, id: ClientId) -> Vec<Write> {
        let Some(client) = self.clients.remove(&id) else {
            return Vec::new();
        };
        if self.online.get(&client.name) == Some(&id) {
            self.online.remove(&client.name);
            let endpoints = self.endpoints_of(&client);
            self.last_endpoints.insert(client.name.clone(), endpoints);
        }
        vec![self.saw(now, &client)]
    }

    /// Forgets all connections.
    pub(crate) fn disconnected_all(&mut self, now: Now) -> Vec<Write> {
        let ids: Vec<_> = self.clients.keys().copied().collect();
        let ended = ids.into_iter().map(|id| self.disconnected(now, id));
        ended.flatten().collect()
    }

    /// The reply to `Request::Roster` and the file to attach.
    pub fn roster_for(
        &mut self,
        now: Now,
        id: ClientId,
        have: Option<Serial>,
    ) -> (Reply, Option<Arc<Vec<u8>>>) {
        if let Err(refusal) = self.question(now, id) {
            return (refusal, None);
        }
        let Some(roster) = &self.roster else {
            return (no_roster(), None);
        };
        let serial = roster.head().serial;
        if let Some(client) = self.clients.get_mut(&id) {
            client.serial = client.serial.max(have);
        }
        if have >= Some(serial) {
            return (Reply::UpToDate, None);
        }
        (Reply::Roster { serial }, Some(Arc::clone(&self.file)))
    }

    /// Takes an agent's endpoints after they changed.
    pub fn report(
        &mut self,
        now: Now,
        id: ClientId,
        source: SocketAddr,
        endpoints: &[SocketAddr],
    ) -> Reply {
        if let Err(refusal) = self.question(now, id) {
            return refusal;
        }
        let endpoints = self.usable(endpoints);
        if let Some(client) = self.clients.get_mut(&id) {
            client.reported = endpoints;
            client.source = source;
        }
        Reply::Done
    }

    /// Says where a peer may be reached, and has the peer told of the asker.
    pub fn endpoints(
        &mut self,
        now: Now,
        id: ClientId,
        source: SocketAddr,
        peer: &MachineName,
    ) -> Outcome {
        if let Err(refusal) = self.question(now, id) {
            return Outcome::reply(refusal);
        }
        let Some(asker) = self.clients.get_mut(&id) else {
            return Outcome::reply(not_admitted());
        };
        asker.source = source;
        let (asker_name, asker_endpoints) =
            (asker.name.clone(), self.endpoints_of(&self.clients[&id]));
        let known = self
            .roster
            .as_ref()
            .and_then(|roster| roster.members().get(peer))
            .is_some_and(|member| member.enabled);
        if !known {
            return Outcome::reply(Reply::Endpoints {
                online: false,
                endpoints: Vec::new(),
            });
        }
        let Some(peer_id) = self.online.get(peer).copied() else {
            let endpoints = self.last_endpoints.get(peer).cloned().unwrap_or_default();
            return Outcome::reply(Reply::Endpoints {
                online: false,
                endpoints,
            });
        };
        self.counters.introductions += 1;
        let mut outcome = Outcome::reply(Reply::Endpoints {
            online: true,
            endpoints: self.endpoints_of(&self.clients[&peer_id]),
        });
        if peer_id != id {
            let notice = Notice::Introduce {
                peer: asker_name,
                endpoints: asker_endpoints,
            };
            outcome.effects.push(Effect::Notify(peer_id, notice));
        }
        outcome
    }

    /// The pending keys, if they changed since the last call.
    pub(crate) fn unsaved_pending(&mut self) -> Option<Write> {
        self.pending.unsaved().map(Write::Pending)
    }

    /// The member whose machine may connect with this identity, or why there is none.
    fn standing(&self, identity: &PublicIdentity) -> Result<&Member, String> {
        let Some(roster) = &self.roster else {
            return Err("the controller has no roster yet".to_owned());
        };
        let serial = roster.head().serial;
        let Some(member) = roster.member_by_node_id(&identity.node_id()) else {
            return Err(format!("this key is not in the roster (serial {serial})"));
        };
        if member.public_key.map(|key| key.wireguard()) != Some(identity.wireguard()) {
            return Err(format!(
                "the roster (serial {serial}) has another WireGuard key for this identity"
            ));
        }
        if !member.enabled {
            let name = &member.name;
            return Err(format!(
                "`{name}` is switched off in the roster (serial {serial})"
            ));
        }
        Ok(member)
    }

    fn admit(
        &mut self,
        now: Now,
        id: ClientId,
        source: SocketAddr,
        name: MachineName,
        hello: Hello,
    ) -> Outcome {
        let Some(roster) = &self.roster else {
            return Outcome::reply(no_roster());
        };
        let mut effects = Vec::new();
        let reply = Reply::Welcome {
            name: name.clone(),
            serial: roster.head().serial,
            time_millis: now.millis,
            observed: source,
        };
        let before = self.clients.get(&id).map(|client| client.questions);
        let client = Client {
            identity: hello.identity,
            name: name.clone(),
            release: hello.release.chars().take(64).collect(),
            source,
            reported: self.usable(&hello.endpoints),
            serial: hello.serial,
            questions: before.unwrap_or(Bucket::new(QUESTIONS, now.instant)),
        };
        let mut writes = vec![self.saw(now, &client)];
        if before.is_none() {
            self.counters.admitted += 1;
            writes.push(audit(
                now,
                AuditEvent::Admitted {
                    name: name.clone(),
                    identity: hello.identity,
                    source,
                },
            ));
        }
        self.clients.insert(id, client);
        self.last_endpoints.remove(&name);
        if let Some(old) = self.online.insert(name, id).filter(|old| *old != id) {
            effects.push(Effect::Replace(old));
        }
        if let Some(serial) = hello.serial {
            writes.extend(self.hear(serial, hello.head.as_deref()));
        }
        Outcome {
            reply,
            effects,
            writes,
        }
    }

    fn refuse(&mut self, now: Now, source: SocketAddr, hello: Hello, reason: String) -> Outcome {
        self.counters.refused += 1;
        let id = hello.identity.node_id();
        let unknown = self
            .roster
            .as_ref()
            .is_none_or(|roster| roster.member_by_node_id(&id).is_none());
        if unknown {
            self.pending.note(now.millis, source, &hello);
        }
        let mut outcome = Outcome::reply(Reply::Refused {
            reason: reason.clone(),
        });
        if self.is_worth_an_entry(now, id) {
            outcome.writes.push(audit(
                now,
                AuditEvent::Refused {
                    identity: hello.identity,
                    name: hello.name,
                    source,
                    reason,
                },
            ));
        }
        outcome
    }

    fn is_worth_an_entry(&mut self, now: Now, id: NodeId) -> bool {
        let recent = self
            .refused
            .get(&id)
            .is_some_and(|at| now.instant.saturating_since(*at) < REFUSAL_QUIET);
        if recent || !self.refusals.take(now.instant) {
            return false;
        }
        // Full of keys that are quiet: one more entry each is a fair price for a bound.
        if self.refused.len() >= mesh_store::AUDIT_MAX {
            self.refused.clear();
        }
        self.refused.insert(id, now.instant);
        true
    }

    /// Whether a client may ask anything now.
    fn question(&mut self, now: Now, id: ClientId) -> Result<(), Reply> {
        let client = self.clients.get_mut(&id).ok_or_else(not_admitted)?;
        if client.questions.take(now.instant) {
            return Ok(());
        }
        self.counters.rate_limited += 1;
        Err(Reply::Error {
            code: ErrorCode::RateLimited,
            message: "too many questions; ask again in a second".to_owned(),
        })
    }

    fn saw(&mut self, now: Now, client: &Client) -> Write {
        let record = SeenRecord {
            time_millis: now.millis,
            source: client.source,
            release: client.release.clone(),
        };
        let id = client.identity.node_id();
        // Only members are ever admitted, and whoever leaves the roster is forgotten: bounded by it.
        self.seen.insert(id, record.clone());
        Write::Seen(id, record)
    }

    /// What a client said of itself, and where its packets come from with the port that it said.
    fn endpoints_of(&self, client: &Client) -> Vec<SocketAddr> {
        let mut endpoints = client.reported.clone();
        let observed = client
            .reported
            .first()
            .map(|first| SocketAddr::new(client.source.ip(), first.port()));
        if let Some(observed) = observed.filter(|observed| !endpoints.contains(observed)) {
            endpoints.truncate(ENDPOINTS_MAX - 1);
            endpoints.push(observed);
        }
        endpoints
    }

    /// Without what nobody can send to, and without addresses inside the mesh.
    fn usable(&self, endpoints: &[SocketAddr]) -> Vec<SocketAddr> {
        let prefix = self.network.prefix();
        let usable = |endpoint: &SocketAddr| {
            let inside = prefix.holds(endpoint.ip());
            let nowhere = endpoint.ip().is_unspecified() || endpoint.ip().is_multicast();
            !inside && !nowhere && endpoint.port() != 0
        };
        let mut unique = Vec::new();
        for endpoint in endpoints.iter().filter(|endpoint| usable(endpoint)) {
            if !unique.contains(endpoint) && unique.len() < ENDPOINTS_MAX {
                unique.push(*endpoint);
            }
        }
        unique
    }
}

impl Outcome {
    const fn reply(reply: Reply) -> Self {
        Self {
            reply,
            effects: Vec::new(),
            writes: Vec::new(),
        }
    }
}

fn audit(now: Now, event: AuditEvent) -> Write {
    Write::Audit(AuditEntry {
        time_millis: now.millis,
        event,
    })
}

fn not_admitted() -> Reply {
    Reply::Error {
        code: ErrorCode::NotAdmitted,
        message: "only an admitted machine may ask this".to_owned(),
    }
}

fn no_roster() -> Reply {
    Reply::Error {
        code: ErrorCode::NoRoster,
        message: "the controller has no roster yet".to_owned(),
    }
}
