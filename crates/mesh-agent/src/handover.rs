//! One process of the agent ends and the next goes on with its device, its sockets and its sessions.
//!
//! The service manager keeps a copy of the device and of the sockets from the start on, so both outlive a
//! crash, and what comes in between waits in the kernel's queues. The sessions are handed on at a stop in
//! good order alone, in memory that the next process empties when it reads it: whatever happens after,
//! nobody gets them twice. `docs/upgrade.md` tells the whole story.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use anyhow::Context as _;
use mesh_core::{HANDOVER_BYTES_MAX, Handover};
use mesh_os::{
    descriptors::{Passed, Store},
    memory,
    tun::{CreateTunError, Tun},
    udp::UdpSocket,
};
use tracing::{debug, info, warn};

use crate::{chain, config::Config, overlay::Overlay};

/// The names under which the service manager keeps the descriptors.
const TUN: &str = "tun";
const UDP: &str = "udp";
const SESSIONS: &str = "sessions";

/// The name of what ends when the supervisor does: a pipe whose other end is the supervisor's alone.
pub(crate) const LIFELINE: &str = "lifeline";

/// How long the service manager may take to act. It takes a millisecond; a stop has ten seconds in all.
const MANAGER_PATIENCE: Duration = Duration::from_secs(3);

/// What the last process left, and where this one's is kept.
#[derive(Debug)]
pub(crate) struct Inheritance {
    passed: Passed,
    store: Option<Store>,
}

impl Inheritance {
    /// Takes what was passed to this process. Comes before anything is opened.
    pub(crate) fn take() -> Self {
        let passed = Passed::take();
        let store = Store::offered().unwrap_or_else(|error| {
            warn!(%error, "the service manager cannot be reached; an upgrade will be noticed");
            None
        });
        Self { passed, store }
    }

    /// What ends when the supervisor does, where there is one.
    pub(crate) fn lifeline(&mut self) -> Option<OwnedFd> {
        self.passed.one(LIFELINE)
    }

    /// The device of the last process if it is the one that is configured, else a new one; and whether it is
    /// new.
    pub(crate) fn tun(&mut self, config: &Config) -> Result<(Tun, bool), CreateTunError> {
        let adopt = |fds| Tun::adopt(fds, &config.interface, config.offload);
        if let Some(tun) = self.adopt(TUN, adopt) {
            return Ok((tun, false));
        }
        let tun = Tun::create(&config.interface, config.offload, config.queues)?;
        self.keep(TUN, tun.descriptors());
        Ok((tun, true))
    }

    /// The sockets of the last process if they are bound as configured, else new ones.
    pub(crate) fn sockets(&mut self, config: &Config) -> anyhow::Result<Vec<UdpSocket>> {
        let adopt = |fds: Vec<OwnedFd>| {
            let sockets = fds.into_iter();
            sockets
                .map(|fd| UdpSocket::adopt(fd, config.listen))
                .collect()
        };
        if let Some(sockets) = self.adopt(UDP, adopt) {
            return Ok(sockets);
        }
        let sockets = UdpSocket::bind_group(config.listen, config.queues)
            .context("cannot open the UDP port of the data plane")?;
        self.keep(UDP, sockets.iter().map(AsFd::as_fd));
        Ok(sockets)
    }

    /// Goes on with the sessions of the last process, if there are any. The overlay must have its peers,
    /// and no thread may carry packets yet. Returns where this process's sessions are to go.
    pub(crate) fn sessions(mut self, overlay: &Overlay) -> Option<Store> {
        let all = self.passed.all(SESSIONS);
        if !all.is_empty() {
            // Emptied by this, for whoever else has them; a process that crashes from here on leaves none.
            let taken = all.iter().map(|fd| memory::take(fd, HANDOVER_BYTES_MAX));
            let mut taken: Vec<_> = taken.filter_map(report).collect();
            drop(all);
            self.forget(SESSIONS);
            match (taken.pop(), taken.is_empty()) {
                (Some(bytes), true) => go_on(overlay, &bytes),
                (Some(_), false) => warn!("several processes left sessions; they are made anew"),
                (None, _) => {}
            }
        }
        for name in self.passed.names() {
            debug!(name, "closed a descriptor that nobody asked for");
            // Of another release, perhaps: kept on, it would hold a port, or the room of what is needed.
            self.forget(name);
        }
        self.store
    }

    /// What `adopt` makes of the descriptors `name`. What does not serve is closed, here and by the
    /// manager, before this returns, so that its name or port is free.
    fn adopt<T>(
        &mut self,
        name: &'static str,
        adopt: impl FnOnce(Vec<OwnedFd>) -> io::Result<T>,
    ) -> Option<T> {
        let passed = self.passed.all(name);
        if passed.is_empty() {
            return None;
        }
        match adopt(passed) {
            Ok(adopted) => return Some(adopted),
            Err(error) => info!(name, %error, "made anew what the last process had"),
        }
        if let Some(store) = &self.store {
            self.forget(name);
            if let Err(error) = store.settle(MANAGER_PATIENCE) {
                warn!(name, %error, "the service manager does not let go of a descriptor");
            }
        }
        None
    }

    fn keep<'f>(&self, name: &str, fds: impl Iterator<Item = BorrowedFd<'f>>) {
        let Some(store) = &self.store else {
            return;
        };
        for fd in fds {
            if let Err(error) = store.keep(name, fd) {
                warn!(name, %error, "the service manager does not keep a descriptor");
            }
        }
    }

    fn forget(&self, name: &str) {
        if let Some(store) = &self.store
            && let Err(error) = store.forget(name)
        {
            warn!(name, %error, "the service manager cannot be told to close a descriptor");
        }
    }
}

/// The bytes, or `None` after saying why there are none.
fn report<T>(taken: io::Result<T>) -> Option<T> {
    taken
        .inspect_err(|error| warn!(%error, "the last process's sessions cannot be read"))
        .ok()
}

fn go_on(overlay: &Overlay, bytes: &[u8]) {
    let handover = match Handover::parse(bytes) {
        Ok(handover) => handover,
        Err(error) => {
            let error = chain(&error);
            return info!(error, "the last process's sessions are made anew");
        }
    };
    match overlay.take_over(handover) {
        Ok(taken) => info!(
            peers = taken.peers,
            sessions = taken.sessions,
            dropped = taken.dropped,
            "went on with the last process's sessions"
        ),
        Err(error) => {
            let error = chain(&error);
            info!(error, "the last process's sessions are made anew");
        }
    }
}

/// Ends the sessions of this process and leaves them to the next one. The data threads have stopped.
pub(crate) fn leave(overlay: &Overlay, store: &Store) {
    let left = memory::store(&overlay.hand_over())
        .and_then(|memory| store.keep(SESSIONS, memory.as_fd()))
        // Until the manager has its copy, ours is the only one.
        .and_then(|()| store.settle(MANAGER_PATIENCE));
    match left {
        Ok(()) => info!("left the sessions to the next process"),
        Err(error) => warn!(%error, "the next process makes its sessions anew"),
    }
}
