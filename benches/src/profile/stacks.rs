//! The samples of one process.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;

/// What was being done, from the outermost function to the innermost, and how often it was seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stacks(BTreeMap<Vec<String>, u64>);

impl Stacks {
    /// Those of a file that `perf record` wrote.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut perf = Command::new("perf");
        perf.args([
            "script",
            "--no-inline",
            "--fields",
            "comm,ip,sym",
            "--input",
        ]);
        let output = perf.arg(path).stderr(Stdio::null()).output();
        let output = output.context("cannot run `perf`")?;
        anyhow::ensure!(output.status.success(), "`perf script` failed");
        let stacks = Self::parse(&String::from_utf8_lossy(&output.stdout));
        anyhow::ensure!(!stacks.0.is_empty(), "`perf` has seen nothing");
        Ok(stacks)
    }

    /// Samples lie between empty lines: the thread's name, and then an address and a function in each line, the
    /// innermost first.
    fn parse(text: &str) -> Self {
        let mut stacks = Self::default();
        for sample in text.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
            let Some(thread) = lines.next() else {
                continue;
            };
            let functions = lines.filter_map(|line| line.trim_start().split_once(' '));
            let mut stack: Vec<String> = functions
                .map(|(_, function)| function)
                .filter(|function| *function != "[unknown]")
                .map(str::to_owned)
                .collect();
            stack.push(thread.trim().to_owned());
            stack.reverse();
            *stacks.0.entry(stack).or_default() += 1;
        }
        stacks
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[String], u64)> {
        self.0
            .iter()
            .map(|(stack, count)| (stack.as_slice(), *count))
    }

    /// How many samples there are.
    pub(super) fn count(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_up_from_the_outermost_function() {
        let text = "tun \n\t  4b2733 inner<K, V>::get\n\t  4da8cf outer\n\tffffffff [unknown]\n\n\
                    tun \n\t  4b2735 inner<K, V>::get\n\t  4da8cf outer\n\nudp \n\t 1 other\n\n";
        let stacks = Stacks::parse(text);
        let seen: Vec<_> = stacks
            .iter()
            .map(|(stack, count)| (stack.join(";"), count))
            .collect();
        let expected = [("tun;outer;inner<K, V>::get", 2), ("udp;other", 1)];
        assert_eq!(
            seen,
            expected.map(|(stack, count)| (stack.to_owned(), count))
        );
        assert_eq!(stacks.count(), 3);
    }
}
