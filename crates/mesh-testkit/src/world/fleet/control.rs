//! How machines and controllers hear of each other.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{Carrier, Errand, usable_endpoints};
use mesh_inventory::roster::admit;
use mesh_types::{Instant, MachineName, Serial, WireguardPublicKey};
use mesh_wire::control::{Notice, Reply, Request};

use super::Fleet;
use crate::{
    node::NETWORK,
    world::{
        HostId,
        channels::{ChannelId, End, Heard, Message},
        client::{Client, Wanted},
        controller::{Act, Controller},
        reference::{self, Verdict},
        rosters::{self, Published},
    },
};

/// What a packet begins with that asks a peer for its roster, and what answers it, each with a serial after it.
const ROSTER_ASKED: &[u8; 8] = b"roster?:";
const ROSTER_GIVEN: &[u8; 8] = b"roster!:";

impl Fleet {
    /// Has a machine be a controller. To be called before the first [`Fleet::publish`]; rosters then come from
    /// controllers and from peers alone, but for the first.
    pub fn add_controller(&mut self, host: HostId) {
        let mut controller = Controller::new(host);
        controller.start(self.now);
        self.controllers.push(controller);
    }

    /// Ends a controller's process, or starts it again with its identity and what is on its disk. The agent
    /// beside it is not touched.
    pub fn set_controller(&mut self, host: HostId, running: bool) {
        self.channels.forget(host, End::Controller);
        let now = self.now;
        if let Some(controller) = self.controller_mut(host) {
            if running {
                controller.start(now);
            } else {
                controller.stop();
            }
        }
        self.supply_controllers();
    }

    /// The controllers.
    pub fn controllers(&self) -> impl Iterator<Item = HostId> + '_ {
        self.controllers.iter().map(|controller| controller.host)
    }

    /// Whether a machine's controller runs.
    pub fn controls(&self, host: HostId) -> bool {
        let mut all = self.controllers.iter();
        all.any(|controller| controller.host == host && controller.runs())
    }

    /// Whether a machine is connected to a controller that has admitted it.
    pub fn is_served(&self, host: HostId) -> bool {
        !self.machines[host.0].client.admitted().is_empty()
    }

    /// Whether a running machine could reach a controller that runs, has the newest roster, and would admit it.
    pub fn reaches_the_newest_roster(&self, host: HostId) -> bool {
        let newest = self.published.last().map(|published| published.serial());
        let mut all = self.controllers.iter();
        all.any(|controller| {
            let has = controller.disk.as_ref().map(|disk| disk.serial());
            self.runs(host) && has == newest && self.reaches_desk(host, controller)
        })
    }

    /// Pairs of a machine and a controller: those that are connected, and those that are not.
    pub fn lines(&self) -> (usize, usize) {
        let admitted = |host: HostId| self.machines[host.0].client.admitted().len();
        let connected: usize = self.hosts().map(admitted).sum();
        let all = self.machines.len() * self.controllers.len();
        (connected, all - connected)
    }

    /// Whether there is a controller that two machines could reach, and that would admit both.
    pub fn share_a_controller(&self, a: HostId, b: HostId) -> bool {
        let mut all = self.controllers.iter();
        all.any(|controller| {
            [a, b]
                .into_iter()
                .all(|host| self.runs(host) && self.reaches_desk(host, controller))
        })
    }

    fn reaches_desk(&self, host: HostId, controller: &Controller) -> bool {
        let admits = controller.disk.as_ref().is_some_and(|disk| disk.has(host));
        let pipe = self.underlay.pipe(host, controller.host, Carrier::Quic);
        controller.runs() && admits && pipe.is_some()
    }

    /// What is to be expected of a pair that knows of each other no more than a controller says: addresses.
    pub fn verdict_by_addresses(&self, a: HostId, b: HostId) -> Verdict {
        if !self.runs(a) || !self.runs(b) {
            return Verdict::Impossible;
        }
        reference::by_addresses(&self.underlay, a, b)
    }

    /// Whether a machine holds the newest roster.
    pub fn is_up_to_date(&self, host: HostId) -> bool {
        self.serial(host) == self.published.last().map(|published| published.serial())
    }

    /// When a machine last took a roster.
    pub const fn roster_taken(&self) -> Instant {
        self.roster_taken
    }

    /// What agents and controllers said to each other since this was last asked, keepalives left out.
    pub const fn take_said_to_controllers(&mut self) -> u64 {
        self.channels.take_sent()
    }

    /// Signs the newest roster, and hands it to the controllers that are there.
    pub(super) fn hand_to_controllers(&mut self) {
        let is_first = self.published.is_empty();
        let controllers: Vec<HostId> = self.controllers().collect();
        let previous = self.published.last().map(Arc::as_ref);
        let members = Arc::clone(&self.members);
        let published = Arc::new(Published::sign(members, &controllers, previous));
        self.published.push(Arc::clone(&published));
        self.supply_controllers();
        if is_first {
            for host in self.hosts() {
                let client = self.new_client(host);
                self.machines[host.0].client = client;
                self.take_published(host, Arc::clone(&published));
            }
        }
    }

    /// Gives the newest roster to controllers that run and do not have it.
    pub(super) fn supply_controllers(&mut self) {
        let Some(newest) = self.published.last().cloned() else {
            return;
        };
        for index in 0..self.controllers.len() {
            let controller = &mut self.controllers[index];
            let has = controller.disk.as_ref().map(|disk| disk.serial());
            let is_online = self.underlay.is_online(controller.host);
            if controller.runs() && is_online && has < Some(newest.serial()) {
                let acts = controller.take(&newest, self.now);
                self.act_as_controller(acts);
            }
        }
    }

    /// The agent of a machine starts anew.
    pub(super) fn restart_client(&mut self, host: HostId) {
        self.channels.forget(host, End::Client);
        if self.machines[host.0].client.is_there() {
            let client = self.new_client(host);
            self.machines[host.0].client = client;
        }
    }

    fn new_client(&mut self, host: HostId) -> Client {
        self.clients += 1;
        let mut seed = [self.seed; 32];
        seed[1] = u8::try_from(host.0).expect("at most 255 machines");
        seed[2..6].copy_from_slice(&self.clients.to_be_bytes());
        let controllers: Vec<HostId> = self.controllers().collect();
        Client::new(&controllers, seed, self.now.instant)
    }

    /// Does what a machine's conversations want.
    pub(super) fn converse(&mut self, host: HostId) {
        if !self.machines[host.0].client.is_there() || !self.runs(host) {
            return;
        }
        let now = self.now.instant;
        loop {
            let own = self.serial(host);
            let Some(wanted) = self.machines[host.0].client.poll(own, now) else {
                return;
            };
            match wanted {
                Wanted::Errand(controller, Errand::Connect) => {
                    self.channels.dial(host, controller, now);
                }
                Wanted::Errand(controller, Errand::AskRoster) => {
                    self.ask(host, controller, Request::Roster { have: own });
                }
                Wanted::Errand(controller, Errand::Report) => {
                    let endpoints = self.underlay.endpoints(host);
                    self.ask(host, controller, Request::Report { endpoints });
                }
                Wanted::Fetch(peer) => {
                    let have = own.map_or(0, Serial::get);
                    self.send_inside(host, peer, ROSTER_ASKED, have);
                }
            }
        }
    }

    fn ask(&mut self, host: HostId, controller: HostId, request: Request) {
        let line = self.machines[host.0].client.line_to(controller);
        if let Some(channel) = line.and_then(|line| line.channel) {
            self.say(channel, End::Controller, Message::Ask(request));
        }
    }

    fn say(&mut self, channel: ChannelId, to: End, message: Message) {
        let (underlay, now) = (&self.underlay, self.now.instant);
        self.channels.send(channel, to, message, underlay, now);
    }

    /// The engine of a machine wants to know where a peer is.
    pub(super) fn need_endpoints(&mut self, host: HostId, peer: HostId) {
        let client = &mut self.machines[host.0].client;
        let channels = client.admitted();
        if channels.is_empty() || !client.asks(peer, self.now.instant) {
            return;
        }
        for channel in channels {
            self.ask_where(channel, peer);
        }
    }

    fn ask_where(&mut self, channel: ChannelId, peer: HostId) {
        let peer = rosters::name(peer);
        let request = Message::Ask(Request::Endpoints { peer });
        self.say(channel, End::Controller, request);
    }

    /// A machine has a session with another.
    pub(super) fn tell_epoch(&mut self, host: HostId, peer: &WireguardPublicKey) {
        if let Some(held) = self.machines[host.0].held.clone() {
            self.machines[host.0].tell_epoch(peer, &held, self.now);
        }
    }

    /// A machine hears which roster a peer holds.
    pub(super) fn hear_epoch(&mut self, host: HostId, peer: HostId, serial: u64) {
        let own = self.serial(host);
        let client = &mut self.machines[host.0].client;
        if let Ok(serial) = Serial::try_from(serial)
            && client.is_there()
        {
            client.hear_from_peer(peer, serial, own, self.now.instant);
        }
    }

    fn send_inside(&mut self, host: HostId, to: HostId, what: &[u8; 8], number: u64) {
        self.send_payload(host, to, &[what.as_slice(), &number.to_be_bytes()].concat());
    }

    /// What came out of a tunnel, if it is about rosters: true if so.
    pub(super) fn is_about_rosters(&mut self, host: HostId, peer: HostId, payload: &[u8]) -> bool {
        let Some((what, rest)) = payload.split_first_chunk::<8>() else {
            return false;
        };
        let number = rest.first_chunk().map_or(0, |n| u64::from_be_bytes(*n));
        if what == ROSTER_ASKED {
            // Where there is a controller it has the port, and does not know this client.
            let own = self.serial(host).filter(|_| !self.controls(host));
            let newer = own.map_or(0, Serial::get);
            let given = if newer > number { newer } else { 0 };
            self.send_inside(host, peer, ROSTER_GIVEN, given);
        } else if what == ROSTER_GIVEN {
            let mut all = self.published.iter();
            let given = all.find(|published| published.serial().get() == number);
            if let Some(file) = given.map(|published| Arc::clone(&published.file)) {
                self.take_file(host, &file);
            }
            let (own, now) = (self.serial(host), self.now.instant);
            self.machines[host.0].client.fetched(own, now);
        } else {
            return false;
        }
        true
    }

    /// The serial of the roster that a machine holds.
    fn serial(&self, host: HostId) -> Option<Serial> {
        let held = self.machines[host.0].held.as_ref();
        held.map(|held| held.serial())
    }

    fn take_file(&mut self, host: HostId, file: &[u8]) {
        let mut all = self.published.iter();
        // As it was verified when it was signed.
        let Some(published) = all.find(|published| *published.file == file).cloned() else {
            return;
        };
        let held = self.machines[host.0].held.as_ref();
        let current = held.map(|held| &held.roster);
        if admit(current, &published.roster, None, true).is_ok() {
            self.take_published(host, published);
        }
    }

    fn take_published(&mut self, host: HostId, published: Arc<Published>) {
        self.roster_taken = self.now.instant;
        let members = Arc::clone(&published.members);
        self.machines[host.0].held = Some(Arc::clone(&published));
        self.take_roster(host, members);
        for other in self.hosts() {
            let peer = self.machines[other.0].key();
            self.machines[host.0].tell_epoch(&peer, &published, self.now);
        }
        let now = self.now.instant;
        self.machines[host.0].client.roster_changed(now);
        self.drain(host);
    }

    /// Lets connections to controllers go on.
    pub(super) fn run_channels(&mut self) {
        let controllers = &self.controllers;
        let listens = |host: HostId| {
            let mut all = controllers.iter();
            all.any(|controller| controller.host == host && controller.runs())
        };
        let now = self.now.instant;
        for heard in self.channels.handle_timeout(&self.underlay, listens, now) {
            self.hear_on_channel(heard);
        }
    }

    fn hear_on_channel(&mut self, heard: Heard) {
        let now = self.now;
        match heard {
            Heard::Opened(client, controller, channel) => {
                self.say_hello(client, controller, channel);
            }
            Heard::Failed(client, controller) => self.lose_line(client, controller),
            Heard::Lost(channel, host, End::Client) => {
                let line = self.machines[host.0].client.line(channel);
                if let Some(controller) = line.map(|line| line.controller) {
                    self.lose_line(host, controller);
                }
            }
            Heard::Lost(channel, host, End::Controller)
            | Heard::Arrived {
                channel,
                host,
                at: End::Controller,
                message: Message::Close,
                ..
            } => {
                if let Some(controller) = self.controller_mut(host) {
                    controller.lost(channel, now);
                }
            }
            Heard::Arrived {
                channel,
                host,
                at: End::Controller,
                source,
                message: Message::Ask(request),
                ..
            } => {
                let Some(client) = self.channels.client(channel) else {
                    return;
                };
                if let Some(controller) = self.controller_mut(host) {
                    let acts = controller.answer(channel, client, source, request, now);
                    self.act_as_controller(acts);
                }
            }
            Heard::Arrived {
                at: End::Controller,
                ..
            } => {}
            Heard::Arrived {
                channel,
                host,
                at: End::Client,
                message,
                ..
            } => {
                if self.runs(host) {
                    self.hear_controller(host, channel, message);
                    self.drain(host);
                }
            }
        }
    }

    fn say_hello(&mut self, host: HostId, controller: HostId, channel: ChannelId) {
        let held = self.machines[host.0].held.as_ref();
        let hello = Request::Hello {
            identity: rosters::public(host),
            name: Some(rosters::name(host)),
            release: "0.1.0".to_owned(),
            serial: held.map(|held| held.serial()),
            head: held.map(|held| held.roster.head_hash().to_string()),
            endpoints: self.underlay.endpoints(host),
        };
        if let Some(line) = self.machines[host.0].client.line_to(controller) {
            line.channel = Some(channel);
        }
        self.say(channel, End::Controller, Message::Ask(hello));
    }

    fn lose_line(&mut self, host: HostId, controller: HostId) {
        let now = self.now.instant;
        self.machines[host.0].client.ended(controller, now);
        self.converse(host);
    }

    fn hang_up(&mut self, host: HostId, channel: ChannelId) {
        let (underlay, now) = (&self.underlay, self.now.instant);
        self.channels.close(channel, End::Client, underlay, now);
        let line = self.machines[host.0].client.line(channel);
        if let Some(controller) = line.map(|line| line.controller) {
            self.lose_line(host, controller);
        }
    }

    /// A machine hears something of a controller.
    fn hear_controller(&mut self, host: HostId, channel: ChannelId, message: Message) {
        match message {
            Message::Notice(Notice::Roster { serial }) => self.hear_of(host, serial),
            Message::Notice(Notice::Introduce { peer, endpoints }) => {
                self.hear_where(host, &peer, endpoints, true);
            }
            Message::Notice(Notice::Refused { .. }) | Message::Close | Message::Ask(_) => {
                self.hang_up(host, channel);
            }
            Message::Answer(request, reply, file) => {
                self.hear_answer(host, channel, request, reply, file);
            }
        }
    }

    fn hear_answer(
        &mut self,
        host: HostId,
        channel: ChannelId,
        request: Request,
        reply: Reply,
        file: Option<Arc<Vec<u8>>>,
    ) {
        let now = self.now.instant;
        match (request, reply) {
            (Request::Hello { .. }, Reply::Welcome { serial, .. }) => {
                if let Some(line) = self.machines[host.0].client.line(channel) {
                    line.is_admitted = true;
                    line.conversation.connected(now);
                }
                self.hear_of(host, serial);
                self.ask_for_sought(host, channel);
            }
            (Request::Hello { .. }, _) => self.hang_up(host, channel),
            (Request::Endpoints { peer }, Reply::Endpoints { endpoints, .. }) => {
                if let Some(peer) = rosters::host(&peer) {
                    self.machines[host.0].client.told(peer);
                }
                self.hear_where(host, &peer, endpoints, false);
            }
            (Request::Roster { .. } | Request::Report { .. }, _) => {
                if let Some(file) = file {
                    self.take_file(host, &file);
                }
                if let Some(line) = self.machines[host.0].client.line(channel) {
                    line.conversation.answered();
                }
            }
            (Request::Endpoints { .. } | Request::Push { .. } | Request::Join { .. }, _) => {}
        }
    }

    fn hear_of(&mut self, host: HostId, serial: Serial) {
        let own = self.serial(host);
        self.machines[host.0].client.hear_of(serial, own);
    }

    /// Asks a controller that has just been connected where the peers are that a machine tries to reach.
    fn ask_for_sought(&mut self, host: HostId, channel: ChannelId) {
        for peer in self.hosts() {
            let reason = self.reason(host, peer);
            if reason.is_some_and(|reason| reason.reach().is_sought()) {
                self.ask_where(channel, peer);
            }
        }
    }

    fn hear_where(
        &mut self,
        host: HostId,
        peer: &MachineName,
        endpoints: Vec<SocketAddr>,
        probe: bool,
    ) {
        let Some(peer) = rosters::host(peer).filter(|peer| self.knows(host, *peer)) else {
            return;
        };
        let endpoints = usable_endpoints(endpoints, NETWORK.prefix());
        if endpoints.is_empty() && !probe {
            return;
        }
        let key = self.machines[peer.0].key();
        self.machines[host.0].hear_where(&key, &endpoints, probe, self.now);
    }

    fn act_as_controller(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Send(channel, message) => self.say(channel, End::Client, message),
                Act::Close(channel) => {
                    let (underlay, now) = (&self.underlay, self.now.instant);
                    self.channels.close(channel, End::Controller, underlay, now);
                    self.lose_desk(channel);
                }
            }
        }
    }

    fn lose_desk(&mut self, channel: ChannelId) {
        let now = self.now;
        if let Some(host) = self.channels.controller(channel)
            && let Some(controller) = self.controller_mut(host)
        {
            controller.lost(channel, now);
        }
    }

    fn controller_mut(&mut self, host: HostId) -> Option<&mut Controller> {
        let mut all = self.controllers.iter_mut();
        all.find(|controller| controller.host == host)
    }
}
