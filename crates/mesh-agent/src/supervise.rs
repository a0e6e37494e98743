//! The small parent of the agent where there is no systemd: macOS, and Linux without it.
//!
//! It opens nothing for the agent. It keeps what the agent gives it (device, socket, sessions) while one
//! process of the agent ends and the next begins, starts the agent again when it ends, and on request
//! upgrades it to the program that is at its path by then, or goes back. It stays in memory across upgrades,
//! so it is small and speaks systemd's protocol with the agent, which need not know who its parent is.

mod machine;
mod resolver;

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::Context as _;
use mesh_os::{
    clock,
    descriptors::manager::{KEPT_MAX, Message, Slots, is_name, receive},
    file,
    notify::Notifier,
    paths::IS_MACOS,
    unix,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::RngCore as _;
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{UnixDatagram, UnixListener, UnixStream},
    process::Child,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};
use tracing::{debug, info, warn};

use crate::{
    handover::LIFELINE,
    self_check::judge,
    upgrade::{Upgraded, are_same},
};
use machine::{Action, Machine, Outcome, Program, WATCHDOG};

/// The most descriptors that the agent may leave here. One more is its [`LIFELINE`].
const STORED_MAX: usize = KEPT_MAX - 1;

/// The most messages that are heard in a row: more than wait for anyone, and an end to those of an agent that
/// does nothing but speak.
const MESSAGES_MAX: usize = 1024;

/// What a supervisor is told.
#[derive(Clone, Debug)]
pub struct Supervise {
    /// The program to run and to upgrade to: always at this path.
    pub program: PathBuf,
    /// The agent's configuration.
    pub config: PathBuf,
    /// The supervisor's own directory, for root alone.
    pub dir: PathBuf,
}

/// A supervisor at work.
struct Supervisor {
    options: Supervise,
    machine: Machine,
    slots: Slots,
    /// Whoever started the supervisor.
    parent: Notifier,
    notify: UnixDatagram,
    notify_path: PathBuf,
    child: Option<Child>,
    /// The program that runs, opened before it was started: the one at its path may be another by now.
    running: Option<File>,
    kept: Vec<(String, OwnedFd)>,
    /// What the agent reads the end of this process from; the other end is open as long as this process is.
    lifeline: (io::PipeReader, io::PipeWriter),
    /// Who asked for the upgrade that is under way.
    asked: Option<oneshot::Sender<Outcome>>,
    finished: bool,
}

/// What a supervisor in `dir` listens on for upgrades.
fn control_path(dir: &Path) -> PathBuf {
    dir.join("control")
}

/// Runs and looks after the agent until SIGTERM or SIGINT. Must be called in a process with one thread.
///
/// # Errors
///
/// What keeps it from beginning; later failures are logged and tried again.
pub fn supervise(options: Supervise) -> anyhow::Result<()> {
    // Before anything else is opened, so that the numbers are free.
    let slots = Slots::reserve().context("cannot open `/dev/null`")?;
    file::make_private_dir(&options.dir)
        .with_context(|| format!("cannot create `{}`", options.dir.display()))?;
    // Entered by the agent's later user, listed by nobody: who does not know the socket's name cannot
    // speak as the agent.
    fs::set_permissions(&options.dir, Permissions::from_mode(0o711))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(options, slots))
}

async fn run(options: Supervise, slots: Slots) -> anyhow::Result<()> {
    let (listener, control_file) = unix::listen(&control_path(&options.dir), 0o600, None)
        .context("cannot listen for upgrades; does another supervisor run?")?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (notify, notify_path) = open_notify(&options.dir)?;
    let (requests, mut asked) = mpsc::channel(1);
    let control = tokio::spawn(take_requests(options.clone(), listener, requests));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let has_previous = previous_path(&options.dir).exists();
    let mut supervisor = Supervisor {
        machine: Machine::new(has_previous, clock::awake()),
        options,
        slots,
        parent: Notifier::from_environment().context("cannot reach the service manager")?,
        notify,
        notify_path,
        child: None,
        running: None,
        kept: Vec::new(),
        lifeline: io::pipe()?,
        asked: None,
        finished: false,
    };
    info!(program = %supervisor.options.program.display(), "supervising the agent");
    let resolver = IS_MACOS.then(|| tokio::spawn(resolver::follow(supervisor.options.clone())));
    while !supervisor.finished {
        let timeout = supervisor.machine.poll_timeout();
        tokio::select! {
            message = next_message(&supervisor.notify) => supervisor.hear(message?),
            status = ended(supervisor.child.as_mut()) => supervisor.bury(status?),
            _ = terminate.recv() => supervisor.stop(),
            _ = interrupt.recv() => supervisor.stop(),
            _ = hangup.recv() => supervisor.signal(Signal::SIGHUP),
            Some(request) = asked.recv() => supervisor.upgrade(request),
            () = sleep_until(timeout) => {
                // A sign of life that waits was in time.
                supervisor.hear_waiting();
                let actions = supervisor.machine.handle_timeout(clock::awake());
                supervisor.act(actions);
            }
        }
    }
    control.abort();
    if let Some(resolver) = resolver {
        resolver.abort();
        resolver::undo(&supervisor.options).await;
    }
    drop(control_file);
    let _ = fs::remove_file(&supervisor.notify_path);
    Ok(())
}

impl Supervisor {
    /// Acts on what the agent says.
    fn hear(&mut self, message: Message) {
        let now = clock::awake();
        let value = |key: &str| {
            let mut lines = message.text.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        let says = |key| value(key) == Some("1");
        if says("READY") && self.machine.ready(now) {
            info!("the agent is ready");
            // Whoever started the supervisor waits for the agent.
            let _ = self.parent.say("READY=1");
        }
        if says("WATCHDOG") {
            self.machine.alive(now);
        }
        let name = value("FDNAME").unwrap_or("stored").to_owned();
        if says("FDSTOREREMOVE") {
            self.kept.retain(|(kept, _)| *kept != name);
        } else if says("FDSTORE") {
            for fd in message.fds {
                if self.kept.len() >= STORED_MAX || !is_name(&name) {
                    warn!(name, "a descriptor was not kept");
                    continue;
                }
                self.kept.push((name.clone(), fd));
            }
        }
        // What came with a barrier is closed by now, which is all that it asks for.
    }

    fn hear_waiting(&mut self) {
        for _ in 0..MESSAGES_MAX {
            let Ok(message) = receive(self.notify.as_fd()) else {
                return;
            };
            self.hear(message);
        }
    }

    /// The agent ended.
    fn bury(&mut self, status: ExitStatus) {
        // What it said last comes before its end.
        self.hear_waiting();
        self.child = None;
        info!(%status, "the agent ended");
        let actions = self.machine.ended(clock::awake());
        self.act(actions);
    }

    fn stop(&mut self) {
        let actions = self.machine.terminate(clock::awake());
        self.act(actions);
    }

    fn upgrade(&mut self, report: oneshot::Sender<Outcome>) {
        // Dropping the sender tells that an upgrade or the end is under way.
        if !self.machine.may_upgrade() {
            return;
        }
        if self.runs_what_is_installed() {
            let _ = report.send(Outcome::Same);
            return;
        }
        self.asked = Some(report);
        let actions = self.machine.upgrade(clock::awake());
        self.act(actions);
    }

    fn runs_what_is_installed(&self) -> bool {
        let installed = File::open(&self.options.program);
        match (&self.child, &self.running, installed) {
            (Some(_), Some(running), Ok(installed)) => {
                are_same(running, &installed).unwrap_or(false)
            }
            (_, _, _) => false,
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(program) => self.start(program),
                Action::Terminate => self.signal(Signal::SIGTERM),
                Action::Kill => {
                    warn!("the agent does not react and is killed");
                    self.signal(Signal::SIGKILL);
                }
                Action::Report(outcome) => {
                    if let Some(asked) = self.asked.take() {
                        // Whoever asked may have gone.
                        let _ = asked.send(outcome);
                    }
                }
                Action::Keep => self.keep(),
                Action::Finish => {
                    self.kept.clear();
                    self.finished = true;
                }
            }
        }
    }

    fn start(&mut self, program: Program) {
        let path = match program {
            Program::Installed => self.options.program.clone(),
            Program::Previous => previous_path(&self.options.dir),
        };
        match self.spawn(&path) {
            Ok((child, running)) => {
                debug!(?program, pid = child.id(), "started the agent");
                self.child = Some(child);
                self.running = Some(running);
            }
            Err(error) => {
                warn!(program = %path.display(), %error, "the agent cannot be started");
                let actions = self.machine.ended(clock::awake());
                self.act(actions);
            }
        }
    }

    fn spawn(&self, path: &Path) -> io::Result<(Child, File)> {
        let running = File::open(path)?;
        let mut command = Command::new(path);
        command
            .args(["agent", "run", "--config"])
            .arg(&self.options.config)
            .env("NOTIFY_SOCKET", &self.notify_path)
            .env("FDSTORE", STORED_MAX.to_string())
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env_remove("WATCHDOG_PID");
        let kept = self
            .kept
            .iter()
            .map(|(name, fd)| (name.as_str(), fd.as_fd()));
        let lifeline = (LIFELINE, self.lifeline.0.as_fd());
        self.slots
            .pass(&mut command, [lifeline].into_iter().chain(kept))?;
        Ok((tokio::process::Command::from(command).spawn()?, running))
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id);
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Keeps a copy of the program that runs, to go back to.
    fn keep(&mut self) {
        let Some(running) = &self.running else {
            return;
        };
        match copy_program(running, &previous_path(&self.options.dir)) {
            Ok(()) => self.machine.kept(),
            Err(error) => warn!(%error, "could not keep a copy of the program to go back to"),
        }
    }
}

/// Where the program is kept that was last found good.
pub(crate) fn previous_path(dir: &Path) -> PathBuf {
    dir.join("previous")
}

/// Puts a copy of an open program at `path`, as a whole: what was there stays if that fails.
pub(crate) fn copy_program(mut program: &File, path: &Path) -> io::Result<()> {
    use std::{io::Seek as _, os::unix::fs::OpenOptionsExt as _};
    program.seek(io::SeekFrom::Start(0))?;
    let beside = path.with_extension("new");
    // Of an earlier copy that was cut short.
    let _ = fs::remove_file(&beside);
    let mut copy = File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&beside)?;
    io::copy(&mut program, &mut copy)?;
    copy.sync_all()?;
    fs::rename(&beside, path)
}

/// Opens the socket that the agent speaks to, under a name that nobody can guess.
fn open_notify(dir: &Path) -> anyhow::Result<(UnixDatagram, PathBuf)> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"notify-") {
            let _ = fs::remove_file(entry.path());
        }
    }
    let mut random = [0; 16];
    rand::rngs::OsRng.fill_bytes(&mut random);
    let path = dir.join(format!("notify-{:032x}", u128::from_be_bytes(random)));
    let socket = UnixDatagram::bind(&path)
        .with_context(|| format!("cannot listen on `{}`", path.display()))?;
    // The agent speaks as its later user. Only it knows the name.
    fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    Ok((socket, path))
}

async fn next_message(socket: &UnixDatagram) -> io::Result<Message> {
    socket
        .async_io(Interest::READABLE, || receive(socket.as_fd()))
        .await
}

async fn ended(child: Option<&mut Child>) -> io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<mesh_types::Instant>) {
    match at {
        Some(at) => tokio::time::sleep(at.saturating_since(clock::awake())).await,
        None => std::future::pending().await,
    }
}

/// Answers those who ask for an upgrade, one after the other.
async fn take_requests(
    options: Supervise,
    listener: UnixListener,
    requests: mpsc::Sender<oneshot::Sender<Outcome>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        if let Err(error) = answer(&options, stream, &requests).await {
            debug!(%error, "whoever asked for an upgrade went away");
        }
    }
}

/// The last line of an answer: how it ended, and after some the reason.
const DONE: &str = "done";
const SAME: &str = "the agent runs this very program";
const UNFIT: &str = "unfit: ";
const BACK: &str = "went back: ";

/// Tells each step in a line, and last how it ended.
async fn answer(
    options: &Supervise,
    mut stream: UnixStream,
    requests: &mpsc::Sender<oneshot::Sender<Outcome>>,
) -> io::Result<()> {
    stream.write_all(b"checking the new program\n").await?;
    let mut check = Command::new(&options.program);
    check
        .args(["agent", "self-check", "--config"])
        .arg(&options.config);
    let judged = tokio::task::spawn_blocking(|| judge(check)).await?;
    if let Err(words) = judged {
        warn!(
            words,
            "the program at the path fails its self-check; the agent goes on as it is"
        );
        let words = words.replace('\n', "; ");
        let line = format!("{UNFIT}{words}\n");
        return stream.write_all(line.as_bytes()).await;
    }
    stream.write_all(b"restarting the agent\n").await?;
    let (report, outcome) = oneshot::channel();
    let _ = requests.send(report).await;
    let line = match outcome.await {
        Ok(Outcome::Upgraded) => DONE.to_owned(),
        Ok(Outcome::Same) => SAME.to_owned(),
        Ok(Outcome::Ended) => format!("{BACK}it ended by itself"),
        Ok(Outcome::TooLate) => format!("{BACK}it was not ready in time"),
        Ok(Outcome::Stopped) => format!("{BACK}the supervisor is stopping"),
        Err(_) => format!("{BACK}the agent is being started or stopped; try again"),
    };
    stream.write_all(format!("{line}\n").as_bytes()).await
}

/// Asks the supervisor in `dir` for an upgrade; `step` is told what is being done.
///
/// # Errors
///
/// There is none ([`io::ErrorKind::NotFound`] or [`io::ErrorKind::ConnectionRefused`]), or it went away.
pub fn ask_for_upgrade(dir: &Path, mut step: impl FnMut(&str)) -> io::Result<Upgraded> {
    use std::io::BufRead as _;
    let stream = std::os::unix::net::UnixStream::connect(control_path(dir))?;
    for line in io::BufReader::new(stream).lines() {
        let line = line?;
        if line == DONE {
            return Ok(Upgraded::Done);
        } else if line == SAME {
            return Ok(Upgraded::Same);
        } else if let Some(reason) = line.strip_prefix(UNFIT) {
            return Ok(Upgraded::Unfit(reason.to_owned()));
        } else if let Some(reason) = line.strip_prefix(BACK) {
            return Ok(Upgraded::Back(reason.to_owned()));
        }
        step(&line);
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
