//! `mesh inventory resolve`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::load;
use crate::{
    failure::{Exit, Failure},
    output,
};

/// Resolve an inventory to what gets signed, as JSON
///
/// One object with `version`, `network` and `members`, each member with its address, tags and roles.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The inventory, JSON or TOML; `-` for stdin
    file: PathBuf,
    /// The roster in force, from which IPv4 addresses are kept
    #[arg(long, value_name = "ROSTER")]
    previous: Option<PathBuf>,
    /// Answer with one JSON object, as it does without
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    // JSON is the only form there is; the flag is taken as every command that answers takes it.
    let Args {
        file,
        previous,
        json: _,
    } = args;
    let previous = previous.as_deref().map(load::roster).transpose()?;
    let resolution = load::resolution(&file, previous.as_ref())?;
    let text = serde_json::to_string_pretty(&resolution.to_json())
        .context("cannot write the answer as JSON")?;
    output::answer(&(text + "\n"))?;
    Ok(Exit::Done)
}
