//! `mesh inventory check`.

use mesh_inventory::{Report, inventory, resolve};
use serde_json::json;

use super::{load, source::Source};
use crate::{
    failure::{Exit, Failure},
    output,
};

/// Check an inventory
///
/// Tells everything that is wrong, each at its line, and ends with 2 if the inventory cannot be used.
/// Warnings alone end with 0.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(Args { source }: Args) -> Result<Exit, Failure> {
    let previous = source.previous()?;
    let bytes = load::bytes(&source.file)?;
    let name = source.file.display().to_string();
    let resolved = inventory::parse(&name, &bytes)
        .and_then(|inventory| resolve(&inventory, previous.as_ref()));
    let (members, report) = match &resolved {
        Ok(resolution) => (Some(resolution.members().len()), resolution.warnings()),
        Err(report) => (None, report),
    };
    if source.json {
        output::answer(&format!("{}\n", as_json(members, report)))?;
        return Ok(if members.is_some() {
            Exit::Done
        } else {
            Exit::Usage
        });
    }
    let Ok(resolution) = &resolved else {
        return Err(load::broken(&source.file, report));
    };
    if report.has_warnings() {
        output::error(&format!("{report}\n"));
    }
    let network = resolution.network();
    output::answer(&format!(
        "`{name}` is good: network `{}` ({}), prefix {}, {}\n",
        network.name,
        network.id,
        network.prefix,
        super::show::count(resolution.members().len(), "machine"),
    ))?;
    Ok(Exit::Done)
}

fn as_json(members: Option<usize>, report: &Report) -> serde_json::Value {
    json!({
        "version": 1,
        "valid": members.is_some(),
        "members": members,
        "findings": report.findings(),
    })
}
