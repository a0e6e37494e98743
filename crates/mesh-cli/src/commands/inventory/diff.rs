//! `mesh inventory diff`.

use std::path::PathBuf;

use anyhow::Context as _;
use mesh_inventory::diff;
use serde_json::{Value, json};

use super::load;
use crate::{
    failure::{Exit, Failure},
    output,
};

/// Show who joins, leaves and changes
///
/// Compares two inventories or rosters, in any combination. `+` joins, `-` leaves, `~` changes.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The inventory or roster before
    old: PathBuf,
    /// The inventory or roster after
    new: PathBuf,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let old = load::either(&args.old, None)?;
    let new = load::either(&args.new, old.as_roster())?;
    let diff = diff(old.parts(), new.parts());
    let text = if args.json {
        let mut object = json!({ "version": 1 });
        let fields = serde_json::to_value(&diff).context("cannot write the answer as JSON")?;
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
        }
        format!("{object}\n")
    } else if diff.is_empty() {
        "no difference\n".to_owned()
    } else {
        diff.to_string()
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}
