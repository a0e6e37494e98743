use std::{
    cell::Cell,
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{
    relay,
    wireguard::{DATA_HEADER_BYTES, DataHeader, is_data},
};

use crate::{
    Remote, Via,
    allowed_ips::AllowedIps,
    attention::AnyAttention,
    link::{Link, Sent, Way},
    packet::{Cut, clamp, cut, ip_header},
    replay::Order,
    rules::{Access, Asked, FlowsRecord, Guard, Passed, Seen, look},
    session::{OpenFailure, SealError, Session},
    word_hasher::HashesWords,
};

/// The data plane's half of an [`Engine`](crate::Engine): what threads that carry packets use, without
/// a lock that another thread would hold.
///
/// Towards the network: [`Forwarding::route`] a packet, [`Route::seal`] it and those after it that the
/// route [covers](Route::covers), send to [`Route::endpoint`]. From the network:
/// [`Forwarding::open`]. What neither can do is for the engine. After a batch towards the network, and
/// before an opened packet is handed on, ask [`Forwarding::needs_attention`] and wake the engine's owner
/// if so: a timer has to be started, or the session turned to that the packet came on.
pub struct Forwarding {
    agent_address: Ipv6Addr,
    routes: ArcSwap<AllowedIps<Owner>>,
    sessions: ArcSwap<SessionTable>,
    moons: ArcSwap<Vec<OpenMoon>>,
    attention: AnyAttention,
    strays: Strays,
    guard: Arc<Guard>,
}

/// Whose an address is, and what may come from it.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) link: Arc<Link>,
    pub(crate) access: Arc<Access>,
}

/// A moon that relays for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenMoon {
    pub(crate) key: WireguardPublicKey,
    /// Where it is.
    pub(crate) remote: Remote,
    /// What frames to and from it carry.
    pub(crate) token: u64,
}

/// Sessions by the index that we gave them.
pub(crate) type SessionTable = HashMap<u32, Entry, HashesWords>;

/// A session and whose it is.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) session: Arc<Session>,
    pub(crate) link: Arc<Link>,
}

impl Forwarding {
    /// `secret` keys what is remembered of flows.
    pub(crate) fn new(agent_address: Ipv6Addr, secret: &[u8; 32]) -> Self {
        Self {
            agent_address,
            routes: ArcSwap::from_pointee(AllowedIps::new([])),
            sessions: ArcSwap::from_pointee(SessionTable::default()),
            moons: ArcSwap::default(),
            attention: AnyAttention::default(),
            strays: Strays::default(),
            guard: Arc::new(Guard::new(secret)),
        }
    }

    /// Finds the way for an IP packet from the TUN; a few tens of nanoseconds.
    ///
    /// `None`: the packet is for [`Engine::handle_packet`](crate::Engine::handle_packet), which says
    /// why or holds it back until there is a session.
    pub fn route(&self, packet: &[u8]) -> Option<Route> {
        let header = ip_header(packet)?;
        if self.is_agents(header.source) || self.is_agents(header.destination) {
            return None;
        }
        let Owner { link, access } = self.routes.load().lookup(header.destination)?.clone();
        let way = link.way()?;
        let session = link.current.load_full()?;
        let guard = (!access.is_open()).then(|| Guarded {
            guard: Arc::clone(&self.guard),
            access,
            last: Cell::new(None),
        });
        Some(Route {
            link,
            guard,
            session,
            way,
            source: header.source,
            destination: header.destination,
        })
    }

    /// Opens a datagram from the network in place.
    pub fn open<'a>(&self, from: Remote, datagram: &'a mut [u8], now: Instant) -> Opened<'a> {
        self.open_in(&mut Run::default(), from, datagram, now)
    }

    /// The same for one of many that came at once: what the last ones had in common is not looked up again.
    pub fn open_in<'a>(
        &self,
        run: &mut Run,
        from: Remote,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Opened<'a> {
        let Some((via, offset)) = self.unwrap(from, datagram) else {
            return Opened::Refused(Refusal::NotRelayed);
        };
        let relayed = &mut datagram[offset..];
        if !is_data(relayed) {
            return Opened::ForEngine;
        }
        self.open_data(run, via, relayed, now)
    }

    /// Whether a datagram is a frame of a moon that relays for this node, and so not one for a moon that this
    /// node is itself.
    pub fn knows_frame(&self, from: Remote, datagram: &[u8]) -> bool {
        relay::is_frame(datagram) && self.unwrap(from, datagram).is_some()
    }

    /// The way that a datagram came, and where in it WireGuard's message begins; `None` for a frame that
    /// comes from no moon which relays for this node. A moon's notice begins where it begins.
    pub(crate) fn unwrap(&self, from: Remote, datagram: &[u8]) -> Option<(Via, usize)> {
        if !relay::is_frame(datagram) {
            return Some((Via::Direct(from), 0));
        }
        let (header, offset) = match relay::parse(datagram)? {
            relay::Frame::Data(header) => (header, relay::HEADER_BYTES),
            relay::Frame::Notice(_, header) => (header, 0),
        };
        let moons = self.moons.load();
        let moon = moons
            .iter()
            .find(|moon| moon.token == header.token && moon.remote == from)?;
        Some((Via::Relay(moon.key), offset))
    }

    pub(crate) fn open_data<'a>(
        &self,
        run: &mut Run,
        via: Via,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Opened<'a> {
        let Some(header) = DataHeader::parse(datagram) else {
            return Opened::Refused(Refusal::Malformed);
        };
        let Some(of_run) = run.find(header.receiver, &self.sessions) else {
            return match via {
                Via::Direct(_) if self.strays.admits(now) => Opened::Stray,
                Via::Direct(_) | Via::Relay(_) => Opened::Refused(Refusal::UnknownSession),
            };
        };
        let Entry { session, link } = &of_run.entry;
        let bytes = datagram.len();
        let (packet, order) = match session.open(header.counter, datagram, now) {
            Ok(opened) => opened,
            Err(OpenFailure::Over) => return Opened::Refused(Refusal::UnknownSession),
            Err(OpenFailure::NotAuthentic) => return Opened::Refused(Refusal::NotAuthentic),
            Err(OpenFailure::Replayed) => return Opened::Refused(Refusal::Replayed),
        };
        link.note_authentic(bytes);
        // A packet that was overtaken says nothing about where the peer is.
        if order != Order::Late && of_run.via != Some(via) {
            self.learn_way(link, session, via);
            of_run.via = Some(via);
        }
        if session.confirm() {
            link.raise();
        }
        // A late packet of the session before says nothing about the one in use.
        if session.wants_rekey_on_receive(now)
            && link.is_in_use(session)
            && !link.rekey_wanted.swap(true, Ordering::AcqRel)
        {
            link.raise();
        }
        self.judge(of_run, via, packet, now)
    }

    /// Whether the engine's owner has to call [`Engine::handle_timeout`](crate::Engine::handle_timeout)
    /// now. Goes back to false when it does.
    pub fn needs_attention(&self) -> bool {
        self.attention.is_raised()
    }

    pub(crate) fn take_attention(&self) -> bool {
        self.attention.take()
    }

    pub(crate) fn attention(&self) -> &AnyAttention {
        &self.attention
    }

    pub(crate) fn set_routes(&self, routes: AllowedIps<Owner>) {
        self.routes.store(Arc::new(routes));
    }

    pub(crate) fn set_sessions(&self, sessions: SessionTable) {
        self.sessions.store(Arc::new(sessions));
    }

    pub(crate) fn set_moons(&self, moons: Vec<OpenMoon>) {
        self.moons.store(Arc::new(moons));
    }

    pub(crate) fn owner(&self, address: IpAddr) -> Option<Arc<Link>> {
        let routes = self.routes.load();
        Some(Arc::clone(&routes.lookup(address)?.link))
    }

    /// Notes a packet that the engine sends or holds back, as [`Route::seal`] does.
    pub(crate) fn note_sent(&self, destination: IpAddr, packet: &[u8], now: Instant) {
        let routes = self.routes.load();
        if let Some(owner) = routes.lookup(destination)
            && !owner.access.is_open()
            && let Some(seen) = look(packet)
        {
            self.guard.note_sent(&owner.access, &seen, now);
        }
    }

    pub(crate) fn flows(&self) -> FlowsRecord {
        self.guard.record()
    }

    pub(crate) fn restore_flows(&self, record: &FlowsRecord) {
        self.guard.restore(record);
    }

    /// Decides where the packet of an authentic message goes.
    fn judge<'a>(
        &self,
        of_run: &mut OfRun,
        via: Via,
        packet: &'a mut [u8],
        now: Instant,
    ) -> Opened<'a> {
        let link = &of_run.entry.link;
        let peer = link.peer;
        if packet.is_empty() {
            return Opened::Keepalive { peer };
        }
        let Some(header) = ip_header(packet) else {
            return Opened::Refused(Refusal::Malformed);
        };
        if self.is_agents(header.source) || self.is_agents(header.destination) {
            if !link.speaks_mesh || header.source != header.destination {
                return Opened::Refused(Refusal::AgentAddress);
            }
            return Opened::Agent { peer, via, packet };
        }
        link.note_data_received(now);
        let packet = &mut packet[..header.packet_bytes];
        let from = match &mut of_run.from {
            Some(from) if from.source == header.source => from,
            other => {
                let routes = self.routes.load();
                let owner = routes.lookup(header.source);
                match owner.filter(|owner| Arc::ptr_eq(&owner.link, link)) {
                    Some(owner) => other.insert(Sender {
                        source: header.source,
                        access: Arc::clone(&owner.access),
                        last: None,
                    }),
                    None => return Opened::Refused(Refusal::WrongSource),
                }
            }
        };
        if !from.access.is_everything() {
            let seen = look(packet);
            if !seen.is_some_and(|seen| self.admits(from, seen, now)) {
                let asked = seen.as_ref().map(Asked::from);
                return Opened::Denied { asked, packet };
            }
        }
        clamp(packet, || link.mtu());
        Opened::Packet { peer, packet }
    }

    /// Whether the rules let a packet pass, or it answers one of ours.
    fn admits(&self, from: &mut Sender, seen: Seen, now: Instant) -> bool {
        // Of many packets of one connection that come at once the first is judged.
        let passed = match from.last {
            Some((last, passed)) if last == seen => Some(passed),
            Some(_) | None => self.guard.admits(&from.access, &seen, now),
        };
        if let Some(Passed::Accepted(rule)) = passed {
            from.access.count(rule);
        }
        from.last = passed.map(|passed| (seen, passed));
        passed.is_some()
    }

    /// Notes by which way the newest packet came. A peer with stock WireGuard roams there at once; for a
    /// mesh peer the engine proves the way first. One that belongs to an older session says nothing about where the peer
    /// is.
    fn learn_way(&self, link: &Link, session: &Arc<Session>, via: Via) {
        if link.via() == Some(via) {
            return link.note_usual_way();
        }
        let current = link.current.load();
        let superseded = current.as_ref().is_some_and(|current| {
            !Arc::ptr_eq(current, session) && current.established > session.established
        });
        if superseded || self.is_inside(via) {
            return;
        }
        if link.speaks_mesh {
            link.note_other_way(via);
        } else if let Via::Direct(remote) = via {
            link.set_way(Some(Way::unmeasured(via, remote)));
        }
    }

    /// Whether an endpoint is a peer's address inside the mesh: a tunnel that led there would lead
    /// through itself.
    pub(crate) fn is_inside(&self, via: Via) -> bool {
        via.udp()
            .is_some_and(|endpoint| self.routes.load().has_host(endpoint.ip()))
    }

    fn is_agents(&self, address: IpAddr) -> bool {
        address == IpAddr::V6(self.agent_address)
    }
}

/// What datagrams that came at once have in common, for [`Forwarding::open_in`]: mostly one peer sent them all, in one
/// session and by one way. To be made anew for each batch: an address that goes to another peer meanwhile is still its
/// former owner's. A session that was taken away opens nothing all the same.
#[derive(Default)]
pub struct Run(Option<OfRun>);

/// What the last datagram was found to be.
struct OfRun {
    index: u32,
    entry: Entry,
    /// The way that was learned.
    via: Option<Via>,
    from: Option<Sender>,
}

/// An inner source address that is the peer's, and what may come from there.
struct Sender {
    source: IpAddr,
    access: Arc<Access>,
    /// A packet that passed.
    last: Option<(Seen, Passed)>,
}

impl Run {
    /// The session with this index, and what is known of it; `None`: there is none.
    fn find(&mut self, index: u32, sessions: &ArcSwap<SessionTable>) -> Option<&mut OfRun> {
        if self.0.as_ref().is_none_or(|of_run| of_run.index != index) {
            let entry = sessions.load().get(&index)?.clone();
            self.0 = Some(OfRun {
                index,
                entry,
                via: None,
                from: None,
            });
        }
        self.0.as_mut()
    }
}

/// Strays that the engine hears of, a second: as many peers as may be found again at once. Each costs a look at all.
const STRAYS_PER_SECOND: u64 = 1000;

/// How many strays there were in this second, counted up by the data threads.
#[derive(Default)]
struct Strays {
    second: AtomicU64,
    count: AtomicU64,
}

impl Strays {
    fn admits(&self, now: Instant) -> bool {
        let second = now.as_micros() / 1_000_000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) < STRAYS_PER_SECOND
    }
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// A packet for the TUN, its padding cut off; its source belongs to the peer.
    Packet {
        /// Whose session carried it.
        peer: WireguardPublicKey,
        /// The IP packet.
        packet: &'a mut [u8],
    },
    /// A packet whose source is the peer's, and which no rule lets pass; its sender may be
    /// [told](crate::prohibited).
    Denied {
        /// What it is for; `None`: its headers cannot be read.
        asked: Option<Asked>,
        /// The IP packet.
        packet: &'a [u8],
    },
    /// A keepalive: nothing to do.
    Keepalive {
        /// Whose session carried it.
        peer: WireguardPublicKey,
    },
    /// A packet for our own agent, to be given to
    /// [`Engine::handle_agent_packet`](crate::Engine::handle_agent_packet).
    Agent {
        /// Whose session carried it.
        peer: WireguardPublicKey,
        /// The way it came.
        via: Via,
        /// The IP packet, perhaps with padding.
        packet: &'a [u8],
    },
    /// Not a transport message: the untouched datagram is for
    /// [`Engine::handle_datagram`](crate::Engine::handle_datagram).
    ForEngine,
    /// Data of a session that is not known, which [`Engine::handle_stray`](crate::Engine::handle_stray) is to hear
    /// of; so many a second, and the rest is [refused](Refusal::UnknownSession).
    Stray,
    /// Nothing was done.
    Refused(Refusal),
}

/// Why a datagram or what was in it was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// No WireGuard message, or one that carries no IP packet.
    #[error("not a message of WireGuard, or no IP packet in it")]
    Malformed,
    /// The session is not known, or over.
    #[error("a session that is not known, or over")]
    UnknownSession,
    /// Not sealed by the peer, or for another receiver.
    #[error("not authentic")]
    NotAuthentic,
    /// Taken before, or too old to tell.
    #[error("replayed")]
    Replayed,
    /// The inner source address is not one of the peer's.
    #[error("an inner source address that is not the peer's")]
    WrongSource,
    /// No rule accepts it.
    #[error("a packet that no rule accepts")]
    Denied,
    /// The agents' own address, from a peer that has no agent or in one direction only.
    #[error("the agents' address in a packet that is not between agents")]
    AgentAddress,
    /// A relay's frame that is malformed, or of no moon that relays for this node.
    #[error("a relay's frame from no moon of this node")]
    NotRelayed,
    /// A handshake that came through the mesh.
    #[error("a handshake from an address inside the mesh")]
    Inside,
    /// A handshake of someone who is not a peer.
    #[error("a handshake of a key that is no peer")]
    UnknownPeer,
    /// A straight handshake of a peer that the inventory lets speak through moons alone.
    #[error("a straight handshake of a peer that is to be relayed")]
    RelayOnly,
    /// More handshakes than we answer.
    #[error("too many handshakes")]
    TooOften,
}

/// What remembers the flows of a route.
struct Guarded {
    guard: Arc<Guard>,
    access: Arc<Access>,
    /// The packet that was noted last.
    last: Cell<Option<Seen>>,
}

impl Guarded {
    fn note(&self, packet: &[u8], now: Instant) {
        let seen = look(packet);
        if let Some(seen) = seen
            && self.last.replace(Some(seen)) != Some(seen)
        {
            self.guard.note_sent(&self.access, &seen, now);
        }
    }
}

/// The way of a packet: a peer's session and endpoint. Held for a run of packets, not longer.
pub struct Route {
    link: Arc<Link>,
    guard: Option<Guarded>,
    session: Arc<Session>,
    way: Arc<Way>,
    source: IpAddr,
    destination: IpAddr,
}

impl Route {
    /// Whose session it is.
    pub fn peer(&self) -> WireguardPublicKey {
        self.link.peer
    }

    /// Where the sealed packets go.
    pub fn remote(&self) -> Remote {
        self.way.remote
    }

    /// What stands in front of each sealed packet, if a moon is to relay it.
    pub fn relay_header(&self) -> Option<&[u8; relay::HEADER_BYTES]> {
        self.way.header.as_ref()
    }

    /// Whether a packet of so many bytes goes in one datagram. What does not is to be [cut](Route::cut).
    pub fn fits(&self, packet_bytes: usize) -> bool {
        packet_bytes <= usize::from(self.way.fit)
    }

    /// What becomes of a packet that does not fit. `id` tells its fragments from those of others: any number
    /// that was not used lately.
    pub fn cut(&self, packet: &[u8], id: u32, now: Instant) -> Cut {
        // Its pieces do not tell the flow, but for the first.
        if let Some(guarded) = &self.guard {
            guarded.note(packet, now);
        }
        cut(packet, self.way.fit, self.way.mtu, id)
    }

    /// Whether another packet of the same batch takes this way: same addresses as the one routed.
    pub fn covers(&self, packet: &[u8]) -> bool {
        ip_header(packet).is_some_and(|header| {
            header.destination == self.destination && header.source == self.source
        })
    }

    /// Seals in place the packet at `frame[16..16 + packet_bytes]`, and returns the datagram's length. The
    /// segment size in a TCP SYN is lowered to what the way carries.
    ///
    /// `frame` must be at least [`mesh_wire::wireguard::data_message_bytes`] of `packet_bytes` long: the
    /// packet has 16 bytes of room in front, and behind it room for padding and tag.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the session is over: give the packet to
    /// [`Engine::handle_packet`](crate::Engine::handle_packet).
    ///
    /// # Panics
    ///
    /// If `frame` is too short.
    pub fn seal(
        &self,
        frame: &mut [u8],
        packet_bytes: usize,
        now: Instant,
    ) -> Result<usize, SealError> {
        let packet = &mut frame[DATA_HEADER_BYTES..DATA_HEADER_BYTES + packet_bytes];
        clamp(packet, || self.way.mtu);
        if let Some(guarded) = &self.guard {
            guarded.note(packet, now);
        }
        let fit = usize::from(self.way.fit);
        let bytes = self.session.seal(frame, packet_bytes, fit, now)?;
        self.link.note_sent(&self.session, bytes, Sent::Data, now);
        Ok(bytes)
    }
}
