//! Changes to JSON, by the places of its parts.

use std::ops::Range;

use serde_json::Value;

use super::Step;
use crate::syntax::{Datum, Entry, Node};

/// The text after a step; `None`: what the step speaks of is not there.
pub(super) fn apply(text: &str, root: &Node, step: &Step) -> Option<String> {
    let (range, new) = match step {
        Step::Set(path, value) => set(text, root, path, value)?,
        Step::Remove(path) => {
            let (key, parent) = path.split_last()?;
            let entries = entries(find(root, parent)?)?;
            let number = entries.iter().position(|entry| entry.key == *key)?;
            let spans: Vec<_> = entries.iter().map(span).collect();
            (without(&spans, number), String::new())
        }
        Step::RemoveItem(path, number) => {
            let Datum::List(items) = &find(root, path)?.datum else {
                return None;
            };
            let spans: Vec<_> = items.iter().map(|item| item.span.clone()).collect();
            (*number < spans.len()).then(|| (without(&spans, *number), String::new()))?
        }
    };
    let mut text = text.to_owned();
    text.replace_range(range, &new);
    Some(text)
}

fn find<'n>(root: &'n Node, path: &[String]) -> Option<&'n Node> {
    path.iter().try_fold(root, |node, key| node.get(key))
}

fn entries(node: &Node) -> Option<&[Entry]> {
    match &node.datum {
        Datum::Map(entries) => Some(entries),
        Datum::Null | Datum::Bool(_) | Datum::Number(_) | Datum::Text(_) | Datum::List(_) => None,
    }
}

/// A key with its value.
fn span(entry: &Entry) -> Range<usize> {
    entry.key_span.start..entry.value.span.end
}

/// What goes with one of several, and the comma between it and a neighbour.
fn without(spans: &[Range<usize>], number: usize) -> Range<usize> {
    let own = &spans[number];
    match (spans.get(number + 1), number.checked_sub(1)) {
        (Some(next), _) => own.start..next.start,
        (None, Some(before)) => spans[before].end..own.end,
        (None, None) => own.clone(),
    }
}

/// Where a value goes, and what is written there.
fn set(text: &str, root: &Node, path: &[String], value: &Value) -> Option<(Range<usize>, String)> {
    let mut node = root;
    for (depth, key) in path.iter().enumerate() {
        match node.get(key) {
            // Null is as good as nothing there, and any value is replaced whole.
            Some(next) if depth + 1 == path.len() || matches!(next.datum, Datum::Null) => {
                return Some((next.span.clone(), nested(&path[depth + 1..], value)));
            }
            Some(next) => node = next,
            None => {
                let entries = entries(node)?;
                let new = format!(
                    "{}: {}",
                    Value::String(key.clone()),
                    nested(&path[depth + 1..], value)
                );
                return Some(match entries {
                    [] => (node.span.clone(), format!("{{ {new} }}")),
                    [.., last] => {
                        let end = last.value.span.end;
                        // As the last one stands to what is before it.
                        let before = &text[..last.key_span.start];
                        let gap = before.trim_end_matches([' ', '\t', '\r', '\n']).len();
                        (end..end, format!(",{}{new}", &before[gap..]))
                    }
                });
            }
        }
    }
    None
}

/// The value with the objects that lead to it.
fn nested(keys: &[String], value: &Value) -> String {
    match keys {
        [] => value.to_string(),
        [key, rest @ ..] => {
            let key = Value::String(key.clone());
            format!("{{ {key}: {} }}", nested(rest, value))
        }
    }
}
