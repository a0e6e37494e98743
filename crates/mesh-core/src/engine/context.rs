use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use blake2::{Blake2s256, Digest as _};
use mesh_types::Instant;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroize;

use super::{
    EngineConfig, Event, PeerId, measure::Holds, moons::Moons, output::Output, predict::Foretelling,
};
use crate::{
    Forwarding, Now, RelayServer, Remote, Stamp, StreamId, Via,
    cookie::ReceiverKeys,
    forwarding::{Entry, SessionTable},
    link::Link,
    noise::KeyPair,
    session::Session,
    stamps::Stamps,
};

/// What all peers of an engine share.
pub(super) struct Context {
    /// This node's key.
    pub(super) keys: KeyPair,
    /// The keys of messages to us.
    pub(super) receiver_keys: ReceiverKeys,
    pub(super) agent_address: Ipv6Addr,
    pub(super) large_packets: bool,
    pub(super) rng: ChaCha20Rng,
    pub(super) stamps: Stamps,
    pub(super) forwarding: Arc<Forwarding>,
    pub(super) output: Output,
    pub(super) moons: Moons,
    /// How long this machine's NATs hold a mapping.
    pub(super) holds: Holds,
    /// The peer whose ports are being foretold.
    pub(super) foretelling: Foretelling,
    /// The port from which this node knocks if not from its own, as a moon.
    pub(super) other_port: Option<u16>,
    /// What relays for others, if this node does.
    pub(super) relay_server: Option<Arc<RelayServer>>,
    /// Where this node may be reached, as it knows itself.
    pub(super) own_endpoints: Vec<SocketAddr>,
    /// It was said that this node has no endpoints at all.
    pub(super) offline: bool,
    /// Our index of every handshake that waits for a response.
    pub(super) attempts: BTreeMap<u32, PeerId>,
    /// The table of all sessions; what the data threads see is a copy.
    sessions: SessionTable,
    /// Whether the copy is out of date.
    sessions_changed: bool,
}

impl Context {
    pub(super) fn new(mut config: EngineConfig, now: Instant) -> Self {
        let keys = KeyPair::new(config.static_secret);
        let rng = ChaCha20Rng::from_seed(config.seed);
        // Not drawn, so that what is drawn stays what it is without rules.
        let flows_secret = Blake2s256::new()
            .chain_update(b"mesh flows")
            .chain_update(config.seed)
            .finalize()
            .into();
        config.seed.zeroize();
        Self {
            receiver_keys: ReceiverKeys::new(&keys.public),
            keys,
            agent_address: config.agent_address,
            large_packets: config.large_packets,
            rng,
            stamps: Stamps::new(config.stamp_floor),
            forwarding: Arc::new(Forwarding::new(config.agent_address, &flows_secret)),
            output: Output::default(),
            moons: Moons::default(),
            holds: Holds::new(now),
            foretelling: Foretelling::default(),
            other_port: None,
            relay_server: None,
            own_endpoints: Vec::new(),
            offline: false,
            attempts: BTreeMap::new(),
            sessions: SessionTable::default(),
            sessions_changed: false,
        }
    }

    /// An index that no session and no handshake has.
    pub(super) fn free_index(&mut self) -> u32 {
        // At most a few of 2^32 are taken, so this ends soon.
        loop {
            let index = self.rng.next_u32();
            if !self.sessions.contains_key(&index) && !self.attempts.contains_key(&index) {
                return index;
            }
        }
    }

    /// Whose handshake or session has this index.
    pub(super) fn owner_of(&self, index: u32) -> Option<PeerId> {
        let session = self.sessions.get(&index);
        session
            .map(|entry| *entry.link.peer.as_bytes())
            .or_else(|| self.attempts.get(&index).copied())
    }

    pub(super) fn ephemeral(&mut self) -> KeyPair {
        self.keys.ephemeral(&mut self.rng)
    }

    pub(super) fn add_session(&mut self, session: &Arc<Session>, link: &Arc<Link>) {
        let entry = Entry {
            session: Arc::clone(session),
            link: Arc::clone(link),
        };
        self.sessions.insert(session.local_index, entry);
        self.sessions_changed = true;
    }

    /// Ends a session: for those who hold it at once, and for good when the last of them lets go.
    pub(super) fn end_session(&mut self, session: &Session) {
        session.retire();
        self.sessions.remove(&session.local_index);
        self.sessions_changed = true;
    }

    /// Shows the data threads the sessions as they are.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.sessions_changed) {
            self.forwarding.set_sessions(self.sessions.clone());
        }
    }

    /// What stands for the sender of a handshake where those of one source are counted: for a relayed one
    /// the moon, for a stream an address that no datagram has (RFC 6666).
    pub(super) fn source(&self, via: Via) -> Option<SocketAddr> {
        let remote = match via {
            Via::Direct(remote) => remote,
            Via::Relay(key) => self.moons.open().find(|moon| moon.key == key)?.remote,
        };
        Some(match remote {
            Remote::Udp(endpoint) => endpoint,
            Remote::Stream(StreamId { number, .. }) => {
                let discard = 0x0100_u128 << 112;
                SocketAddr::new(Ipv6Addr::from(discard | u128::from(number)).into(), 0)
            }
        })
    }

    /// The next stamp; `None` while it waits for the disk.
    pub(super) fn take_stamp(&mut self, now: Now) -> Option<Stamp> {
        self.ask_for_stamps(now);
        self.stamps.take(now.wall)
    }

    pub(super) fn ask_for_stamps(&mut self, now: Now) {
        if let Some(until) = self.stamps.reservation_due(now.wall) {
            self.output.event(Event::ReserveStamps { until });
        }
    }
}
