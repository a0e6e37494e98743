//! Start-up, in the one order that works, and shut-down.
//!
//! Everything that needs privileges is opened in the main thread while it is the only one; then the
//! privileges go, for good; then the data plane's threads and the runtime start.

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use mesh_inventory::roster::Roster;
use mesh_os::{
    allocator,
    confine::{Confinement, Needs, confine},
    descriptors::Store,
    file,
    identity::read_identity,
    notify::{Notifier, watchdog},
    priority,
    privilege::{self, Keep, UserChange},
    unix::{self, ListenError, SocketFile},
};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, info, warn};

use crate::{
    agent::Agent,
    chain,
    config::Config,
    control,
    dataplane::Threads,
    device::{self, Device},
    gossip,
    handover::{self, Inheritance},
    local,
    logs::LogRing,
    measure, metrics,
    names::{self, DNS_PORT},
    overlay::{News, Overlay},
    port_mapping::{self, Mapping},
    pulse::{self, Pulse},
    relay::{clients, streams},
    reload, rumours,
    stored::StoredRoster,
    underlay,
};

/// How long readiness waits for the first roster ever: a controller that is there answers within a second.
const FIRST_ROSTER_PATIENCE: Duration = Duration::from_secs(5);

/// Worker threads of the runtime, which only the control plane uses.
const RUNTIME_THREADS: usize = 2;

/// What start-up opened.
struct Opened {
    agent: Arc<Agent>,
    news: mpsc::Receiver<News>,
    threads: Threads,
    listener: UnixListener,
    socket_file: SocketFile,
    notifier: Arc<Notifier>,
    pulse: Arc<Pulse>,
    /// What ends when the supervisor does.
    lifeline: Option<OwnedFd>,
    /// Where the sessions go at the end; `None`: nobody keeps them.
    store: Option<Store>,
}

/// Runs the agent until SIGTERM or SIGINT. Must be called in a process with a single thread.
///
/// `path` is where `config` came from, to be read again on SIGHUP and when it changes.
///
/// # Errors
///
/// What keeps the agent from starting, with the next step in words.
pub fn run(config: Config, path: PathBuf, logs: LogRing) -> anyhow::Result<()> {
    allocator::return_large_buffers();
    let opened = open(config, &path, logs)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let Opened {
        agent,
        news,
        threads,
        listener,
        socket_file,
        store,
        notifier,
        pulse,
        lifeline,
    } = opened;
    let result = runtime.block_on(async {
        let feeding = tokio::spawn(pulse::feed(pulse, notifier.clone()));
        let handed_on = store.is_some();
        let result = serve(&agent, news, listener, path, &notifier, lifeline, handed_on).await;
        feeding.abort();
        result
    });
    // The tasks hold the sockets and the device; nothing of them stays behind.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(socket_file);
    // Packets are carried until the very end, and wait in the kernel from here on.
    agent.overlay.set_patient(store.is_some());
    threads.stop();
    if let (Ok(()), Some(store)) = (&result, &store) {
        handover::leave(&agent.overlay, store);
    }
    result
}

fn open(config: Config, path: &Path, logs: LogRing) -> anyhow::Result<Opened> {
    // First of all: what was passed has numbers that nothing else may get.
    let mut inheritance = Inheritance::take();
    let lifeline = inheritance.lifeline();
    let notifier = Notifier::from_environment().context("cannot reach the service manager")?;
    let identity = read_identity(&config.identity_file)?;
    let state_dir = &config.state_dir;
    file::make_private_dir(state_dir).with_context(|| {
        format!(
            "cannot create the state directory `{}`",
            state_dir.display()
        )
    })?;
    let roster = load_roster(&config);
    // What an earlier run as another user left may be closed to the later one.
    let stamp = rumours::load_stamp(&config.state_dir);
    let own = identity.public().node_id();
    let device = Device::open(&config, &own, roster.as_ref(), &mut inheritance)?;
    let sockets = inheritance.sockets(&config)?;
    let (listener, socket_file) = listen(&config)?;
    if let Err(error) = priority::raise() {
        info!(%error, "packets may wait for the processor as every program does");
    }
    let user = privilege::choose_user(config.user.as_deref(), keep(&config));
    give_away_dirs(&config, &user);
    let change = privilege::drop_privileges(Some(&user), keep(&config));
    match change.context("cannot give up privileges")? {
        UserChange::Changed { name, .. } => info!(user = name, "gave up privileges"),
        UserChange::Kept { reason } => info!(reason, "gave up privileges, but kept the user"),
    }
    let confinement = confinement(&config, path);
    let pulse = Pulse::new(watchdog());
    let (overlay, news) = Overlay::new(
        &identity,
        config.network.prefix().agent_address(),
        stamp,
        sockets,
    );
    let (overlay, tun) = (Arc::new(overlay), device.tun.clone());
    // With the roster applied, and before any packet: the last process's sessions.
    let agent = Agent::new(identity, config, roster, overlay, Some(device), logs);
    let store = inheritance.sessions(&agent.overlay);
    let threads =
        Threads::start(&agent.overlay, &tun, &pulse).context("cannot start the data plane")?;
    let _ = agent.confinement.set(confinement);
    Ok(Opened {
        agent,
        news,
        threads,
        listener,
        socket_file,
        store,
        notifier: Arc::new(notifier),
        pulse,
        lifeline,
    })
}

/// Takes from the process what it does not need any more. The threads that it starts inherit that.
fn confinement(config: &Config, path: &Path) -> Confinement {
    if !config.confine {
        warn!("not confined: `confine = false`");
        return Confinement::switched_off();
    }
    let mut needs = Needs::new(
        [path],
        std::iter::once(&*config.state_dir).chain(config.socket.parent()),
    );
    // Where a name server answers over TCP what does not fit into a datagram (RFC 7766).
    needs.tcp_connect.push(DNS_PORT);
    if config.dns {
        needs.tcp_listen.push(DNS_PORT);
    }
    // Towards moons where no UDP gets through.
    needs.tcp_connect.push(streams::PORT);
    if config.port_mapping {
        needs.tcp_connect.extend(port_mapping::HTTP_PORTS);
    }
    let listen = config.relay_listen.map(|listen| listen.port());
    needs.tcp_listen.extend(listen);
    let listen = config.metrics_listen.map(|listen| listen.port());
    needs.tcp_listen.extend(listen);
    let confinement = confine(&needs);
    info!(%confinement, "confined");
    confinement
}

async fn serve(
    agent: &Arc<Agent>,
    news: mpsc::Receiver<News>,
    listener: UnixListener,
    config_path: PathBuf,
    notifier: &Notifier,
    lifeline: Option<OwnedFd>,
    handed_on: bool,
) -> anyhow::Result<()> {
    let lifeline = lifeline.map(pipe::Receiver::from_owned_fd).transpose()?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut tasks = tokio::task::JoinSet::new();
    // Before the controllers are greeted, so that the greeting carries this machine's endpoints.
    underlay::look(agent);
    let api = agent.clone();
    tasks.spawn(async move {
        if let Err(error) = local::serve(api, listener).await {
            warn!(error = chain(&error), "the local socket is broken");
        }
    });
    tasks.spawn(control::supervise(agent.clone()));
    tasks.spawn(underlay::watch(agent.clone()));
    tasks.spawn(device::follow_mtus(agent.clone()));
    tasks.spawn(rumours::act(agent.clone(), news));
    tasks.spawn(clients::remember(agent.clone()));
    tasks.spawn(gossip::serve(agent.clone()));
    tasks.spawn(names::serve(agent.clone()));
    let listen = agent.config().metrics_listen;
    tasks.spawn(metrics::serve(agent.clone(), listen));
    let listen = agent.config().relay_listen;
    tasks.spawn(streams::serve(agent.clone(), listen));
    tasks.spawn(streams::supervise(agent.clone(), streams::PORT));
    if let Some(measured) = agent.overlay.take_measured() {
        tasks.spawn(measure::serve(agent.clone(), measured));
    }
    tasks.spawn(measure::serve_other_port(agent.clone()));
    tasks.spawn(reload::watch(agent.clone(), config_path));
    let mapping = Mapping::keep(agent.clone());
    let ready = async {
        address_or_patience(agent).await;
        agent.overlay.set_patient(false);
        notify(notifier, "READY=1");
        info!("agent ready");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ready => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = end_of(lifeline) => warn!("the supervisor is gone, and the agent goes with it"),
        Some(ended) = tasks.join_next() => {
            // Each task runs for ever; one that ends would leave a half-dead agent.
            if let Err(error) = ended && error.is_panic() {
                std::panic::resume_unwind(error.into_panic());
            }
            bail!("a task of the agent ended");
        }
    }
    info!("stopping");
    notify(notifier, "STOPPING=1");
    // The next process asks for the same port again, so that packets go on meanwhile.
    mapping.stop(!handed_on).await;
    tasks.shutdown().await;
    Ok(())
}

/// Waits until whoever holds the other end is gone; for ever where there is no such thing. An agent that nobody
/// looks after would keep the device and the port from the one that the next supervisor starts.
async fn end_of(lifeline: Option<pipe::Receiver>) {
    let Some(mut lifeline) = lifeline else {
        return std::future::pending().await;
    };
    // Nothing is ever written there.
    while let Ok(1..) = lifeline.read(&mut [0; 16]).await {}
}

/// A stored roster that is torn, forged or no longer trusted is a warning: a controller has a good one.
fn load_roster(config: &Config) -> Option<Roster> {
    let stored = StoredRoster::in_dir(&config.state_dir);
    match stored.load(&config.network, &config.signers) {
        Ok(Some(roster)) => {
            info!(serial = %roster.head().serial, "starting with the stored roster");
            Some(roster)
        }
        Ok(None) => {
            info!("starting without a stored roster");
            None
        }
        Err(error) => {
            warn!(error = chain(&error), "starting without the stored roster");
            None
        }
    }
}

fn listen(config: &Config) -> anyhow::Result<(UnixListener, SocketFile)> {
    let try_group = |group| unix::listen(&config.socket, 0o660, group);
    let listening = match &config.group {
        Some(group) => try_group(Some(group.as_str())),
        None => match try_group(Some("mesh")) {
            Err(ListenError::UnknownGroup(_)) => try_group(None),
            other => other,
        },
    };
    listening.context("cannot open the local socket")
}

/// What the agent goes on with: interface and routes follow each roster, and port 53 each address.
const fn keep(config: &Config) -> Keep {
    if config.dns || config.relay_listen.is_some() {
        Keep::NetAdminAndPorts
    } else {
        Keep::NetAdmin
    }
}

/// Gives the later user what it must write: the state, and the socket's directory if it is mesh's own,
/// so that the socket can be removed at the end.
fn give_away_dirs(config: &Config, user: &str) {
    let Ok(user) = privilege::user_after_drop(Some(user), keep(config)) else {
        return;
    };
    let given = privilege::hand_over(&config.state_dir, &user)
        .and_then(|()| privilege::hand_over_socket_dir(&config.socket, &user));
    if let Err(error) = given {
        warn!(%error, "could not give the directories to the agent's user");
    }
}

/// Waits for the first roster where only that tells the address, so that services which are started after
/// the agent can bind it; not for long, as there may be no controller to be reached.
async fn address_or_patience(agent: &Agent) {
    if agent.device.as_ref().and_then(Device::address).is_some() {
        return;
    }
    let mut roster = agent.roster.subscribe();
    let first = roster.wait_for(Option::is_some);
    if tokio::time::timeout(FIRST_ROSTER_PATIENCE, first)
        .await
        .is_err()
    {
        info!("no roster yet; the address follows with the first one");
    }
}

fn notify(notifier: &Notifier, state: &str) {
    if let Err(error) = notifier.say(state) {
        debug!(%error, "could not notify the service manager");
    }
}
