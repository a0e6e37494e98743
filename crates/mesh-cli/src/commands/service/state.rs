//! `mesh service status`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use mesh_api::{ControllerReport, Status};
use serde::Serialize;

use super::{
    facts,
    layout::{Daemon, Layout, Manager},
    manager,
    plan::System,
};
use crate::{
    client::{self, block_on},
    failure::{Exit, Failure},
    output,
};

/// How long a daemon may take to say its release.
const LIMIT: Duration = Duration::from_secs(5);

/// One daemon, as the answer has it.
#[derive(Debug, Serialize)]
struct Service {
    daemon: Daemon,
    /// What the service manager calls it.
    service: &'static str,
    /// Whether it is there at all.
    installed: bool,
    /// Who installed it: `mesh service`, `package`, `nixos`, `nix-darwin`; `None`: nobody, or by hand.
    by: Option<&'static str>,
    enabled: bool,
    running: bool,
    pid: Option<u32>,
    /// The program that a start would run.
    program: Option<PathBuf>,
    /// That program's release.
    release_on_disk: Option<String>,
    /// The release of the one that runs, as it says itself.
    release_in_memory: Option<String>,
    /// Whether the one that runs is another than the one on disk.
    upgrade_pending: bool,
    /// How to read its log.
    log: String,
    /// How it ended last; `None`: never, as far as the service manager knows.
    last_exit: Option<String>,
}

pub(super) fn show(daemon: Option<Daemon>, json: bool) -> Result<Exit, Failure> {
    let daemons = match daemon {
        Some(daemon) => vec![daemon],
        None => vec![Daemon::Agent, Daemon::Controller],
    };
    let services = daemons
        .into_iter()
        .map(look)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let text = if json {
        let object = serde_json::json!({ "version": 1, "services": services });
        let json =
            serde_json::to_string_pretty(&object).context("cannot write the answer as JSON")?;
        format!("{json}\n")
    } else {
        let shown: Vec<_> = services.iter().map(render).collect();
        shown.join("\n")
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

fn look(daemon: Daemon) -> anyhow::Result<Service> {
    let system = facts::system(None);
    let manager = match system {
        System::Own(manager) => manager,
        System::NixDarwin => Manager::Launchd,
        System::NixOs | System::Other => Manager::Systemd,
    };
    let layout = Layout::of(manager, daemon);
    let record = facts::record(&layout, None)?;
    let state = manager::look(&layout);
    let (by, program) = match (system, facts::packaged(None)) {
        (System::NixOs, _) => (Some("nixos"), None),
        (System::NixDarwin, _) => (Some("nix-darwin"), Some(layout.program.clone())),
        (System::Own(_) | System::Other, Some(path)) => (Some("package"), Some(path)),
        (System::Own(_) | System::Other, None) => {
            let ours = !record.files(daemon).is_empty();
            (ours.then_some("mesh service"), Some(layout.program.clone()))
        }
    };
    let running = state.pid.and_then(Running::of);
    let program = program
        .filter(|path| path.exists())
        .or_else(|| running.as_ref().map(|running| running.program.clone()));
    let release_on_disk = program.as_deref().and_then(release_of);
    let release_in_memory = ask_release(&layout);
    let differ = matches!((&release_on_disk, &release_in_memory), (Some(disk), Some(memory)) if disk != memory);
    let installed = state.is_loaded || !record.files(daemon).is_empty();
    Ok(Service {
        daemon,
        service: layout.service,
        installed,
        by: by.filter(|_| installed),
        enabled: state.is_enabled,
        running: state.is_running || release_in_memory.is_some(),
        pid: state.pid,
        program,
        release_on_disk,
        release_in_memory,
        upgrade_pending: differ || running.is_some_and(|running| running.is_replaced),
        log: layout.log.to_owned(),
        last_exit: state.last_exit,
    })
}

/// The program of a process, where the system tells (Linux, as root).
pub(super) struct Running {
    program: PathBuf,
    /// Whether another file took its place since it was started.
    pub(super) is_replaced: bool,
}

impl Running {
    /// Of the process `pid`; `None`: the system does not tell.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let text = path.to_str()?;
        let replaced = text.strip_suffix(" (deleted)");
        Some(Self {
            program: replaced.unwrap_or(text).into(),
            is_replaced: replaced.is_some(),
        })
    }
}

/// The release that a program says it is.
pub(super) fn release_of(program: &Path) -> Option<String> {
    let text = facts::output(Command::new(program).args(["version", "--json"]))?;
    let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
    answer["release"].as_str().map(str::to_owned)
}

/// The release that a running daemon says it is; `None`: it does not answer.
pub(super) fn ask_release(layout: &Layout) -> Option<String> {
    match layout.daemon {
        Daemon::Agent => {
            let agent = client::Daemon::agent(&layout.socket);
            let status: Status = block_on(agent.get("/v1/status", LIMIT)).ok()?;
            Some(status.node.release)
        }
        Daemon::Controller => {
            let controller = client::Daemon::controller(&layout.socket);
            let report: ControllerReport = block_on(controller.get("/v1/status", LIMIT)).ok()?;
            Some(report.release)
        }
    }
}

fn render(service: &Service) -> String {
    let daemon = service.daemon;
    if !service.installed && !service.running {
        let which = match daemon {
            Daemon::Agent => "",
            Daemon::Controller => " controller",
        };
        return format!("{daemon:<11} not installed; `mesh service install{which}` does it\n");
    }
    let yes = |fact| if fact { "yes" } else { "no" };
    let release =
        |release: &Option<String>| release.clone().unwrap_or_else(|| "unknown".to_owned());
    let running = match (service.running, service.pid) {
        (true, Some(pid)) => format!(
            "yes, process {pid}, release {}",
            release(&service.release_in_memory)
        ),
        (true, None) => format!("yes, release {}", release(&service.release_in_memory)),
        (false, _) => "no".to_owned(),
    };
    let program = match &service.program {
        Some(path) => format!(
            "{}, release {}",
            path.display(),
            release(&service.release_on_disk)
        ),
        None => "unknown".to_owned(),
    };
    let mut rows = vec![
        (
            "installed",
            match service.by {
                Some(by) => format!("yes, by {by}"),
                None => yes(service.installed).to_owned(),
            },
        ),
        ("enabled", yes(service.enabled).to_owned()),
        ("running", running),
        ("program", program),
        ("log", service.log.clone()),
        (
            "last exit",
            service.last_exit.clone().unwrap_or_else(|| "-".to_owned()),
        ),
    ];
    if service.upgrade_pending {
        let next = match daemon {
            Daemon::Agent => "`mesh agent upgrade` hands over to it",
            Daemon::Controller => "a restart of the service runs it",
        };
        rows.push((
            "upgrade",
            format!("the program on disk is another one; {next}"),
        ));
    }
    let lines: String = rows
        .into_iter()
        .map(|(name, value)| format!("  {name:<10} {value}\n"))
        .collect();
    format!("{daemon} ({})\n{lines}", service.service)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            daemon: Daemon::Agent,
            service: "mesh-agent.service",
            installed: true,
            by: Some("mesh service"),
            enabled: true,
            running: true,
            pid: Some(4711),
            program: Some("/usr/local/bin/mesh".into()),
            release_on_disk: Some("0.2.0".to_owned()),
            release_in_memory: Some("0.1.0".to_owned()),
            upgrade_pending: true,
            log: "journalctl -u mesh-agent".to_owned(),
            last_exit: None,
        }
    }

    #[test]
    fn a_service_is_told_in_a_few_lines() {
        let absent = Service {
            installed: false,
            running: false,
            ..service()
        };
        insta::assert_snapshot!(format!("{}\n{}", render(&service()), render(&absent)));
    }

    #[test]
    fn a_process_tells_its_program() {
        let running = Running::of(std::process::id()).unwrap();
        assert_eq!(running.program, std::env::current_exe().unwrap());
        assert!(!running.is_replaced);
    }
}
