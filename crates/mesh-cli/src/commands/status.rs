//! `mesh status`.

use crate::failure::{Exit, Failure};

/// Show this machine, its controllers and its peers, with reasons
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
