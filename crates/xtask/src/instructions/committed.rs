//! The committed counts, and what is said of others beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Context as _, ensure};

/// Instructions of a call, by the loop's name.
pub(super) type Counts = BTreeMap<String, u64>;

/// By how much a loop may grow unasked, in percent.
const GROWTH_PERCENT_MAX: u64 = 5;

const HEAD: &str = "\
# Instructions of a call of each inner loop under callgrind, on x86-64 with AVX2. Written by
# `cargo xtask instructions --write`; a change that makes a loop grow says why in its commit message.
";

/// Reads the file: a line for each loop, its name and its count.
pub(super) fn parse(text: &str) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, count) = line
            .split_once(char::is_whitespace)
            .with_context(|| format!("`{line}` is no name and count"))?;
        let count = count.trim().parse();
        let count = count.with_context(|| format!("`{line}` has no count"))?;
        let before = counts.insert(name.to_owned(), count);
        ensure!(before.is_none(), "`{name}` is there twice");
    }
    Ok(counts)
}

/// Writes the file, sorted by name.
pub(super) fn emit(counts: &Counts) -> String {
    let mut text = HEAD.to_owned();
    for (name, count) in counts {
        // A string takes everything.
        let _ = writeln!(text, "{name} {count}");
    }
    text
}

/// What was counted beside what was committed.
pub(super) struct Comparison<'a> {
    counted: &'a Counts,
    committed: &'a Counts,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(counted: &'a Counts, committed: &'a Counts) -> Self {
        Self { counted, committed }
    }

    /// A line for each loop.
    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "{:<32} {:>12} {:>12} {:>9}",
            "LOOP", "INSTRUCTIONS", "COMMITTED", "CHANGE"
        );
        for (name, counted, committed) in self.rows() {
            let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
            let change = match (counted, committed) {
                (Some(counted), Some(committed)) => change(counted, committed),
                _ => "-".to_owned(),
            };
            let _ = write!(
                table,
                "\n{name:<32} {:>12} {:>12} {change:>9}",
                number(counted),
                number(committed)
            );
        }
        table
    }

    /// What is wrong: loops that grew, that are not in the file, or no more in the program.
    pub(super) fn wrong(&self) -> impl Iterator<Item = String> {
        self.rows().filter_map(|(name, counted, committed)| {
            let (counted, committed) = match (counted, committed) {
                (Some(counted), Some(committed)) => (counted, committed),
                (Some(_), None) => return Some(format!("`{name}` has no committed count")),
                (None, _) => return Some(format!("`{name}` is committed, and is no loop")),
            };
            has_grown(counted, committed).then(|| {
                format!(
                    "`{name}` grew from {committed} to {counted} ({}; {GROWTH_PERCENT_MAX} % are allowed)",
                    change(counted, committed)
                )
            })
        })
    }

    /// All names, with both counts where they are.
    fn rows(&self) -> impl Iterator<Item = (&'a str, Option<u64>, Option<u64>)> {
        let (counted, committed) = (self.counted, self.committed);
        let names: BTreeSet<&'a str> = counted
            .keys()
            .chain(committed.keys())
            .map(String::as_str)
            .collect();
        names.into_iter().map(|name| {
            let of = |counts: &Counts| counts.get(name).copied();
            (name, of(counted), of(committed))
        })
    }
}

fn has_grown(counted: u64, committed: u64) -> bool {
    u128::from(counted) * 100 > u128::from(committed) * u128::from(100 + GROWTH_PERCENT_MAX)
}

/// In tenths of a percent: `+4.2 %`.
fn change(counted: u64, committed: u64) -> String {
    let sign = if counted < committed { '-' } else { '+' };
    let difference = u128::from(counted.abs_diff(committed));
    let tenths = difference * 1000 / u128::from(committed.max(1));
    format!("{sign}{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = counts(&[("seal/a/64", 700), ("open/a/64", 800)]);
        let text = emit(&all);
        assert!(text.ends_with("open/a/64 800\nseal/a/64 700\n"), "{text}");
        assert_eq!(parse(&text).unwrap(), all);
    }

    #[test]
    fn a_line_that_says_nothing_is_refused() {
        for text in ["seal", "seal x", "seal 7\nseal 8", "seal 7 8"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn over_five_percent_more_is_wrong_and_less_is_not() {
        let committed = counts(&[("a", 1000), ("b", 1000), ("c", 1000), ("d", 0)]);
        let counted = counts(&[("a", 1050), ("b", 1051), ("c", 10), ("d", 0)]);
        let comparison = Comparison::new(&counted, &committed);
        let wrong: Vec<_> = comparison.wrong().collect();
        assert_eq!(
            wrong,
            ["`b` grew from 1000 to 1051 (+5.1 %; 5 % are allowed)"]
        );
    }

    #[test]
    fn a_loop_of_one_side_alone_is_wrong() {
        let (counted, committed) = (counts(&[("new", 7)]), counts(&[("old", 7)]));
        let comparison = Comparison::new(&counted, &committed);
        assert_eq!(
            comparison.wrong().collect::<Vec<_>>(),
            [
                "`new` has no committed count",
                "`old` is committed, and is no loop"
            ]
        );
        assert!(comparison.table().contains("new"), "it is in the table");
    }

    #[test]
    fn a_change_has_a_sign_and_tenths() {
        assert_eq!(change(1_042, 1_000), "+4.2 %");
        assert_eq!(change(958, 1_000), "-4.2 %");
        assert_eq!(change(7, 7), "+0.0 %");
    }
}
