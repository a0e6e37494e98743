//! `mesh ping`.

use crate::failure::{Exit, Failure};

/// Measure the round trip to a peer inside the tunnel
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
