//! The engine and its owner's duties: what it wants sent is sent, what it tells is passed on, its timers run.
//!
//! The data threads take the lock only for what they cannot do alone (handshakes, packets without a
//! session), so it is never held for a packet of an established session.

mod look;
mod news;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::Thread,
    time::Duration,
};

use mesh_core::{
    Engine, EngineConfig, Forwarding, Handover, Now, OPENER_HOPS, PacketRefused, Received, Remote,
    Stamp, TakeOverError, TakenOver, Via,
};
use mesh_inventory::roster::Roster;
use mesh_os::{clock, udp::UdpSocket};
use mesh_types::{IdentitySeed, MachineName, PublicIdentity, Serial, WireguardPublicKey};
use rand::RngCore;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{debug, trace};
use zeroize::Zeroizing;

pub(crate) use self::{look::Tale, news::News};
use crate::{
    measure::Measuring,
    peers::{self, Directory},
    relay::{Moon, streams::Streams},
    rules::Rulebook,
};

/// News that wait for the control plane; further ones are dropped, as each comes again, and the
/// reservation of stamps, which does not, is kept.
const NEWS_MAX: usize = 1024;

/// What may wait for the task that measures: one measurement says something once a second.
const MEASURING_MAX: usize = 16;

/// How long a moon is given to say whether it will knock.
const KNOCK_ANSWERED: Duration = Duration::from_millis(800);

/// Pings that may wait for their answers at a time.
const PINGS_MAX: usize = 1024;

/// How a ping ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PingOutcome {
    /// The peer answered.
    Answered {
        /// The round trip.
        rtt: Duration,
        /// Where the peer is, unless a moon relays.
        endpoint: Option<SocketAddr>,
        /// The moon that relays.
        relay: Option<MachineName>,
    },
    /// No answer came in time.
    Unanswered,
    /// Others wait already, more than are allowed.
    TooMany,
}

/// What a moon says to a request for a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnockAnswer {
    /// The knock's.
    pub(crate) id: u64,
    pub(crate) agreed: bool,
    pub(crate) other_port: Option<u16>,
}

/// The engine with what surrounds it. Shared by the data threads, the timer thread and the control plane.
pub(crate) struct Overlay {
    pub(crate) forwarding: Arc<Forwarding>,
    /// One at least. All have one port, and each what comes from some of the senders.
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) moon: Moon,
    pub(crate) rules: Rulebook,
    pub(crate) streams: Streams,
    /// The moons that are asked to relay for this machine, and what each is reached by.
    pub(crate) moons: watch::Sender<Vec<(WireguardPublicKey, Option<Remote>)>>,
    /// Told when a peer is wanted that no moon relays to.
    pub(crate) moons_wanted: Notify,
    /// What the ways to peers carry, where that is not [`MTU_BASE`].
    pub(crate) mtus: watch::Sender<BTreeMap<WireguardPublicKey, u16>>,
    /// Where the numbers of packets that are cut begin, so that two processes' differ.
    pub(crate) first_cut: u32,
    state: Mutex<State>,
    news: mpsc::Sender<News>,
    /// The thread that runs the engine's timers.
    timer: OnceLock<Thread>,
    /// To the task that measures, and what it takes.
    measuring: mpsc::Sender<Measuring>,
    measured: Mutex<Option<mpsc::Receiver<Measuring>>>,
    /// A moon's second port.
    other: OnceLock<Arc<tokio::net::UdpSocket>>,
}

struct State {
    engine: Engine,
    directory: Directory,
    pings: HashMap<(WireguardPublicKey, u64), oneshot::Sender<(Duration, Via)>>,
    /// Who waits for a moon to say whether it will knock.
    knocks: HashMap<(WireguardPublicKey, u64), oneshot::Sender<KnockAnswer>>,
    /// Serial and head hash of the roster in force, to be told to peers.
    epoch: Option<(Serial, [u8; 32])>,
    /// Stamps that are to be reserved, and of which the control plane has not heard.
    unreserved: Option<Stamp>,
    /// Where peers were before this process, and whose strays come from there.
    remembered: HashMap<SocketAddr, MachineName>,
}

impl Overlay {
    /// Makes an engine without peers on `sockets`. `stamp_floor` is what was reserved on disk last.
    pub(crate) fn new(
        identity: &IdentitySeed,
        agent_address: Ipv6Addr,
        stamp_floor: Stamp,
        sockets: Vec<UdpSocket>,
    ) -> (Self, mpsc::Receiver<News>) {
        let mut seed = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut seed);
        let config = EngineConfig {
            static_secret: identity.static_secret(),
            agent_address,
            seed,
            stamp_floor,
            large_packets: true,
        };
        let engine = Engine::new(config, now());
        let (news, receiver) = mpsc::channel(NEWS_MAX);
        let (measuring, measured) = mpsc::channel(MEASURING_MAX);
        let overlay = Self {
            forwarding: engine.forwarding(),
            sockets,
            moon: Moon::new(),
            rules: Rulebook::default(),
            streams: Streams::default(),
            moons: watch::Sender::default(),
            moons_wanted: Notify::new(),
            mtus: watch::Sender::default(),
            first_cut: rand::rngs::OsRng.next_u32(),
            state: Mutex::new(State {
                engine,
                directory: Directory::default(),
                pings: HashMap::new(),
                knocks: HashMap::new(),
                epoch: None,
                unreserved: None,
                remembered: HashMap::new(),
            }),
            news,
            timer: OnceLock::new(),
            measuring,
            measured: Mutex::new(Some(measured)),
            other: OnceLock::new(),
        };
        (overlay, receiver)
    }

    /// Brings the peers in line with `roster`: who is gone loses its sessions before this returns.
    pub(crate) fn apply_roster(&self, roster: &Roster, own: &PublicIdentity) {
        let mut peers = peers::of_roster(roster, own);
        self.rules.apply(roster, own, &mut peers);
        let moons = peers::moons(roster);
        let relay_server = self.moon.apply_roster(roster, own);
        self.streams
            .retain(|peer| peers.iter().any(|(_, config)| config.key == *peer));
        self.mtus.send_if_modified(|mtus| {
            let before = mtus.len();
            mtus.retain(|peer, _| peers.iter().any(|(_, config)| config.key == *peer));
            mtus.len() != before
        });
        self.with(|state, now| {
            state.directory.replace(&peers);
            state.epoch = Some((roster.head().serial, roster.head_hash().0));
            let configs = peers.into_iter().map(|(_, peer)| peer).collect();
            state.engine.set_peers(configs, now);
            state.engine.set_moons(&moons, now);
            state.engine.set_relay_server(relay_server);
            state.tell_epoch(now);
        });
    }

    /// Hears where `peer` may be reached.
    pub(crate) fn add_candidates(&self, peer: &MachineName, endpoints: &[SocketAddr]) {
        self.with(|state, now| {
            let Some(key) = state.directory.key(peer) else {
                return;
            };
            let known = state.directory.hear(key, endpoints);
            state.engine.set_candidates(&key, known, now);
        });
    }

    /// Opens this side towards `peer`, which is about to do the same.
    pub(crate) fn introduce(&self, peer: &MachineName, endpoints: &[SocketAddr]) {
        self.with(|state, now| {
            let Some(key) = state.directory.key(peer) else {
                return;
            };
            let known = state.directory.hear(key, endpoints);
            state.engine.introduce(&key, known, now);
        });
    }

    /// Looks for the clients that this machine relayed for before it was started anew, where they were.
    pub(crate) fn recall_clients(&self, clients: &BTreeMap<MachineName, SocketAddr>) {
        self.with(|state, now| {
            let clients = clients.iter();
            let known: Vec<_> = clients
                .filter_map(|(name, at)| Some((state.directory.key(name)?, *at)))
                .collect();
            state.engine.recall_clients(known, now);
        });
    }

    /// Hears where peers were before this process. Nothing is sent there before something comes from there.
    pub(crate) fn set_remembered(&self, endpoints: &BTreeMap<MachineName, SocketAddr>) {
        let by_endpoint = endpoints.iter().map(|(name, at)| (*at, name.clone()));
        self.lock().remembered = by_endpoint.collect();
    }

    /// Probes every peer, and says how many there are.
    pub(crate) fn probe_all(&self) -> u64 {
        self.with(|state, now| {
            let keys: Vec<_> = state.directory.keys().collect();
            for key in &keys {
                state.engine.probe(key, now);
            }
            u64::try_from(keys.len()).unwrap_or(u64::MAX)
        })
    }

    /// Sends one echo inside the tunnel and waits for the answer. Dropping the future gives up waiting.
    pub(crate) async fn ping(&self, peer: &MachineName, timeout: Duration) -> PingOutcome {
        let (answer, answered) = oneshot::channel();
        let sent = self.with(|state, now| {
            state.pings.retain(|_, waiting| !waiting.is_closed());
            if state.pings.len() >= PINGS_MAX {
                return Err(PingOutcome::TooMany);
            }
            let key = state.directory.key(peer).ok_or(PingOutcome::Unanswered)?;
            let id = state
                .engine
                .probe(&key, now)
                .ok_or(PingOutcome::Unanswered)?;
            state.pings.insert((key, id), answer);
            Ok(())
        });
        if let Err(outcome) = sent {
            return outcome;
        }
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok((rtt, via))) => PingOutcome::Answered {
                rtt,
                endpoint: via.udp(),
                relay: self.lock().directory.relay(via),
            },
            Ok(Err(_)) | Err(_) => PingOutcome::Unanswered,
        }
    }

    /// Asks a moon to knock, and waits for what it says. Dropping the future gives up waiting.
    pub(crate) async fn ask_knock(
        &self,
        moon: WireguardPublicKey,
        to: SocketAddr,
        proof: u64,
        from_other_port: bool,
    ) -> Option<KnockAnswer> {
        let (answer, answered) = oneshot::channel();
        self.with(|state, now| {
            state.knocks.retain(|_, waiting| !waiting.is_closed());
            if state.knocks.len() >= PINGS_MAX {
                return;
            }
            let id = state
                .engine
                .request_knock(&moon, to, proof, from_other_port, now);
            if let Some(id) = id {
                state.knocks.insert((moon, id), answer);
            }
        });
        let answer = tokio::time::timeout(KNOCK_ANSWERED, answered).await;
        answer.ok()?.ok()
    }

    /// What the task that measures takes; `None`: somebody has it.
    pub(crate) fn take_measured(&self) -> Option<mpsc::Receiver<Measuring>> {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.take()
    }

    /// Something came to the socket of a measurement.
    pub(crate) fn handle_measured(&self, from: SocketAddr, datagram: &[u8]) {
        self.with(|state, now| state.engine.handle_measured(from, datagram, now));
    }

    /// Sets a moon's second port, for the life of the process.
    pub(crate) fn set_other_socket(
        &self,
        socket: tokio::net::UdpSocket,
    ) -> Arc<tokio::net::UdpSocket> {
        let socket = self.other.get_or_init(|| Arc::new(socket)).clone();
        let port = socket.local_addr().ok().map(|bound| bound.port());
        self.with(|state, _| state.engine.set_other_port(port));
        socket
    }

    /// The name of the peer with this key.
    pub(crate) fn name_of(&self, key: &WireguardPublicKey) -> Option<MachineName> {
        self.lock().directory.name(key).cloned()
    }

    /// A stream to `peer` was opened, or is over.
    pub(crate) fn streams_changed(&self, peer: &WireguardPublicKey) {
        self.with(|state, now| {
            let streams = self.streams.of(peer);
            state.engine.set_streams(peer, &streams, now);
        });
    }

    /// Where this machine may be reached, as it knows itself.
    pub(crate) fn set_own_endpoints(&self, endpoints: Vec<SocketAddr>) {
        self.with(|state, now| state.engine.set_own_endpoints(endpoints, now));
    }

    /// This machine's addresses changed: peers are greeted anew, and so learn the new ones.
    pub(crate) fn network_changed(&self) {
        self.with(|state, now| state.engine.network_changed(now));
    }

    /// Stamps up to `until` are on disk.
    pub(crate) fn stamps_reserved(&self, until: Stamp) {
        self.with(|state, now| state.engine.stamps_reserved(until, now));
    }

    /// Whether this machine's clock may be used for stamps.
    pub(crate) fn trust_clock(&self, trusted: bool) {
        self.with(|state, _| state.engine.trust_clock(trusted));
    }

    /// A packet from the TUN for which there is no session.
    ///
    /// # Errors
    ///
    /// It is larger than this, which is what its way carries: its sender is to be told.
    pub(crate) fn handle_packet(&self, packet: &[u8]) -> Result<(), u16> {
        self.with(|state, now| match state.engine.handle_packet(packet, now) {
            Ok(()) => Ok(()),
            Err(PacketRefused::TooBig(mtu)) => Err(mtu),
            Err(refused) => {
                trace!(%refused, "packet dropped");
                Ok(())
            }
        })
    }

    /// A datagram that is no transport message.
    pub(crate) fn handle_datagram(&self, from: Remote, datagram: &mut [u8]) {
        self.with(
            |state, now| match state.engine.handle_datagram(from, datagram, now) {
                Received::Refused(refusal) => trace!(%refusal, "datagram dropped"),
                Received::Consumed | Received::Packet { .. } => {}
            },
        );
    }

    /// A packet that a peer's agent sent to this one.
    pub(crate) fn handle_agent_packet(&self, peer: &WireguardPublicKey, via: Via, packet: &[u8]) {
        self.with(|state, now| state.engine.handle_agent_packet(peer, via, packet, now));
    }

    /// Data of a session that is not known, from `from`.
    pub(crate) fn handle_stray(&self, from: Remote) {
        self.with(|state, now| {
            if let Some(endpoint) = from.udp()
                && let Some(peer) = state.remembered.get(&endpoint)
                && let Some(key) = state.directory.key(peer)
            {
                state.engine.set_candidates(&key, vec![endpoint], now);
            }
            state.engine.handle_stray(from, now);
        });
    }

    /// Runs the timers that are due. Returns how long until the next; `None`: none is set.
    pub(crate) fn run_timers(&self) -> Option<Duration> {
        let timeout = self.with(|state, now| {
            state.engine.handle_timeout(now);
            state.engine.poll_timeout()
        });
        timeout.map(|at| at.saturating_since(clock::now()))
    }

    /// Goes on with the sessions of another process of this agent, once the roster is applied.
    pub(crate) fn take_over(&self, handover: Handover) -> Result<TakenOver, TakeOverError> {
        self.with(|state, now| {
            let taken = state.engine.take_over(handover, now)?;
            state.tell_epoch(now);
            Ok(taken)
        })
    }

    /// Ends all sessions here, and gives what the next process goes on with: keys, which must never touch
    /// a disk. No thread may carry packets any more.
    pub(crate) fn hand_over(&self) -> Zeroizing<Vec<u8>> {
        self.lock().engine.hand_over(now())
    }

    /// Names the thread that calls [`Overlay::run_timers`].
    pub(crate) fn set_timer_thread(&self, thread: Thread) {
        // There is one for the whole life of the process.
        let _ = self.timer.set(thread);
    }

    /// Makes the timer thread look again.
    pub(crate) fn wake_timer(&self) {
        if let Some(timer) = self.timer.get() {
            timer.unpark();
        }
    }

    /// Does something with the engine, and then what it wants done.
    fn with<T>(&self, act: impl FnOnce(&mut State, Now) -> T) -> T {
        let mut state = self.lock();
        let now = now();
        let before = state.engine.poll_timeout();
        let result = act(&mut state, now);
        // Events first: what is done about them may have something to send.
        while let Some(event) = state.engine.poll_event() {
            self.tell(&mut state, event, now);
        }
        while let Some(opener) = state.engine.poll_opener() {
            self.open(opener.to, &opener.data);
        }
        while let Some(transmit) = state.engine.poll_transmit() {
            self.send(transmit.to, &transmit.data);
        }
        if let Some(until) = state.unreserved.take() {
            // Nobody asks for it again, so it stays until it is taken.
            let taken = self.news.try_send(News::ReserveStamps(until)).is_ok();
            state.unreserved = (!taken).then_some(until);
        }
        let after = state.engine.poll_timeout();
        self.moons.send_if_modified(|known| {
            let changed = !state.engine.moons(now.instant).eq(known.iter().copied());
            if changed {
                *known = state.engine.moons(now.instant).collect();
            }
            changed
        });
        drop(state);
        let sooner = match (before, after) {
            (None, Some(_)) => true,
            (Some(before), Some(after)) => after < before,
            (_, None) => false,
        };
        if sooner {
            self.wake_timer();
        }
        result
    }

    pub(crate) fn send(&self, to: Remote, datagram: &[u8]) {
        let endpoint = match to {
            Remote::Udp(endpoint) => endpoint,
            Remote::Stream(stream) => return self.streams.send(stream, datagram),
        };
        if let Err(error) = self.socket().send(endpoint, None, datagram) {
            debug!(%to, %error, "could not send");
        }
    }

    /// Opens this machine's NATs towards `to`, which does not get to see it.
    fn open(&self, to: Remote, datagram: &[u8]) {
        let Remote::Udp(endpoint) = to else {
            return;
        };
        if let Err(error) = self.socket().send_near(endpoint, OPENER_HOPS, datagram) {
            debug!(%to, %error, "could not send");
        }
    }

    /// The socket for all that no batch waits for.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.sockets[0]
    }

    /// Makes room for what comes while nobody reads, or takes it back.
    pub(crate) fn set_patient(&self, patient: bool) {
        for socket in &self.sockets {
            socket.set_patient(patient);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The panic hook ends the process, so nobody meets a poisoned lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell_epoch(&mut self, now: Now) {
        let keys: Vec<_> = self.directory.keys().collect();
        for key in keys {
            self.tell_epoch_to(&key, now);
        }
    }

    /// Only to a peer with a session: a notice is not worth a handshake.
    fn tell_epoch_to(&mut self, key: &WireguardPublicKey, now: Now) {
        if let Some((serial, head_hash)) = self.epoch {
            self.engine
                .send_epoch_notice(key, serial.get(), head_hash, now);
        }
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// An endpoint as a socket of both families takes it: IPv4 mapped into IPv6.
pub(crate) fn mapped(socket: &tokio::net::UdpSocket, to: SocketAddr) -> SocketAddr {
    let both = socket.local_addr().is_ok_and(|bound| bound.is_ipv6());
    match to.ip() {
        IpAddr::V4(address) if both => SocketAddr::new(address.to_ipv6_mapped().into(), to.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => to,
    }
}

/// The same the other way round.
pub(crate) fn plain(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

/// Both clocks.
pub(crate) fn now() -> Now {
    Now {
        instant: clock::now(),
        wall: clock::wall().into(),
    }
}

#[cfg(test)]
mod tests;
