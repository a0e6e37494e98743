//! What changes from one roster or resolved inventory to another.

use std::{collections::BTreeMap, fmt};

use mesh_types::MachineName;
use serde::Serialize;
use serde_json::Value;

use crate::roster::{Member, NetworkPart, Roster};

/// Network and members of a roster or of a resolved inventory.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The network part.
    pub network: &'a NetworkPart,
    /// The members by name.
    pub members: &'a BTreeMap<MachineName, Member>,
}

/// A field that changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The field's name in the roster.
    pub field: String,
    /// What it was; null: it was not there.
    pub old: Value,
    /// What it becomes; null: it goes.
    pub new: Value,
}

/// What changes from one to the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Fields of the network part.
    pub network: Vec<Change>,
    /// Members that the old one does not have.
    pub joins: Vec<MachineName>,
    /// Members that the new one does not have.
    pub leaves: Vec<MachineName>,
    /// Members that both have, with the fields that differ.
    pub changes: BTreeMap<MachineName, Vec<Change>>,
    /// Number of members of the old one.
    pub old_members: usize,
}

/// Compares two rosters or resolved inventories.
pub fn diff(old: Parts<'_>, new: Parts<'_>) -> Diff {
    let missing_in = |members: &BTreeMap<MachineName, Member>, from: Parts<'_>| {
        let names = from.members.keys();
        names
            .filter(|name| !members.contains_key(*name))
            .cloned()
            .collect()
    };
    let changes = old.members.iter().filter_map(|(name, before)| {
        let after = new.members.get(name)?;
        let changes = fields(before, after);
        (!changes.is_empty()).then(|| (name.clone(), changes))
    });
    Diff {
        network: fields(old.network, new.network),
        joins: missing_in(old.members, new),
        leaves: missing_in(new.members, old),
        changes: changes.collect(),
        old_members: old.members.len(),
    }
}

impl Diff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.network.is_empty()
            && self.joins.is_empty()
            && self.leaves.is_empty()
            && self.changes.is_empty()
    }

    /// Whether over half of the members leave, which a controller takes by force only.
    pub const fn removes_over_half(&self) -> bool {
        self.leaves.len() * 2 > self.old_members
    }
}

impl Roster {
    /// Network and members, for comparing.
    pub const fn parts(&self) -> Parts<'_> {
        Parts {
            network: self.network(),
            members: self.members(),
        }
    }
}

impl fmt::Display for Diff {
    /// A line a change: `+` joins, `-` leaves, `~` changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.network {
            writeln!(f, "~ network: {change}")?;
        }
        for name in &self.joins {
            writeln!(f, "+ {name}")?;
        }
        for name in &self.leaves {
            writeln!(f, "- {name}")?;
        }
        for (name, changes) in &self.changes {
            for change in changes {
                writeln!(f, "~ {name}: {change}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} -> {}",
            self.field,
            short(&self.old),
            short(&self.new)
        )
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn fields<T: Serialize>(old: &T, new: &T) -> Vec<Change> {
    let object = |part: &T| match serde_json::to_value(part) {
        Ok(Value::Object(map)) => map.into_iter().collect::<BTreeMap<_, _>>(),
        // Parts of a roster are objects that serialise.
        Ok(_) | Err(_) => BTreeMap::new(),
    };
    let (mut old, mut new) = (object(old), object(new));
    let names: Vec<_> = old.keys().chain(new.keys()).cloned().collect();
    let mut changes: BTreeMap<String, Change> = BTreeMap::new();
    for field in names {
        let (old, new) = (
            old.remove(&field).unwrap_or_default(),
            new.remove(&field).unwrap_or_default(),
        );
        if old != new {
            let change = Change {
                field: field.clone(),
                old,
                new,
            };
            changes.insert(field, change);
        }
    }
    changes.into_values().collect()
}
