//! Changes to TOML.

use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, Table};

use super::Step;

/// The text after a step; `None`: what the step speaks of is not there.
pub(super) fn apply(text: &str, step: &Step) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let root = document.as_item_mut();
    match step {
        Step::Set(path, value) => {
            let (key, parents) = path.split_last()?;
            let mut item = root;
            for parent in parents {
                if item.get(parent).is_none() {
                    let mut table = Table::new();
                    // Its own header is written where it has values of its own.
                    table.set_implicit(true);
                    item.as_table_like_mut()?.insert(parent, Item::Table(table));
                }
                item = item.get_mut(parent)?;
            }
            let new = match value {
                Value::Bool(value) => toml_edit::value(*value),
                Value::String(value) => toml_edit::value(value),
                Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            let table = item.as_table_like_mut()?;
            match table.get_mut(key).and_then(Item::as_value_mut) {
                Some(old) => {
                    // What stands before and behind it stays, a comment too.
                    let decor = old.decor().clone();
                    *old = new.into_value().ok()?;
                    *old.decor_mut() = decor;
                }
                None => drop(table.insert(key, new)),
            }
        }
        Step::Remove(path) => {
            let (key, parents) = path.split_last()?;
            let parent = find(root, parents)?;
            parent.as_table_like_mut()?.remove(key)?;
        }
        Step::RemoveItem(path, number) => {
            let item = find(root, path)?;
            match item.as_array_of_tables_mut() {
                Some(tables) if *number < tables.len() => drop(tables.remove(*number)),
                Some(_) => return None,
                None => remove_item(item.as_array_mut()?, *number)?,
            }
        }
    }
    Some(document.to_string())
}

fn remove_item(array: &mut Array, number: usize) -> Option<()> {
    (number < array.len()).then(|| array.remove(number))?;
    // The first one stands where the bracket is, not where the second stood.
    if let (0, Some(first)) = (number, array.get_mut(0))
        && first.decor().prefix().and_then(|space| space.as_str()) == Some(" ")
    {
        first.decor_mut().set_prefix("");
    }
    Some(())
}

fn find<'i>(root: &'i mut Item, path: &[String]) -> Option<&'i mut Item> {
    path.iter().try_fold(root, |item, key| item.get_mut(key))
}
