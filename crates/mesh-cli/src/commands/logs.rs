//! `mesh logs`.

use crate::failure::{Exit, Failure};

/// Show what the agent logged last
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
