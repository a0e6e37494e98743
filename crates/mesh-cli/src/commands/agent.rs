//! `mesh agent`.

mod upgrade;

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
    /// Run the agent and look after it, where there is no systemd
    ///
    /// Starts the agent again when it ends, and keeps its device, its socket and its sessions from one
    /// process to the next. The program is the one at the path from which this was started, so that
    /// `mesh agent upgrade` takes what was put there since.
    Supervise(upgrade::SuperviseArgs),
    /// Let the running agent be taken over by the installed program, without a session lost
    ///
    /// As root. The program checks itself first; if it does not start, or does not do its work, the program
    /// before comes back, and the exit code is 1. Example: `mesh agent upgrade --json`.
    Upgrade(upgrade::UpgradeArgs),
    /// Check that this program would run here, without touching anything
    ///
    /// Reads the configuration, the identity and the stored roster, and tries the ciphers and handshakes
    /// against known answers.
    SelfCheck(upgrade::SelfCheckArgs),
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
        Verb::Supervise(args) => return upgrade::supervise(args),
        Verb::Upgrade(args) => return upgrade::upgrade(args),
        Verb::SelfCheck(args) => return upgrade::self_check(args),
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
