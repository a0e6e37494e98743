//! How fast a pair recovers, measured.

use std::{fs, process::Command, thread};

use anyhow::{Context as _, ensure};

use crate::{
    bench::BENCHES,
    process::{cargo, root, shown, target},
    test::{build_release, mesh_program, program},
};

/// The page, relative to the workspace.
const PAGE: &str = "docs/recovery.md";

/// What a table says of a promise that is not kept.
const NOT_KEPT: &str = "**not kept**";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Worlds for each measurement
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Pairs of real processes for each measurement
    #[arg(long, default_value_t = 30)]
    rounds: u64,
}

/// Measures, and writes the page. Fails if a promise is not kept, and says which.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // The same selection as for the unit tests: another would build most libraries once more.
    cargo([
        "build",
        "--quiet",
        "--workspace",
        "--exclude",
        "mesh-tests",
        "--examples",
    ])?;
    let mut simulated = Command::new(target().join("debug/examples/recovery"));
    simulated.arg(args.seeds.to_string());
    let simulated = table(simulated)?;
    build_release(&["mesh", BENCHES])?;
    let mut real = Command::new(program(BENCHES));
    real.args(["recovery", &args.rounds.to_string()]);
    real.env("MESH_BIN", mesh_program());
    let real = table(real)?;
    fs::write(root().join(PAGE), page(args, &simulated, &real))
        .with_context(|| format!("cannot write `{PAGE}`"))?;
    let broken = [
        ("simulated", not_kept(&simulated)),
        ("in namespaces", not_kept(&real)),
    ]
    .map(|(half, events)| events.map(|event| format!("{half}: {event}")).collect());
    let broken: Vec<String> = broken.into_iter().flat_map(|half: Vec<_>| half).collect();
    ensure!(
        broken.is_empty(),
        "not every promise is kept: {}",
        broken.join("; ")
    );
    Ok(())
}

/// The table that a program prints. It ends with a failure where the table says that something is not kept.
fn table(mut command: Command) -> anyhow::Result<String> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", shown(&command)))?;
    let table = String::from_utf8(output.stdout).context("no table came out")?;
    println!("{table}");
    ensure!(
        table.starts_with('|') && (output.status.success() || table.contains(NOT_KEPT)),
        "`{}` gave no table ({})",
        shown(&command),
        output.status
    );
    Ok(table)
}

/// The events whose promises are not kept.
fn not_kept(table: &str) -> impl Iterator<Item = &str> {
    table
        .lines()
        .filter(|line| line.contains(NOT_KEPT))
        .filter_map(|line| Some(line.split('|').nth(1)?.trim()))
}

fn page(args: &Args, simulated: &str, real: &str) -> String {
    let Args { seeds, rounds } = args;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "# How fast a pair recovers\n\n\
         Written by `cargo xtask recovery --seeds {seeds} --rounds {rounds}`; do not edit it by hand.\n\n\
         ## In the simulator\n\n\
         The real engine and relay on a virtual clock (`docs/simulator.md`), {seeds} worlds for each line: two \
         nodes behind NATs of any kind that let each other through, two moons, lines of 2 to 60 ms each way. A \
         packet is sent each way every 20 ms. What is measured is the longest time in which none came in one \
         of the directions, from the event on. There is no controller in these worlds: all of it holds while \
         it is dead.\n\n\
         {simulated}\n\
         ## In namespaces\n\n\
         Real processes of the release build behind the kernel's own routers (nftables in network namespaces), \
         {rounds} pairs for each line, each with fresh processes, two moons and no controller at all; three \
         pairs at a time on {cores} cores, Linux {kernel}. Packets and the measure are the same. Links have no \
         delay, so a round trip counts as nothing, and what remains is the program's own patience. For what \
         goes and comes back, the time begins when the machine is back. What stands still is the agent's \
         process alone, and its clock goes on; the clock's jump of a real sleep is in the simulator's half.\n\n\
         {real}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_is_not_kept_is_named() {
        let table = "| event | promised |\n|---|---|\n| it dies | 2 ms |\n| it moves | 1 ms, **not kept** |\n";
        assert_eq!(not_kept(table).collect::<Vec<_>>(), ["it moves"]);
    }
}
