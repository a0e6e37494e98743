//! `mesh inventory`.

use crate::failure::{Exit, Failure};

/// Describe the fleet: make, check, resolve, sign and push the inventory
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
