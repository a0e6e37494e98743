//! `mesh demo`.

use crate::failure::{Exit, Failure};

#[cfg(target_os = "linux")]
mod fleet;
#[cfg(target_os = "linux")]
mod progress;
#[cfg(any(target_os = "linux", test))]
mod table;

/// Run a whole mesh on this machine, to look at
///
/// Starts a controller and nine agents as separate processes, each in a network namespace of its own, and
/// shows them at work: status, pings between all pairs, a machine that is removed and comes back. Touches
/// nothing of this machine's own network, and cleans up after itself, also on Ctrl-C. Needs no root where
/// user namespaces are allowed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave it running until Ctrl-C, and print the commands to look around
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    #[cfg(target_os = "linux")]
    {
        fleet::run(args.keep)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = args.keep;
        let error = anyhow::anyhow!("the demo needs Linux, whose network namespaces it is made of");
        Err(Failure::new(Exit::Refused, error)
            .hint("run it on a Linux machine; `mesh agent run` works here too"))
    }
}
