//! How soon a pair of real processes behind the kernel's routers is well again, whatever happened.
//!
//! `… -- recovery ROUNDS` prints the namespaces' half of `docs/recovery.md`, and fails if a promise is not kept.
//! `… -- recovery ROUNDS mid-session` does so for the events that have this in their name.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mesh_lab::Promise;

/// Pairs that are measured at a time. They wait most of the time, so two cores bear a few.
const BESIDE: usize = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Pairs for each event
    #[arg(default_value_t = 20)]
    rounds: usize,
    /// Only events that have this in their name
    #[arg(default_value = "")]
    events: String,
}

pub(crate) fn run(program: &Path, args: &Args) -> anyhow::Result<()> {
    let rounds = args.rounds;
    println!("| event | p50 | p99 | most | promised of 99 in 100 |");
    println!("|---|---|---|---|---|");
    let mut broken = Vec::new();
    let mut direct = None;
    let is_wanted = |promise: &Promise| promise.to_string().contains(&args.events);
    for promise in Promise::ALL.into_iter().filter(is_wanted) {
        let mut times = measure(promise, program, rounds);
        times.sort_unstable();
        if promise == Promise::Direct {
            direct = Some(times.iter().filter(|time| **time < Duration::MAX).count());
        }
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        let is_kept = at(99) <= promise.bound();
        println!(
            "| {promise} | {} | {} | {} | {}{} |",
            millis(at(50)),
            millis(at(99)),
            millis(at(100)),
            millis(promise.bound()),
            if is_kept { "" } else { ", **not kept**" },
        );
        if !is_kept {
            broken.push(promise.event());
        }
    }
    if let Some(direct) = direct {
        let all = direct == rounds;
        println!(
            "| pairs direct, of those that can be ({} pairs of routers) | | | {direct} of {rounds} | 100 %{} |",
            Promise::STRAIGHT.len(),
            if all { "" } else { ", **not kept**" },
        );
        if !all {
            broken.push("pairs direct, of those that can be");
        }
    }
    anyhow::ensure!(broken.is_empty(), "not kept: {}", broken.join("; "));
    Ok(())
}

/// One measurement a round; [`Duration::MAX`] of one that came to no figure.
#[expect(clippy::print_stderr, reason = "why there is no figure")]
fn measure(promise: Promise, program: &Path, rounds: usize) -> Vec<Duration> {
    let next = AtomicUsize::new(0);
    let measure_some = || {
        let mut times = Vec::new();
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= rounds {
                return times;
            }
            let took = promise.measure(program, round).inspect_err(|error| {
                eprintln!("round {round} of \"{promise}\": {error:#}");
            });
            times.push(took.unwrap_or(Duration::MAX));
        }
    };
    thread::scope(|scope| {
        let some: Vec<_> = (0..BESIDE).map(|_| scope.spawn(measure_some)).collect();
        some.into_iter()
            .flat_map(|some| {
                some.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn millis(time: Duration) -> String {
    if time == Duration::MAX {
        return "never".to_owned();
    }
    format!("{} ms", time.as_millis())
}
