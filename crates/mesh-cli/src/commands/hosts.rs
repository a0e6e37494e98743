//! `mesh hosts`: names, addresses and host keys, for what cannot ask DNS.

mod render;

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::ValueEnum;
use mesh_api::Hosts;

use super::{inventory::read_roster, status::AGENT_SOCKET};
use crate::{
    client::{self, Daemon},
    failure::{Exit, Failure},
    output,
};

/// How long the agent may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Print names, addresses and host keys, for what cannot ask DNS
///
/// The answer is that of the roster in force, or of the file that `--roster` names; whose signature that file
/// has is not judged.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Hosts)]
    format: Format,
    /// Read this roster instead of asking the agent; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    roster: Option<PathBuf>,
    /// The domain that names get, if it is not the roster's
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = AGENT_SOCKET)]
    socket: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines of `/etc/hosts`
    Hosts,
    /// Lines of `known_hosts`, of the machines whose host keys the inventory has
    Ssh,
    /// One JSON object
    Json,
    /// A Nix expression with `hosts`, for `networking.hosts`, and `knownHosts`, for `programs.ssh.knownHosts`
    Nix,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let mut hosts = match &args.roster {
        Some(path) => mesh_agent::hosts(&read_roster(path)?),
        None => {
            let daemon = Daemon::agent(&args.socket);
            client::block_on(daemon.get::<Hosts>("/v1/hosts", LIMIT))?
        }
    };
    if let Some(domain) = args.domain {
        hosts.domain = domain;
    }
    if !render::is_name(&hosts.domain) {
        let domain = hosts.domain.escape_debug().to_string();
        return Err(Failure::new(
            Exit::Usage,
            anyhow!(
                "`{domain}` is not a domain: labels of `a`-`z`, `0`-`9` and `-`, joined by dots"
            ),
        ));
    }
    let (text, notes) = match args.format {
        Format::Hosts => (render::hosts(&hosts), render::wildcards_left_out(&hosts)),
        Format::Ssh => (render::ssh(&hosts), render::keyless(&hosts)),
        Format::Json => {
            let json = serde_json::to_string_pretty(&hosts).map_err(anyhow::Error::from)?;
            (format!("{json}\n"), None)
        }
        Format::Nix => (render::nix(&hosts), render::wildcards_left_out(&hosts)),
    };
    output::answer(&text)?;
    if let Some(note) = notes {
        output::error(&format!("note: {note}\n"));
    }
    Ok(Exit::Done)
}
