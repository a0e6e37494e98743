//! `mesh keygen`.

use crate::failure::{Exit, Failure};

/// Make a machine's identity, or show its public half
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
