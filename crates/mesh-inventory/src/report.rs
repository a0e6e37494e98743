//! What is wrong with an inventory, shown in its text.

use std::fmt;

use crate::syntax::Span;

/// The most problems that are shown; the rest is counted.
const SHOWN_MAX: usize = 20;

/// The longest part of a line that is shown, in characters.
const LINE_CHARS_MAX: usize = 120;

/// A text and the name it is called by in messages.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The inventory cannot be used.
    Error,
    /// The inventory can be used, perhaps not as meant.
    Warning,
}

/// One thing that is wrong, where, and what to do.
#[derive(Clone, Debug)]
pub struct Problem {
    severity: Severity,
    message: String,
    span: Option<Span>,
    notes: Vec<(Span, String)>,
    hint: Option<String>,
}

/// Everything that was found wrong with one inventory. `Display` shows each problem at its line.
#[derive(Clone, Debug)]
pub struct Report {
    source: Source,
    problems: Vec<Problem>,
}

/// A problem's place and words, for programs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; `None`: the problem has no place in the text.
    pub line: Option<usize>,
    /// The column in characters, from 1; `None` as for the line.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do; `None`: the message says it.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span: Some(span),
            notes: Vec::new(),
            hint: None,
        }
    }

    pub(crate) fn warning(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(span, message)
        }
    }

    pub(crate) fn note(mut self, span: Span, text: impl Into<String>) -> Self {
        self.notes.push((span, text.into()));
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn without_place(mut self) -> Self {
        self.span = None;
        self
    }

    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, without its place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl Report {
    /// Sorts by place, so that the same inventory always gives the same report.
    pub(crate) fn new(source: Source, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| {
            let start = problem.span.as_ref().map_or(usize::MAX, |span| span.start);
            (problem.severity == Severity::Warning, start)
        });
        Self { source, problems }
    }

    pub(crate) fn without_warnings(mut self) -> Self {
        self.problems
            .retain(|problem| problem.severity == Severity::Error);
        self
    }

    /// The problems, errors first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is anything to say.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        let is_error = |problem: &&Problem| problem.severity == Severity::Error;
        self.problems.iter().filter(is_error).count()
    }

    /// The problems as programs read them.
    pub fn findings(&self) -> Vec<Finding> {
        let finding = |problem: &Problem| {
            let place = problem.span.as_ref().map(|span| self.place(span.start));
            Finding {
                severity: word(problem.severity),
                file: self.source.name.clone(),
                line: place.map(|(line, _)| line),
                column: place.map(|(_, column)| column),
                message: problem.message.clone(),
                hint: problem.hint.clone(),
            }
        };
        self.problems.iter().map(finding).collect()
    }

    fn show(&self, problem: &Problem, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", word(problem.severity), problem.message)?;
        match &problem.span {
            Some(span) => self.snippet(span, '^', "", f)?,
            None => writeln!(f, "  --> {}", self.source.name)?,
        }
        for (span, text) in &problem.notes {
            self.snippet(span, '-', text, f)?;
        }
        match &problem.hint {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }

    fn snippet(
        &self,
        span: &Span,
        mark: char,
        label: &str,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let (number, column) = self.place(span.start);
        let (start, line) = self.line(span.start);
        let (first, shown) = window(line, column);
        let marked = self.source.text[floor(&self.source.text, span.start)..]
            .char_indices()
            .take_while(|(offset, _)| span.start + offset < span.end.min(start + line.len()))
            .count();
        let indent = " ".repeat(column - 1 - first);
        let room = shown.chars().count().saturating_sub(indent.len()).max(1);
        let marks = String::from(mark).repeat(marked.clamp(1, room));
        let label = if label.is_empty() {
            String::new()
        } else {
            format!(" {label}")
        };
        let gap = " ".repeat(number.to_string().len());
        writeln!(f, "{gap}--> {}:{number}:{column}", self.source.name)?;
        writeln!(f, "{gap} |")?;
        writeln!(f, "{number} | {}", shown.trim_end())?;
        writeln!(f, "{gap} | {indent}{marks}{label}")
    }

    /// Line and column in characters, both from 1.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.source.text[..floor(&self.source.text, at)];
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// The line at `at` and where it starts, without its end.
    fn line(&self, at: usize) -> (usize, &str) {
        let text = &self.source.text;
        let at = floor(text, at);
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
        (start, text[start..end].trim_end_matches('\r'))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.show(problem, f)?;
        }
        match self.problems.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Report {}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// The part of a line to show around a column (from 1), and how many characters before it are left out.
/// Some inventories are one long line.
fn window(line: &str, column: usize) -> (usize, String) {
    let fits = line.chars().count() <= LINE_CHARS_MAX;
    let first = if fits {
        0
    } else {
        (column - 1).saturating_sub(LINE_CHARS_MAX / 3)
    };
    // A tab is as wide as it is shown; one space keeps the mark under its text.
    let shown = masked(line)
        .chars()
        .skip(first)
        .take(LINE_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    (first, shown)
}

/// The line with every secret seed in it blotted out: people show their errors to others.
fn masked(line: &str) -> String {
    const TAG: &str = "mesh1-seed-";
    let mut parts = line.split(TAG);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_".contains(c));
        shown.push_str(TAG);
        shown.push_str(&"*".repeat(part.len() - rest.len()));
        shown.push_str(rest);
    }
    shown
}

/// The start of the character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
