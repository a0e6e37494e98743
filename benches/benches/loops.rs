//! How long each inner loop takes.
//!
//! ```text
//! cargo bench --package mesh-benches
//! ```

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use mesh_benches::loops::{CALLS, InnerLoop, Rounds, all};

fn main() {
    // A virtual machine's time is not so quiet that more would tell more.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for inner in all() {
        measure(&mut criterion, &inner);
    }
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, inner: &InnerLoop) {
    let (group, case) = inner.name.split_once('/').unwrap_or((&inner.name, ""));
    let mut group = criterion.benchmark_group(group);
    if let Some(bytes) = inner.bytes {
        group.throughput(Throughput::Bytes(bytes.try_into().unwrap_or(u64::MAX)));
    }
    group.bench_function(case, |bencher| {
        let mut rounds = inner.begin().expect("a loop that does what it should");
        bencher.iter_custom(|calls| {
            let count = usize::try_from(calls.div_ceil(CALLS.into())).unwrap_or(usize::MAX);
            let taken = (0..count).map(|_| time(rounds.as_mut(), &inner.name));
            // Nanoseconds are too coarse for a call, so the product comes first.
            let part = u128::from(calls) * median(taken.collect()).as_nanos() / u128::from(CALLS);
            Duration::from_nanos(part.try_into().unwrap_or(u64::MAX))
        });
    });
    group.finish();
}

/// How long a round takes.
fn time(rounds: &mut dyn Rounds, name: &str) -> Duration {
    rounds.prepare().expect("work for a round");
    let begin = Instant::now();
    let done = rounds.run();
    let taken = begin.elapsed();
    assert_eq!(done, CALLS, "`{name}` does what it should");
    taken
}

/// The round in the middle stands for all: rounds are short, and what other programs do to some of them does
/// not count.
fn median(mut taken: Vec<Duration>) -> Duration {
    taken.sort_unstable();
    taken.get(taken.len() / 2).copied().unwrap_or_default()
}
