//! A machine's end of the conversations with controllers, and of what peers say of rosters: the real state
//! machines, and what the agent's shell keeps beside them.

use std::{collections::BTreeMap, time::Duration};

use mesh_core::{Conversation, Errand, Gossip, Hint};
use mesh_types::{Instant, Serial};

use super::{HostId, channels::ChannelId};

/// How long the controllers may take to answer where a peer is: it is not asked about meanwhile.
const ENDPOINTS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may be silent that is asked for its roster, and how often the question is repeated.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const FETCH_REPEAT: Duration = Duration::from_secs(1);

/// What a machine knows of its controllers.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) lines: Vec<Line>,
    gossip: Gossip<HostId>,
    /// The serial that somebody spoke of last.
    rumoured: Option<Serial>,
    /// Peers of which was asked where they are, and when.
    asked: BTreeMap<HostId, Instant>,
    fetch: Option<Fetch>,
}

/// A peer that is asked for its roster.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    peer: HostId,
    repeat: Instant,
    until: Instant,
}

/// One controller.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) controller: HostId,
    pub(super) conversation: Conversation,
    pub(super) channel: Option<ChannelId>,
    pub(super) is_admitted: bool,
}

/// What a client wants done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// Of a controller.
    Errand(HostId, Errand),
    /// Ask a peer for its roster, inside the tunnel.
    Fetch(HostId),
}

impl Client {
    /// Begins to speak to these controllers.
    pub(super) fn new(controllers: &[HostId], seed: [u8; 32], now: Instant) -> Self {
        let line = |controller: &HostId| {
            let mut seed = seed;
            seed[0] ^= u8::try_from(controller.0).expect("at most 255 machines");
            Line {
                controller: *controller,
                conversation: Conversation::new(seed, Conversation::ROSTER_EVERY, now),
                channel: None,
                is_admitted: false,
            }
        };
        Self {
            lines: controllers.iter().map(line).collect(),
            ..Self::default()
        }
    }

    /// Whether there are controllers.
    pub(super) const fn is_there(&self) -> bool {
        !self.lines.is_empty()
    }

    pub(super) fn line_to(&mut self, controller: HostId) -> Option<&mut Line> {
        let mut lines = self.lines.iter_mut();
        lines.find(|line| line.controller == controller)
    }

    pub(super) fn line(&mut self, channel: ChannelId) -> Option<&mut Line> {
        let mut lines = self.lines.iter_mut();
        lines.find(|line| line.channel == Some(channel))
    }

    /// Connections to controllers that have admitted this machine.
    pub(super) fn admitted(&self) -> Vec<ChannelId> {
        let admitted = self.lines.iter().filter(|line| line.is_admitted);
        admitted.filter_map(|line| line.channel).collect()
    }

    /// The connection to a controller could not be had, or is over.
    pub(super) fn ended(&mut self, controller: HostId, now: Instant) {
        let others = self.lines.iter();
        let served = others
            .filter(|line| line.controller != controller)
            .any(|line| line.is_admitted);
        if let Some(line) = self.line_to(controller) {
            line.channel = None;
            line.is_admitted = false;
            line.conversation.ended(served, now);
        }
    }

    /// Somebody says that there is a roster with this serial.
    pub(super) fn hear_of(&mut self, serial: Serial, own: Option<Serial>) {
        if Some(serial) > own {
            self.rumoured = Some(serial);
            for line in &mut self.lines {
                line.conversation.hear_of_roster();
            }
        }
    }

    /// A peer says that it has a roster with this serial.
    pub(super) fn hear_from_peer(
        &mut self,
        peer: HostId,
        serial: Serial,
        own: Option<Serial>,
        now: Instant,
    ) {
        self.gossip.hear(peer, serial, own, now);
    }

    /// Another roster is in force.
    pub(super) fn roster_changed(&mut self, now: Instant) {
        for line in &mut self.lines {
            line.conversation.roster_changed(now);
        }
    }

    pub(super) fn endpoints_changed(&mut self) {
        for line in &mut self.lines {
            line.conversation.endpoints_changed();
        }
    }

    /// Whether the controllers are to be asked where a peer is.
    pub(super) fn asks(&mut self, peer: HostId, now: Instant) -> bool {
        let is_asked = self.asked.get(&peer);
        if is_asked.is_some_and(|at| now < *at + ENDPOINTS_TIMEOUT) {
            return false;
        }
        self.asked.insert(peer, now);
        true
    }

    /// A controller says where a peer is.
    pub(super) fn told(&mut self, peer: HostId) {
        self.asked.remove(&peer);
    }

    /// The peer that was asked gave its roster, or has none that is newer.
    pub(super) fn fetched(&mut self, own: Option<Serial>, now: Instant) {
        self.fetch = None;
        self.gossip.fetched(own, now);
    }

    /// When [`Client::poll`] is to be called without another reason.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let lines = self.lines.iter();
        let lines = lines.filter_map(|line| line.conversation.poll_timeout());
        let fetch = self.fetch.map(|fetch| fetch.repeat.min(fetch.until));
        lines.chain(self.gossip.poll_timeout()).chain(fetch).min()
    }

    /// What is to be done, each of it once; `own` is the serial in force.
    pub(super) fn poll(&mut self, own: Option<Serial>, now: Instant) -> Option<Wanted> {
        if let Some(fetch) = &mut self.fetch {
            if now >= fetch.until {
                self.fetched(own, now);
            } else if now >= fetch.repeat {
                fetch.repeat = now + FETCH_REPEAT;
                return Some(Wanted::Fetch(fetch.peer));
            }
        }
        loop {
            let served = self.lines.iter().any(|line| line.is_admitted);
            match self.gossip.poll_hint(own, served, now) {
                Some(Hint::AskControllers(serial)) => self.hear_of(serial, own),
                Some(Hint::Fetch(peer)) => {
                    self.fetch = Some(Fetch {
                        peer,
                        repeat: now + FETCH_REPEAT,
                        until: now + FETCH_TIMEOUT,
                    });
                    return Some(Wanted::Fetch(peer));
                }
                None => break,
            }
        }
        let is_behind = self.rumoured > own;
        self.lines.iter_mut().find_map(|line| {
            let errand = line.conversation.poll_errand(is_behind, now)?;
            Some(Wanted::Errand(line.controller, errand))
        })
    }
}
