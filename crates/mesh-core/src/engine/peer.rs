use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ipnet::IpNet;
use mesh_types::{Instant, WireguardPublicKey};
use rand::RngCore;

use super::{
    Context, Event, PeerConfig, PeerId,
    agents::{Heard, Probe},
    client::Client,
    handshakes::{Attempt, Responded},
    knocks::Knocks,
    story::Hint,
    timers::{Connecting, Liveness, UNRESPONSIVE_AFTER},
};
use crate::{
    Access, Now, Protocol, Reason, Via,
    cookie::{Cookie, ReceiverKeys},
    forwarding::Owner,
    hold::Hold,
    link::{Link, Sent},
    noise::Secret,
    packet::Cut,
    paths::{MTU_BASE, Paths},
    session::{PREVIOUS_MAX, SESSIONS_MAX, Session},
};

/// What is held back for a peer while a handshake runs; beyond it the oldest packets go. A handshake
/// takes a round trip, in which a sender's first window (ten full packets) comes.
const HELD_PACKETS_MAX: usize = 64;
const HELD_BYTES_MAX: usize = 128 * 1024;

/// The engine's side of a peer.
pub(super) struct Peer {
    pub(super) link: Arc<Link>,
    pub(super) protocol: Protocol,
    allowed_ips: Vec<IpNet>,
    access: Arc<Access>,
    /// The keys of messages to the peer.
    pub(super) receiver_keys: ReceiverKeys,
    /// What our static keys agree on, computed at the first handshake.
    pub(super) static_static: Option<Secret>,
    pub(super) sessions: Sessions,
    /// The handshake that waits for a response.
    pub(super) attempt: Option<Attempt>,
    pub(super) connecting: Connecting,
    pub(super) liveness: Liveness,
    /// When the keepalive's and the liveness timer run. Kept while their cause comes and goes, so that
    /// the data threads need not raise a flag for each packet.
    pub(super) keepalive_armed: Option<Instant>,
    pub(super) liveness_armed: Option<Instant>,
    /// The same for the next look at the size of packets.
    pub(super) mtu_armed: Option<Instant>,
    /// When a packet or a probe last asked for this peer, apart from what data threads sent.
    pub(super) wanted: Option<Instant>,
    /// The ways to it.
    pub(super) paths: Paths,
    /// This node as its client, if it is a moon of ours.
    pub(super) client: Option<Client>,
    /// What it asked this node for, as a moon.
    pub(super) knocks: Knocks,
    /// How long the NATs before the way in use hold a mapping.
    pub(super) keep: Duration,
    /// Where data of a session that is not known came from, while there are no stamps to ask for another with.
    pub(super) stray: Option<Via>,
    /// A handshake is under way to measure the round trip, and for nothing else.
    pub(super) trial: bool,
    /// Whether moons may be needed to reach it, which is so while it is wanted.
    pub(super) wants_moons: bool,
    /// The first moons of its ranking, and of which roster.
    pub(super) ranking: (u64, Vec<PeerId>),
    /// The moon nearest to it, as it told, and when.
    pub(super) told_moon: Option<(PeerId, Instant)>,
    /// When it was last told where we are.
    pub(super) told: Option<Instant>,
    /// What the owner was last told that the way carries.
    pub(super) told_mtu: u16,
    /// What a moon said of it last.
    pub(super) hint: Option<Hint>,
    held: VecDeque<Vec<u8>>,
    held_bytes: usize,
    pub(super) probes: BTreeMap<u64, Probe>,
    /// When it was last looked for those that will not be answered any more.
    pub(super) probes_looked_at: Instant,
    /// The highest stamp received, TAI64N. In memory only.
    pub(super) highest_stamp: Option<[u8; 12]>,
    pub(super) last_initiation: Option<Instant>,
    pub(super) cookie: Option<Cookie>,
    pub(super) responded: Option<Responded>,
    pub(super) last_handshake: Option<Now>,
    pub(super) rtt: Option<Duration>,
    pub(super) clock_ahead_millis: Option<i64>,
    pub(super) heard: Heard,
    /// When this peer's timers run next.
    pub(super) deadline: Option<Instant>,
}

/// The sessions of a peer by their role (whitepaper section 6.1 and the kernel's key pairs).
#[derive(Default)]
pub(super) struct Sessions {
    /// Before the current one, the newest first; they take packets that are still under way.
    previous: [Option<Arc<Session>>; PREVIOUS_MAX],
    /// To send on.
    pub(super) current: Option<Arc<Session>>,
    /// Made by answering; becomes the current one with the first packet that comes on it.
    pub(super) next: Option<Arc<Session>>,
}

impl Sessions {
    /// Those that there are.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.slots().into_iter().flatten()
    }

    /// All by their role: next, current, previous.
    pub(super) fn slots(&self) -> [&Option<Arc<Session>>; SESSIONS_MAX] {
        let [first, second, third] = &self.previous;
        [&self.next, &self.current, first, second, third]
    }

    /// The opposite of [`Self::slots`].
    pub(super) fn from_slots(slots: [Option<Arc<Session>>; SESSIONS_MAX]) -> Self {
        let [next, current, previous @ ..] = slots;
        Self {
            previous,
            current,
            next,
        }
    }

    /// Keeps a session for packets under way; returns the oldest one if it has to go for it.
    pub(super) fn keep(&mut self, session: Arc<Session>) -> Option<Arc<Session>> {
        self.previous.rotate_right(1);
        self.previous[0].replace(session)
    }

    /// Takes out those that are over by their age.
    pub(super) fn take_expired(&mut self, now: Instant) -> impl Iterator<Item = Arc<Session>> {
        let slots = self
            .previous
            .iter_mut()
            .chain([&mut self.current, &mut self.next]);
        slots.filter_map(move |slot| slot.take_if(|session| session.expires() <= now))
    }
}

/// What is known of a peer, for `mesh status`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerView {
    /// Whether and how it can be reached.
    pub state: PeerState,
    /// Why it is reached as it is, or is not.
    pub reason: Reason,
    /// The way that packets take; `None` before its first packet.
    pub via: Option<Via>,
    /// How many ways are known.
    pub ways: usize,
    /// Cipher and handshake of the current session; `None` without one.
    pub protocol: Option<Protocol>,
    /// The largest packet that was proven to arrive by this way, in bytes; `None`: none yet, and
    /// [`MTU_BASE`](crate::MTU_BASE) is promised.
    pub mtu: Option<u16>,
    /// The last round trip measured, of a handshake or an echo.
    pub rtt: Option<Duration>,
    /// When the current or last session was made, on both clocks.
    pub last_handshake: Option<Now>,
    /// When data was last sent to it, or last came from it.
    pub last_traffic: Option<Instant>,
    /// Bytes of authentic datagrams that came.
    pub received_bytes: u64,
    /// Bytes of datagrams sent.
    pub sent_bytes: u64,
    /// How far its clock is ahead of ours, in milliseconds, to about a round trip; `None`: not known.
    pub clock_ahead_millis: Option<i64>,
}

/// Whether and how a peer can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// There never was a session, and none is wanted.
    Never,
    /// There was a session; no traffic asks for another.
    Idle,
    /// A handshake is under way.
    Connecting {
        /// Since when a session has been wanted.
        since: Instant,
    },
    /// Traffic, a probe or handshakes go unanswered for 12 s or longer.
    Unanswered {
        /// Since when.
        since: Instant,
    },
    /// There is a session to send on.
    Established,
}

impl Peer {
    pub(super) fn new(config: PeerConfig, context: &Context, now: Instant) -> Self {
        let attention = context.forwarding.attention().one();
        let mut paths = Paths::default();
        paths.set_relay_only(config.relay_only && config.speaks_mesh, now);
        Self {
            link: Arc::new(Link::new(config.key, config.speaks_mesh, attention)),
            protocol: config.protocol,
            allowed_ips: config.allowed_ips,
            access: config.access,
            receiver_keys: ReceiverKeys::new(config.key.as_bytes()),
            static_static: None,
            sessions: Sessions::default(),
            attempt: None,
            connecting: Connecting::Rest,
            liveness: Liveness::default(),
            keepalive_armed: None,
            liveness_armed: None,
            mtu_armed: None,
            wanted: None,
            paths,
            client: None,
            knocks: Knocks::default(),
            keep: Hold::BASE,
            stray: None,
            trial: false,
            wants_moons: false,
            ranking: (0, Vec::new()),
            told_moon: None,
            told: None,
            told_mtu: MTU_BASE,
            hint: None,
            held: VecDeque::new(),
            held_bytes: 0,
            probes: BTreeMap::new(),
            probes_looked_at: Instant::ZERO,
            highest_stamp: None,
            last_initiation: None,
            cookie: None,
            responded: None,
            last_handshake: None,
            rtt: None,
            clock_ahead_millis: None,
            heard: Heard::default(),
            deadline: None,
        }
    }

    pub(super) fn configure(&mut self, config: PeerConfig, context: &mut Context, now: Instant) {
        self.protocol = config.protocol;
        self.allowed_ips = config.allowed_ips;
        self.access = config.access;
        let relay_only = config.relay_only && config.speaks_mesh;
        if self.paths.set_relay_only(relay_only, now) {
            // It goes by other ways from here on.
            self.drop_attempt(context);
            self.retry_now();
            self.refresh_way(context);
        }
    }

    /// Whether a handshake is wanted.
    pub(super) const fn is_connecting(&self) -> bool {
        matches!(self.connecting, Connecting::Running { .. })
    }

    /// Ends everything of a peer that is gone from the roster.
    pub(super) fn remove(mut self, context: &mut Context) {
        self.link.current.store(None);
        self.set_moon(false, context, Instant::from_micros(0));
        self.drop_attempt(context);
        context.end_foretelling(self.link.peer.as_bytes());
        for session in std::mem::take(&mut self.sessions).all() {
            context.end_session(session);
        }
    }

    pub(super) fn key(&self) -> WireguardPublicKey {
        self.link.peer
    }

    pub(super) fn speaks_mesh(&self) -> bool {
        self.link.speaks_mesh
    }

    pub(super) fn allowed_ips(&self) -> &[IpNet] {
        &self.allowed_ips
    }

    /// The owner of its addresses.
    pub(super) fn owner(&self) -> Owner {
        Owner {
            link: Arc::clone(&self.link),
            access: Arc::clone(&self.access),
        }
    }

    pub(super) fn take_attention(&self) -> bool {
        self.link.take_attention()
    }

    /// The session to send on, if it can be used.
    pub(super) fn usable_session(&self, now: Instant) -> Option<&Arc<Session>> {
        let session = self.sessions.current.as_ref()?;
        session.is_usable(now).then_some(session)
    }

    /// Sends a packet on the current session, or holds it back and wants a session.
    ///
    /// # Errors
    ///
    /// It is larger than the way carries, which is this much, and its sender does not allow it to be cut.
    pub(super) fn send_or_hold(
        &mut self,
        packet: &[u8],
        context: &mut Context,
        now: Now,
    ) -> Result<(), u16> {
        if !self.link.fits(packet.len())
            && let Cut::TooBig(mtu) = self.link.cut(packet, 0)
        {
            return Err(mtu);
        }
        if !self.transmit_whole_or_cut(packet, context, now) {
            self.hold(packet);
            self.want(now.instant);
        }
        Ok(())
    }

    /// Sends a packet of a program, in pieces if it does not fit one datagram; false if there is no session.
    fn transmit_whole_or_cut(&mut self, packet: &[u8], context: &mut Context, now: Now) -> bool {
        if self.link.fits(packet.len()) {
            return self.transmit(packet, Sent::Data, context, now);
        }
        match self.link.cut(packet, context.rng.next_u32()) {
            Cut::Pieces(pieces) => pieces
                .iter()
                .all(|piece| self.transmit(piece, Sent::Data, context, now)),
            // The way changed while it was held.
            Cut::TooBig(_) => true,
        }
    }

    /// Seals and sends a packet; false if there is no session for it.
    pub(super) fn transmit(
        &mut self,
        packet: &[u8],
        kind: Sent,
        context: &mut Context,
        now: Now,
    ) -> bool {
        let Some(way) = self.link.way() else {
            return false;
        };
        self.transmit_by(&way, packet, kind, context, now)
    }

    /// Sends what was held back. True if anything was sent.
    pub(super) fn release_held(&mut self, context: &mut Context, now: Now) -> bool {
        let mut sent = false;
        while let Some(packet) = self.held.pop_front() {
            self.held_bytes -= packet.len();
            if !self.transmit_whole_or_cut(&packet, context, now) {
                break;
            }
            sent = true;
        }
        sent
    }

    /// Whether packets wait for a session.
    pub(super) fn holds_packets(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn forget_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    fn hold(&mut self, packet: &[u8]) {
        self.held_bytes += packet.len();
        self.held.push_back(packet.to_vec());
        while self.held.len() > HELD_PACKETS_MAX || self.held_bytes > HELD_BYTES_MAX {
            let Some(oldest) = self.held.pop_front() else {
                break;
            };
            self.held_bytes -= oldest.len();
        }
    }

    pub(super) fn view(&self, context: &Context, now: Instant) -> PeerView {
        PeerView {
            state: self.state(now),
            reason: self.reason(context, now),
            via: self.link.via(),
            ways: self.paths.count(),
            protocol: self.usable_session(now).map(|session| session.protocol),
            mtu: self.paths.mtu(),
            rtt: self.rtt,
            last_handshake: self.last_handshake,
            last_traffic: self.last_traffic(),
            received_bytes: self.link.received_bytes.load(Ordering::Relaxed),
            sent_bytes: self.link.sent_bytes.load(Ordering::Relaxed),
            clock_ahead_millis: self.clock_ahead_millis,
        }
    }

    pub(super) fn last_traffic(&self) -> Option<Instant> {
        self.link
            .last_data_sent
            .get()
            .max(self.link.last_data_received.get())
    }

    fn state(&self, now: Instant) -> PeerState {
        let unanswered = self
            .unanswered_since(now)
            .filter(|since| now.saturating_since(*since) >= UNRESPONSIVE_AFTER);
        if let Some(since) = unanswered {
            return PeerState::Unanswered { since };
        }
        if self.usable_session(now).is_some() {
            return PeerState::Established;
        }
        match (&self.connecting, self.last_handshake) {
            (Connecting::Running { since, .. }, _) => PeerState::Connecting { since: *since },
            (Connecting::Rest, Some(_)) => PeerState::Idle,
            (Connecting::Rest, None) => PeerState::Never,
        }
    }

    pub(super) fn tell_established(&self, session: &Session, context: &mut Context) {
        if let Some(via) = self.link.via() {
            context.output.event(Event::SessionEstablished {
                peer: self.key(),
                via,
                initiator: session.initiator,
            });
        }
    }
}
