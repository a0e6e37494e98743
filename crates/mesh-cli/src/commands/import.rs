//! `mesh import`.

mod clan;
mod draft;
mod modules;
mod zerotier;

use clap::Subcommand;

use crate::failure::{Exit, Failure};

/// Make an inventory from what describes the machines today
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Zerotier(zerotier::Args),
    Clan(clan::Args),
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match args.command {
        Command::Zerotier(args) => zerotier::run(args),
        Command::Clan(args) => clan::run(args),
    }
}
