//! Reading parts of the tree, and telling what is wrong with them.

use std::str::FromStr;

use super::Spanned;
use crate::{
    report::Problem,
    syntax::{Datum, Entry, Node, Span},
};

/// Reads values and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) problems: &'a mut Vec<Problem>,
}

/// The fields of one object. A field that is null counts as absent.
pub(super) struct Fields<'a> {
    entries: &'a [Entry],
    whose: String,
}

impl Reader<'_> {
    /// The fields of an object that may have `known` ones; `passed_over` are allowed and not read.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        whose: impl Into<String>,
        known: &[&str],
        passed_over: &[&str],
    ) -> Fields<'n> {
        let whose = whose.into();
        let entries = self.object(node, &whose);
        for entry in entries {
            let key = entry.key.as_str();
            if known.contains(&key) || passed_over.contains(&key) {
                continue;
            }
            let message = format!("unknown key `{}` in {whose}", key.escape_debug());
            let hint = match suggestion(key, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if known.is_empty() => "it takes none".to_owned(),
                None => format!("it takes {}", quoted(known)),
            };
            self.problems
                .push(Problem::error(entry.key_span.clone(), message).hint(hint));
        }
        Fields { entries, whose }
    }

    /// The entries of an object whose keys are names of the user's.
    pub(super) fn object<'n>(&mut self, node: &'n Node, whose: &str) -> &'n [Entry] {
        match &node.datum {
            Datum::Map(entries) => entries,
            Datum::Null => &[],
            Datum::Bool(_) | Datum::Number(_) | Datum::Text(_) | Datum::List(_) => {
                self.wrong_kind(node, whose, "an object");
                &[]
            }
        }
    }

    pub(super) fn text(&mut self, node: &Node, what: &str) -> Option<Spanned<String>> {
        if let Datum::Text(text) = &node.datum {
            return Some(Spanned {
                value: text.clone(),
                span: node.span.clone(),
            });
        }
        self.wrong_kind(node, what, "text");
        None
    }

    pub(super) fn truth(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Datum::Bool(value) = node.datum {
            return Some(value);
        }
        self.wrong_kind(node, what, "true or false");
        None
    }

    pub(super) fn texts(&mut self, node: &Node, what: &str) -> Vec<Spanned<String>> {
        let Datum::List(items) = &node.datum else {
            self.wrong_kind(node, what, "a list of texts");
            return Vec::new();
        };
        let entry = format!("an entry of {what}");
        items
            .iter()
            .filter_map(|item| self.text(item, &entry))
            .collect()
    }

    pub(super) fn parsed<T: FromStr>(
        &mut self,
        node: &Node,
        what: &str,
        expected: &str,
    ) -> Option<Spanned<T>> {
        let text = self.text(node, what)?;
        self.parse_text(text, what, expected)
    }

    pub(super) fn parse_text<T: FromStr>(
        &mut self,
        text: Spanned<String>,
        what: &str,
        expected: &str,
    ) -> Option<Spanned<T>> {
        let Ok(value) = text.value.parse() else {
            let given = text.value.escape_debug();
            self.error(
                text.span,
                format!("{what} is `{given}`, which is not {expected}"),
            );
            return None;
        };
        Some(Spanned {
            value,
            span: text.span,
        })
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.problems.push(Problem::error(span, message));
    }

    pub(super) fn wrong_kind(&mut self, node: &Node, what: &str, expected: &str) {
        let message = format!("{what} must be {expected}, not {}", node.kind());
        self.error(node.span.clone(), message);
    }
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.value.datum, Datum::Null)).then_some(&entry.value)
    }

    /// `key` and whose it is, for messages.
    pub(super) fn what(&self, key: &str) -> String {
        format!("`{key}` of {}", self.whose)
    }
}

/// The candidate that was probably meant by `text`.
pub(crate) fn suggestion<'a>(
    text: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Names are compared without case and separators, which people mix up; a third may be mistyped.
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(text);
    candidates
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&wanted, &plain(candidate));
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The names as a list for a sentence.
pub(super) fn quoted(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
