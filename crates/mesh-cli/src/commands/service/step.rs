//! What installing and uninstalling are made of, and how a plan of it reads.

use std::{fmt::Write as _, path::PathBuf};

use serde::Serialize;

/// One thing that is done to the machine. Doing it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(super) enum Step {
    /// Makes a directory that anyone may enter.
    MakeDir {
        /// Where.
        path: PathBuf,
        /// What for.
        why: String,
    },
    /// Puts a copy of the running program there, by a rename: what runs from there goes on with the old one.
    CopyProgram {
        /// Where.
        path: PathBuf,
        /// What for.
        why: String,
        /// Whether another one is there.
        replaces: bool,
    },
    /// Makes a symbolic link.
    Link {
        /// Where.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Writes a file as a whole.
    Write {
        /// Where.
        path: PathBuf,
        /// What.
        text: String,
        /// What for.
        why: String,
        /// What it says before; `None`: it is not there.
        was: Option<String>,
    },
    /// Makes the machine's identity, which is never overwritten.
    MakeIdentity {
        /// Where.
        path: PathBuf,
    },
    /// Runs a command to its end.
    Run {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// Removes a file.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Removes a directory if it is empty.
    RemoveDir {
        /// Which.
        path: PathBuf,
    },
    /// Removes a directory and all that is in it.
    RemoveTree {
        /// Which.
        path: PathBuf,
    },
}

/// What is to be done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Plan {
    /// The steps.
    pub(super) steps: Vec<Step>,
    /// What the reader should know beside.
    pub(super) notes: Vec<String>,
}

/// A command from its words.
pub(super) fn run<const N: usize>(words: [&str; N]) -> Step {
    Step::Run {
        command: words.map(str::to_owned).to_vec(),
    }
}

impl Step {
    /// The step in one line: a sign and the thing.
    pub(super) fn line(&self) -> String {
        match self {
            Self::MakeDir { path, why } => format!("+ {:<48} {why}", shown(path, true)),
            Self::CopyProgram {
                path,
                why,
                replaces,
            } => format!("{} {:<48} {why}", sign(*replaces), shown(path, false)),
            Self::Link { path, target } => {
                format!("+ {:<48} -> {}", shown(path, false), target.display())
            }
            Self::Write { path, why, was, .. } => {
                format!("{} {:<48} {why}", sign(was.is_some()), shown(path, false))
            }
            Self::MakeIdentity { path } => format!(
                "+ {:<48} this machine's identity, made once and kept",
                shown(path, false)
            ),
            Self::Run { command } => {
                let words: Vec<_> = command.iter().map(|word| quoted(word)).collect();
                format!("$ {}", words.join(" "))
            }
            Self::Remove { path } => format!("- {}", shown(path, false)),
            Self::RemoveDir { path } => format!("- {:<48} if it is empty", shown(path, true)),
            Self::RemoveTree { path } => format!("- {:<48} and all in it", shown(path, true)),
        }
    }
}

impl Plan {
    /// The plan as a person reads it before agreeing: a line a step, and what changes in a file.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {}", step.line());
            if let Step::Write {
                text: new,
                was: Some(old),
                ..
            } = step
            {
                for line in changed_lines(old, new) {
                    let _ = writeln!(text, "      {line}");
                }
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }
}

fn sign(replaces: bool) -> char {
    if replaces { '~' } else { '+' }
}

fn shown(path: &std::path::Path, is_dir: bool) -> String {
    let slash = if is_dir { "/" } else { "" };
    format!("{}{slash}", path.display())
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    match word.contains(char::is_whitespace) {
        true => format!("'{word}'"),
        false => word.to_owned(),
    }
}

/// The lines from the first that differs to the last, the old ones and then the new ones.
fn changed_lines(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let shorter = old.len().min(new.len());
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>, most: usize| {
        pairs.take(most).take_while(|(old, new)| old == new).count()
    };
    let before = same(&mut old.iter().zip(&new), shorter);
    let after = same(
        &mut old.iter().rev().zip(new.iter().rev()),
        shorter - before,
    );
    let removed = old[before..old.len() - after].iter();
    let added = new[before..new.len() - after].iter();
    removed
        .map(|line| format!("-{line}"))
        .chain(added.map(|line| format!("+{line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_in_a_file_is_shown_and_nothing_else() {
        let old = "[Service]\nType=simple\nUser=mesh\n";
        let new = "[Service]\nType=notify\nWatchdogSec=30s\nUser=mesh\n";
        assert_eq!(
            changed_lines(old, new),
            ["-Type=simple", "+Type=notify", "+WatchdogSec=30s"]
        );
        assert!(changed_lines(new, new).is_empty());
        assert_eq!(changed_lines("", "a\n"), ["+a"]);
        assert_eq!(changed_lines("a\na\n", "a\n"), ["-a"]);
    }
}
