//! What an installed daemon consists of, and where: the same that a package would bring.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use mesh_os::paths;
use serde::Serialize;

/// One of the two daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Daemon {
    /// This machine's membership
    Agent,
    /// The fleet's controller
    Controller,
}

/// Who starts daemons on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Manager {
    /// Linux.
    Systemd,
    /// macOS.
    Launchd,
}

/// A file whose text is the same on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Where it goes.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) text: String,
    /// What it is for.
    pub(super) why: String,
    /// Whether the service manager has to be told when it changes.
    pub(super) is_unit: bool,
}

/// Where everything of one daemon is.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Whose it is.
    pub(super) daemon: Daemon,
    /// Who starts it.
    pub(super) manager: Manager,
    /// The program's constant place.
    pub(super) program: PathBuf,
    /// The name under which people call it, where that is another one.
    pub(super) link: Option<PathBuf>,
    /// What it is called by the service manager.
    pub(super) service: &'static str,
    /// Its files, but for the program.
    pub(super) parts: Vec<Part>,
    /// Its configuration.
    pub(super) config: PathBuf,
    /// Its state.
    pub(super) state_dir: PathBuf,
    /// Its local socket.
    pub(super) socket: PathBuf,
    /// Where it logs, for a person; a path on macOS.
    pub(super) log: &'static str,
    /// What was installed, for `uninstall`.
    pub(super) record: PathBuf,
    /// The accounts of both daemons.
    pub(super) users: [&'static str; 2],
}

/// The machine's identity, of both daemons.
pub(super) const IDENTITY: &str = "/etc/mesh/identity";

/// Where the daemons' sockets are on Linux.
pub(super) const RUN_DIR: &str = paths::LINUX_RUN;

/// Where an upgrade of the agent that failed has the unit start the program before, until the next boot.
pub(super) const DROP_IN: &str = "/run/systemd/system/mesh-agent.service.d/50-mesh-upgrade.conf";

/// What was installed, beside the state.
const RECORD: &str = "service.json";

/// The daemons' own accounts: of the agent, of the controller.
const USERS: [&str; 2] = ["mesh", "mesh-controller"];

/// Where packages have the program, which the units name.
const PACKAGED_PROGRAM: &str = "/usr/bin/mesh";

/// Where the program is on a Linux machine that it was not packaged for.
const LINUX_PROGRAM: &str = "/usr/local/bin/mesh";

impl Daemon {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Agent => Self::Controller,
            Self::Controller => Self::Agent,
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Controller => "controller",
        })
    }
}

impl Layout {
    /// What upgrades of the agent keep beside the state: the program before.
    pub(super) fn kept_programs(&self) -> Option<PathBuf> {
        let dir = self.record.parent().map(|dir| dir.join("supervise"));
        dir.filter(|_| self.daemon == Daemon::Agent)
    }

    /// The files that it logs to, where it does that.
    pub(super) fn log_files(&self) -> Vec<PathBuf> {
        match self.manager {
            Manager::Systemd => Vec::new(),
            Manager::Launchd => vec![self.log.into(), format!("{}.1", self.log).into()],
        }
    }

    /// Where `daemon` is on a machine with `manager`.
    pub(super) fn of(manager: Manager, daemon: Daemon) -> Self {
        match manager {
            Manager::Systemd => linux(daemon),
            Manager::Launchd => macos(daemon),
        }
    }
}

/// What is in `systemd/`: names and texts.
const SYSTEMD: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/systemd.rs"));

/// The controller's own unit; all others are the agent's, or both's.
const CONTROLLER_UNIT: &str = "mesh-controller.service";

/// The files of `systemd/` that `daemon` needs, where systemd reads an administrator's.
fn systemd_parts(daemon: Daemon) -> Vec<Part> {
    let part = |(name, text): &(&str, &str)| {
        let place = |dir: &str, why: &str| Part {
            path: Path::new(dir).join("mesh.conf"),
            text: (*text).to_owned(),
            why: why.to_owned(),
            is_unit: false,
        };
        match *name {
            "mesh.sysusers.conf" => Some(place("/etc/sysusers.d", "the daemons' accounts")),
            "mesh.tmpfiles.conf" => Some(place("/etc/tmpfiles.d", "the sockets' directory")),
            unit if (unit == CONTROLLER_UNIT) == (daemon == Daemon::Controller) => Some(Part {
                path: Path::new("/etc/systemd/system").join(unit),
                text: text.replace(PACKAGED_PROGRAM, LINUX_PROGRAM),
                why: description(text).to_owned(),
                is_unit: true,
            }),
            _ => None,
        }
    };
    SYSTEMD.iter().filter_map(part).collect()
}

/// What a unit says of itself.
fn description(unit: &str) -> &str {
    let found = unit
        .lines()
        .find_map(|line| line.strip_prefix("Description="));
    found.unwrap_or("a unit")
}

fn linux(daemon: Daemon) -> Layout {
    let (service, log) = match daemon {
        Daemon::Agent => ("mesh-agent.service", "journalctl -u mesh-agent"),
        Daemon::Controller => (CONTROLLER_UNIT, "journalctl -u mesh-controller"),
    };
    Layout {
        daemon,
        manager: Manager::Systemd,
        program: LINUX_PROGRAM.into(),
        link: None,
        service,
        parts: systemd_parts(daemon),
        config: format!("/etc/mesh/{daemon}.toml").into(),
        state_dir: Path::new(paths::LINUX_STATE).join(daemon.to_string()),
        socket: format!("{RUN_DIR}/{daemon}.sock").into(),
        log,
        record: Path::new(paths::LINUX_STATE).join(RECORD),
        users: USERS,
    }
}

fn macos(daemon: Daemon) -> Layout {
    let (service, text, log) = match daemon {
        Daemon::Agent => (
            "org.mesh.agent",
            include_str!("../../../../../launchd/org.mesh.agent.plist"),
            "/var/log/mesh/agent.log",
        ),
        Daemon::Controller => (
            "org.mesh.controller",
            include_str!("../../../../../launchd/org.mesh.controller.plist"),
            "/var/log/mesh/controller.log",
        ),
    };
    Layout {
        daemon,
        manager: Manager::Launchd,
        // Root's own: what Homebrew gives to its user is `bin`, `lib` and others, not this.
        program: "/usr/local/libexec/mesh".into(),
        link: Some("/usr/local/bin/mesh".into()),
        service,
        parts: vec![Part {
            path: format!("/Library/LaunchDaemons/{service}.plist").into(),
            text: text.to_owned(),
            why: "the service".to_owned(),
            is_unit: true,
        }],
        config: format!("/etc/mesh/{daemon}.toml").into(),
        state_dir: Path::new(paths::MACOS_STATE).join(daemon.to_string()),
        socket: Path::new(paths::MACOS_RUN).join(format!("{daemon}.sock")),
        log,
        record: Path::new(paths::MACOS_STATE).join(RECORD),
        users: USERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_systemd_is_installed_with_one_daemon_or_both() {
        let of = |daemon| systemd_parts(daemon).len();
        // Two are of both: accounts, and the sockets' directory.
        assert_eq!(
            of(Daemon::Agent) + of(Daemon::Controller),
            SYSTEMD.len() + 2
        );
    }

    #[test]
    fn the_units_start_the_program_that_is_installed() {
        for daemon in [Daemon::Agent, Daemon::Controller] {
            let layout = Layout::of(Manager::Systemd, daemon);
            for part in &layout.parts {
                assert!(!part.text.contains(PACKAGED_PROGRAM), "{:?}", part.path);
            }
            let starts = format!("ExecStart=/usr/local/bin/mesh {daemon} run\n");
            assert!(layout.parts.iter().any(|part| part.text.contains(&starts)));
            let plist = &Layout::of(Manager::Launchd, daemon).parts[0].text;
            assert!(plist.contains("<string>/usr/local/libexec/mesh</string>"));
        }
    }
}
