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

/// Between two questions.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for the daemon, and says how it is and what comes next.
///
/// # Errors
///
/// It does not answer in time.
pub(super) fn wait(layout: &Layout) -> Result<String, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask(layout) {
            Ok(text) => return Ok(text),
            Err(_) if Instant::now() < deadline => thread::sleep(LOOK),
            Err(_) => {
                let error = anyhow!(
                    "the {} is installed, and does not answer within {} s",
                    layout.daemon,
                    PATIENCE.as_secs()
                );
                let log = log(layout);
                return Err(Failure::new(Exit::Unreachable, error).hint(format!(
                    "{log} says why; `mesh service status` shows the service"
                )));
            }
        }
    }
}

/// Where the daemon's words are, as a command.
pub(super) fn log(layout: &Layout) -> String {
    match Path::new(layout.log).is_absolute() {
        true => format!("`sudo tail {}`", layout.log),
        false => format!("`{}`", layout.log),
    }
}

fn ask(layout: &Layout) -> Result<String, Failure> {
    match layout.daemon {
        Daemon::Agent => {
            let agent = client::Daemon::agent(&layout.socket);
            Ok(agent_text(&block_on(agent.get("/v1/status", LIMIT))?))
        }
        Daemon::Controller => {
            let controller = client::Daemon::controller(&layout.socket);
            Ok(controller_text(&block_on(
                controller.get("/v1/status", LIMIT),
            )?))
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
