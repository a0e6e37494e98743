//! An inventory's text as a tree whose every part knows where it stands.

mod json;
mod toml;

use std::ops::Range;

use serde_json::{Map, Number, Value};

use crate::report::Problem;

/// Bytes of the text, from the first to after the last.
pub(crate) type Span = Range<usize>;

/// The largest inventory that is read, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) datum: Datum,
}

#[derive(Clone, Debug)]
pub(crate) enum Datum {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value. A key occurs once in a map.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

/// Reads JSON, or TOML if the file is called so or cannot be JSON. Problems that do not stand in the
/// way of reading on are added to `problems`.
pub(crate) fn parse(
    file_name: &str,
    text: &str,
    problems: &mut Vec<Problem>,
) -> Result<Node, Problem> {
    if is_toml(file_name, text) {
        toml::parse(text)
    } else {
        json::parse(text, problems)
    }
}

pub(crate) fn is_toml(file_name: &str, text: &str) -> bool {
    let extension = file_name.rsplit_once('.').map(|(_, extension)| extension);
    match extension {
        Some("toml") => true,
        Some("json") => false,
        _ => !text.trim_start().starts_with('{'),
    }
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Datum::Map(entries) = &self.datum else {
            return None;
        };
        entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
    }

    /// What the value is, with its article.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.datum {
            Datum::Null => "null",
            Datum::Bool(_) => "a truth value",
            Datum::Number(_) => "a number",
            Datum::Text(_) => "text",
            Datum::List(_) => "a list",
            Datum::Map(_) => "an object",
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match &self.datum {
            Datum::Null => Value::Null,
            Datum::Bool(value) => Value::Bool(*value),
            Datum::Number(number) => Value::Number(number.clone()),
            Datum::Text(text) => Value::String(text.clone()),
            Datum::List(items) => items.iter().map(Self::to_value).collect(),
            Datum::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_value()))
                .collect::<Map<_, _>>()
                .into(),
        }
    }
}
