mod agents;
mod choosing;
mod client;
mod context;
mod handover;
mod handshakes;
mod knocks;
mod measure;
mod moons;
mod output;
mod peer;
mod predict;
mod recall;
mod story;
mod strays;
mod timers;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{reflect::Heard, relay::is_frame, wireguard::is_data};
use x25519_dalek::StaticSecret;

use crate::{
    Access, Curve, Forwarding, Now, Opened, PathView, Protocol, Refusal, RelayServer, Remote,
    Stamp, StreamId, Via, allowed_ips::AllowedIps, cookie::Gate, forwarding::Run,
    packet::ip_header,
};
use context::Context;
pub use handover::{TakeOverError, TakenOver};
pub use output::{Event, Transmit};
use peer::Peer;
pub use peer::{PeerState, PeerView};
use recall::Recall;
pub use story::{MoonView, PeerStory};

/// The bytes of a peer's public key, by which peers are ordered.
type PeerId = [u8; 32];

/// The most endpoints of a peer to which a handshake is sent at once; further ones are passed over.
const CANDIDATES_MAX: usize = 16;

/// How far a datagram of [`Engine::poll_opener`] goes: past two NATs, a home's and the one that a carrier's
/// modem is, or one at the carrier's edge; and not as far as the NAT of somebody else's home.
pub const OPENER_HOPS: u8 = 3;

/// What an [`Engine`] is made of.
pub struct EngineConfig {
    /// This node's X25519 secret.
    pub static_secret: StaticSecret,
    /// The address that agents use among themselves, `mesh_types::Prefix::agent_address`.
    pub agent_address: Ipv6Addr,
    /// 32 bytes from the system's random source, never used before.
    pub seed: [u8; 32],
    /// The highest stamp that was ever reserved ([`Event::ReserveStamps`]), as stored on disk;
    /// [`Stamp::ZERO`] for a machine that never ran.
    pub stamp_floor: Stamp,
    /// Whether packets over 2 KiB are carried, so that an AES session ends after an eighth of the
    /// packets.
    pub large_packets: bool,
}

/// A peer as the roster wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its WireGuard key.
    pub key: WireguardPublicKey,
    /// Whether it runs our agent (a `mesh1` identity) or stock WireGuard.
    pub speaks_mesh: bool,
    /// The protocol of handshakes that this side begins. A handshake from the peer is answered in kind;
    /// [`Protocol::MeshAes`] is taken from a peer only if it `speaks_mesh`.
    pub protocol: Protocol,
    /// The addresses that are the peer's, inside the tunnel. Of two peers with one network, the first
    /// in the list has it.
    pub allowed_ips: Vec<IpNet>,
    /// What may come from it, as the rules say.
    pub access: Arc<Access>,
    /// Whether the two speak through moons alone: no straight way is tried, and none told of. Only for a peer
    /// that `speaks_mesh`; of no effect on others.
    pub relay_only: bool,
}

/// How mappings of NATs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// The longest silence that one was seen to hold; `None`: not measured on this network.
    pub seen: Option<Duration>,
    /// The longest silence that they are left in.
    pub interval: Duration,
}

/// Why [`Engine::handle_packet`] does not take a packet from the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketRefused {
    /// Neither IPv4 nor IPv6, or cut short.
    #[error("no IP packet")]
    Malformed,
    /// From or to the address that agents use among themselves.
    #[error("a packet from or to the agents' own address")]
    AgentAddress,
    /// No peer has the destination address.
    #[error("no peer has the address {0}")]
    NoPeer(IpAddr),
    /// The way to the peer carries less, and the sender does not allow the packet to be cut: it is to be told
    /// ([`too_big`](crate::too_big)).
    #[error("larger than the {0} bytes that the way carries")]
    TooBig(u16),
}

/// What [`Engine::handle_datagram`] made of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A packet for the TUN.
    Packet {
        /// Whose session carried it.
        peer: WireguardPublicKey,
        /// The IP packet.
        packet: &'a mut [u8],
    },
    /// The engine acted on it.
    Consumed,
    /// Dropped.
    Refused(Refusal),
}

/// Handshakes, peers and timers: the half of the data plane that has one owner.
///
/// After every call, and whenever [`Forwarding::needs_attention`] (call [`Engine::handle_timeout`]
/// then): drain [`Engine::poll_opener`], [`Engine::poll_transmit`] and [`Engine::poll_event`], then re-arm the timer from
/// [`Engine::poll_timeout`].
pub struct Engine {
    context: Context,
    gate: Gate,
    peers: BTreeMap<PeerId, Peer>,
    deadlines: BTreeSet<(Instant, PeerId)>,
    /// The clients that this node had as a moon, before it was started anew.
    recall: Recall,
    /// Everything was handed on; another process speaks for this node.
    handed_over: bool,
}

impl Engine {
    /// Makes an engine without peers.
    pub fn new(config: EngineConfig, now: Now) -> Self {
        let mut engine = Self {
            context: Context::new(config, now.instant),
            gate: Gate::new(now.instant),
            peers: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            recall: Recall::default(),
            handed_over: false,
        };
        engine.context.ask_for_stamps(now);
        engine
    }

    /// Reckons with keys by other means than [`X25519`](crate::X25519). What two keys agree on has to be the same: this
    /// is for simulations, which know what the other side has computed already.
    #[must_use]
    pub fn with_curve(mut self, curve: Curve) -> Self {
        let keys = self.context.keys;
        self.context.keys = keys.with_curve(curve);
        self
    }

    /// The half that data threads use.
    pub fn forwarding(&self) -> Arc<Forwarding> {
        Arc::clone(&self.context.forwarding)
    }

    /// This node's public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.context.keys.public
    }

    /// Brings the peers in line with the roster. Those who are gone lose their sessions at once: no data
    /// thread sends to them or takes from them once this returns. This node's own key is passed over.
    pub fn set_peers(&mut self, configs: Vec<PeerConfig>, now: Now) {
        if self.handed_over {
            return;
        }
        let mut before = std::mem::take(&mut self.peers);
        for config in configs {
            let id = *config.key.as_bytes();
            if id == self.context.keys.public || self.peers.contains_key(&id) {
                continue;
            }
            // A key that is an agent's now and was a guest's, or the other way round, starts afresh, and
            // what it was goes as if the key had left.
            let peer = match before.entry(id) {
                Entry::Occupied(kept) if kept.get().speaks_mesh() == config.speaks_mesh => {
                    let mut peer = kept.remove();
                    peer.configure(config, &mut self.context, now.instant);
                    peer
                }
                Entry::Occupied(_) | Entry::Vacant(_) => {
                    Peer::new(config, &self.context, now.instant)
                }
            };
            self.peers.insert(id, peer);
        }
        // Routes first: a packet finds no removed peer while its sessions are being taken away.
        self.publish_routes();
        for (id, peer) in before {
            self.unschedule(&id, peer.deadline);
            peer.remove(&mut self.context);
        }
        self.context.publish();
        self.for_each_peer(now, |peer, context| {
            peer.moons_changed(context, now.instant)
        });
        self.publish_moons(now);
        self.attend(now);
    }

    /// Hears where a peer may be reached. A handshake that waits for an answer is sent there at once, and a
    /// way that is new is probed if there is a session.
    ///
    /// At most 16 endpoints are taken, the first of the list, and none that is a peer's address inside the
    /// mesh. An unknown key is passed over.
    pub fn set_candidates(
        &mut self,
        key: &WireguardPublicKey,
        candidates: Vec<SocketAddr>,
        now: Now,
    ) {
        let candidates = self.takable(candidates);
        self.with_peer(key.as_bytes(), now, |peer, context| {
            peer.set_candidates(candidates, context, now);
        });
    }

    /// Hears that a peer is about to talk to this node, and where it may be reached: opens this side towards it. With a
    /// handshake where there is no session, by one that is not repeated. Otherwise as [`Engine::set_candidates`].
    pub fn introduce(&mut self, key: &WireguardPublicKey, candidates: Vec<SocketAddr>, now: Now) {
        let candidates = self.takable(candidates);
        self.with_peer(key.as_bytes(), now, |peer, context| {
            peer.introduce(candidates, context, now);
        });
    }

    /// What is taken of endpoints that somebody tells of.
    fn takable(&self, mut candidates: Vec<SocketAddr>) -> Vec<SocketAddr> {
        candidates.retain(|candidate| !self.context.forwarding.is_inside((*candidate).into()));
        candidates.truncate(CANDIDATES_MAX);
        candidates
    }

    /// Sets the streams that lead to a peer, each a way beside its endpoints; one that is no more among them
    /// is over. An unknown key is passed over.
    pub fn set_streams(&mut self, key: &WireguardPublicKey, streams: &[StreamId], now: Now) {
        self.with_peer(key.as_bytes(), now, |peer, context| {
            peer.set_streams(streams, context, now);
        });
    }

    /// Sets the endpoints of this node, to be told to peers inside their sessions. What moons see is added.
    pub fn set_own_endpoints(&mut self, endpoints: Vec<SocketAddr>, now: Now) {
        self.context.offline = endpoints.is_empty();
        if self.context.own_endpoints == endpoints {
            return;
        }
        self.context.own_endpoints = endpoints;
        self.for_each_peer(now, |peer, context| peer.tell_news(context, now));
    }

    /// Sets which peers relay for others; keys that are no peer's are passed over. Up to four are all asked to do so
    /// for this node, and of more those that it chooses. To be called again after [`Engine::set_peers`].
    pub fn set_moons(&mut self, moons: &[WireguardPublicKey], now: Now) {
        let peers = &self.peers;
        let known = moons.iter().map(|moon| *moon.as_bytes()).filter(|moon| {
            let peer = peers.get(moon);
            peer.is_some_and(Peer::speaks_mesh)
        });
        let own = self.context.keys.public;
        let choice = &mut self.context.moons.choice;
        choice.set_known(&own, known.collect(), now.instant);
        choice.mark_stale();
        self.publish_moons(now);
    }

    /// Makes this node relay for others, or no more.
    pub fn set_relay_server(&mut self, server: Option<Arc<RelayServer>>) {
        self.context.relay_server = server;
    }

    /// Sets the port from which this node, as a moon, can send by [`Event::KnockFromOtherPort`].
    pub fn set_other_port(&mut self, port: Option<u16>) {
        self.context.other_port = port;
    }

    /// For how long the NATs and firewalls before this machine were seen to hold a mapping, of IPv4 or IPv6.
    pub fn keeping(&self, ipv6: bool) -> Keeping {
        let hold = self.context.holds.of(ipv6);
        Keeping {
            seen: hold.seen(),
            interval: hold.interval(),
        }
    }

    /// The ways to a peer, for people; none if the key is no peer's.
    pub fn paths(&self, key: &WireguardPublicKey) -> Vec<PathView> {
        self.peers
            .get(key.as_bytes())
            .map(|peer| peer.paths.view())
            .unwrap_or_default()
    }

    /// Takes a datagram from the network, changing it in place.
    pub fn handle_datagram<'a>(
        &mut self,
        from: Remote,
        datagram: &'a mut [u8],
        now: Now,
    ) -> Received<'a> {
        let Some((via, offset)) = self.context.forwarding.unwrap(from, datagram) else {
            return Received::Refused(Refusal::NotRelayed);
        };
        let datagram = &mut datagram[offset..];
        if !is_data(datagram) {
            match Heard::parse(datagram) {
                Some(Heard::Knock(token)) => return self.handle_knock(from, token),
                Some(Heard::Reflection(reflection)) => {
                    return self.handle_reflection(from, reflection, now);
                }
                None => {}
            }
            let outcome = match via {
                Via::Relay(moon) if is_frame(datagram) => {
                    self.handle_notice(moon.as_bytes(), datagram, now)
                }
                Via::Relay(_) | Via::Direct(_) => self.handle_handshake(via, datagram, now),
            };
            self.publish_moons(now);
            self.context.publish();
            return match outcome {
                Ok(()) => Received::Consumed,
                Err(refusal) => Received::Refused(refusal),
            };
        }
        match self
            .forwarding()
            .open_data(&mut Run::default(), via, datagram, now.instant)
        {
            Opened::Packet { peer, packet } => {
                self.touch(peer.as_bytes(), now);
                Received::Packet { peer, packet }
            }
            Opened::Keepalive { peer } => {
                self.touch(peer.as_bytes(), now);
                Received::Consumed
            }
            Opened::Agent { peer, via, packet } => {
                self.handle_agent_packet(&peer, via, packet, now);
                Received::Consumed
            }
            Opened::ForEngine => Received::Refused(Refusal::Malformed),
            Opened::Stray => {
                self.handle_stray(from, now);
                Received::Refused(Refusal::UnknownSession)
            }
            Opened::Denied { .. } => Received::Refused(Refusal::Denied),
            Opened::Refused(refusal) => Received::Refused(refusal),
        }
    }

    /// Takes a packet from the TUN for which [`Forwarding`] has no way: sends it, or holds it back while
    /// a handshake runs. Of the packets held back for one peer the oldest give way.
    ///
    /// # Errors
    ///
    /// [`PacketRefused`] if nobody is to have it.
    pub fn handle_packet(&mut self, packet: &[u8], now: Now) -> Result<(), PacketRefused> {
        let header = ip_header(packet).ok_or(PacketRefused::Malformed)?;
        let agents = IpAddr::V6(self.context.agent_address);
        if header.source == agents || header.destination == agents {
            return Err(PacketRefused::AgentAddress);
        }
        let link = self
            .context
            .forwarding
            .owner(header.destination)
            .ok_or(PacketRefused::NoPeer(header.destination))?;
        let packet = &packet[..header.packet_bytes];
        let forwarding = &self.context.forwarding;
        forwarding.note_sent(header.destination, packet, now.instant);
        let sent = self.with_peer(link.peer.as_bytes(), now, |peer, context| {
            peer.send_or_hold(packet, context, now)
        });
        // Where nobody else can be reached, moons are wanted at once.
        self.publish_moons(now);
        sent.unwrap_or(Ok(())).map_err(PacketRefused::TooBig)
    }

    /// Acts on a packet between agents that [`Forwarding::open`] gave out, which came by `via`.
    pub fn handle_agent_packet(
        &mut self,
        key: &WireguardPublicKey,
        via: Via,
        packet: &[u8],
        now: Now,
    ) {
        self.with_peer(key.as_bytes(), now, |peer, context| {
            peer.handle_agent_packet(via, packet, context, now);
        });
        self.publish_moons(now);
    }

    /// Sends an echo request inside the tunnel, after a handshake if there is no session. The answer is
    /// [`Event::ProbeReply`] with the id returned here; there is none if the peer stays silent.
    ///
    /// `None` if the key is no peer's, or the peer's with stock WireGuard, or too many of its probes
    /// are under way.
    pub fn probe(&mut self, key: &WireguardPublicKey, now: Now) -> Option<u64> {
        self.with_peer(key.as_bytes(), now, |peer, context| {
            peer.probe(context, now)
        })
        .flatten()
    }

    /// Tells a peer which roster this node holds, if they have a session; a notice never makes one.
    pub fn send_epoch_notice(
        &mut self,
        key: &WireguardPublicKey,
        serial: u64,
        head_hash: [u8; 32],
        now: Now,
    ) {
        self.with_peer(key.as_bytes(), now, |peer, context| {
            peer.send_epoch_notice(serial, head_hash, context, now);
        });
    }

    /// Acts on a change of this machine's addresses or on waking up: handshakes with every peer that has
    /// a session or waits for one, at once and to all its endpoints.
    pub fn network_changed(&mut self, now: Now) {
        self.context.moons.forget_observed();
        self.context.forget_holds(now.instant);
        self.context.moons.choice.network_changed(now.instant);
        self.for_each_peer(now, |peer, context| peer.network_changed(context, now));
    }

    /// Takes note that stamps up to `until` are stored on disk, and sends what waited for it.
    pub fn stamps_reserved(&mut self, until: Stamp, now: Now) {
        self.context.stamps.reserved(until);
        self.for_each_peer(now, |peer, context| {
            peer.retry_if_waiting_for_stamps();
            peer.answer_waiting_stray(context, now);
        });
    }

    /// Says whether the wall clock may be used as a stamp. A clock far ahead of everyone else's may
    /// not: stamps then count on from the last one.
    pub fn trust_clock(&mut self, trusted: bool) {
        self.context.stamps.trust_clock(trusted);
    }

    /// Does what is due: timers, and what the data threads asked for.
    pub fn handle_timeout(&mut self, now: Now) {
        self.attend(now);
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now.instant
        {
            self.touch(&id, now);
        }
        self.run_survey(now);
        self.run_recall(now);
        self.publish_moons(now);
    }

    /// When [`Engine::handle_timeout`] is to be called next; `None`: nothing is scheduled.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.deadlines.first().map(|(at, _)| *at);
        let survey = self.context.moons.choice.due();
        let others = [survey, self.recall_due()].into_iter().flatten();
        let others = others.min().filter(|_| !self.handed_over);
        peers.into_iter().chain(others).min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.context.output.poll_transmit()
    }

    /// The next datagram that is to open this node's NATs and to reach nobody: one of [`OPENER_HOPS`] hops at
    /// most. Where the system cannot limit them it is sent as any other.
    pub fn poll_opener(&mut self) -> Option<Transmit> {
        self.context.output.poll_opener()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.context.output.poll_event()
    }

    /// What is known of a peer; `None` if the key is no peer's.
    pub fn peer(&self, key: &WireguardPublicKey, now: Now) -> Option<PeerView> {
        Some(
            self.peers
                .get(key.as_bytes())?
                .view(&self.context, now.instant),
        )
    }

    /// Looks after the peers that the data threads raised a flag for.
    fn attend(&mut self, now: Now) {
        if !self.context.forwarding.take_attention() {
            return;
        }
        let raised: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.take_attention())
            .map(|(id, _)| *id)
            .collect();
        for id in raised {
            self.touch(&id, now);
        }
    }

    fn for_each_peer(&mut self, now: Now, mut act: impl FnMut(&mut Peer, &mut Context)) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.with_peer(&id, now, &mut act);
        }
    }

    /// Runs a peer's timers.
    fn touch(&mut self, id: &PeerId, now: Now) {
        self.with_peer(id, now, |_, _| ());
    }

    /// Acts on a peer, then runs its timers and schedules its next one. `None` if there is no such peer.
    fn with_peer<T>(
        &mut self,
        id: &PeerId,
        now: Now,
        act: impl FnOnce(&mut Peer, &mut Context) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(id)?;
        let result = act(peer, &mut self.context);
        let before = peer.deadline;
        peer.deadline = peer.run_timers(&mut self.context, now);
        let after = peer.deadline;
        if after != before {
            self.unschedule(id, before);
            self.deadlines.extend(after.map(|at| (at, *id)));
        }
        self.context.publish();
        self.run_foretelling(now);
        Some(result)
    }

    fn unschedule(&mut self, id: &PeerId, deadline: Option<Instant>) {
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, *id));
        }
    }

    fn publish_routes(&mut self) {
        let entries = self.peers.values().flat_map(|peer| {
            peer.allowed_ips()
                .iter()
                .map(|network| (*network, peer.owner()))
        });
        self.context.forwarding.set_routes(AllowedIps::new(entries));
    }
}
