//! The controller's shell around its decisions: what is decided is written down, then told.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use mesh_api::{Accepted, Invited, Uninvited, VERSION};
use mesh_inventory::{
    Edit, Report, Resolution, diff, edit, inventory, resolve,
    roster::{Member, Roster, RosterError},
};
use mesh_store::Write;
use mesh_types::{
    IdentitySeed, MachineName, MemberKey, NetworkId, NodeId, PublicIdentity, Serial, chain,
};
use mesh_wire::control::{ErrorCode, Notice, Reply};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::{
    core::{By, ClientId, Core, Effect, Joining, Judgement, Mode, Now, Outcome},
    keeper::Keeper,
    places::Places,
};

/// Large rosters that are pushed at a time, one of an address, and held in memory.
const PUSHES_MAX: usize = 4;

/// The largest file that is read for an inventory or a roster, in bytes.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How the shell reaches an admitted client.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) notices: mpsc::Sender<Notice>,
    pub(crate) end: watch::Sender<Option<End>>,
}

/// Why a client's connection is ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Cut(String),
    Replaced,
}

pub(crate) struct Controller {
    pub(crate) network: NetworkId,
    identity: IdentitySeed,
    mode: Mode,
    core: Mutex<Core>,
    lines: Mutex<BTreeMap<ClientId, Line>>,
    keeper: Keeper,
    /// One roster change at a time, from its judgement to its announcement.
    change: tokio::sync::Mutex<()>,
    pub(crate) pushes: Arc<Places>,
    /// The serial in force, for all who are to be told of it.
    serial: watch::Sender<Option<Serial>>,
}

impl Controller {
    pub(crate) fn new(
        network: NetworkId,
        identity: IdentitySeed,
        mode: Mode,
        core: Core,
        keeper: Keeper,
    ) -> Self {
        let serial = core.roster().map(|roster| roster.head().serial);
        Self {
            network,
            identity,
            mode,
            core: Mutex::new(core),
            lines: Mutex::new(BTreeMap::new()),
            keeper,
            change: tokio::sync::Mutex::new(()),
            pushes: Arc::new(Places::new(PUSHES_MAX, 1)),
            serial: watch::Sender::new(serial),
        }
    }

    /// The core, for one decision; never held across an `await`.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    pub(crate) fn serial(&self) -> watch::Receiver<Option<Serial>> {
        self.serial.subscribe()
    }

    /// Puts a client where effects find it.
    pub(crate) fn connect(&self, id: ClientId, line: Line) {
        self.lines().insert(id, line);
    }

    /// Forgets a client whose connection ended.
    pub(crate) fn disconnect(&self, id: ClientId) {
        self.lines().remove(&id);
        let writes = self.core().disconnected(now(), id);
        self.keeper.note(writes);
    }

    pub(crate) fn perform(&self, effects: Vec<Effect>) {
        let lines = self.lines();
        for effect in effects {
            match effect {
                Effect::Notify(id, notice) => {
                    // A client that does not read misses introductions; its peers ask again.
                    let _ = lines.get(&id).map(|line| line.notices.try_send(notice));
                }
                Effect::Cut(id, reason) => {
                    if let Some(line) = lines.get(&id) {
                        line.end.send_replace(Some(End::Cut(reason)));
                    }
                }
                Effect::Replace(id) => {
                    if let Some(line) = lines.get(&id) {
                        line.end.send_replace(Some(End::Replaced));
                    }
                }
            }
        }
    }

    /// Judges a new machine's proof that it was invited. Where this controller signs, the machine is admitted by this.
    pub(crate) async fn join(
        &self,
        proven: Option<NodeId>,
        source: SocketAddr,
        joining: &Joining,
    ) -> Reply {
        let Outcome { reply, writes, .. } = self.core().join(now(), proven, source, joining);
        if !matches!(reply, Reply::Joined { .. }) {
            return reply;
        }
        // Whoever was told that it joined has joined, also after a crash.
        if self.commit(writes).await.is_err() {
            return Reply::Error {
                code: ErrorCode::Internal,
                message: "the controller cannot store that; its log says why".to_owned(),
            };
        }
        info!(name = %joining.name, identity = %joining.identity, %source, "a machine used its invitation");
        self.refresh().await;
        let core = self.core();
        let member = core.roster().and_then(|roster| {
            let member = roster.member_by_node_id(&joining.identity.node_id())?;
            (member.name == joining.name).then_some(())
        });
        Reply::Joined {
            admitted: member.is_some(),
        }
    }

    /// Invites a machine, and says what its token is to have.
    pub(crate) async fn invite(
        &self,
        name: MachineName,
        key: PublicIdentity,
        expires: u64,
    ) -> Result<Invited, String> {
        let expires_millis = expires.saturating_mul(1000);
        let writes = self.core().invite(now(), &name, key, expires_millis)?;
        self.commit(writes).await?;
        let own = self.identity.public();
        let core = self.core();
        let roster = core.roster().ok_or("there is no roster yet")?;
        let member = roster.member_by_node_id(&own.node_id());
        Ok(Invited {
            version: VERSION,
            name,
            network: self.network.to_string(),
            signers: core.trusted().into_iter().map(String::from).collect(),
            controller: own,
            endpoints: member.map_or_else(Vec::new, |member| member.endpoints.clone()),
        })
    }

    /// Takes back the invitations of a machine, and with them the key that it joined with.
    pub(crate) async fn uninvite(&self, name: MachineName) -> Result<Uninvited, String> {
        let (invitations, writes) = self.core().uninvite(&name);
        self.commit(writes).await?;
        self.refresh().await;
        Ok(Uninvited {
            version: VERSION,
            name,
            invitations,
        })
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), String> {
        let stored = self.keeper.commit(writes).await;
        stored.map_err(|error| {
            let error = format!("{error:#}");
            self.core().set_problem("store", Some(error.clone()));
            error
        })
    }

    /// Judges a pushed roster, and puts it in force.
    pub(crate) async fn push(&self, file: Vec<u8>, by: By) -> Reply {
        let verified = self.verify(file).await;
        let change = self.change.lock().await;
        let (judgement, writes) = self.core().judge(now(), verified, &by);
        let is_noted = !writes.is_empty();
        self.keeper.note(writes);
        match judgement {
            Judgement::Accept(roster) => {
                let writes = self.core().writes_of(now(), &roster, &by);
                if let Err(error) = self.keeper.commit(writes).await {
                    let error = format!("{error:#}");
                    warn!(%error, "a pushed roster was not taken, because it cannot be stored");
                    self.core().set_problem("store", Some(error));
                    return Reply::Error {
                        code: ErrorCode::Internal,
                        message: "the controller cannot store the roster; its log says why"
                            .to_owned(),
                    };
                }
                let reply = Reply::Accepted {
                    serial: roster.head().serial,
                    members: roster.head().member_count,
                };
                self.install(roster, &by);
                drop(change);
                reply
            }
            Judgement::InForce(serial) => {
                let members = self.core().roster().map_or(0, |r| r.head().member_count);
                Reply::Accepted { serial, members }
            }
            Judgement::Refused(refused) => {
                let error = chain(&refused);
                // As bounded as the audit log, or strangers could fill this one.
                if is_noted {
                    warn!(%by, %error, "a roster was refused");
                }
                let code = match &refused {
                    crate::core::PushRefused::Refused(reason) if reason.is_forceable() => {
                        ErrorCode::ForceNeeded
                    }
                    crate::core::PushRefused::Refused(_) | crate::core::PushRefused::Forged(_) => {
                        ErrorCode::RosterRefused
                    }
                };
                Reply::Error {
                    code,
                    message: error,
                }
            }
        }
    }

    /// Looks at the watched file and makes what it says take effect. What is wrong with it stays visible
    /// as a problem, and the roster in force stays.
    pub(crate) async fn refresh(&self) {
        self.look(false).await;
    }

    /// Takes what the inventory says although it removes over half of the members.
    pub(crate) async fn accept_shrink(&self) -> Result<Accepted, String> {
        let Mode::Inventory(_) = &self.mode else {
            return Err(
                "this controller watches no inventory; a roster that removes over half of the members is pushed with `--force`"
                    .to_owned(),
            );
        };
        self.look(true).await;
        let core = self.core();
        match (core.problem("inventory"), core.roster()) {
            (None, Some(roster)) => Ok(Accepted {
                version: VERSION,
                serial: roster.head().serial,
                members: roster.head().member_count,
            }),
            (problem, _) => Err(problem.unwrap_or("there is no roster in force").to_owned()),
        }
    }

    async fn look(&self, accept_shrink: bool) {
        let (what, result) = match &self.mode {
            Mode::Push => return,
            Mode::Inventory(path) => {
                let result = self.refresh_inventory(path, accept_shrink).await;
                ("inventory", result)
            }
            Mode::Roster(path) => ("roster", self.refresh_roster(path).await),
        };
        let problem = result.err().map(|error| format!("{error:#}"));
        if self.core().set_problem(what, problem.clone())
            && let Some(problem) = problem
        {
            warn!("the {what} was not taken, and the roster in force stays: {problem}");
        }
    }

    /// Does what is to be done again from time to time.
    pub(crate) async fn tidy(&self) {
        let pending = self.core().unsaved_pending();
        self.keeper.note(pending.into_iter().collect());
        let overtaken = {
            let mut core = self.core();
            let known = core.has_problem("clock");
            core.watch_clock(now());
            if !known && core.has_problem("clock") {
                warn!("the clock went back behind the time of the roster in force; set it");
            }
            core.is_overtaken(now())
        };
        if overtaken {
            self.refresh().await;
        }
    }

    /// Notes what is only in memory, at the end.
    pub(crate) fn put_away(&self) {
        let mut core = self.core();
        let mut writes = core.disconnected_all(now());
        writes.extend(core.unsaved_pending());
        drop(core);
        self.keeper.note(writes);
    }

    /// Writes everything anew after the store failed or was replaced.
    pub(crate) async fn mend_store(&self) {
        let change = self.change.lock().await;
        let writes = self.core().everything();
        let result = self.keeper.commit(writes).await;
        drop(change);
        match result {
            Ok(()) => {
                info!("the store works again");
                self.core().set_problem("store", None);
            }
            Err(error) => {
                self.core().set_problem("store", Some(format!("{error:#}")));
            }
        }
    }

    async fn refresh_roster(&self, path: &std::path::Path) -> anyhow::Result<()> {
        let by = By::File(path.to_owned());
        let file = read(path).await?;
        let verified = self.verify(file).await;
        let _change = self.change.lock().await;
        let (judgement, writes) = self.core().judge(now(), verified, &by);
        let roster = match judgement {
            Judgement::Accept(roster) => roster,
            Judgement::InForce(_) => return Ok(()),
            Judgement::Refused(refused) => {
                self.keeper.note(writes);
                return Err(anyhow::Error::new(refused)
                    .context(format!("the roster `{}` is refused", path.display())));
            }
        };
        // The file itself is where it is kept, so a store that fails keeps nobody waiting.
        let writes = self.core().writes_of(now(), &roster, &by);
        if let Err(error) = self.keeper.commit(writes).await {
            self.core().set_problem("store", Some(format!("{error:#}")));
        }
        self.install(roster, &by);
        Ok(())
    }

    async fn refresh_inventory(
        &self,
        path: &std::path::Path,
        accept_shrink: bool,
    ) -> anyhow::Result<()> {
        let by = By::File(path.to_owned());
        let file = read(path).await?;
        let _change = self.change.lock().await;
        let previous = self.core().roster().cloned();
        let name = path.display().to_string();
        let network = self.network;
        let joined = self.core().joined();
        let (resolution, settled) = tokio::task::spawn_blocking(move || {
            let inventory = inventory::parse(&name, &file)?;
            let written = resolve(&inventory, previous.as_deref())?;
            Ok(with_joined(
                &name,
                file,
                written,
                joined,
                previous.as_deref(),
            ))
        })
        .await?
        .map_err(|report: Report| anyhow::anyhow!("{}", report.to_string().trim_end()))?;
        // Of those that were looked at: another may have joined meanwhile.
        let is_settled = |name: &MachineName, key| settled.contains(&(name.clone(), key));
        let forgotten = self.core().forget_joined(is_settled);
        self.keeper.note(forgotten);
        if resolution.network().id != network {
            anyhow::bail!(
                "the inventory `{}` is of network `{}`, and this controller serves `{network}`",
                path.display(),
                resolution.network().id
            );
        }
        let unsigned = self.core().to_sign(now(), &resolution)?;
        let Some(unsigned) = unsigned else {
            return Ok(());
        };
        if !accept_shrink {
            self.refuse_shrink(path, &resolution)?;
        }
        let roster = Arc::new(unsigned.sign_with_seed(&self.identity)?);
        // A serial that is not on the disk could be signed twice.
        let writes = self.core().writes_of(now(), &roster, &by);
        if let Err(error) = self.keeper.commit(writes).await {
            self.core().set_problem("store", Some(format!("{error:#}")));
            return Err(error.context("what was signed cannot be stored"));
        }
        self.install(roster, &by);
        Ok(())
    }

    /// A file that was cut short by accident must not cut off the fleet.
    fn refuse_shrink(&self, path: &std::path::Path, resolution: &Resolution) -> anyhow::Result<()> {
        let Some(roster) = self.core().roster().cloned() else {
            return Ok(());
        };
        let change = diff(roster.parts(), resolution.parts());
        anyhow::ensure!(
            !change.removes_over_half(),
            "the inventory `{}` removes {} of {} members; if that is meant, run `mesh controller accept-shrink` on this machine",
            path.display(),
            change.leaves.len(),
            roster.members().len(),
        );
        Ok(())
    }

    /// Puts a stored roster in force and tells everyone.
    fn install(&self, roster: Arc<Roster>, by: &By) {
        let head = roster.head();
        let (serial, members) = (head.serial, head.member_count);
        let (effects, writes) = self.core().install(now(), roster);
        self.keeper.note(writes);
        self.perform(effects);
        self.serial.send_replace(Some(serial));
        info!(%serial, members, %by, "roster came into force");
    }

    async fn verify(&self, file: Vec<u8>) -> Result<Roster, RosterError> {
        let (network, trusted) = (self.network, self.core().trusted());
        let verify = move || Roster::verify(&file, &network, &trusted);
        match tokio::task::spawn_blocking(verify).await {
            Ok(result) => result,
            Err(gone) => Err(RosterError::Inconsistent(format!(
                "it could not be verified: {gone}"
            ))),
        }
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<ClientId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clocks as they are.
pub(crate) fn now() -> Now {
    // A clock before 1970 is as good as one in 1970: wrong, and reported as such.
    let wall = mesh_os::clock::wall().duration_since(UNIX_EPOCH);
    Now {
        millis: wall.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }),
        instant: mesh_os::clock::now(),
    }
}

/// The resolution with the keys of machines that were invited and have none in the inventory; and those of machines that have
/// one there, or are not there. What does not go together with the inventory, such as a key that is another machine's there, is
/// left out.
fn with_joined(
    file_name: &str,
    file: Vec<u8>,
    written: Resolution,
    joined: Vec<(MachineName, MemberKey)>,
    previous: Option<&Roster>,
) -> (Resolution, Vec<(MachineName, MemberKey)>) {
    let mut settled = Vec::new();
    let mut resolution = written;
    // It was read as an inventory, and so is text.
    let mut text = String::from_utf8_lossy(&file).into_owned();
    for (name, key) in joined {
        let waits = |member: &Member| member.public_key.is_none();
        if !resolution.members().get(&name).is_some_and(waits) {
            settled.push((name, key));
            continue;
        }
        let Ok(edited) = edit(file_name, &text, &Edit::Key(name.clone(), Some(key))) else {
            continue;
        };
        let inventory = inventory::parse(file_name, edited.as_bytes());
        match inventory.and_then(|inventory| resolve(&inventory, previous)) {
            Ok(resolved) => (resolution, text) = (resolved, edited),
            Err(report) => warn!(%name, "the key of an invited machine is not taken: {report}"),
        }
    }
    (resolution, settled)
}

/// Writes about what was decided for a client.
pub(crate) fn note(controller: &Controller, writes: Vec<Write>) {
    controller.keeper().note(writes);
}

async fn read(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let path = path.to_owned();
    let read = move || mesh_os::file::read_bounded(&path, FILE_BYTES_MAX);
    let error = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(bytes)) => return Ok(bytes),
        Ok(Err(error)) => error,
        Err(_) => anyhow::bail!("the reading thread is gone"),
    };
    let denied = matches!(&error, mesh_os::file::ReadFileError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::PermissionDenied);
    let error = anyhow::Error::new(error);
    Err(if denied {
        error.context(format!(
            "the controller runs as `{}`, who may not read it; let that user read the file and enter its directories, or configure another `user`",
            mesh_os::privilege::current_user()
        ))
    } else {
        error
    })
}
