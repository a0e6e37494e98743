use std::{
    fmt, panic,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{Failure, Summary, run_seed};

/// Between two lines that tell how far a campaign is.
const PROGRESS_EVERY: Duration = Duration::from_secs(20);

/// Many histories, and what came of them.
#[derive(Debug, Default)]
pub struct Campaign {
    /// What was seen where all went well.
    pub summary: Summary,
    /// Those that went wrong, by seed.
    pub failures: Vec<(u64, Failure)>,
    /// How many histories there were.
    pub histories: usize,
    /// Time on the wall.
    pub took: Duration,
}

/// A campaign that runs: what is left to do and what was seen.
struct Running<I> {
    histories: I,
    seen: Campaign,
    told: Instant,
}

impl Campaign {
    /// Runs histories, each a seed and a number of changes, on all cores, until there are no more or so many
    /// transitions were seen. `tell` is told what goes wrong at once, and from time to time how far it is.
    pub fn run<I>(histories: I, transitions: usize, tell: impl Fn(&str) + Sync) -> Self
    where
        I: IntoIterator<Item = (u64, usize)>,
        I::IntoIter: Send,
    {
        let began = Instant::now();
        let running = Mutex::new(Running {
            histories: histories.into_iter(),
            seen: Self::default(),
            told: began,
        });
        let lock = || running.lock().unwrap_or_else(PoisonError::into_inner);
        let next = || {
            let mut running = lock();
            let is_enough = running.seen.summary.transitions >= transitions;
            running.histories.next().filter(|_| !is_enough)
        };
        let work = || {
            while let Some((seed, changes)) = next() {
                let outcome = panic::catch_unwind(|| run_seed(seed, changes))
                    .unwrap_or_else(|_| Err(Failure::panicked()));
                let mut running = lock();
                running.seen.note(seed, outcome, &tell);
                if running.told.elapsed() >= PROGRESS_EVERY {
                    running.told = Instant::now();
                    running.seen.took = began.elapsed();
                    tell(&running.seen.progress());
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        let running = running.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut campaign = running.seen;
        campaign.failures.sort_by_key(|(seed, _)| *seed);
        campaign.took = began.elapsed();
        campaign
    }

    fn note(&mut self, seed: u64, outcome: Result<Summary, Failure>, tell: impl Fn(&str)) {
        self.histories += 1;
        match outcome {
            Ok(summary) => self.summary.add(summary),
            Err(failure) => {
                tell(&format!("seed {seed}: {failure}"));
                self.failures.push((seed, failure));
            }
        }
    }

    fn progress(&self) -> String {
        let transitions = self.summary.transitions;
        let per_second = transitions as f64 / self.took.as_secs_f64();
        format!(
            "{transitions} transitions in {} histories, {per_second:.0} a second, {} went wrong",
            self.histories,
            self.failures.len()
        )
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            time,
            direct,
            reached,
            introduced,
            ..
        } = &self.summary;
        let hours = time.as_secs() / 3600;
        writeln!(f, "{}; {hours} h of virtual time", self.progress())?;
        for (what, times) in [
            ("reached", reached),
            ("direct", direct),
            ("introduced", introduced),
        ] {
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
