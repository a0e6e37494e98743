use std::{
    fmt, panic,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Failure, Summary, run_seed};

/// Many histories, and what came of them.
#[derive(Debug, Default)]
pub struct Campaign {
    /// What was seen where all went well.
    pub summary: Summary,
    /// Those that went wrong, by seed.
    pub failures: Vec<(u64, Failure)>,
    /// Time on the wall.
    pub took: Duration,
}

impl Campaign {
    /// Runs histories, each a seed and a number of changes, on all cores.
    pub fn run(histories: &[(u64, usize)]) -> Self {
        let next = AtomicUsize::new(0);
        let seen = Mutex::new(Self::default());
        let began = Instant::now();
        let work = || {
            while let Some(&(seed, changes)) = histories.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = panic::catch_unwind(|| run_seed(seed, changes));
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(Ok(summary)) => seen.summary.add(summary),
                    Ok(Err(failure)) => seen.failures.push((seed, failure)),
                    Err(_) => seen.failures.push((seed, Failure::panicked())),
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        let mut campaign = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        campaign.failures.sort_by_key(|(seed, _)| *seed);
        campaign.took = began.elapsed();
        campaign
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            transitions,
            time,
            direct,
            reached,
        } = &self.summary;
        let per_second = *transitions as f64 / self.took.as_secs_f64();
        let hours = time.as_secs() / 3600;
        writeln!(
            f,
            "{transitions} transitions, {per_second:.0} a second; {hours} h of virtual time"
        )?;
        for (what, times) in [("reached", reached), ("direct", direct)] {
            let mut times = times.clone();
            times.sort_unstable();
            let at = |percent: usize| {
                let index = times.len().saturating_sub(1) * percent / 100;
                times.get(index).copied().unwrap_or_default()
            };
            let (p50, p99, most) = (at(50), at(99), at(100));
            let looks = times.len();
            writeln!(
                f,
                "{what}: {looks} looks, p50 {p50:?}, p99 {p99:?}, most {most:?}"
            )?;
        }
        for (seed, failure) in &self.failures {
            writeln!(f, "seed {seed}: {failure}")?;
        }
        Ok(())
    }
}
