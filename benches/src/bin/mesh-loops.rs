//! A round of each inner loop, to be run under callgrind: `cargo xtask instructions` does.
//!
//! Prints a line for each round, with the loop's name and the number of calls.

#![expect(clippy::print_stdout, reason = "a program that reports what it did")]

use mesh_benches::loops::{CALLS, all, counted_round};

fn main() -> anyhow::Result<()> {
    for inner in all() {
        let mut rounds = inner.begin()?;
        rounds.prepare()?;
        let done = counted_round(rounds.as_mut());
        anyhow::ensure!(done == CALLS, "`{}` does not do what it should", inner.name);
        println!("{} {CALLS}", inner.name);
    }
    Ok(())
}
