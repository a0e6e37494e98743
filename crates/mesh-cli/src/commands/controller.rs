//! `mesh controller`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Subcommand;
use mesh_api::Accepted;
use mesh_controller::{Config, StartError};

use crate::{
    client::{Daemon, block_on},
    failure::{Exit, Failure},
    output,
};

/// Run the controller, and confirm what it refuses
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the controller until it is told to stop
    ///
    /// Needs no privileges, and gives up those that it has, root's user among them, once its sockets are
    /// open. SIGTERM stops it; SIGHUP makes it read the configuration's signers and the
    /// watched inventory or roster again, which a change of that file does too.
    Run {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = mesh_controller::DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Read the configuration, and say what is wrong with it
    ///
    /// Opens nothing that the configuration names.
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = mesh_controller::DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Let the watched inventory remove over half of the members
    ///
    /// A controller that watches an inventory refuses such a change, as the file may have been cut short by
    /// accident; its log and status say so. This confirms what the file says now, once.
    AcceptShrink {
        /// The controller's socket
        #[arg(long, env = "MESH_CONTROLLER_SOCKET", default_value = mesh_controller::DEFAULT_SOCKET, value_name = "PATH")]
        socket: PathBuf,
        /// Answer with one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// How long the controller may take to sign and store.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Run { config: path } => {
            let config = load(&path)?;
            mesh_controller::run(config, path).map_err(|error| match error {
                StartError::Misconfigured(error) => Failure::new(Exit::Usage, error),
                StartError::Failed(error) => Failure::from(error),
            })?;
        }
        Verb::Check { config: path } => {
            load(&path)?;
        }
        Verb::AcceptShrink { socket, json } => accept_shrink(&socket, json)?,
    }
    Ok(Exit::Done)
}

fn accept_shrink(socket: &Path, json: bool) -> Result<(), Failure> {
    let controller = Daemon::controller(socket);
    let accepted: Accepted = block_on(controller.post("/v1/accept-shrink", ACCEPT_TIMEOUT))?;
    let text = if json {
        output::json(&accepted)?
    } else {
        let Accepted {
            serial, members, ..
        } = accepted;
        format!("serial {serial} is in force, with {members} members\n")
    };
    output::answer(&text)?;
    Ok(())
}

fn load(path: &Path) -> Result<Config, Failure> {
    let named = || format!("the configuration `{}` is refused", path.display());
    Config::load(path).with_context(named).map_err(|error| {
        Failure::new(Exit::Usage, error).hint("`docs/controller.md` lists the keys with an example")
    })
}
