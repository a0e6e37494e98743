//! `cargo xtask instructions`: what a call of each inner loop costs in instructions, beside what was committed.

mod callgrind;
mod committed;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::{
    process::{is_installed, root},
    test::build_release,
};

/// The committed counts, relative to the workspace.
const FILE: &str = "benches/instructions.txt";

/// The program with the loops.
pub(crate) const PROGRAM: &str = "mesh-loops";

/// What `cargo xtask instructions` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write what was counted to `benches/instructions.txt`
    #[arg(long)]
    write: bool,
}

/// What became of a count.
pub(crate) enum Outcome {
    /// So many loops are within what was committed.
    Passed(usize),
    /// This machine cannot count as the one did whose counts are committed.
    Unavailable(&'static str),
}

/// Builds the loops, counts, prints a table, and fails if a loop grew, or writes what it counted.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(reason) = unavailable() {
        bail!("nothing was counted: {reason}");
    }
    build_release(&[PROGRAM])?;
    let counted = callgrind::count()?;
    if !args.write {
        return compare(&counted);
    }
    // What cannot be read is written anew.
    let before = read().unwrap_or_default();
    let comparison = committed::Comparison::new(&counted, &before);
    println!("{}", comparison.table());
    fs::write(path(), committed::emit(&counted))
        .with_context(|| format!("cannot write `{FILE}`"))?;
    println!("wrote `{FILE}`");
    for wrong in comparison.wrong() {
        println!("say why in a line of the commit message: {wrong}");
    }
    Ok(())
}

/// Counts with the program that is built, prints a table, and fails if a loop grew by more than it may.
pub(crate) fn check() -> anyhow::Result<Outcome> {
    if let Some(reason) = unavailable() {
        return Ok(Outcome::Unavailable(reason));
    }
    let counted = callgrind::count()?;
    compare(&counted)?;
    Ok(Outcome::Passed(counted.len()))
}

/// Prints a table, and fails if a loop grew by more than it may.
fn compare(counted: &committed::Counts) -> anyhow::Result<()> {
    let committed = read()?;
    let comparison = committed::Comparison::new(counted, &committed);
    println!("{}", comparison.table());
    let wrong: Vec<String> = comparison.wrong().collect();
    ensure!(
        wrong.is_empty(),
        "inner loops are not as they were committed:\n  {}\nIf that has to be so, run `cargo xtask instructions --write`, \
         commit `{FILE}` with the change, and say why in a line of the commit message",
        wrong.join("\n  ")
    );
    Ok(())
}

/// Why this machine does not count.
fn unavailable() -> Option<&'static str> {
    if !is_installed("valgrind") {
        return Some("`valgrind` is missing (Debian's package `valgrind`)");
    }
    (!is_like_the_one_that_counted())
        .then_some("the committed counts are of an x86-64 processor with AVX2")
}

/// What of the processor valgrind shows to programs, and by which they choose their code.
#[cfg(target_arch = "x86_64")]
fn is_like_the_one_that_counted() -> bool {
    is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_like_the_one_that_counted() -> bool {
    false
}

fn path() -> PathBuf {
    root().join(FILE)
}

fn read() -> anyhow::Result<committed::Counts> {
    let text = fs::read_to_string(path()).with_context(|| {
        format!("cannot read `{FILE}`; `cargo xtask instructions --write` makes it")
    })?;
    committed::parse(&text).with_context(|| format!("`{FILE}`"))
}
