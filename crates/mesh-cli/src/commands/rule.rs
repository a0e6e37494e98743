//! `mesh rule`.

mod list;
mod test;

use clap::Subcommand;

use crate::failure::{Exit, Failure};

/// Show who may reach whom: list the rules, test them
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(list::Args),
    Test(test::Args),
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match args.command {
        Command::List(args) => list::run(args),
        Command::Test(args) => test::run(args),
    }
}
