//! `mesh logs`.

use std::{path::PathBuf, time::Duration};

use mesh_api::Logs;

use super::status::AGENT_SOCKET;
use crate::{
    client::{self, Daemon},
    failure::{Exit, Failure},
    output,
};

/// How long the agent may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Show what the agent logged last
///
/// The agent keeps its last 1000 lines in memory; the service manager's journal has the older ones.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: usize,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = AGENT_SOCKET)]
    socket: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let daemon = Daemon::agent(&args.socket);
    let question = format!("/v1/logs?lines={}", args.lines);
    let logs: Logs = client::block_on(daemon.get(&question, LIMIT))?;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&logs).map_err(anyhow::Error::from)?;
        format!("{json}\n")
    } else {
        text(&logs)
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

fn text(logs: &Logs) -> String {
    logs.lines
        .iter()
        .map(|line| format!("{} {:>5} {}\n", line.time, line.level, line.message))
        .collect()
}

#[cfg(test)]
mod tests {
    use mesh_api::LogLine;

    use super::*;

    #[test]
    fn levels_stand_in_one_column() {
        let line = |level: &str, message: &str| LogLine {
            time: "2026-11-20T12:58:37Z".to_owned(),
            level: level.to_owned(),
            message: message.to_owned(),
        };
        let logs = Logs {
            version: mesh_api::VERSION,
            lines: vec![
                line("INFO", "agent ready interface=mesh0"),
                line("ERROR", "x"),
            ],
            dropped: 0,
        };
        assert_eq!(
            text(&logs),
            "2026-11-20T12:58:37Z  INFO agent ready interface=mesh0\n2026-11-20T12:58:37Z ERROR x\n"
        );
    }
}
