//! `mesh agent`.

use crate::failure::{Exit, Failure};

/// Run this machine's agent
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
