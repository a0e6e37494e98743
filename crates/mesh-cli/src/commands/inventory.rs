//! `mesh inventory`.

mod accept;
mod change;
mod check;
pub(crate) mod confirm;
mod diff;
pub(super) mod init;
mod key;
pub(super) mod load;
mod push;
mod resolve;
pub(super) mod show;
mod sign;
mod source;
mod verify;

pub(super) use change::Target;
use clap::Subcommand;
pub(super) use load::roster as read_roster;

pub(crate) use init::parse_signer;

use crate::failure::{Exit, Failure};

/// Describe the fleet: make, check, resolve, sign and push the inventory
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Args),
    Accept(accept::Args),
    Check(check::Args),
    Show(show::Args),
    Resolve(resolve::Args),
    Diff(diff::Args),
    Sign(sign::Args),
    Verify(verify::Args),
    Push(push::Args),
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match args.command {
        Command::Init(args) => init::run(args),
        Command::Accept(args) => accept::run(&args),
        Command::Check(args) => check::run(args),
        Command::Show(args) => show::run(args),
        Command::Resolve(args) => resolve::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Sign(args) => sign::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Push(args) => push::run(args),
    }
}
