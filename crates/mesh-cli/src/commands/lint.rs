//! `mesh lint`.

mod addresses;

use clap::Subcommand;

use crate::failure::{Exit, Failure};

/// Find what a repository should not hold
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Addresses(addresses::Args),
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match args.command {
        Command::Addresses(args) => addresses::run(args),
    }
}
