mod control;
mod traffic;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use mesh_core::{Dial, Event, Now, Remote, Transmit, WallTime};
use mesh_types::{Instant, WireguardPublicKey};

use super::{
    Families, HostId, NatBehaviour, SiteId, Underlay,
    channels::Channels,
    controller::Controller,
    machine::{Machine, Member, Peer},
    machines::Machines,
    rosters::Published,
    streams::{Streamed, Streams},
};
use crate::packets;
pub use traffic::Traffic;

/// What every payload begins with.
const MARKER: &[u8; 8] = b"payload:";

/// An IPv6 header, the marker and a number.
const PACKET_BYTES_MIN: usize = 40 + 8 + 8;

/// One way, over the lines between a host and its site, and between a site and the one above.
const LAN_LATENCY: Duration = Duration::from_millis(1);
const UPLINK_LATENCY: Duration = Duration::from_millis(10);

/// Datagrams that one machine may be woken by in a second of virtual time: far above what an honest minute brings, and
/// far below a loop.
const WAKES_PER_SECOND_MAX: u32 = 5_000;

/// A timer counts for as many: one peer that wants to be looked at again at once, which is after a millisecond, is
/// a loop.
const TIMER_WAKES: u32 = 5;

/// Datagrams that may come out of one machine at one moment: every peer's candidates and moons at once.
const BURST_MAX: usize = 4_000;

/// Many machines with real engines, on an [`Underlay`].
///
/// A host's number is its machine's. Whatever runs is checked at every step: after timers have run the next
/// one is later, no machine is woken too often or sends too much at once, and no packet of someone who is
/// not in the receiver's roster comes through.
pub struct Fleet {
    /// What is between the machines. After a change that a machine would hear of from its system, call
    /// [`Fleet::notice`].
    pub underlay: Underlay,
    /// What was sent, by kind.
    pub traffic: Traffic,
    now: Now,
    seed: u8,
    machines: Machines,
    streams: Streams,
    channels: Channels,
    controllers: Vec<Controller>,
    /// All rosters that were signed, the newest last; none where there are no controllers.
    published: Vec<Arc<Published>>,
    /// When a machine last took one of them.
    roster_taken: Instant,
    /// How often an agent has begun to speak to controllers.
    clients: u32,
    /// Who is to be relayed by the next roster.
    relay_only: BTreeSet<HostId>,
    /// The newest roster.
    members: Arc<Vec<Member>>,
    arrived: BTreeMap<u64, Arrived>,
    packets: u64,
    /// In this second of virtual time, by machine.
    wakes: (u64, Vec<u32>),
}

/// A packet that came out of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// When.
    pub at: Instant,
    /// Whether the datagram came from the sender itself, not through a moon.
    pub direct: bool,
}

impl Fleet {
    /// An internet with no machines.
    pub fn new(seed: u64) -> Self {
        Self {
            underlay: Underlay::new(seed),
            traffic: Traffic::default(),
            now: Now {
                instant: Instant::from_micros(1_000_000),
                wall: WallTime::from_millis(1_700_000_000_000),
            },
            seed: seed.to_be_bytes()[7],
            machines: Machines::default(),
            streams: Streams::new(seed),
            channels: Channels::new(seed),
            controllers: Vec::new(),
            published: Vec::new(),
            roster_taken: Instant::ZERO,
            clients: 0,
            relay_only: BTreeSet::new(),
            members: Arc::default(),
            arrived: BTreeMap::new(),
            packets: 0,
            wakes: (0, Vec::new()),
        }
    }

    /// Adds a moon on the internet. Nobody knows it before [`Fleet::publish`].
    pub fn moon(&mut self) -> HostId {
        self.machine(Underlay::INTERNET, Families::Dual, true)
    }

    /// Adds a moon at a site, which must not translate. Nobody knows it before [`Fleet::publish`].
    pub fn moon_at(&mut self, site: SiteId) -> HostId {
        self.machine(site, Families::Dual, true)
    }

    /// Adds a node at a site. Nobody knows it before [`Fleet::publish`].
    pub fn node(&mut self, site: SiteId, families: Families) -> HostId {
        self.machine(site, families, false)
    }

    /// Adds a site behind a NAT, without IPv6.
    pub fn site(&mut self, behaviour: NatBehaviour) -> SiteId {
        let site = self.underlay.add_site(Underlay::INTERNET, UPLINK_LATENCY);
        self.underlay.translate(site, behaviour);
        self.underlay.gateway_mut(site).v6 = super::Passage::Closed;
        site
    }

    /// Adds a node with IPv4 behind a NAT of its own.
    pub fn node_behind(&mut self, behaviour: NatBehaviour) -> HostId {
        let site = self.site(behaviour);
        self.node(site, Families::V4)
    }

    /// Makes a roster with all machines but those in `without`. Without controllers all that run get it at once,
    /// but for those in `without`; with controllers only the first one comes so.
    pub fn publish(&mut self, without: &[HostId]) {
        let members = (0..self.machines.len())
            .filter(|index| !without.contains(&HostId(*index)))
            .map(|index| Member {
                index,
                moon_at: self.machines[index]
                    .is_moon()
                    .then(|| self.underlay.endpoints(HostId(index))),
                relay_only: self.relay_only.contains(&HostId(index)),
            });
        self.members = Arc::new(members.collect());
        if !self.controllers.is_empty() {
            return self.hand_to_controllers();
        }
        for index in 0..self.machines.len() {
            self.catch_up(HostId(index));
        }
    }

    /// Has a node speak through moons alone, or no more, from the next [`Fleet::publish`] on.
    pub fn set_relay_only(&mut self, host: HostId, relay_only: bool) {
        if relay_only {
            self.relay_only.insert(host);
        } else {
            self.relay_only.remove(&host);
        }
    }

    /// Takes a node out of the roster of all others, or back into it.
    pub fn set_member(&mut self, host: HostId, is_member: bool) {
        let without: Vec<HostId> = self
            .hosts()
            .filter(|other| {
                if *other == host {
                    !is_member
                } else {
                    !self.is_member(*other)
                }
            })
            .collect();
        self.publish(&without);
    }

    /// Whether the newest roster has this machine.
    pub fn is_member(&self, host: HostId) -> bool {
        self.members.iter().any(|member| member.index == host.0)
    }

    /// Gives a host an interface at a site, behind those that it has.
    pub fn attach(&mut self, host: HostId, site: SiteId, families: Families) {
        self.underlay.attach(host, site, families, LAN_LATENCY);
    }

    /// Lets time pass, from one arrival or timer to the next.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now.instant + time;
        loop {
            let timer = (0..self.machines.len())
                .filter(|index| self.underlay.is_awake(HostId(*index)))
                .filter_map(|index| self.machines.poll_timeout(index))
                .min();
            let lines = [
                self.underlay.poll_timeout(),
                self.streams.poll_timeout(),
                self.channels.poll_timeout(),
            ];
            let next = lines.into_iter().flatten().chain(timer).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.advance_to(next);
            self.land_arrivals();
            self.run_streams();
            self.run_channels();
            self.run_timers();
        }
        self.advance_to(end);
    }

    /// Sends a packet of its own from one machine to another, and returns its number.
    pub fn send(&mut self, from: HostId, to: HostId) -> u64 {
        self.send_sized(from, to, 0)
    }

    /// As [`Fleet::send`], with a packet of so many bytes, if that is more than it needs.
    pub fn send_sized(&mut self, from: HostId, to: HostId, bytes: usize) -> u64 {
        self.packets += 1;
        let filler = vec![0; bytes.saturating_sub(PACKET_BYTES_MIN)];
        let payload = [MARKER.as_slice(), &filler, &self.packets.to_be_bytes()].concat();
        self.send_payload(from, to, &payload);
        self.packets
    }

    fn send_payload(&mut self, from: HostId, to: HostId, payload: &[u8]) {
        if !self.runs(from) {
            return;
        }
        let (source, destination) = (self.address(from), self.address(to));
        let packet = packets::ipv6(source, destination, payload);
        let at_once = self.machines[from.0].node.send(&packet, self.now);
        self.transmit(from, at_once);
        self.drain(from);
    }

    /// When and how a packet came, if it did.
    pub fn arrived(&self, packet: u64) -> Option<Arrived> {
        self.arrived.get(&packet).copied()
    }

    /// Forgets which packets came so far.
    pub fn forget_arrived(&mut self) {
        self.arrived.clear();
    }

    /// Tells a machine of its addresses, as its system does after a change and after it woke up. Without
    /// controllers it also hears of the newest roster, if it is in it.
    pub fn notice(&mut self, host: HostId) {
        if !self.runs(host) {
            return;
        }
        let endpoints = self.underlay.endpoints(host);
        self.machines[host.0].network_changed(endpoints, self.now);
        for other in self.hosts() {
            self.set_streams(host, other);
        }
        self.drain(host);
        self.catch_up(host);
    }

    /// Ends a machine's process, or starts it again with nothing but its identity and its disk.
    pub fn set_running(&mut self, host: HostId, running: bool) {
        self.machines[host.0].stop(self.now);
        let ended = self.streams.end(host);
        self.take_streamed(ended);
        self.restart_client(host);
        if !running {
            return;
        }
        self.machines[host.0].restart(self.now);
        let members = Arc::clone(&self.machines[host.0].members);
        self.take_roster(host, members);
        self.machines[host.0].recall_clients(self.now);
        self.notice(host);
    }

    /// Upgrades a machine's agent: another process goes on with its sessions at once.
    pub fn upgrade(&mut self, host: HostId) {
        self.machines[host.0].stop(self.now);
        let handover = self.machines[host.0].hand_over(self.now);
        self.machines[host.0].restart(self.now);
        self.restart_client(host);
        let members = Arc::clone(&self.machines[host.0].members);
        self.take_roster(host, members);
        let endpoints = self.underlay.endpoints(host);
        self.machines[host.0].take_over(handover, endpoints, self.now);
        self.machines[host.0].recall_clients(self.now);
        self.drain(host);
    }

    /// Sets a machine's wall clock.
    pub fn set_clock_ahead(&mut self, host: HostId, millis: i64) {
        self.machines[host.0].node.clock_ahead_millis = millis;
    }

    fn machine(&mut self, site: SiteId, families: Families, is_moon: bool) -> HostId {
        let host = self.underlay.add_host();
        self.attach(host, site, families);
        self.machines
            .push(Machine::new(self.seed, host.0, is_moon, self.now));
        self.wakes.1.push(0);
        self.notice(host);
        host
    }

    fn address(&self, host: HostId) -> std::net::Ipv6Addr {
        self.machines[host.0].node.address
    }

    /// Gives a machine the newest roster, if it is in it and has an older one.
    fn catch_up(&mut self, host: HostId) {
        let is_member = self.members.iter().any(|member| member.index == host.0);
        let is_newest = Arc::ptr_eq(&self.machines[host.0].members, &self.members);
        let by_hand = self.controllers.is_empty();
        if by_hand && self.runs(host) && is_member && !is_newest {
            self.take_roster(host, Arc::clone(&self.members));
        }
    }

    fn take_roster(&mut self, host: HostId, members: Arc<Vec<Member>>) {
        let peers: Vec<Peer> = self.machines.iter().map(Peer::of).collect();
        let is_member = |other: HostId| members.iter().any(|member| member.index == other.0);
        let closed = self.streams.retain(host, is_member);
        self.machines[host.0].take_roster(members, &peers, self.now);
        self.take_streamed(closed);
        self.drain(host);
    }

    fn advance_to(&mut self, instant: Instant) {
        let passed = instant.saturating_since(self.now.instant);
        let nanos = u64::try_from(passed.as_nanos()).expect("a test is shorter than 500 years");
        self.now = Now {
            instant: self.now.instant.max(instant),
            wall: WallTime::from_nanos(self.now.wall.as_nanos() + nanos),
        };
    }

    fn run_timers(&mut self) {
        for host in self.hosts() {
            let is_due = |fleet: &Self| {
                let due = fleet.machines.poll_timeout(host.0);
                due.is_some_and(|at| at <= fleet.now.instant)
            };
            if !self.underlay.is_awake(host) || !is_due(self) {
                continue;
            }
            self.count_wakes(host, TIMER_WAKES);
            self.machines[host.0].handle_timeout(self.now);
            self.drain(host);
            assert!(
                !is_due(self),
                "after the timers of {host:?} have run, the next deadline is later"
            );
        }
    }

    fn land_arrivals(&mut self) {
        self.underlay.handle_timeout(self.now.instant);
        while let Some(arrival) = self.underlay.poll_arrival() {
            let from = Remote::Udp(arrival.from);
            let host = arrival.host;
            if !arrival.second {
                self.receive(host, from, arrival.origin, arrival.data);
            } else if self.runs(host) {
                self.count_wakes(host, 1);
                self.machines[host.0].receive_second(arrival.from, &arrival.data, self.now);
                self.drain(host);
            }
        }
    }

    fn receive(&mut self, host: HostId, from: Remote, origin: HostId, data: Vec<u8>) {
        if !self.runs(host) {
            return;
        }
        self.count_wakes(host, 1);
        let mut out = Vec::new();
        self.machines[host.0].receive(from, data, self.now, &mut out);
        for delivered in self.machines[host.0].take_delivered() {
            self.note_delivered(host, origin, &delivered.packet);
        }
        self.transmit(host, out);
        self.drain(host);
    }

    fn run_streams(&mut self) {
        let machines = &self.machines;
        let takes = |moon: HostId, client: HostId| {
            let Machine {
                members, running, ..
            } = &machines[moon.0];
            *running && members.iter().any(|member| member.index == client.0)
        };
        let now = self.now.instant;
        let streamed = self.streams.handle_timeout(&self.underlay, takes, now);
        self.take_streamed(streamed);
    }

    fn take_streamed(&mut self, streamed: Vec<Streamed>) {
        for streamed in streamed {
            match streamed {
                Streamed::Opened(host, moon, carrier) => {
                    if self.runs(host) {
                        let key = self.machines[moon.0].key();
                        self.machines[host.0].opened(&key, carrier, self.now);
                        self.drain(host);
                    }
                }
                Streamed::Ended(host, moon, carrier) => {
                    let key = self.machines[moon.0].key();
                    if self.is_running(host) {
                        self.machines[host.0].ended(&key, carrier, self.now);
                    }
                    if self.runs(host) {
                        self.drain(host);
                    }
                }
                Streamed::Changed(host, other) => {
                    if self.runs(host) {
                        self.set_streams(host, other);
                        self.drain(host);
                    }
                }
                Streamed::Arrived {
                    host,
                    origin,
                    stream,
                    data,
                } => self.receive(host, Remote::Stream(stream), origin, data),
            }
        }
    }

    fn set_streams(&mut self, host: HostId, other: HostId) {
        let streams = self.streams.between(host, other);
        let key = self.machines[other.0].key();
        self.machines[host.0].set_streams(&key, &streams, self.now);
    }

    fn note_delivered(&mut self, host: HostId, origin: HostId, packet: &[u8]) {
        let sender = self
            .hosts()
            .find(|host| packet[8..24] == self.address(*host).octets())
            .expect("a machine sent it");
        assert!(
            self.knows(host, sender),
            "{sender:?} is not in the roster of {host:?} and got a packet through"
        );
        if !self.controllers.is_empty() && self.is_about_rosters(host, sender, &packet[40..]) {
            return;
        }
        let number = packet[packet.len() - 8..].first_chunk().expect("8 bytes");
        let arrived = Arrived {
            at: self.now.instant,
            direct: origin == sender,
        };
        let number = u64::from_be_bytes(*number);
        self.arrived.entry(number).or_insert(arrived);
    }

    fn drain(&mut self, host: HostId) {
        let transmits = self.machines[host.0].drain(self.now);
        assert!(
            transmits.len() <= BURST_MAX,
            "{host:?} sends {} datagrams at once",
            transmits.len()
        );
        self.transmit(host, transmits);
        for event in self.machines[host.0].take_events() {
            self.act_on(host, event);
        }
        while let Some(dial) = self.machines[host.0].poll_dial() {
            self.dial(host, dial);
        }
        self.converse(host);
    }

    /// Does what a machine's shell would about sockets of its own and about controllers.
    fn act_on(&mut self, host: HostId, event: Event) {
        if let Event::NeedEndpoints { peer } = &event {
            if let Some(peer) = self.host_of(peer) {
                self.need_endpoints(host, peer);
            }
        } else if let Event::SessionEstablished { peer, .. } = &event {
            self.tell_epoch(host, peer);
        } else if let Event::EpochNotice { peer, serial, .. } = &event {
            if let Some(peer) = self.host_of(peer) {
                self.hear_epoch(host, peer, *serial);
            }
        } else if let Event::Measure { to, data, fresh } = event {
            if fresh {
                self.underlay.open_second(host);
            }
            self.count_datagram(host, self.at(to.ip()), Some(to), &data);
            self.underlay
                .send_second(host, to, data.to_vec(), self.now.instant);
        } else if event == Event::Measured {
            self.underlay.close_second(host);
        } else if event == Event::MoonsWanted {
            self.machines[host.0].want_moons(self.now);
        }
    }

    fn host_of(&self, key: &WireguardPublicKey) -> Option<HostId> {
        self.hosts()
            .find(|other| self.machines[other.0].key() == *key)
    }

    fn dial(&mut self, host: HostId, dial: Dial) {
        let (Dial::Open(key, carrier) | Dial::Close(key, carrier)) = dial;
        let moon = self.host_of(&key).expect("a moon is a machine");
        match dial {
            Dial::Open(..) => self.streams.dial(host, moon, carrier, self.now.instant),
            Dial::Close(..) => {
                let closed = self.streams.hang_up(host, moon, carrier);
                self.take_streamed(closed);
            }
        }
    }

    fn transmit(&mut self, host: HostId, transmits: impl IntoIterator<Item = Transmit>) {
        for Transmit { to, data } in transmits {
            match to {
                Remote::Udp(to) => {
                    self.count_datagram(host, self.at(to.ip()), Some(to), &data);
                    self.underlay.send(host, to, data, self.now.instant);
                }
                Remote::Stream(stream) => {
                    // What is said into one that has ended does not leave the machine.
                    let receiver = self.streams.other_end(host, stream);
                    if receiver.is_some() {
                        self.count_datagram(host, receiver, None, &data);
                    }
                    let (underlay, now) = (&self.underlay, self.now.instant);
                    self.streams.send(host, stream, data, underlay, now);
                }
            }
        }
    }

    /// The machine that has this address.
    fn at(&self, address: IpAddr) -> Option<HostId> {
        let has = |host: &HostId| self.underlay.addresses(*host).any(|at| at == address);
        self.hosts().find(has)
    }

    fn count_wakes(&mut self, host: HostId, count: u32) {
        let second = self.now.instant.as_micros() / 1_000_000;
        if self.wakes.0 != second {
            self.wakes.0 = second;
            self.wakes.1.fill(0);
        }
        let wakes = &mut self.wakes.1[host.0];
        *wakes += count;
        assert!(
            *wakes <= WAKES_PER_SECOND_MAX,
            "{host:?} is woken {wakes} times in one second"
        );
    }
}
