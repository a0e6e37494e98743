//! Start, run, stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use mesh_control::Server;
use mesh_os::{
    confine::{Needs, confine},
    notify::{Notifier, watchdog},
    unix,
    watch::FileWatch,
};
use mesh_types::chain;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use crate::{
    Config,
    controller::{Controller, now},
    core::{Core, Mode},
    http,
    keeper::Keeper,
    opened::{Opened, StartError},
    serve,
};

/// How often pending keys go to the disk and a roster that was overtaken is signed again.
const TIDY: Duration = Duration::from_millis(500);

/// How often a store that failed is tried again.
const MEND: Duration = Duration::from_secs(5);

/// A controller with its sockets bound and its state loaded, ready to serve.
pub struct Running {
    controller: Arc<Controller>,
    server: Arc<Server>,
    tasks: JoinSet<()>,
    watch: Option<FileWatch>,
    config_path: Option<PathBuf>,
    notifier: Option<Notifier>,
    http_address: Option<SocketAddr>,
    _socket: unix::SocketFile,
    store: std::thread::JoinHandle<()>,
}

/// Runs a controller until SIGTERM or SIGINT. SIGHUP makes it read `config_path` and the watched file
/// again. Must be called in a process with a single thread, as it gives up all privileges.
///
/// # Errors
///
/// Whatever keeps it from starting, with the next step.
pub fn run(config: Config, config_path: PathBuf) -> Result<(), StartError> {
    let notifier = Notifier::from_environment().context("cannot reach the service manager")?;
    let opened = Opened::open(config)?;
    opened.drop_privileges()?;
    confine_to(&opened.config, &config_path);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve_until_told(opened, config_path, notifier))?;
    Ok(())
}

/// Takes from the process what it does not need any more. The threads that it starts inherit that.
fn confine_to(config: &Config, config_path: &Path) {
    if !config.confine {
        warn!("not confined: `confine = false`");
        return;
    }
    let watched = [&config.inventory, &config.roster].into_iter().flatten();
    let needs = Needs::new(
        std::iter::once(config_path).chain(watched.map(PathBuf::as_path)),
        std::iter::once(&*config.state_dir).chain(config.socket.parent()),
    );
    let confinement = confine(&needs);
    info!(%confinement, "confined");
}

async fn serve_until_told(
    opened: Opened,
    config_path: PathBuf,
    notifier: Notifier,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let (stop, stopped) = oneshot::channel();
    let mut running = Running::serve(opened).await?;
    running.config_path = Some(config_path);
    if let Err(error) = notifier.say("READY=1") {
        warn!(%error, "the service manager was not told of the start");
    }
    running.notifier = Some(notifier);
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = stop.send(());
    });
    running.run_until(stopped).await;
    signals.abort();
    Ok(())
}

impl Running {
    /// Starts a controller in this process as it is, with the privileges that it has. Must be called inside
    /// a tokio runtime.
    ///
    /// # Errors
    ///
    /// An identity or socket that cannot be had, or an identity that may not sign. A store, an inventory
    /// or a roster that is broken is a problem to be reported, and no reason not to serve.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Ok(Self::serve(Opened::open(config)?).await?)
    }

    async fn serve(opened: Opened) -> anyhow::Result<Self> {
        let Opened {
            config,
            identity,
            socket,
            listener,
            socket_file,
            http_listener,
        } = opened;
        let mode = mode(&config);
        let server = Server::new(socket, &identity).context("cannot serve QUIC")?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;

        let opened = Keeper::open(config.state_dir.clone())?;
        let mut core = Core::new(
            config.network,
            identity.public(),
            mode.clone(),
            config.signers,
            opened.snapshot,
            now(),
        );
        for (what, problem) in [("store", opened.problem), ("damage", opened.damage)] {
            if let Some(problem) = &problem {
                warn!(problem, "the state is not as it was left");
            }
            core.set_problem(what, problem);
        }
        // Made before the file is read for the first time, so that no change is missed.
        let watch = match &mode {
            Mode::Inventory(path) | Mode::Roster(path) => Some(FileWatch::new(path.clone())),
            Mode::Push => None,
        };
        let controller = Arc::new(Controller::new(
            config.network,
            identity,
            mode,
            core,
            opened.keeper,
        ));
        controller.refresh().await;

        let server = Arc::new(server);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve::serve(Arc::clone(&controller), Arc::clone(&server)));
        let router = http::socket_router(Arc::clone(&controller));
        tasks.spawn(serve_http(axum::serve(listener, router)));
        let mut http_address = None;
        if let Some(listener) = http_listener {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            http_address = Some(listener.local_addr()?);
            let router = http::router(Arc::clone(&controller));
            tasks.spawn(serve_http(axum::serve(listener, router)));
        }
        info!(address = %server.local_address(), "controller serves");
        Ok(Self {
            controller,
            server,
            tasks,
            watch,
            config_path: None,
            notifier: None,
            http_address,
            _socket: socket_file,
            store: opened.thread,
        })
    }

    /// Where agents connect, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.server.local_address()
    }

    /// Where the JSON API is served over TCP; `None`: it is not.
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Serves until `stop` is sent or dropped, then tells the clients and puts the state away.
    pub async fn run_until(mut self, mut stop: oneshot::Receiver<()>) {
        let mut reload = signal(SignalKind::hangup()).ok();
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut mend = interval(MEND);
        mend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut feed = watchdog().map(|period| interval(period / 3));
        loop {
            tokio::select! {
                _ = &mut stop => break,
                // From the loop that does the work, after it had every lock that the work takes.
                () = fed(&mut feed) => {
                    drop(self.controller.core());
                    self.say("WATCHDOG=1");
                }
                () = changed(&mut self.watch) => self.controller.refresh().await,
                () = hung_up(&mut reload) => self.reload().await,
                _ = tidy.tick() => self.controller.tidy().await,
                _ = mend.tick() => self.mend().await,
            }
        }
        info!("controller stops");
        self.say("STOPPING=1");
        self.server.shutdown().await;
        self.tasks.shutdown().await;
        self.controller.put_away();
        drop(self.controller);
        // The last one to hand work over is gone, so this ends when all of it is on the disk.
        let _ = tokio::task::spawn_blocking(move || self.store.join()).await;
    }

    /// Says a word to the service manager; one that is not there needs none.
    fn say(&self, word: &str) {
        if let Some(Err(error)) = self.notifier.as_ref().map(|notifier| notifier.say(word)) {
            debug!(%error, word, "the service manager was not told");
        }
    }

    async fn reload(&self) {
        if let Some(path) = &self.config_path {
            match Config::load(path) {
                Ok(config) => {
                    self.controller.core().trust(config.signers);
                    info!(
                        "signers were read again; other changes of the configuration need a restart"
                    );
                }
                Err(error) => warn!(
                    "the configuration `{}` is not taken: {}",
                    path.display(),
                    chain(&error)
                ),
            }
        }
        self.controller.refresh().await;
    }

    async fn mend(&self) {
        if let Some(failure) = self.controller.keeper().failure() {
            self.controller.core().set_problem("store", Some(failure));
        }
        if self.controller.core().has_problem("store") {
            self.controller.mend_store().await;
            // What could not be signed without a store can be now.
            self.controller.refresh().await;
        }
    }
}

async fn serve_http<L, M, S>(server: axum::serve::Serve<L, M, S>)
where
    axum::serve::Serve<L, M, S>: IntoFuture<Output = std::io::Result<()>>,
{
    if let Err(error) = server.await {
        warn!(%error, "the local API ended");
    }
}

async fn changed(watch: &mut Option<FileWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn fed(feed: &mut Option<Interval>) {
    match feed {
        Some(feed) => {
            feed.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn hung_up(reload: &mut Option<tokio::signal::unix::Signal>) {
    match reload {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn mode(config: &Config) -> Mode {
    match (&config.inventory, &config.roster) {
        (Some(path), _) => Mode::Inventory(path.clone()),
        (None, Some(path)) => Mode::Roster(path.clone()),
        (None, None) => Mode::Push,
    }
}
