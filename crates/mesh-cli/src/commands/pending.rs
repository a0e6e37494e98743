//! `mesh pending`.

use crate::failure::{Exit, Failure};

/// List the keys that asked to join and are in no roster
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
