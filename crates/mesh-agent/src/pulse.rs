//! Whether the agent is alive, for the service manager's watchdog.
//!
//! Each thread of the data plane counts its rounds; while somebody watches, none sleeps for longer than
//! [`Pulse::nap`]. A task of the runtime looks at the counts and says `WATCHDOG=1` only if all have moved since
//! its last look. So a thread that is stuck, or a lock that the engine's timers wait for, or a runtime that
//! makes no progress, ends in silence, and the service manager starts the agent again.

use std::{
    sync::{
        Arc,
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

/// The threads that count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Timers,
    Outbound,
    Inbound,
}

const PARTS: [(Part, &str); 3] = [
    (Part::Timers, "timers"),
    (Part::Outbound, "outbound"),
    (Part::Inbound, "inbound"),
];

/// The counts.
#[derive(Debug)]
pub(crate) struct Pulse {
    watchdog: Option<Duration>,
    rounds: [Count; PARTS.len()],
}

/// Alone in its cache lines, as each is written for every batch by another thread.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Pulse {
    /// `watchdog` is how often the service manager wants to hear of it at least; `None`: never.
    pub(crate) fn new(watchdog: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            watchdog,
            rounds: Default::default(),
        })
    }

    /// Counts a round of `part`.
    pub(crate) fn beat(&self, part: Part) {
        let Count(rounds) = &self.rounds[part as usize];
        rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// The longest that a thread may sleep: half the time between two looks. `None`: nobody looks.
    pub(crate) fn nap(&self) -> Option<Duration> {
        Some(self.watchdog? / LOOKS / 2)
    }

    /// The parts that have made no round since the look that left `seen`, and what this one sees.
    fn look(&self, seen: &mut [u64; PARTS.len()]) -> Vec<&'static str> {
        let mut still = Vec::new();
        for (part, name) in PARTS {
            let Count(rounds) = &self.rounds[part as usize];
            let rounds = rounds.load(Ordering::Relaxed);
            if std::mem::replace(&mut seen[part as usize], rounds) == rounds {
                still.push(name);
            }
        }
        still
    }
}

/// Feeds the watchdog while every thread moves, for ever.
pub(crate) async fn feed(pulse: Arc<Pulse>, notifier: Arc<Notifier>) {
    let Some(watchdog) = pulse.watchdog else {
        return std::future::pending().await;
    };
    let mut seen = [0; PARTS.len()];
    let mut looks = interval(watchdog / LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now; the threads get their time before the first look.
    looks.tick().await;
    loop {
        looks.tick().await;
        let still = pulse.look(&mut seen);
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
        let mut seen = [0; PARTS.len()];
        assert_eq!(pulse.look(&mut seen), ["timers", "outbound", "inbound"]);
        pulse.beat(Part::Timers);
        pulse.beat(Part::Inbound);
        assert_eq!(pulse.look(&mut seen), ["outbound"]);
        pulse.beat(Part::Outbound);
        assert_eq!(pulse.look(&mut seen), ["timers", "inbound"]);
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
        let feeding = tokio::spawn(feed(pulse.clone(), notifier));
        let mut word = [0; 16];
        let mut rounds = interval(Duration::from_millis(1));
        let length = loop {
            tokio::select! {
                length = manager.recv(&mut word) => break length.unwrap(),
                _ = rounds.tick() => PARTS.iter().for_each(|(part, _)| pulse.beat(*part)),
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
                    pulse.beat(Part::Timers);
                    pulse.beat(Part::Inbound);
                }
            }
        }
        assert!(fed <= 1, "{fed}");
        feeding.abort();
    }
}
