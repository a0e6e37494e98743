//! A host's agent: the real engine and, on a moon, the real relay, moved by the simulation as the agent's
//! shell would. All that depends on the engine's interface is here.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use mesh_core::{
    Carrier, Dial, Dialler, Event, Forwarded, Handover, Hearsay, Now, PathView, PeerState,
    PeerStory, Protocol, Reason, Refusal, RelayLimits, RelayServer, Remote, StreamId, Transmit,
    Via,
};
use mesh_types::{Instant, WireguardPublicKey};

use super::{client::Client, rosters::Published};
use crate::{Delivered, Node};

/// What a roster says of one member, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) index: usize,
    /// Where it is, if it is a moon.
    pub(super) moon_at: Option<Vec<SocketAddr>>,
    /// Whether it speaks through moons alone.
    pub(super) relay_only: bool,
}

impl Member {
    fn is_relayed_to(&self, other: &Self) -> bool {
        (self.relay_only || other.relay_only) && self.moon_at.is_none() && other.moon_at.is_none()
    }
}

/// The agent on one host.
pub(super) struct Machine {
    pub(super) node: Node,
    /// The members of the roster that it holds.
    pub(super) members: Arc<Vec<Member>>,
    /// The same as it was signed; `None` where there are no controllers.
    pub(super) held: Option<Arc<Published>>,
    /// What it knows of controllers.
    pub(super) client: Client,
    /// Whether its process runs.
    pub(super) running: bool,
    /// Where peers are, as it heard.
    hearsay: BTreeMap<WireguardPublicKey, Hearsay>,
    relay: Option<Arc<RelayServer>>,
    /// Its clients when its process ended, as on its disk.
    clients: BTreeMap<WireguardPublicKey, SocketAddr>,
    /// What says which streams it has.
    dialler: Dialler,
    /// Its moons, and what it reaches each by.
    reached: Vec<(WireguardPublicKey, Option<Remote>)>,
}

impl Machine {
    pub(super) fn new(seed: u8, index: usize, is_moon: bool, now: Now) -> Self {
        let number = u8::try_from(index + 1).expect("at most 255 machines");
        let mut machine = Self {
            node: Node::new(seed, number, now),
            members: Arc::default(),
            held: None,
            client: Client::default(),
            running: true,
            hearsay: BTreeMap::new(),
            relay: None,
            clients: BTreeMap::new(),
            dialler: Dialler::default(),
            reached: Vec::new(),
        };
        if is_moon {
            machine.begin_relaying();
        }
        machine
    }

    pub(super) const fn is_moon(&self) -> bool {
        self.relay.is_some()
    }

    pub(super) fn key(&self) -> WireguardPublicKey {
        self.node.key
    }

    /// Ends the process.
    pub(super) fn stop(&mut self, now: Now) {
        if std::mem::take(&mut self.running) {
            self.clients = self.node.engine.clients(now.instant);
        }
    }

    /// Looks for the clients that it had, once it has a roster.
    pub(super) fn recall_clients(&mut self, now: Now) {
        let clock = self.node.clock(now);
        let clients = std::mem::take(&mut self.clients);
        self.node.engine.recall_clients(clients, clock);
    }

    /// Starts the process again: nothing is left but identity and disk.
    pub(super) fn restart(&mut self, now: Now) {
        self.node.restart(now);
        self.dialler = Dialler::default();
        self.reached.clear();
        self.hearsay.clear();
        if self.is_moon() {
            self.begin_relaying();
        }
        self.running = true;
    }

    /// Ends its process in good order: what the next one goes on with.
    pub(super) fn hand_over(&mut self, now: Now) -> Handover {
        let clock = self.node.clock(now);
        Handover::parse(&self.node.engine.hand_over(clock)).expect("as it was written")
    }

    /// Goes on with the sessions of the process before, and says where the machine is.
    pub(super) fn take_over(&mut self, handover: Handover, endpoints: Vec<SocketAddr>, now: Now) {
        let clock = self.node.clock(now);
        let engine = &mut self.node.engine;
        let taken = engine.take_over(handover, clock);
        taken.expect("of the same machine, and from before");
        engine.set_own_endpoints(endpoints, clock);
    }

    /// Takes a roster, whose members' machines have these keys and addresses.
    pub(super) fn take_roster(&mut self, members: Arc<Vec<Member>>, nodes: &[Peer], now: Now) {
        let clock = self.node.clock(now);
        let own_key = self.key();
        let own = members
            .iter()
            .find(|member| nodes[member.index].config.key == own_key);
        let configs = members
            .iter()
            .map(|member| mesh_core::PeerConfig {
                access: Arc::default(),
                relay_only: own.is_some_and(|own| own.is_relayed_to(member)),
                ..nodes[member.index].config.clone()
            })
            .collect();
        let engine = &mut self.node.engine;
        engine.set_peers(configs, clock);
        let moons: Vec<_> = members
            .iter()
            .filter(|member| member.moon_at.is_some())
            .map(|member| nodes[member.index].config.key)
            .collect();
        engine.set_moons(&moons, clock);
        let is_peer = |key: &_| {
            members
                .iter()
                .any(|member| nodes[member.index].config.key == *key)
        };
        self.hearsay.retain(|key, _| is_peer(key));
        for member in members.iter() {
            if let Some(endpoints) = &member.moon_at {
                let key = nodes[member.index].config.key;
                let known = self.hearsay.entry(key).or_default().hear(endpoints);
                engine.set_candidates(&key, known, clock);
            }
        }
        if let Some(relay) = &self.relay {
            let keys = members.iter().map(|member| nodes[member.index].config.key);
            relay.set_members(keys);
        }
        self.members = members;
        self.dialler.network_changed(now.instant);
    }

    /// Hears where a peer is, and if `talks` that it is about to talk.
    pub(super) fn hear_where(
        &mut self,
        peer: &WireguardPublicKey,
        endpoints: &[SocketAddr],
        talks: bool,
        now: Now,
    ) {
        let clock = self.node.clock(now);
        let known = self.hearsay.entry(*peer).or_default().hear(endpoints);
        match talks {
            true => self.node.engine.introduce(peer, known, clock),
            false => self.node.engine.set_candidates(peer, known, clock),
        }
    }

    /// Tells a peer with a session which roster it holds.
    pub(super) fn tell_epoch(&mut self, peer: &WireguardPublicKey, held: &Published, now: Now) {
        let clock = self.node.clock(now);
        let (serial, hash) = (held.serial().get(), held.roster.head_hash().0);
        self.node
            .engine
            .send_epoch_notice(peer, serial, hash, clock);
    }

    /// Hears from the system that the machine's addresses changed, or that it woke up.
    pub(super) fn network_changed(&mut self, endpoints: Vec<SocketAddr>, now: Now) {
        let clock = self.node.clock(now);
        self.node.engine.set_own_endpoints(endpoints, clock);
        self.node.engine.network_changed(clock);
        self.dialler.network_changed(now.instant);
        self.client.endpoints_changed();
    }

    /// Hears which streams there are to another.
    pub(super) fn set_streams(
        &mut self,
        other: &WireguardPublicKey,
        streams: &[StreamId],
        now: Now,
    ) {
        let clock = self.node.clock(now);
        self.node.engine.set_streams(other, streams, clock);
    }

    /// Wants a moon for somebody.
    pub(super) fn want_moons(&mut self, now: Now) {
        self.dialler.want(now.instant);
    }

    /// Has a stream to a moon.
    pub(super) fn opened(&mut self, moon: &WireguardPublicKey, carrier: Carrier, now: Now) {
        self.dialler.opened(moon, carrier, now.instant);
    }

    /// Has none, or no more.
    pub(super) fn ended(&mut self, moon: &WireguardPublicKey, carrier: Carrier, now: Now) {
        self.dialler.ended(moon, carrier, now.instant);
    }

    /// Which stream is to be opened or closed next.
    pub(super) fn poll_dial(&mut self) -> Option<Dial> {
        self.dialler.poll_dial()
    }

    /// Takes a datagram. What is to be sent at once goes to `out`, the rest comes with
    /// [`Machine::drain`].
    pub(super) fn receive(
        &mut self,
        from: Remote,
        mut datagram: Vec<u8>,
        now: Now,
        out: &mut Vec<Transmit>,
    ) {
        let refusal = self.node.receive(from, &mut datagram, true, now);
        if let Some(relay) = &self.relay
            && let Some(reflection) = relay.reflect(from, &datagram, now.instant)
        {
            out.push(Transmit {
                to: from,
                data: reflection.to_vec(),
            });
        }
        // As a client of other moons it looks for its own tokens first: its relay does not know them.
        let (Some(Refusal::NotRelayed), Some(relay)) = (refusal, &self.relay) else {
            return;
        };
        match relay.forward(from, &mut datagram, now.instant) {
            Forwarded::To(to) => out.push(Transmit { to, data: datagram }),
            Forwarded::Answer(notice) => out.push(Transmit {
                to: from,
                data: notice.to_vec(),
            }),
            Forwarded::Dropped(_) | Forwarded::NotOurs => {}
        }
    }

    /// Takes a datagram that came to its second socket.
    pub(super) fn receive_second(&mut self, from: SocketAddr, datagram: &[u8], now: Now) {
        let clock = self.node.clock(now);
        self.node.engine.handle_measured(from, datagram, clock);
    }

    /// What its engine told since this was last asked.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        let events = std::mem::take(&mut self.node.events);
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// When its timers run next; `None` while it is off.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.node.engine.poll_timeout(),
            self.dialler.poll_timeout(),
            self.client.poll_timeout(),
        ];
        timers.into_iter().flatten().min().filter(|_| self.running)
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        let clock = self.node.clock(now);
        self.node.engine.handle_timeout(clock);
        self.dialler.handle_timeout(now.instant);
    }

    pub(super) fn drain(&mut self, now: Now) -> Vec<Transmit> {
        let transmits = self.node.drain(now);
        let engine = &self.node.engine;
        if !engine.moons(now.instant).eq(self.reached.iter().copied()) {
            self.reached = engine.moons(now.instant).collect();
            let reached = self.reached.iter().copied();
            self.dialler.set_moons(reached, now.instant);
        }
        transmits
    }

    pub(super) fn take_delivered(&mut self) -> Vec<Delivered> {
        // Refusals are not looked at; a run of a million steps would only gather them.
        self.node.refusals.clear();
        std::mem::take(&mut self.node.delivered)
    }

    /// In which state it sees a peer, and by which way it sends to it.
    pub(super) fn view_of(
        &self,
        key: &WireguardPublicKey,
        now: Now,
    ) -> Option<(PeerState, Option<Via>)> {
        let view = self.node.engine.peer(key, now)?;
        Some((view.state, view.via))
    }

    /// Why it reaches a peer as it does, or does not.
    pub(super) fn reason_of(&self, key: &WireguardPublicKey, now: Now) -> Option<Reason> {
        Some(self.node.engine.peer(key, now)?.reason)
    }

    /// What it can tell of its ways to a peer.
    pub(super) fn story_of(&self, key: &WireguardPublicKey) -> PeerStory {
        self.node.engine.story(key)
    }

    /// The ways to a peer that it knows.
    pub(super) fn paths_to(&self, key: &WireguardPublicKey) -> Vec<PathView> {
        self.node.engine.paths(key)
    }

    fn begin_relaying(&mut self) {
        let relay = Arc::new(RelayServer::new(RelayLimits::default()));
        self.node.engine.set_relay_server(Some(Arc::clone(&relay)));
        self.relay = Some(relay);
    }
}

/// A machine as others know it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    config: mesh_core::PeerConfig,
}

impl Peer {
    pub(super) fn of(machine: &Machine) -> Self {
        Self {
            config: machine.node.as_peer(true, Protocol::Wireguard),
        }
    }
}
