//! What an installed daemon consists of, and where: the same that a package would bring.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
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
    pub(super) why: &'static str,
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
    /// What is enabled with it.
    pub(super) enabled: Vec<&'static str>,
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
pub(super) const RUN_DIR: &str = "/run/mesh";

/// The daemons' own accounts: of the agent, of the controller.
const USERS: [&str; 2] = ["mesh", "mesh-controller"];

/// Where packages have the program, which the units name.
const PACKAGED_PROGRAM: &str = "/usr/bin/mesh";

/// Where the program is on a Linux machine that it was not packaged for.
const LINUX_PROGRAM: &str = "/usr/local/bin/mesh";

const SYSUSERS: &str = "/etc/sysusers.d/mesh.conf";
const TMPFILES: &str = "/etc/tmpfiles.d/mesh.conf";

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

fn linux(daemon: Daemon) -> Layout {
    let unit = |name: &str, text: &str, why| Part {
        path: Path::new("/etc/systemd/system").join(name),
        text: text.replace(PACKAGED_PROGRAM, LINUX_PROGRAM),
        why,
        is_unit: true,
    };
    let plain = |path: &str, text: &str, why| Part {
        path: path.into(),
        text: text.to_owned(),
        why,
        is_unit: false,
    };
    let mut parts = vec![
        plain(
            SYSUSERS,
            include_str!("../../../../../systemd/mesh.sysusers.conf"),
            "the daemons' accounts",
        ),
        plain(
            TMPFILES,
            include_str!("../../../../../systemd/mesh.tmpfiles.conf"),
            "the sockets' directory",
        ),
    ];
    let (service, enabled, log) = match daemon {
        Daemon::Agent => {
            parts.extend([
                unit(
                    "mesh-agent.service",
                    include_str!("../../../../../systemd/mesh-agent.service"),
                    "the service",
                ),
                unit(
                    "mesh-online.target",
                    include_str!("../../../../../systemd/mesh-online.target"),
                    "what services that need the mesh order after",
                ),
            ]);
            (
                "mesh-agent.service",
                vec!["mesh-agent.service"],
                "journalctl -u mesh-agent",
            )
        }
        Daemon::Controller => {
            parts.push(unit(
                "mesh-controller.service",
                include_str!("../../../../../systemd/mesh-controller.service"),
                "the service",
            ));
            (
                "mesh-controller.service",
                vec!["mesh-controller.service"],
                "journalctl -u mesh-controller",
            )
        }
    };
    Layout {
        daemon,
        manager: Manager::Systemd,
        program: LINUX_PROGRAM.into(),
        link: None,
        service,
        enabled,
        parts,
        config: format!("/etc/mesh/{daemon}.toml").into(),
        state_dir: format!("/var/lib/mesh/{daemon}").into(),
        socket: format!("{RUN_DIR}/{daemon}.sock").into(),
        log,
        record: "/var/lib/mesh/service.json".into(),
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
        enabled: vec![service],
        parts: vec![Part {
            path: format!("/Library/LaunchDaemons/{service}.plist").into(),
            text: text.to_owned(),
            why: "the service",
            is_unit: true,
        }],
        config: format!("/etc/mesh/{daemon}.toml").into(),
        state_dir: format!("/var/db/mesh/{daemon}").into(),
        socket: format!("/var/run/mesh/{daemon}.sock").into(),
        log,
        record: "/var/db/mesh/service.json".into(),
        users: USERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
