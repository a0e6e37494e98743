//! What the agent's tasks share: configuration, roster, controllers, data plane.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use mesh_api::DnsStatus;
use mesh_control::{Connection, Expect};
use mesh_core::{MappingView, Unmapped};
use mesh_inventory::roster::{self, Role, Roster, RosterError, RosterRefused};
use mesh_os::{confine::Confinement, host};
use mesh_types::{IdentitySeed, MachineName, NodeId, PublicIdentity, Serial};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    config::{Config, HostPort},
    device::Device,
    logs::LogRing,
    names,
    overlay::Overlay,
    stored::StoredRoster,
    view::{Standing, Verdict},
};

/// The agent. Every task has it in an `Arc`.
#[derive(Debug)]
pub(crate) struct Agent {
    identity: IdentitySeed,
    public: PublicIdentity,
    stored: StoredRoster,
    /// The configuration in force; a reload replaces it.
    pub(crate) config: watch::Sender<Arc<Config>>,
    /// The roster in force; what is watched here was applied already.
    pub(crate) roster: watch::Sender<Option<Arc<Roster>>>,
    /// The serial that somebody spoke of last: a reason to ask, nothing more.
    pub(crate) rumoured: watch::Sender<Option<Serial>>,
    /// Underlay endpoints of this machine, to be told to controllers.
    pub(crate) endpoints: watch::Sender<Vec<std::net::SocketAddr>>,
    /// Those of them that are of its own interfaces.
    pub(crate) interfaces: watch::Sender<Vec<std::net::SocketAddr>>,
    /// The router's port for this machine.
    pub(crate) mapping: watch::Sender<MappingView>,
    /// Sent when something about the network changed, or the machine slept.
    pub(crate) network: watch::Sender<()>,
    /// Why the roster that came last was not taken; `None` if it was.
    pub(crate) refused_roster: watch::Sender<Option<String>>,
    /// Keys of the configuration that were changed and need a restart to take effect.
    pub(crate) restart_needed: watch::Sender<Vec<&'static str>>,
    /// Whether names are answered.
    pub(crate) dns: watch::Sender<DnsStatus>,
    pub(crate) overlay: Arc<Overlay>,
    /// `None` only in tests, which may not make devices.
    pub(crate) device: Option<Device>,
    pub(crate) logs: LogRing,
    /// What holds this process back; nothing is said of it in tests.
    pub(crate) confinement: OnceLock<Confinement>,
    controllers: Mutex<BTreeMap<HostPort, Controller>>,
    /// One roster is judged, stored and applied at a time.
    taking: tokio::sync::Mutex<()>,
    /// The device is brought in line with one roster at a time, which is in force when that is done.
    configuring: Mutex<()>,
}

/// What is known of a configured controller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Controller {
    /// The connection; `None` while there is none.
    pub(crate) connection: Option<Arc<Connection>>,
    /// What it said of this machine.
    pub(crate) verdict: Verdict,
    /// Why there is no connection, or what is odd about it.
    pub(crate) reason: Option<String>,
    /// The key that it proved last.
    pub(crate) node_id: Option<NodeId>,
    /// Serial of its roster.
    pub(crate) serial: Option<Serial>,
    /// How far its clock is ahead of this machine's, in milliseconds; negative: behind.
    pub(crate) clock_ahead_millis: Option<i64>,
}

/// Why a roster that somebody sent is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeRosterError {
    /// It is not a roster by a trusted signer.
    #[error("the roster is not genuine")]
    NotGenuine(#[source] RosterError),
    /// It is genuine, but may not replace the one in force.
    #[error("the roster is not taken")]
    Refused(#[source] RosterRefused),
}

impl Agent {
    pub(crate) fn new(
        identity: IdentitySeed,
        config: Config,
        roster: Option<Roster>,
        overlay: Arc<Overlay>,
        device: Option<Device>,
        logs: LogRing,
    ) -> Arc<Self> {
        let public = identity.public();
        overlay.moon.set_total_rate(config.relay_rate);
        if let Some(roster) = &roster {
            overlay.apply_roster(roster, &public);
        }
        Arc::new(Self {
            identity,
            public,
            stored: StoredRoster::in_dir(&config.state_dir),
            config: watch::Sender::new(Arc::new(config)),
            roster: watch::Sender::new(roster.map(Arc::new)),
            rumoured: watch::Sender::new(None),
            endpoints: watch::Sender::new(Vec::new()),
            interfaces: watch::Sender::new(Vec::new()),
            mapping: watch::Sender::new(MappingView {
                router: None,
                mapped: Err(Unmapped::Asking),
            }),
            network: watch::Sender::new(()),
            refused_roster: watch::Sender::new(None),
            restart_needed: watch::Sender::new(Vec::new()),
            dns: watch::Sender::new(names::silent("starting", None)),
            overlay,
            device,
            logs,
            confinement: OnceLock::new(),
            controllers: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            configuring: Mutex::default(),
        })
    }

    pub(crate) const fn identity(&self) -> &IdentitySeed {
        &self.identity
    }

    pub(crate) const fn public(&self) -> &PublicIdentity {
        &self.public
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// The roster in force.
    pub(crate) fn roster(&self) -> Option<Arc<Roster>> {
        self.roster.borrow().clone()
    }

    pub(crate) fn serial(&self) -> Option<Serial> {
        self.roster
            .borrow()
            .as_ref()
            .map(|roster| roster.head().serial)
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing::of(self.roster().as_deref(), &self.public.node_id())
    }

    /// The name to claim: the roster's, else the configured one, else the host's.
    pub(crate) fn name(&self) -> Option<MachineName> {
        let roster = self.roster();
        let member = roster
            .as_ref()
            .and_then(|roster| roster.member_by_node_id(&self.public.node_id()));
        match member {
            Some(member) => Some(member.name.clone()),
            None => self.config().name.clone().or_else(host_name),
        }
    }

    /// Which servers may be spoken to: any without a roster, which the signature then proves; else the
    /// controllers of the roster in force.
    pub(crate) fn expected_controllers(&self) -> Expect {
        match self.roster() {
            None => Expect::Any,
            Some(roster) => Expect::OneOf(controller_keys(&roster)),
        }
    }

    /// Judges a roster file, stores it and puts it in force; `false` if it is in force already.
    ///
    /// A roster that cannot be stored is applied all the same: who it removes must not stay for want of
    /// disk space. Dropping the future may leave it stored and not yet in force.
    pub(crate) async fn take_roster(&self, file: &[u8]) -> Result<bool, TakeRosterError> {
        let taken = self.judge_and_apply(file).await;
        let refused = taken.as_ref().err().map(|error| crate::chain(error));
        self.refused_roster.send_replace(refused);
        taken
    }

    async fn judge_and_apply(&self, file: &[u8]) -> Result<bool, TakeRosterError> {
        let _one_at_a_time = self.taking.lock().await;
        let config = self.config();
        let candidate =
            tokio::task::block_in_place(|| Roster::verify(file, &config.network, &config.signers))
                .map_err(TakeRosterError::NotGenuine)?;
        let current = self.roster();
        match roster::admit(current.as_deref(), &candidate, config.min_serial, true) {
            Ok(()) => {}
            Err(RosterRefused::AlreadyInForce(_)) => return Ok(false),
            Err(refused) => return Err(TakeRosterError::Refused(refused)),
        }
        if let Err(error) = tokio::task::block_in_place(|| self.stored.store(&candidate)) {
            warn!(
                error = crate::chain(&error),
                "could not store the roster; it is in force until a restart"
            );
        }
        self.apply(Arc::new(candidate));
        Ok(true)
    }

    fn apply(&self, roster: Arc<Roster>) {
        let head = roster.head();
        info!(serial = %head.serial, members = head.member_count, "roster taken");
        // Who is gone is cut off before anything else.
        self.overlay.apply_roster(&roster, &self.public);
        let _one_at_a_time = self.lock_device();
        self.apply_to_device(&roster);
        self.roster.send_replace(Some(roster));
    }

    /// Gives the device what is known of the ways to peers.
    pub(crate) fn apply_mtus(&self) {
        let _one_at_a_time = self.lock_device();
        if let Some(roster) = self.roster() {
            self.apply_to_device(&roster);
        }
    }

    fn apply_to_device(&self, roster: &Roster) {
        if let Some(device) = &self.device {
            let mtus = self.overlay.mtus.borrow().clone();
            device.apply(&self.config(), &self.public.node_id(), roster, &mtus);
        }
    }

    fn lock_device(&self) -> std::sync::MutexGuard<'_, ()> {
        self.configuring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of a serial. Wakes whoever can ask for the roster, if it is higher than that in force.
    ///
    /// The highest one ever heard is not remembered: a peer that lies of an enormous serial would make
    /// this machine deaf to true ones.
    pub(crate) fn hear_of(&self, serial: Serial) {
        if Some(serial) > self.serial() {
            self.rumoured.send_replace(Some(serial));
        }
    }

    /// Whether the serial that somebody spoke of last is higher than that in force.
    pub(crate) fn is_behind(&self) -> bool {
        *self.rumoured.borrow() > self.serial()
    }

    /// Changes what is known of the controller at `endpoint`.
    pub(crate) fn update_controller(
        &self,
        endpoint: &HostPort,
        change: impl FnOnce(&mut Controller),
    ) {
        let mut controllers = self.lock_controllers();
        change(controllers.entry(endpoint.clone()).or_default());
    }

    pub(crate) fn forget_controller(&self, endpoint: &HostPort) {
        self.lock_controllers().remove(endpoint);
    }

    /// What is known of each configured controller, in the configuration's order.
    pub(crate) fn controllers(&self) -> Vec<(HostPort, Controller)> {
        let known = self.lock_controllers();
        let config = self.config();
        let facts = |endpoint: &HostPort| known.get(endpoint).cloned().unwrap_or_default();
        config
            .controllers
            .iter()
            .map(|endpoint| (endpoint.clone(), facts(endpoint)))
            .collect()
    }

    /// The connections that are up and admitted.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.lock_controllers()
            .values()
            .filter(|controller| controller.verdict == Verdict::Admitted)
            .filter_map(|controller| controller.connection.clone())
            .collect()
    }

    fn lock_controllers(&self) -> std::sync::MutexGuard<'_, BTreeMap<HostPort, Controller>> {
        // What it guards is whole after every statement.
        self.controllers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of the roster's controllers that are switched on.
pub(crate) fn controller_keys(roster: &Roster) -> Vec<NodeId> {
    roster
        .members()
        .values()
        .filter(|member| member.enabled && member.roles.contains(&Role::Controller))
        .filter_map(|member| member.public_key?.node_id())
        .collect()
}

/// The first label of the host's name, if it is a machine name.
fn host_name() -> Option<MachineName> {
    host::name()?.split('.').next()?.parse().ok()
}
