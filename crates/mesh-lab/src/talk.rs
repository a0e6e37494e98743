//! Two machines that send to each other through the mesh, to see what whatever happens costs them.

use std::{
    net::{Ipv6Addr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{Fleet, namespace::Namespace, wait::wait_until};

/// Between two packets in each direction.
const TICK: Duration = Duration::from_millis(20);

/// A talk: a packet each way every 20 ms, none of which is an answer to another.
#[derive(Debug)]
pub struct Talk {
    since: Instant,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    /// When packets came, in each direction.
    arrivals: [Mutex<Vec<Instant>>; 2],
}

impl Talk {
    /// Lets two machines, whose agents run, talk until this is dropped.
    ///
    /// # Errors
    ///
    /// There is no such machine, or what the kernel says.
    pub fn between(fleet: &Fleet, a: &str, b: &str) -> anyhow::Result<Self> {
        let ends = [a, b].map(|name| open(fleet.namespace(name)?, fleet.address(name)?));
        let [a, b] = ends;
        let (a, b) = (Arc::new(a?), Arc::new(b?));
        let shared = Arc::new(Shared::default());
        let since = Instant::now();
        let mut threads = Vec::new();
        for (direction, from, to) in [(0, &a, &b), (1, &b, &a)] {
            let destination = to.local_addr()?;
            let (sender, sending) = (from.clone(), shared.clone());
            threads.push(thread::spawn(move || sending.send(&sender, destination)));
            let (receiver, receiving) = (to.clone(), shared.clone());
            threads.push(thread::spawn(move || {
                receiving.receive(&receiver, direction);
            }));
        }
        Ok(Self {
            since,
            shared,
            threads,
        })
    }

    /// How long it took until a packet had come in each direction.
    ///
    /// # Errors
    ///
    /// None came in one of them within `patience` of the beginning.
    pub fn reached(&self, patience: Duration) -> anyhow::Result<Duration> {
        let deadline = self.since + patience;
        let first = wait_until(deadline.saturating_duration_since(Instant::now()), || {
            let first = |direction| self.shared.arrivals(direction).first().copied();
            first(0).zip(first(1)).ok_or(())
        });
        let Ok((a, b)) = first else {
            anyhow::bail!("nothing came in one of the directions within {patience:?}");
        };
        Ok(a.max(b) - self.since)
    }

    /// The longest time in which nothing came in one of the directions, of the time from `since` until
    /// `time` later, which is waited for.
    pub fn longest_gap(&self, since: Instant, time: Duration) -> Duration {
        let end = since + time;
        thread::sleep(end.saturating_duration_since(Instant::now()));
        let gap = |direction: usize| {
            let arrivals = self.shared.arrivals(direction);
            let mut last = since;
            let mut longest = Duration::ZERO;
            for at in arrivals.iter().copied().chain([end]) {
                if at <= since || at > end {
                    continue;
                }
                longest = longest.max(at - last);
                last = at;
            }
            longest
        };
        gap(0).max(gap(1))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Sends by the clock. What cannot be sent is as lost as what does not come.
    fn send(&self, socket: &UdpSocket, to: std::net::SocketAddr) {
        let start = Instant::now();
        for number in 0u32.. {
            let due = start + TICK * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            let _ = socket.send_to(&number.to_be_bytes(), to);
        }
    }

    fn receive(&self, socket: &UdpSocket, direction: usize) {
        let mut buffer = [0; 16];
        while !self.stopped.load(Ordering::Acquire) {
            // An error that an earlier packet met, or nothing for a tick: looked at again.
            if socket.recv(&mut buffer).is_ok() {
                self.arrivals(direction).push(Instant::now());
            }
        }
    }

    fn arrivals(&self, direction: usize) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.arrivals[direction]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(namespace: &Namespace, address: Ipv6Addr) -> anyhow::Result<UdpSocket> {
    let socket = namespace.run(|| {
        UdpSocket::bind((address, 0)).with_context(|| format!("cannot bind `{address}`"))
    })?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}
