//! One process of the agent ends and the next goes on with its device, its socket and its sessions.
//!
//! The service manager keeps a copy of the device and of the socket from the start on, so both outlive a
//! crash, and what comes in between waits in the kernel's queues. The sessions are handed on at a stop in
//! good order alone, in memory that the next process empties when it reads it: whatever happens after,
//! nobody gets them twice. `docs/upgrade.md` tells the whole story.

use std::{io, os::fd::AsFd, time::Duration};

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

    /// The device of the last process if it is the one that is configured, else a new one; and whether it is
    /// new.
    pub(crate) fn tun(&mut self, config: &Config) -> Result<(Tun, bool), CreateTunError> {
        if let Some(tun) = self.adopt(TUN, |fd| Tun::adopt(fd, &config.interface)) {
            return Ok((tun, false));
        }
        let tun = Tun::create(&config.interface)?;
        self.keep(TUN, &tun);
        Ok((tun, true))
    }

    /// The socket of the last process if it is bound as configured, else a new one.
    pub(crate) fn socket(&mut self, config: &Config) -> anyhow::Result<UdpSocket> {
        let adopted = self.adopt(UDP, |fd| UdpSocket::adopt(fd, config.listen));
        if let Some(socket) = adopted {
            return Ok(socket);
        }
        let socket = UdpSocket::bind_address(config.listen)
            .context("cannot open the UDP port of the data plane")?;
        self.keep(UDP, &socket);
        Ok(socket)
    }

    /// Goes on with the sessions of the last process, if there are any. The overlay must have its peers,
    /// and no thread may carry packets yet. Returns where this process's sessions are to go.
    pub(crate) fn sessions(mut self, overlay: &Overlay) -> Option<Store> {
        if let Some(fd) = self.passed.one(SESSIONS) {
            // Emptied by this, for whoever else has it; a process that crashes from here on leaves none.
            let taken = memory::take(&fd, HANDOVER_BYTES_MAX);
            drop(fd);
            self.forget(SESSIONS);
            match taken {
                Ok(bytes) => go_on(overlay, &bytes),
                Err(error) => warn!(%error, "the last process's sessions cannot be read"),
            }
        }
        for name in self.passed.names() {
            debug!(name, "closed a descriptor that nobody asked for");
        }
        self.store
    }

    /// What `adopt` makes of the descriptor `name`. One that does not serve is closed, here and by the
    /// manager, before this returns, so that its name or port is free.
    fn adopt<T>(
        &mut self,
        name: &'static str,
        adopt: impl FnOnce(std::os::fd::OwnedFd) -> io::Result<T>,
    ) -> Option<T> {
        let was_passed = self.passed.names().contains(&name);
        match self.passed.one(name).map(adopt) {
            Some(Ok(adopted)) => return Some(adopted),
            Some(Err(error)) => info!(name, %error, "made anew what the last process had"),
            None => {}
        }
        if was_passed && let Some(store) = &self.store {
            self.forget(name);
            if let Err(error) = store.settle(MANAGER_PATIENCE) {
                warn!(name, %error, "the service manager does not let go of a descriptor");
            }
        }
        None
    }

    fn keep(&self, name: &str, fd: &impl AsFd) {
        if let Some(store) = &self.store
            && let Err(error) = store.keep(name, fd.as_fd())
        {
            warn!(name, %error, "the service manager does not keep a descriptor");
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
