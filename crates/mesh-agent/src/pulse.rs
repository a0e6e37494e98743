//! Whether the agent is alive, for the service manager's watchdog.
//!
//! Each thread of the data plane counts its rounds; while somebody watches, none sleeps for longer than
//! [`Pulse::nap`]. A task of the runtime looks at the counts and says `WATCHDOG=1` only if all have moved since
//! its last look. So a thread that is stuck, or a lock that the engine's timers wait for, or a runtime that
//! makes no progress, ends in silence, and the service manager starts the agent again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_os::notify::Notifier;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

/// Looks in a period of the watchdog: one that comes late, or finds a thread that is merely slow, is made up
/// for by the next.
const LOOKS: u32 = 3;

/// The counts.
#[derive(Debug)]
pub(crate) struct Pulse {
    watchdog: Option<Duration>,
    parts: Mutex<Vec<Part>>,
}

/// A thread that counts.
#[derive(Debug)]
struct Part {
    name: &'static str,
    rounds: Arc<Count>,
    /// What the last look saw.
    seen: u64,
}

/// The rounds of a thread. Alone in its cache lines, as each is written for every batch by another thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Counts a round.
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Pulse {
    /// `watchdog` is how often the service manager wants to hear of it at least; `None`: never.
    pub(crate) fn new(watchdog: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            watchdog,
            parts: Mutex::default(),
        })
    }

    /// Another thread, which is to count from now on.
    pub(crate) fn part(&self, name: &'static str) -> Arc<Count> {
        let rounds = Arc::<Count>::default();
        self.parts().push(Part {
            name,
            rounds: rounds.clone(),
            seen: 0,
        });
        rounds
    }

    /// The longest that a thread may sleep: half the time between two looks. `None`: nobody looks.
    pub(crate) fn nap(&self) -> Option<Duration> {
        Some(self.watchdog? / LOOKS / 2)
    }

    /// The threads that have made no round since the last look.
    fn look(&self) -> Vec<&'static str> {
        let mut still = Vec::new();
        for part in &mut *self.parts() {
            let rounds = part.rounds.0.load(Ordering::Relaxed);
            if std::mem::replace(&mut part.seen, rounds) == rounds {
                still.push(part.name);
            }
        }
        still
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Feeds the watchdog while every thread moves, for ever.
pub(crate) async fn feed(pulse: Arc<Pulse>, notifier: Arc<Notifier>) {
    let Some(watchdog) = pulse.watchdog else {
        return std::future::pending().await;
    };
    let mut looks = interval(watchdog / LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now; the threads get their time before the first look.
    looks.tick().await;
    loop {
        looks.tick().await;
        let still = pulse.look();
        if !still.is_empty() {
            warn!(
                threads = still.join(", "),
                "threads made no progress; the watchdog was not fed"
            );
            continue;
        }
        if let Err(error) = notifier.say("WATCHDOG=1") {
            debug!(%error, "could not feed the watchdog");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_thread_that_does_not_move_is_named() {
        let pulse = Pulse::new(None);
        let timers = pulse.part("timers");
        let outbound = [pulse.part("outbound"), pulse.part("outbound")];
        assert_eq!(pulse.look(), ["timers", "outbound", "outbound"]);
        timers.beat();
        outbound[1].beat();
        assert_eq!(pulse.look(), ["outbound"]);
        outbound[0].beat();
        assert_eq!(pulse.look(), ["timers", "outbound"]);
    }

    #[test]
    fn threads_move_between_any_two_looks() {
        let pulse = Pulse::new(Some(Duration::from_secs(30)));
        assert_eq!(pulse.nap(), Some(Duration::from_secs(5)));
        assert_eq!(Pulse::new(None).nap(), None);
    }

    #[tokio::test]
    async fn the_watchdog_is_fed_while_all_move_and_starves_with_one_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let manager = tokio::net::UnixDatagram::from_std(manager).unwrap();
        let notifier = Arc::new(Notifier::connect(path.as_os_str()).unwrap());
        let pulse = Pulse::new(Some(Duration::from_millis(60)));
        let parts = ["timers", "outbound", "inbound"].map(|name| pulse.part(name));
        let feeding = tokio::spawn(feed(pulse, notifier));
        let mut word = [0; 16];
        let mut rounds = interval(Duration::from_millis(1));
        let length = loop {
            tokio::select! {
                length = manager.recv(&mut word) => break length.unwrap(),
                _ = rounds.tick() => parts.iter().for_each(|part| part.beat()),
            }
        };
        assert_eq!(&word[..length], b"WATCHDOG=1");
        // The look after the last round of the outbound thread may still be content; those after it are not.
        let mut fed = 0;
        let end = tokio::time::Instant::now() + Duration::from_millis(400);
        while tokio::time::Instant::now() < end {
            tokio::select! {
                length = manager.recv(&mut word) => fed += usize::from(length.unwrap() > 0),
                _ = rounds.tick() => {
                    parts[0].beat();
                    parts[2].beat();
                }
            }
        }
        assert!(fed <= 1, "{fed}");
        feeding.abort();
    }
}
