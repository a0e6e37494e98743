//! Waits until a started daemon answers, and says what it lacks.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use mesh_api::{ControllerReport, Status};

use super::layout::{Daemon, IDENTITY, Layout};
use crate::{
    client::{self, block_on},
    failure::{Exit, Failure},
};

/// How long a daemon may take from its start to its first answer: both are there within a second, unless
/// the machine is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(2);

/// How long a fresh agent may take until a controller admitted it, before it is told how it stands.
const ADMISSION: Duration = Duration::from_secs(5);

/// Between two questions.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for the daemon, and says how it is and what comes next.
///
/// # Errors
///
/// It does not answer in time.
pub(super) fn wait(layout: &Layout) -> Result<String, Failure> {
    let started = Instant::now();
    loop {
        let waited = started.elapsed();
        match ask(layout) {
            Ok(said) if said.is_settled || waited > ADMISSION => return Ok(said.text),
            Ok(_) => {}
            Err(_) if waited < PATIENCE => {}
            Err(_) => return Err(silent(layout)),
        }
        thread::sleep(LOOK);
    }
}

fn silent(layout: &Layout) -> Failure {
    let error = anyhow!(
        "the {} is installed, and does not answer within {} s",
        layout.daemon,
        PATIENCE.as_secs()
    );
    let log = log(layout);
    Failure::new(Exit::Unreachable, error).hint(format!(
        "{log} says why; `mesh service status` shows the service"
    ))
}

/// How a daemon is.
struct Said {
    text: String,
    /// Whether there is no reason to ask again.
    is_settled: bool,
}

/// Where the daemon's words are, as a command.
pub(super) fn log(layout: &Layout) -> String {
    match Path::new(layout.log).is_absolute() {
        true => format!("`sudo tail {}`", layout.log),
        false => format!("`{}`", layout.log),
    }
}

fn ask(layout: &Layout) -> Result<Said, Failure> {
    match layout.daemon {
        Daemon::Agent => {
            let agent = client::Daemon::agent(&layout.socket);
            let status: Status = block_on(agent.get("/v1/status", LIMIT))?;
            Ok(Said {
                text: agent_text(&status),
                is_settled: status.node.admitted,
            })
        }
        Daemon::Controller => {
            let controller = client::Daemon::controller(&layout.socket);
            let report: ControllerReport = block_on(controller.get("/v1/status", LIMIT))?;
            Ok(Said {
                text: controller_text(&report),
                is_settled: true,
            })
        }
    }
}

fn agent_text(status: &Status) -> String {
    let node = &status.node;
    let mut text = format!("the agent runs, release {}\n", node.release);
    if let (true, Some(name), Some(address)) = (node.admitted, &node.name, node.address) {
        text.push_str(&format!("this machine is `{name}`, {address}\n"));
        return text;
    }
    let reason = node
        .reason
        .as_deref()
        .unwrap_or("no roster names its key yet");
    text.push_str(&format!(
        "this machine is not admitted: {reason}\n\
         next: put its key into the inventory, then sign and push\n\
         \x20 \"NAME\": {{ \"publicKey\": \"{}\" }}\n\
         then: `mesh status`\n",
        node.identity
    ));
    text
}

fn controller_text(report: &ControllerReport) -> String {
    let mut text = format!("the controller runs, release {}\n", report.release);
    for problem in &report.problems {
        text.push_str(&format!("problem: {}: {}\n", problem.what, problem.problem));
    }
    match &report.roster {
        Some(roster) => {
            text.push_str(&format!("roster {} is in force, {} members\n", roster.serial, roster.members));
        }
        None => text.push_str(&format!(
            "it has no roster yet\n\
             next: `mesh inventory push roster.json --controller HOST:4194`, or name an `inventory` in its \
             configuration and this machine's identity (`mesh keygen --public {IDENTITY}`) among the signers\n"
        )),
    }
    text
}
