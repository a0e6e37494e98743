//! `mesh why`.

mod render;

use std::{path::PathBuf, time::Duration};

use mesh_api::Why;
use mesh_types::MachineName;

use super::status::AGENT_SOCKET;
use crate::{
    client::{self, Daemon},
    failure::{Exit, Failure},
    output,
};

/// How long the agent may take to answer; it asks nobody for it.
const LIMIT: Duration = Duration::from_secs(10);

/// Explain how a peer is reached, or why it is not, and what would help
///
/// Shows the reason, the ways that were tried and what answered, where this machine says that it is, its
/// moons, and what happened lately. Sends nothing. Exits with 0 whatever the reason is, with 1 for a name that
/// is not in the roster, and with 3 if the agent cannot be reached.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The peer's name
    name: MachineName,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = AGENT_SOCKET)]
    socket: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let daemon = Daemon::agent(&args.socket);
    let question = format!("/v1/why?name={}", args.name);
    let why = client::block_on(daemon.get::<Why>(&question, LIMIT))?;
    output::answer(&text(&why, args.json)?)?;
    Ok(Exit::Done)
}

fn text(why: &Why, json: bool) -> anyhow::Result<String> {
    if json {
        Ok(format!("{}\n", serde_json::to_string_pretty(why)?))
    } else {
        Ok(render::why(why))
    }
}

#[cfg(test)]
mod tests;
