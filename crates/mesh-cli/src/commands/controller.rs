//! `mesh controller`.

use crate::failure::{Exit, Failure};

/// Run the controller
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<Exit, Failure> {
    todo!()
}
