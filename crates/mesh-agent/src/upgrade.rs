//! The agent's upgrade under systemd: the new program checks itself, takes over, and proves itself, or the
//! old one comes back.
//!
//! Run by an administrator or a package, outside the agent's sandbox. What is decided is pure and below;
//! the rest are calls of `systemctl`.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    self_check::judge,
    supervise::{copy_program, previous_path},
};

/// How long the new program may take until systemd calls it ready.
const READY_PATIENCE: Duration = Duration::from_secs(20);

/// How long it must then stay.
const PROBATION: Duration = Duration::from_secs(3);

/// Between two starts of the program before, if the first does not succeed.
const BETWEEN_STARTS: Duration = Duration::from_millis(500);

/// How often systemd is asked.
const LOOK: Duration = Duration::from_millis(50);

/// What to upgrade.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The unit.
    pub unit: String,
    /// The program to upgrade to; `None`: the one that the unit names.
    pub program: Option<PathBuf>,
    /// Where the running program is kept while the new one proves itself. Nobody but root may write there.
    pub dir: PathBuf,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// The unit does not run: the next start takes the new program.
    NotRunning,
    /// It runs this very program.
    Same,
    /// It runs the new program.
    Done,
    /// The new program fails its self-check, for this reason. Nothing was touched.
    Unfit(String),
    /// The new program did not make it, for this reason. The old one runs.
    Back(String),
}

/// A unit as `systemctl show` tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unit {
    pid: Option<u32>,
    active: bool,
    /// At somebody's wish: a unit that ended by itself is being started again.
    stopped: bool,
    program: PathBuf,
    arguments: Vec<String>,
}

/// Upgrades the unit; `step` is told what is being done, in a few words each time. `healthy` says whether
/// the agent that runs does its work, or why it does not (yet).
///
/// # Errors
///
/// systemd cannot be asked, or neither program runs.
pub fn upgrade(
    what: &Upgrade,
    mut step: impl FnMut(&str),
    healthy: impl Fn() -> Result<(), String>,
) -> anyhow::Result<Upgraded> {
    if !Unit::ask(&what.unit)?.active {
        return Ok(Upgraded::NotRunning);
    }
    fs::create_dir_all(&what.dir)
        .with_context(|| format!("cannot create `{}`", what.dir.display()))?;
    ensure_only_root_writes(&what.dir)?;
    // One after the other: the next would take what this one tries for what it may go back to.
    let _turn = take_turn(&what.dir, &mut step)?;
    let before = Unit::ask(&what.unit)?;
    let Some(pid) = before.pid.filter(|_| before.active) else {
        return Ok(Upgraded::NotRunning);
    };
    // What an earlier upgrade fell back to, or was told to run, is not what is installed.
    let drop_in = drop_in_path(&what.unit);
    let earlier = fs::read(&drop_in).ok();
    if earlier.is_some() {
        fs::remove_file(&drop_in)
            .with_context(|| format!("cannot remove `{}`", drop_in.display()))?;
        systemctl(&["daemon-reload"])?;
    }
    let prepared = prepare(what, pid, &mut step);
    if let (Some(text), Err(_) | Ok(Err(_))) = (&earlier, &prepared) {
        // Nothing was touched, and whatever the next start is for, it is as it was.
        write_drop_in(&drop_in, text)?;
    }
    let installed = match prepared? {
        Ok(installed) => installed,
        Err(outcome) => return Ok(outcome),
    };
    let kept = previous_path(&what.dir);
    if let Some(program) = &what.program {
        run_instead(&drop_in, program, &installed.arguments)?;
    }

    step("restarting the agent");
    let tried = restart(&what.unit).and_then(|()| {
        step("waiting for the agent to do its work");
        prove(&what.unit, &healthy)
    });
    let Err(reason) = tried else {
        return Ok(Upgraded::Done);
    };
    if Unit::ask(&what.unit)?.stopped {
        // By somebody who wants it so.
        return Ok(Upgraded::NotRunning);
    }
    step("going back to the program before");
    run_instead(&drop_in, &kept, &installed.arguments)?;
    if let Err(again) = restart_what_ran(&what.unit) {
        bail!("the new program failed ({reason}), and so did the one before ({again})");
    }
    Ok(Upgraded::Back(reason))
}

/// Checks the next program and keeps the one that runs as process `pid`. Returns the unit as it is installed,
/// or the outcome where there is nothing more to do. Changes nothing that runs.
fn prepare(
    what: &Upgrade,
    pid: u32,
    step: &mut impl FnMut(&str),
) -> anyhow::Result<Result<Unit, Upgraded>> {
    let installed = Unit::ask(&what.unit)?;
    let program = what.program.as_ref().unwrap_or(&installed.program);
    let running = File::open(format!("/proc/{pid}/exe"))
        .with_context(|| format!("cannot open the running program of process {pid}"))?;
    let next = File::open(program).with_context(|| {
        format!(
            "cannot open the program `{}` to upgrade to",
            program.display()
        )
    })?;
    if are_same(&running, &next)? {
        return Ok(Err(Upgraded::Same));
    }
    step("checking the new program");
    if let Err(words) = check(program, &what.unit, &installed.arguments) {
        return Ok(Err(Upgraded::Unfit(words)));
    }
    step("keeping the running program");
    let kept = previous_path(&what.dir);
    copy_program(&running, &kept)
        .with_context(|| format!("cannot keep the running program in `{}`", kept.display()))?;
    Ok(Ok(installed))
}

/// Waits until no other upgrade is under way, and keeps others waiting while the result lives.
fn take_turn(dir: &Path, step: &mut impl FnMut(&str)) -> anyhow::Result<Flock<File>> {
    let path = dir.join("lock");
    let failed = || format!("cannot lock `{}`", path.display());
    let open = || {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(failed)
    };
    match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
        Ok(turn) => return Ok(turn),
        Err((_, Errno::EWOULDBLOCK)) => step("waiting for another upgrade"),
        Err((_, error)) => return Err(error).with_context(failed),
    }
    Flock::lock(open()?, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(failed)
}

impl Unit {
    fn ask(unit: &str) -> anyhow::Result<Self> {
        let output = systemctl(&["show", "-p", "MainPID,ActiveState,ExecStart", unit])?;
        Self::parse(&output).with_context(|| format!("systemd knows no program of `{unit}`"))
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        // `{ path=/usr/bin/mesh ; argv[]=/usr/bin/mesh agent run ; ignore_errors=no ; … }`
        let start = value("ExecStart")?;
        let field = |key: &str| {
            let (_, rest) = start.split_once(key)?;
            Some(rest.split_once(" ;")?.0)
        };
        Some(Self {
            pid: value("MainPID")?.parse().ok().filter(|pid| *pid != 0),
            active: value("ActiveState")? == "active",
            stopped: value("ActiveState")? == "inactive",
            program: PathBuf::from(field("path=")?),
            arguments: field("argv[]=")?
                .split(' ')
                .skip(1)
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// Where systemd is told, until the next boot, to run another program.
fn drop_in_path(unit: &str) -> PathBuf {
    Path::new("/run/systemd/system")
        .join(format!("{unit}.d"))
        .join("50-mesh-upgrade.conf")
}

fn drop_in(program: &Path, arguments: &[String]) -> String {
    format!(
        "# By `mesh agent upgrade`, which removes it with the next upgrade.\n[Service]\nExecStart=\nExecStart={} {}\n",
        program.display(),
        arguments.join(" ")
    )
}

fn write_drop_in(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let written =
        fs::create_dir_all(path.parent().unwrap_or(path)).and_then(|()| fs::write(path, text));
    written.with_context(|| format!("cannot write `{}`", path.display()))?;
    systemctl(&["daemon-reload"])?;
    Ok(())
}

fn run_instead(path: &Path, program: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let program = fs::canonicalize(program)
        .with_context(|| format!("there is no program `{}`", program.display()))?;
    write_drop_in(path, drop_in(&program, arguments).as_bytes())
}

/// Restarts the unit, and waits until it is ready.
fn restart(unit: &str) -> Result<(), String> {
    let mut child = Command::new("systemctl")
        .args(["restart", unit])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run `systemctl`: {error}"))?;
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(_)) => {
                return Err(format!(
                    "it ended before it was ready; see `journalctl -u {unit}`"
                ));
            }
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
            Ok(None) => {
                // Only the one who waits: what systemd does is decided next.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it was not ready within {READY_PATIENCE:?}"));
            }
            Err(error) => return Err(format!("cannot wait for `systemctl`: {error}")),
        }
    }
}

/// Restarts the unit with a program that ran a moment ago. What keeps that from starting passes, such as a
/// system too busy to make the unit's control group, so it is tried for as long as a start may take.
fn restart_what_ran(unit: &str) -> Result<(), String> {
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        match restart(unit) {
            Err(_) if Instant::now() < deadline => thread::sleep(BETWEEN_STARTS),
            ended => return ended,
        }
    }
}

/// Watches the new process for a while.
fn prove(unit: &str, healthy: &impl Fn() -> Result<(), String>) -> Result<(), String> {
    let ask = || Unit::ask(unit).map_err(|error| format!("{error:#}"));
    let first = ask()?.pid;
    let start = Instant::now();
    loop {
        let now = ask()?;
        if now.pid.is_none() || now.pid != first {
            return Err(format!(
                "it ended soon after it was ready; see `journalctl -u {unit}`"
            ));
        }
        let waited = start.elapsed();
        match healthy() {
            Ok(()) if waited >= PROBATION => return Ok(()),
            Err(reason) if waited >= READY_PATIENCE => return Err(reason),
            Ok(()) | Err(_) => thread::sleep(LOOK),
        }
    }
}

/// Lets the program check itself, with the credentials that the unit has.
fn check(program: &Path, unit: &str, arguments: &[String]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(["agent", "self-check"]);
    let config = arguments.iter().position(|word| word == "--config");
    if let Some(config) = config.and_then(|at| arguments.get(at + 1)) {
        command.args(["--config", config]);
    }
    let credentials = Path::new("/run/credentials").join(unit);
    if credentials.exists() {
        command.env("CREDENTIALS_DIRECTORY", credentials);
    }
    judge(command)
}

/// Whether two open files are one, or have the same bytes.
pub(crate) fn are_same(one: &File, other: &File) -> io::Result<bool> {
    let (a, b) = (one.metadata()?, other.metadata()?);
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return Ok(true);
    }
    if a.len() != b.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (io::BufReader::new(one), io::BufReader::new(other));
    for file in [one.get_mut(), other.get_mut()] {
        io::Seek::rewind(file)?;
    }
    let (mut left, mut right) = ([0; 8192], [0; 8192]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

/// What is kept here is run later, so nobody else may put anything here.
fn ensure_only_root_writes(dir: &Path) -> anyhow::Result<()> {
    let metadata = fs::symlink_metadata(dir)?;
    ensure!(
        metadata.is_dir() && metadata.uid() == 0 && metadata.mode() & 0o022 == 0,
        "`{}` must be a directory that only root can write; remove it, and run this again",
        dir.display()
    );
    Ok(())
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("systemctl")
        .args(arguments)
        .output()
        .context("cannot run `systemctl`; does systemd run here?")?;
    ensure!(
        status.success(),
        "`systemctl {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&stderr).trim()
    );
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_unit_is_read_as_systemctl_shows_it() {
        let text = "MainPID=77\nActiveState=active\nExecStart={ path=/usr/bin/mesh ; argv[]=/usr/bin/mesh agent run --config /etc/x.toml ; ignore_errors=no ; start_time=[n/a] ; pid=77 ; code=(null) ; status=0/0 }\n";
        let expected = Unit {
            pid: Some(77),
            active: true,
            stopped: false,
            program: "/usr/bin/mesh".into(),
            arguments: ["agent", "run", "--config", "/etc/x.toml"]
                .map(str::to_owned)
                .into(),
        };
        assert_eq!(Unit::parse(text), Some(expected));
        let stopped = "MainPID=0\nActiveState=inactive\nExecStart={ path=/m ; argv[]=/m ; x }\n";
        let unit = Unit::parse(stopped).unwrap();
        assert_eq!((unit.pid, unit.active, unit.stopped), (None, false, true));
        assert_eq!(Unit::parse("MainPID=0\nActiveState=inactive\n"), None);
    }

    #[test]
    fn a_drop_in_replaces_the_program_and_keeps_its_arguments() {
        let text = drop_in(
            Path::new("/var/x/previous"),
            &["agent".into(), "run".into()],
        );
        assert!(text.ends_with("[Service]\nExecStart=\nExecStart=/var/x/previous agent run\n"));
    }

    #[test]
    fn one_upgrade_waits_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let turn = take_turn(dir.path(), &mut |step| panic!("{step}")).unwrap();
        let (say, said) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let next = scope.spawn(|| {
                let mut step = |step: &str| say.send(step.to_owned()).unwrap();
                let turn = take_turn(dir.path(), &mut step).unwrap();
                step("begins");
                drop(turn);
            });
            assert_eq!(said.recv().unwrap(), "waiting for another upgrade");
            assert!(said.try_recv().is_err());
            drop(turn);
            assert_eq!(said.recv().unwrap(), "begins");
            next.join().unwrap();
        });
    }

    #[test]
    fn programs_are_the_same_by_their_bytes() {
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            io::Seek::rewind(&mut file).unwrap();
            file
        };
        let long = vec![7; 20_000];
        let one = file(&long);
        assert!(are_same(&one, &one.try_clone().unwrap()).unwrap());
        assert!(are_same(&file(&long), &file(&long)).unwrap());
        let mut other = long.clone();
        other[19_999] = 8;
        assert!(!are_same(&file(&long), &file(&other)).unwrap());
        assert!(!are_same(&file(&long), &file(b"short")).unwrap());
    }
}
