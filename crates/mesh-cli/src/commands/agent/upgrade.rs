//! `mesh agent upgrade` and `mesh agent self-check`.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::anyhow;
use mesh_agent::{Config, SelfCheck, Supervise, Upgrade, Upgraded};
use mesh_api::{PeerState, Probe, Status};
use mesh_os::paths::SUPERVISE;
use serde::Serialize;

use crate::{
    client::{self, Daemon},
    failure::{Exit, Failure},
    output,
};

/// The unit that `mesh agent upgrade` upgrades unless it is told otherwise.
const UNIT: &str = "mesh-agent.service";

/// How long the agent may take to answer; it asks nobody for it.
const LIMIT: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct SelfCheckArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = mesh_agent::CONFIG_PATH)]
    config: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct SuperviseArgs {
    /// The agent's configuration
    #[arg(long, value_name = "FILE", default_value = mesh_agent::CONFIG_PATH)]
    config: PathBuf,
    /// The supervisor's own directory, for root alone
    #[arg(long, value_name = "DIR", default_value = SUPERVISE)]
    dir: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct UpgradeArgs {
    /// The program to upgrade to, until the next boot or upgrade; without it the one that is installed
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// The agent's configuration
    #[arg(long, value_name = "FILE", default_value = mesh_agent::CONFIG_PATH)]
    config: PathBuf,
    /// The systemd unit
    #[arg(long, value_name = "UNIT", default_value = UNIT)]
    unit: String,
    /// Where the program that runs is kept meanwhile; the supervisor's directory where that runs the agent
    #[arg(long, value_name = "DIR", default_value = SUPERVISE)]
    dir: PathBuf,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// What `--json` of `mesh agent self-check` prints.
#[derive(Serialize)]
struct SelfCheckReport {
    version: u32,
    program: &'static str,
    roster_serial: Option<u64>,
    handover_format: u32,
}

/// What `--json` of `mesh agent upgrade` prints.
#[derive(Serialize)]
struct UpgradeReport<'a> {
    version: u32,
    /// `upgraded`, `same`, `not_running`, `unfit` or `went_back`.
    outcome: &'static str,
    reason: Option<&'a str>,
}

pub(crate) fn self_check(args: SelfCheckArgs) -> Result<Exit, Failure> {
    let found =
        mesh_agent::self_check(&args.config).map_err(|error| Failure::new(Exit::Refused, error))?;
    let SelfCheck {
        serial,
        handover_format,
        ..
    } = found;
    let serial = serial.map(mesh_types::Serial::get);
    if args.json {
        let report = SelfCheckReport {
            version: mesh_api::VERSION,
            program: env!("CARGO_PKG_VERSION"),
            roster_serial: serial,
            handover_format,
        };
        output::answer(&json(&report)?)?;
    } else {
        let roster = serial.map_or("none yet".to_owned(), |serial| format!("serial {serial}"));
        output::answer(&format!(
            "mesh {} is fit to run here: configuration, identity, roster ({roster}), ciphers and handshakes are right.\n",
            env!("CARGO_PKG_VERSION")
        ))?;
    }
    Ok(Exit::Done)
}

pub(crate) fn supervise(args: SuperviseArgs) -> Result<Exit, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::from(anyhow::Error::new(error).context("where is this program?"))
    })?;
    mesh_agent::supervise(Supervise {
        program,
        config: args.config,
        dir: args.dir,
    })?;
    Ok(Exit::Done)
}

pub(crate) fn upgrade(args: UpgradeArgs) -> Result<Exit, Failure> {
    let step = |text: &str| output::error(&format!("{text} …\n"));
    let outcome = match with_supervisor(&args, step)? {
        Some(outcome) => outcome,
        None if Path::new("/run/systemd/system").exists() => with_systemd(&args, step)?,
        None => Upgraded::NotRunning,
    };
    let (word, reason, text) = match &outcome {
        Upgraded::NotRunning => (
            "not_running",
            None,
            "The agent is not running; its next start takes the installed program.".to_owned(),
        ),
        Upgraded::Same => (
            "same",
            None,
            "The agent runs this very program; there is nothing to do.".to_owned(),
        ),
        Upgraded::Done => ("upgraded", None, "The agent is upgraded.".to_owned()),
        Upgraded::Unfit(reason) => (
            "unfit",
            Some(reason.as_str()),
            format!(
                "The new program fails its self-check, and the old one runs on untouched: {reason}"
            ),
        ),
        Upgraded::Back(reason) => (
            "went_back",
            Some(reason.as_str()),
            format!("The new program failed, and the one before runs again: {reason}"),
        ),
    };
    if args.json {
        let report = UpgradeReport {
            version: mesh_api::VERSION,
            outcome: word,
            reason,
        };
        output::answer(&json(&report)?)?;
    }
    match reason {
        Some(_) if args.json => Ok(Exit::Refused),
        Some(_) => Err(Failure::new(Exit::Refused, anyhow!(text))),
        None => {
            if !args.json {
                output::answer(&format!("{text}\n"))?;
            }
            Ok(Exit::Done)
        }
    }
}

fn with_systemd(args: &UpgradeArgs, step: impl FnMut(&str)) -> Result<Upgraded, Failure> {
    let config = Config::load(&args.config).map_err(|error| Failure::new(Exit::Usage, error))?;
    let reached = |status: &Status| {
        let has_session = |peer: &&mesh_api::PeerStatus| {
            matches!(peer.state, PeerState::Connected | PeerState::Idle)
                && peer.last_handshake.is_some()
        };
        let peers = status.peers.iter().filter(has_session);
        peers.map(|peer| peer.name.to_string()).collect::<Vec<_>>()
    };
    let ask = || {
        let daemon = Daemon::agent(&config.socket);
        client::block_on(async {
            // So that an idle peer is heard of.
            daemon.post::<Probe>("/v1/probe", LIMIT).await?;
            daemon.get::<Status>("/v1/status", LIMIT).await
        })
    };
    // An agent that does not answer is no reason to keep it.
    let before = ask().map(|status| reached(&status)).unwrap_or_default();
    let healthy = || {
        let status = ask().map_err(|_| "it does not answer `mesh status`".to_owned())?;
        let now = reached(&status);
        let kept = before.is_empty() || before.iter().any(|name| now.contains(name));
        match kept {
            true => Ok(()),
            false => Err(format!("it reaches none of {}", before.join(", "))),
        }
    };
    let what = Upgrade {
        unit: args.unit.clone(),
        program: args.binary.clone(),
        dir: args.dir.clone(),
    };
    mesh_agent::upgrade(&what, step, healthy).map_err(Failure::from)
}

/// `None` if no supervisor runs.
fn with_supervisor(
    args: &UpgradeArgs,
    mut step: impl FnMut(&str),
) -> Result<Option<Upgraded>, Failure> {
    if args.binary.is_some() {
        // A supervised agent runs the program at its own path, and no other.
        return Ok(None);
    }
    match mesh_agent::ask_for_upgrade(&args.dir, &mut step) {
        Ok(outcome) => Ok(Some(outcome)),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => {
            let context = format!("cannot ask the supervisor in `{}`", args.dir.display());
            Err(Failure::from(anyhow::Error::new(error).context(context)))
        }
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn json(report: &impl Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(report)?))
}
