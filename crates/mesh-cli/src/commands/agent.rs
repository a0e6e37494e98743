//! `mesh agent`.

use std::{os::unix::net::UnixStream, path::PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use mesh_agent::{Config, LogRing};
use mesh_os::identity::ReadIdentityError;

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Run this machine's agent
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the agent until it is told to stop
    ///
    /// Needs root or CAP_NET_ADMIN for the TUN device; everything else is given up once that is open.
    /// SIGTERM stops it and leaves nothing behind; SIGHUP, or a change of the file, reloads it.
    Run(FileArgs),
    /// Read the configuration, and say what is wrong with it
    ///
    /// Opens nothing that the configuration names. Packages and NixOS do this before they put a
    /// configuration in force.
    Check(FileArgs),
    /// Remove the stored roster, so that the next start takes any serial from a trusted signer
    ///
    /// For the day when the fleet's serials start over. The agent must be stopped.
    ForgetRoster(FileArgs),
}

#[derive(clap::Args)]
struct FileArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = mesh_agent::CONFIG_PATH)]
    config: PathBuf,
}

/// Runs the verb; `logs` is the log's layer that `mesh logs` reads.
pub(crate) fn run(args: Args, logs: LogRing) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Run(FileArgs { config: path }) => {
            let config = load(&path)?;
            mesh_agent::run(config, path, logs).map_err(|error| {
                let exit = match error.is::<ReadIdentityError>() {
                    true => Exit::Usage,
                    false => Exit::Refused,
                };
                Failure::new(exit, error)
            })?;
        }
        Verb::Check(FileArgs { config: path }) => {
            load(&path)?;
        }
        Verb::ForgetRoster(FileArgs { config: path }) => forget_roster(&load(&path)?)?,
    }
    Ok(Exit::Done)
}

fn load(path: &std::path::Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| {
        Failure::new(Exit::Usage, error).hint("`docs/agent.md` lists the keys with an example")
    })
}

fn forget_roster(config: &Config) -> Result<(), Failure> {
    if UnixStream::connect(&config.socket).is_ok() {
        let running = anyhow::anyhow!(
            "the agent is running (it answers at `{}`) and would store its roster again",
            config.socket.display()
        );
        return Err(Failure::new(Exit::Refused, running)
            .hint("stop it, forget the roster, and start it again"));
    }
    let forgotten = mesh_agent::forget_roster(config).with_context(|| {
        format!(
            "cannot remove the stored roster in `{}`",
            config.state_dir.display()
        )
    })?;
    output::answer(match forgotten {
        true => "The stored roster is forgotten.\n",
        false => "There was no stored roster.\n",
    })?;
    Ok(())
}
