//! TOML with positions.

use serde_json::Number;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Datum, Entry, Node};
use crate::report::Problem;

pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let key = text.get(span.clone()).unwrap_or_default().trim();
        if error.message() == "duplicate key" && !key.is_empty() {
            return Problem::error(
                span.clone(),
                format!("the key `{key}` is given twice in one table"),
            )
            .hint("keep one of the two");
        }
        Problem::error(span, error.message())
    })?;
    Ok(Node {
        span: table.span(),
        datum: map(table.into_inner())?,
    })
}

fn map(table: DeTable<'_>) -> Result<Datum, Problem> {
    let mut entries = Vec::new();
    for (key, value) in table {
        entries.push(Entry {
            key_span: key.span(),
            key: key.into_inner().into_owned(),
            value: node(value)?,
        });
    }
    // The table keeps its keys sorted; messages follow the text.
    entries.sort_by_key(|entry| entry.key_span.start);
    Ok(Datum::Map(entries))
}

fn node(value: Spanned<DeValue<'_>>) -> Result<Node, Problem> {
    let span = value.span();
    let datum = match value.into_inner() {
        DeValue::String(text) => Datum::Text(text.into_owned()),
        DeValue::Boolean(value) => Datum::Bool(value),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| Datum::Number(number.into()))
            .map_err(|_| Problem::error(span.clone(), "this number is too large"))?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map(Datum::Number)
            .ok_or_else(|| Problem::error(span.clone(), "this is not a number that JSON has"))?,
        DeValue::Datetime(_) => {
            return Err(Problem::error(span, "an inventory has no dates")
                .hint("put it in double quotes to make it text"));
        }
        DeValue::Array(items) => {
            Datum::List(items.into_iter().map(node).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => map(table)?,
    };
    Ok(Node { span, datum })
}
