//! `mesh status`.

mod filter;
mod render;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use mesh_api::{Probe, Status};

use self::filter::Filter;
use crate::{
    client::{self, Daemon},
    failure::{Exit, Failure},
    output,
};

/// Where the agent listens, unless it is told otherwise.
pub(crate) const AGENT_SOCKET: &str = mesh_os::paths::AGENT_SOCKET;

/// How long the agent may take to answer; it asks nobody for it.
const LIMIT: Duration = Duration::from_secs(10);

/// How often `--watch` looks. Each look probes the idle peers.
const WATCH_PERIOD: Duration = Duration::from_secs(2);

/// Takes the cursor to the top left and clears what is below (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show this machine, its controllers and its peers, with reasons
///
/// Exits with 0 whatever the status is, and with 3 if the agent cannot be reached.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show only these peers: names, or `tag:TAG`
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = AGENT_SOCKET)]
    socket: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Look again every two seconds, probing idle peers; with `--json`, one object a line
    #[arg(long)]
    watch: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let daemon = Daemon::agent(&args.socket);
    client::block_on(async {
        if args.watch {
            watch(&daemon, &args).await?;
        } else {
            let status = daemon.get("/v1/status", LIMIT).await?;
            output::error(&misses(&status, &args.filters));
            output::answer(&text(&keep(status, &args), args.json)?)?;
        }
        Ok(Exit::Done)
    })
}

/// Shows the status again and again, until interrupted or until nobody reads.
async fn watch(daemon: &Daemon, args: &Args) -> Result<(), Failure> {
    let redraw = !args.json && io::stdout().is_terminal();
    loop {
        daemon.post::<Probe>("/v1/probe", LIMIT).await?;
        let status = keep(daemon.get("/v1/status", LIMIT).await?, args);
        let text = if args.json {
            output::json(&status)?
        } else {
            let text = render::status(&status);
            match redraw {
                true => format!("{CLEAR}{text}"),
                false => format!("{text}\n"),
            }
        };
        output::answer(&text)?;
        tokio::time::sleep(WATCH_PERIOD).await;
    }
}

fn keep(mut status: Status, args: &Args) -> Status {
    filter::keep(&mut status.peers, &args.filters);
    status
}

/// A warning for each filter that no peer passes.
fn misses(status: &Status, filters: &[Filter]) -> String {
    filter::idle(&status.peers, filters)
        .iter()
        .map(|filter| format!("warning: no peer in the roster {filter}\n"))
        .collect()
}

fn text(status: &Status, json: bool) -> anyhow::Result<String> {
    if json {
        Ok(format!("{}\n", serde_json::to_string_pretty(status)?))
    } else {
        Ok(render::status(status))
    }
}

#[cfg(test)]
mod tests;
