//! `mesh controller`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use mesh_controller::{Config, StartError};

use crate::failure::{Exit, Failure};

/// Run the controller
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
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Run { config: path } => {
            let config = load(&path)?;
            mesh_controller::run(config, path).map_err(|error| match error {
                StartError::Misconfigured(error) => Failure::new(Exit::Usage, error),
                StartError::Failed(error) => Failure::from(error),
            })?;
        }
    }
    Ok(Exit::Done)
}

fn load(path: &Path) -> Result<Config, Failure> {
    let named = || format!("the configuration `{}` is refused", path.display());
    Config::load(path).with_context(named).map_err(|error| {
        Failure::new(Exit::Usage, error).hint("`docs/controller.md` lists the keys with an example")
    })
}
