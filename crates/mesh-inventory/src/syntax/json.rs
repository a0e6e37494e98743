//! JSON (RFC 8259) with positions.

use super::{Datum, Entry, Node};
use crate::report::Problem;

/// The deepest nesting; an inventory needs eight levels.
const DEPTH_MAX: usize = 64;

pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    let mut reader = Reader {
        text,
        at: 0,
        problems,
    };
    let node = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.unexpected("the end of the file"));
    }
    Ok(node)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Node, Problem> {
        self.skip_space();
        let start = self.at;
        if depth > DEPTH_MAX {
            return Err(Problem::error(
                start..start + 1,
                format!("nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        let datum = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Datum::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b'a'..=b'z') => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node {
            span: start..self.at,
            datum,
        })
    }

    fn map(&mut self, depth: usize) -> Result<Datum, Problem> {
        self.at += 1;
        let mut entries: Vec<Entry> = Vec::new();
        // Positions by key, so that a long list of machines is read in linear time.
        let mut seen = std::collections::BTreeMap::new();
        loop {
            self.skip_space();
            if entries.is_empty() && self.take(b'}') {
                break;
            }
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let key = self.string()?;
            let key_span = start..self.at;
            self.skip_space();
            if !self.take(b':') {
                return Err(self.unexpected("`:`"));
            }
            let value = self.value(depth + 1)?;
            match seen.insert(key.clone(), key_span.clone()) {
                None => entries.push(Entry {
                    key,
                    key_span,
                    value,
                }),
                Some(first) => self.problems.push(
                    Problem::error(
                        key_span,
                        format!(
                            "the key `{}` is given twice in one object",
                            key.escape_debug()
                        ),
                    )
                    .note(first, "first given here")
                    .hint("keep one of the two"),
                ),
            }
            self.skip_space();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        Ok(Datum::Map(entries))
    }

    fn list(&mut self, depth: usize) -> Result<Datum, Problem> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if items.is_empty() && self.take(b']') {
                break;
            }
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take(b']') {
                break;
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
        Ok(Datum::List(items))
    }

    fn string(&mut self) -> Result<String, Problem> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None | Some(b'\n') => {
                    return Err(Problem::error(start..self.at, "this text has no end")
                        .hint("close it with `\"`"));
                }
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let token = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(token).map_err(|error| {
            Problem::error(start..self.at, format!("broken text: {}", bare(&error)))
        })
    }

    fn number(&mut self) -> Result<Datum, Problem> {
        let start = self.at;
        while matches!(
            self.peek(),
            Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
        ) {
            self.at += 1;
        }
        serde_json::from_str(&self.text[start..self.at])
            .map(Datum::Number)
            .map_err(|_| Problem::error(start..self.at, "not a number"))
    }

    fn word(&mut self) -> Result<Datum, Problem> {
        let start = self.at;
        while matches!(self.peek(), Some(b'a'..=b'z' | b'A'..=b'Z')) {
            self.at += 1;
        }
        match &self.text[start..self.at] {
            "null" => Ok(Datum::Null),
            "true" => Ok(Datum::Bool(true)),
            "false" => Ok(Datum::Bool(false)),
            word => Err(
                Problem::error(start..self.at, format!("`{word}` is not a value"))
                    .hint("text stands in double quotes"),
            ),
        }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.at += 1;
        }
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self, expected: &str) -> Problem {
        // A step into the middle of a character can only follow a backslash.
        let rest = self.text.get(self.at..).unwrap_or_default();
        match rest.chars().next() {
            None => Problem::error(
                self.text.len()..self.text.len(),
                format!("the file ends where {expected} should be"),
            ),
            Some(found) => {
                let problem = Problem::error(
                    self.at..self.at + found.len_utf8(),
                    format!("{expected} should be here, not `{}`", found.escape_debug()),
                );
                match found {
                    '}' | ']' => problem.hint("JSON takes no `,` after the last entry"),
                    '#' | '/' => {
                        problem.hint("JSON has no comments; an inventory in TOML may have them")
                    }
                    _ => problem,
                }
            }
        }
    }
}

/// The message without `serde_json`'s own position, which counts from the token.
fn bare(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.find(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
