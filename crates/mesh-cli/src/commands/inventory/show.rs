//! `mesh inventory show`.

use std::fmt::Write as _;

use mesh_inventory::{Member, NetworkPart, Parts, Role};
use serde_json::json;

use super::{load, source::Source};
use crate::{
    failure::{Exit, Failure},
    output,
};

/// Show an inventory or a roster as a table
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(Args { source }: Args) -> Result<Exit, Failure> {
    let previous = source.previous()?;
    let shown = load::either(&source.file, previous.as_ref())?;
    let Parts { network, members } = shown.parts();
    let text = if source.json {
        let head = shown.as_roster().map(mesh_inventory::Roster::head);
        let object = json!({ "version": 1, "head": head, "network": network, "members": members });
        format!("{object}\n")
    } else {
        render(network, members.values())
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

fn render<'a>(network: &NetworkPart, members: impl Iterator<Item = &'a Member>) -> String {
    let mut rows =
        vec![["NAME", "CLASS", "ROLES", "ADDRESS", "IPV4", "STATE", "TAGS"].map(str::to_owned)];
    rows.extend(members.map(row));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = format!(
        "network {} ({}), domain {}, prefix {}, {}\n\n",
        network.name,
        network.id,
        network.domain,
        network.prefix,
        count(network.signers.len(), "signer"),
    );
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(member: &Member) -> [String; 7] {
    let class = json!(member.class);
    let roles: Vec<_> = member.roles.iter().map(role).collect();
    let state = match (member.enabled, member.public_key.is_some()) {
        (false, _) => "switched off",
        (true, false) => "no key",
        (true, true) => "ready",
    };
    // What every machine of its class has says nothing.
    let class = class.as_str().unwrap_or_default();
    let own = |tag: &&String| *tag != "all" && *tag != class;
    let tags: Vec<_> = member.tags.iter().filter(own).map(String::as_str).collect();
    [
        member.name.to_string(),
        class.to_owned(),
        dashed(&roles),
        member.address.to_string(),
        member
            .ipv4
            .map_or_else(|| "-".to_owned(), |ipv4| ipv4.to_string()),
        state.to_owned(),
        dashed(&tags),
    ]
}

const fn role(role: &Role) -> &'static str {
    match role {
        Role::Controller => "controller",
        Role::Moon => "moon",
        Role::Peer => "peer",
    }
}

fn dashed(words: &[&str]) -> String {
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(",")
    }
}

/// `one machine`, `3 machines`.
pub(in crate::commands) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("one {noun}"),
        number => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use mesh_inventory::{inventory, resolve};

    use super::*;

    #[test]
    fn a_fleet_is_a_table() {
        let text = include_bytes!("../../../../../tests/fleet/inventory.json");
        let inventory = inventory::parse("inventory.json", text).unwrap();
        let resolution = resolve(&inventory, None).unwrap();
        let table = render(resolution.network(), resolution.members().values());
        insta::assert_snapshot!(table);
    }
}
