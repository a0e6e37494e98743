//! How fast a pair recovers, measured.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::process::{cargo_command, root, shown};

/// The page, relative to the workspace.
const PAGE: &str = "docs/recovery.md";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Worlds for each measurement
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
}

/// Measures, and writes the page. Fails if a promise is not kept; the page says which.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let seeds = args.seeds;
    let mut command = cargo_command();
    command.args(["run", "--quiet"]);
    command.args(["--package", "mesh-testkit", "--example", "recovery", "--"]);
    command.arg(seeds.to_string());
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", shown(&command)))?;
    let table = String::from_utf8(output.stdout).context("no table came out")?;
    ensure!(
        table.starts_with('|'),
        "`{}` gave no table",
        shown(&command)
    );
    println!("{table}");
    fs::write(root().join(PAGE), page(seeds, &table))
        .with_context(|| format!("cannot write `{PAGE}`"))?;
    ensure!(
        output.status.success(),
        "not every promise is kept: see `{PAGE}`"
    );
    Ok(())
}

fn page(seeds: u64, table: &str) -> String {
    format!(
        "# How fast a pair recovers\n\n\
         Written by `cargo xtask recovery --seeds {seeds}`; do not edit it by hand.\n\n\
         ## In the simulator\n\n\
         The real engine and relay on a virtual clock (`docs/simulator.md`), {seeds} worlds for each line: two \
         nodes behind NATs of any kind that let each other through, two moons, lines of 2 to 60 ms each way. A \
         packet is sent each way every 20 ms. What is measured is the longest time in which none came in one \
         of the directions, from the event on.\n\n\
         {table}"
    )
}
