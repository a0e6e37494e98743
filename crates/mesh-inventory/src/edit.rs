//! Changes to an inventory's text that leave everything else as it was written: comments, order and spaces.

mod json;
mod toml;

use mesh_types::{MachineName, MemberKey};
use serde_json::Value;

use crate::{
    report::{Report, Source},
    syntax::{self, Datum, Node},
};

/// What is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A machine's `publicKey`; `None`: null. A machine that is not there is added.
    Key(MachineName, Option<MemberKey>),
    /// Whether a machine is `enabled`.
    Enabled(MachineName, bool),
    /// A machine goes, and with it what names it: roles, tags, gateways, rules and their tests.
    Retire(MachineName),
}

/// Why an inventory's text is not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Its syntax is broken.
    #[error("the inventory cannot be read")]
    Broken(#[source] Report),
    /// There is no such machine.
    #[error("there is no machine `{0}` under `machines`")]
    NoMachine(MachineName),
    /// It is written in a way that this cannot change.
    #[error("`{0}` is not where it could be changed; change it by hand")]
    Place(String),
}

/// Returns the text with the change made; the same text where it is so already.
///
/// `file_name` says which syntax is meant, as for [`inventory::parse`](crate::inventory::parse).
///
/// # Errors
///
/// [`EditError`].
pub fn edit(file_name: &str, text: &str, edit: &Edit) -> Result<String, EditError> {
    let mut root = read(file_name, text)?;
    let mut text = text.to_owned();
    for step in steps(&root, edit)? {
        let place = || EditError::Place(step.path().join("."));
        let edited = match syntax::is_toml(file_name, &text) {
            true => toml::apply(&text, &step),
            false => json::apply(&text, &root, &step),
        };
        text = edited.ok_or_else(place)?;
        root = read(file_name, &text)?;
    }
    Ok(text)
}

fn read(file_name: &str, text: &str) -> Result<Node, EditError> {
    let mut problems = Vec::new();
    syntax::parse(file_name, text, &mut problems).map_err(|problem| {
        let source = Source {
            name: file_name.to_owned(),
            text: text.to_owned(),
        };
        EditError::Broken(Report::new(source, vec![problem]))
    })
}

/// One change of the tree. A path is the keys that lead to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Sets a value, with the objects that lead to it where they are missing.
    Set(Vec<String>, Value),
    /// Takes a key away.
    Remove(Vec<String>),
    /// Takes an item out of a list.
    RemoveItem(Vec<String>, usize),
}

impl Step {
    fn path(&self) -> &[String] {
        match self {
            Self::Set(path, _) | Self::Remove(path) | Self::RemoveItem(path, _) => path,
        }
    }
}

fn path<const N: usize>(keys: [&str; N]) -> Vec<String> {
    keys.map(str::to_owned).into()
}

/// What changes of this tree. Each step leaves the places of those after it as they are: of a list the last item goes
/// first.
fn steps(root: &Node, edit: &Edit) -> Result<Vec<Step>, EditError> {
    let machines = root.get("machines");
    let (Edit::Key(name, _) | Edit::Enabled(name, _) | Edit::Retire(name)) = edit;
    let machine = machines.and_then(|machines| machines.get(name.as_str()));
    let is = |key: &str, value: &Value| {
        let present = machine.and_then(|machine| machine.get(key));
        present.map_or(Value::Null, Node::to_value) == *value
    };
    let set = |key: &str, value: Value| match is(key, &value) {
        true => Vec::new(),
        false => vec![Step::Set(path(["machines", name.as_str(), key]), value)],
    };
    if machine.is_none() && !matches!(edit, Edit::Key(_, Some(_))) {
        return Err(EditError::NoMachine(name.clone()));
    }
    Ok(match edit {
        Edit::Key(_, Some(key)) => set("publicKey", Value::String(key.to_string())),
        // TOML has no null.
        Edit::Key(_, None) if is("publicKey", &Value::Null) => Vec::new(),
        Edit::Key(_, None) => vec![Step::Remove(path(["machines", name.as_str(), "publicKey"]))],
        // What is not said is true.
        Edit::Enabled(_, true) if is("enabled", &Value::Null) => Vec::new(),
        Edit::Enabled(_, enabled) => set("enabled", Value::Bool(*enabled)),
        Edit::Retire(_) => retire(root, name.as_str()),
    })
}

fn retire(root: &Node, name: &str) -> Vec<Step> {
    let mut steps = vec![Step::Remove(path(["machines", name]))];
    for (tag, machines) in entries(root.get("tags")) {
        steps.extend(items(path(["tags", tag]), machines, &[name]));
    }
    for (other, machine) in entries(root.get("machines")).filter(|(other, _)| *other != name) {
        if let Some(gateways) = machine.get("mesh").and_then(|mesh| mesh.get("gateways")) {
            let path = path(["machines", other, "mesh", "gateways"]);
            steps.extend(items(path, gateways, &[name]));
        }
    }
    for (instance, assigned) in entries(root.get("instances")) {
        for (role, assigned) in entries(assigned.get("roles")) {
            let Some(machines) = assigned.get("machines") else {
                continue;
            };
            let path = |last: &[&str]| {
                let keys = ["instances", instance, "roles", role, "machines"];
                let keys = keys.iter().chain(last);
                keys.map(|key| (*key).to_owned()).collect::<Vec<_>>()
            };
            // clan also takes a list.
            steps.extend(items(path(&[]), machines, &[name]));
            if machines.get(name).is_some() {
                steps.push(Step::Remove(path(&[name])));
            }
        }
    }
    let Some(rules) = root.get("rules") else {
        return steps;
    };
    let explicit = format!("machine:{name}");
    let names = [name, explicit.as_str()];
    for (rule, accepts) in entries(rules.get("accept")) {
        for end in ["from", "to"] {
            if let Some(machines) = accepts.get(end) {
                let path = path(["rules", "accept", rule, end]);
                steps.extend(items(path, machines, &names));
            }
        }
    }
    if let Some(Datum::List(tests)) = rules.get("tests").map(|tests| &tests.datum) {
        let is_named = |end: Option<&Node>| end.is_some_and(|end| is_one_of(end, &names));
        let of_it = (0..)
            .zip(tests)
            .filter(|(_, test)| is_named(test.get("from")) || is_named(test.get("to")));
        let of_it = of_it.map(|(number, _)| Step::RemoveItem(path(["rules", "tests"]), number));
        let mut of_it: Vec<_> = of_it.collect();
        of_it.reverse();
        steps.extend(of_it);
    }
    steps
}

fn entries(node: Option<&Node>) -> impl Iterator<Item = (&str, &Node)> {
    let entries = match node.map(|node| &node.datum) {
        Some(Datum::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    entries
        .iter()
        .map(|entry| (entry.key.as_str(), &entry.value))
}

/// The steps that take texts out of a list.
fn items(path: Vec<String>, list: &Node, texts: &[&str]) -> Vec<Step> {
    let Datum::List(items) = &list.datum else {
        return Vec::new();
    };
    let found = (0..).zip(items).filter(|(_, item)| is_one_of(item, texts));
    let mut steps: Vec<_> = found
        .map(|(number, _)| Step::RemoveItem(path.clone(), number))
        .collect();
    steps.reverse();
    steps
}

fn is_one_of(node: &Node, texts: &[&str]) -> bool {
    matches!(&node.datum, Datum::Text(text) if texts.contains(&text.as_str()))
}

#[cfg(test)]
mod tests;
