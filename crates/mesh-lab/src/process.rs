//! Processes that never outlive their owner.

use std::{
    fs::File,
    io,
    os::unix::{net::UnixDatagram, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    namespace::{Namespace, on_thread},
    wait::wait_until,
};

/// A process namespace: when the cage goes, also because its owner was killed, the kernel kills all that
/// runs in it.
#[derive(Debug)]
pub struct Cage {
    /// The first process in it; it waits for the end of its input, which comes when its owner ends.
    first: Child,
    _input: Option<ChildStdin>,
    pids: File,
}

/// A process in a cage and a namespace, with its output in a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log_path: PathBuf,
    ready: UnixDatagram,
}

impl Cage {
    /// Makes an empty cage.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn new() -> anyhow::Result<Self> {
        let mut first = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWPID)?;
            Command::new("cat")
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
        })
        .context("cannot make a process namespace")?;
        let pids = File::open(format!("/proc/{}/ns/pid", first.id()))?;
        Ok(Self {
            _input: first.stdin.take(),
            first,
            pids,
        })
    }

    /// Starts `command` in `namespace`. What it prints goes to `log_path`, after what is there; readiness
    /// in the way of sd_notify(3) is awaited by [`Process::wait_ready`].
    ///
    /// # Errors
    ///
    /// The program cannot be started, or the log not written.
    pub fn start(
        &self,
        name: &str,
        mut command: Command,
        namespace: &Namespace,
        log_path: &Path,
    ) -> anyhow::Result<Process> {
        let log = File::options().create(true).append(true).open(log_path)?;
        let socket_path = log_path.with_extension("notify");
        // The one of an earlier start of the same process.
        let _ = std::fs::remove_file(&socket_path);
        let ready = UnixDatagram::bind(&socket_path)?;
        // The daemon may have changed its user before it reports.
        let anyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&socket_path, anyone)?;
        command
            .env("NOTIFY_SOCKET", &socket_path)
            // Ctrl-C is for the owner, which stops the others in good order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = namespace
            .spawn(&mut command, Some(&self.pids))
            .with_context(|| format!("cannot start `{}`", command.get_program().display()))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log_path: log_path.to_owned(),
            ready,
        })
    }
}

impl Cage {
    /// The process with whose end all in the cage end.
    pub(crate) fn first(&self) -> Pid {
        Pid::from_raw(self.first.id().cast_signed())
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // Not waited for: the kernel lets the first process end only after its owner has waited for all the
        // others, which may come later than this.
        let _ = self.first.kill();
    }
}

impl Process {
    /// The process's id, as the owner sees it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process says that it is ready.
    ///
    /// # Errors
    ///
    /// It ended, or was not ready within `patience`; the error ends with what it printed last.
    pub fn wait_ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        self.ready
            .set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut message = [0; 1024];
        loop {
            match self.ready.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&message[..length]);
                    if text.lines().any(|line| line == "READY=1") {
                        return Ok(());
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error).context("cannot hear whether a process is ready"),
            }
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!(
                    "`{}` ended ({status}) while starting{}",
                    self.name,
                    self.tail()
                );
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "`{}` was not ready within {patience:?}{}",
                self.name,
                self.tail()
            );
        }
    }

    /// Whether it has not ended.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// What the system says, such as that it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("cannot signal `{}`", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It has not ended within `patience`.
    pub fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let ended = wait_until(patience, || self.child.try_wait()?.context("it runs"));
        ended.with_context(|| {
            format!(
                "`{}` did not end within {patience:?}{}",
                self.name,
                self.tail()
            )
        })
    }

    /// Asks it to end, as the service manager does, and waits for that.
    ///
    /// # Errors
    ///
    /// As [`Process::wait`].
    pub fn terminate(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(patience)
    }

    /// Kills it on the spot.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(15).collect();
        lines
            .into_iter()
            .rev()
            .fold(String::from(":"), |text, line| text + "\n  " + line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox;

    #[test]
    fn a_process_goes_with_its_cage() {
        if !sandbox::enter_test() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let namespace = Namespace::create().unwrap();
        let cage = Cage::new().unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        let log_path = dir.path().join("sleep.log");
        let mut process = cage.start("sleep", sleep, &namespace, &log_path).unwrap();
        assert!(process.is_running().unwrap());
        drop(cage);
        let status = process.wait(Duration::from_secs(5)).unwrap();
        assert!(!status.success());
    }

    #[test]
    fn readiness_and_an_early_end_are_told_apart() {
        if !sandbox::enter_test() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let namespace = Namespace::create().unwrap();
        let cage = Cage::new().unwrap();
        let log_path = dir.path().join("false.log");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo no luck; exit 3"]);
        let mut process = cage.start("shell", shell, &namespace, &log_path).unwrap();
        let error = process.wait_ready(Duration::from_secs(5)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.ends_with("\n  no luck"),
            "{text}"
        );
    }
}
