//! `mesh demo`.

use crate::failure::{Exit, Failure};

/// Run a whole mesh on this machine, to look at
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
