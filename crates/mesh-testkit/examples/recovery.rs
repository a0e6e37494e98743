//! Measures every promise about recovery in simulated worlds, and prints a table: `recovery SEEDS`, or those alone
//! in whose event there is a text: `recovery SEEDS TEXT`.
#![expect(clippy::print_stdout, reason = "its output is the table")]

use std::{process::ExitCode, time::Duration};

use mesh_testkit::world::recovery::Promise;

fn main() -> ExitCode {
    let seeds: u64 = std::env::args()
        .nth(1)
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(1000);
    println!("| event | p50 | p99 | most | promised of 99 in 100 |");
    println!("|---|---|---|---|---|");
    let mut kept = true;
    let text = std::env::args().nth(2).unwrap_or_default();
    for promise in Promise::ALL
        .into_iter()
        .filter(|promise| promise.event().contains(&text))
    {
        let mut times: Vec<(Duration, u64)> = (0..seeds)
            .map(|seed| (promise.measure(seed), seed))
            .collect();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let is_kept = at(99).0 <= promise.bound();
        kept &= is_kept;
        println!(
            "| {} | {} | {} | {} (seed {}) | {}{} |",
            promise.event(),
            millis(at(50).0),
            millis(at(99).0),
            millis(at(100).0),
            at(100).1,
            millis(promise.bound()),
            if is_kept { "" } else { ", **not kept**" },
        );
    }
    let direct = (0..seeds)
        .filter(|seed| Promise::Direct.measure(*seed) != Duration::MAX)
        .count();
    let all = u64::try_from(direct) == Ok(seeds);
    kept &= all;
    println!(
        "| pairs direct, of those that the model says can be | {direct} of {seeds} | | | all{} |",
        if all { "" } else { ", **not kept**" },
    );
    if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn millis(time: Duration) -> String {
    if time == Duration::MAX {
        return "never".to_owned();
    }
    format!("{} ms", time.as_millis())
}
