//! `mesh inventory resolve`.

use anyhow::Context as _;

use super::{load, source::Source};
use crate::{
    failure::{Exit, Failure},
    output,
};

/// Resolve an inventory to what gets signed, as JSON
///
/// One object with `version`, `network` and `members`, each member with its address, tags and roles.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(Args { source }: Args) -> Result<Exit, Failure> {
    // JSON is the only form there is; the flag is taken as every command that answers takes it.
    let previous = source.previous()?;
    let resolution = load::resolution(&source.file, previous.as_ref())?;
    let text = serde_json::to_string_pretty(&resolution.to_json())
        .context("cannot write the answer as JSON")?;
    output::answer(&(text + "\n"))?;
    Ok(Exit::Done)
}
