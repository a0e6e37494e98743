//! `mesh machine`.

use clap::Subcommand;
use mesh_inventory::Edit;
use mesh_types::{MachineName, MemberKey};

use super::inventory::Target;
use crate::failure::{Exit, Failure};

/// Change a machine in the inventory: switch it off and on, give it another key, retire it
///
/// Each changes the inventory's file and nothing else in it: comments, order and spaces stay. A controller that watches the
/// file has the change in force at once; else sign and push it.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Switch a machine off: its place is kept, nobody speaks to it or waits for it
    Disable(One),
    /// Switch a machine on again
    Enable(One),
    /// Give a machine another key, or take away the one that it has
    ///
    /// The old key opens nothing any more. Address and name stay. Without `--public-key` the machine has none until its next
    /// is accepted: `mesh inventory accept NAME`.
    Rekey {
        #[command(flatten)]
        one: One,
        /// The new key, as `mesh keygen --public FILE` prints it there
        #[arg(long, value_name = "KEY")]
        public_key: Option<MemberKey>,
    },
    /// Take a machine out, with whatever names it: roles, tags, gateways, rules and their tests
    Retire(One),
}

#[derive(clap::Args)]
struct One {
    /// The machine's name
    name: MachineName,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let (target, edit) = match args.command {
        Command::Disable(One { name, target }) => (target, Edit::Enabled(name, false)),
        Command::Enable(One { name, target }) => (target, Edit::Enabled(name, true)),
        Command::Retire(One { name, target }) => (target, Edit::Retire(name)),
        Command::Rekey { one, public_key } => (one.target, Edit::Key(one.name, public_key)),
    };
    target.change(&edit)
}
