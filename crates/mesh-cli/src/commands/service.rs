//! `mesh service`: what a package does, for machines that there is none for.

mod apply;
mod config;
mod execute;
mod facts;
mod layout;
mod manager;
mod plan;
mod ready;
mod record;
mod state;
mod step;

use std::{io, path::PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use mesh_agent::HostPort;
use mesh_types::NetworkId;

use self::{config::Given, layout::Daemon};
use super::inventory::parse_signer;
use crate::failure::{Exit, Failure};

/// Install a daemon as a service of this machine, remove it, or show its state
///
/// For Macs without nix-darwin and Linux without a package: it does what a package would. On NixOS and
/// with nix-darwin the service follows from the configuration instead.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install this program as a service, or bring an installed one to this release
    ///
    /// Shows first what it would do, each file and each command, and asks. Running it again does what is
    /// left to do. An identity or a configuration that is there is never overwritten.
    ///
    /// Example: `sudo mesh service install --network ID --signer ~/.ssh/id_ed25519.pub --controller
    /// mesh.example.org:4194`
    Install {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        given: GivenArgs,
        #[command(flatten)]
        how: How,
    },
    /// Stop the service and remove what `install` made
    ///
    /// The identity, the configuration and the state stay, unless `--purge` says otherwise.
    Uninstall {
        #[command(flatten)]
        which: Which,
        /// Remove identity, configuration, state and accounts, too
        #[arg(long)]
        purge: bool,
        #[command(flatten)]
        how: How,
    },
    /// Show what is installed and running, of which release, and where it logs
    Status {
        /// Only this daemon
        #[arg(value_enum)]
        daemon: Option<Daemon>,
        /// Answer with one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Which {
    /// Which daemon
    #[arg(value_enum, default_value = "agent")]
    daemon: Daemon,
}

/// What goes into a first configuration.
#[derive(clap::Args)]
struct GivenArgs {
    /// The network's id, for the configuration
    #[arg(long, value_name = "ID")]
    network: Option<NetworkId>,
    /// Who may sign rosters, for the configuration: an SSH public key or a `mesh1` identity, as text or in a file
    #[arg(long, value_name = "KEY")]
    signer: Vec<String>,
    /// Where a controller is, for the agent's configuration
    #[arg(long, value_name = "HOST:PORT")]
    controller: Vec<HostPort>,
}

/// How a plan is carried out.
#[derive(clap::Args)]
struct How {
    /// Show the plan and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Below this directory instead of `/`, as for an image; nothing is started
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Install { which, given, how } => {
            apply::install(which.daemon, &given.parse()?, &how.with_real_root()?)
        }
        Verb::Uninstall { which, purge, how } => {
            apply::uninstall(which.daemon, purge, &how.with_real_root()?)
        }
        Verb::Status { daemon, json } => state::show(daemon, json),
    }
}

impl How {
    /// With the image's place as it is from anywhere, without links.
    fn with_real_root(mut self) -> Result<Self, Failure> {
        if let Some(root) = &self.root {
            let real = root.canonicalize().and_then(|real| match real.is_dir() {
                true => Ok(real),
                false => Err(io::ErrorKind::NotADirectory.into()),
            });
            let real = real
                .with_context(|| format!("`{}` cannot be a root", root.display()))
                .map_err(|error| Failure::new(Exit::Usage, error))?;
            self.root = Some(real);
        }
        Ok(self)
    }
}

impl GivenArgs {
    fn parse(self) -> Result<Given, Failure> {
        Ok(Given {
            network: self.network,
            signers: self
                .signer
                .iter()
                .map(|text| parse_signer(text))
                .collect::<Result<_, _>>()?,
            controllers: self.controller,
        })
    }
}
