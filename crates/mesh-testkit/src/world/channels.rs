//! QUIC between agents and controllers, as far as both notice it.
//!
//! A connection takes one round trip to open and survives a change of the client's address, as QUIC's do. It
//! loses nothing and keeps no order between questions: a lost segment is late, and what is sent while nothing
//! passes waits until something does. Keepalives are not datagrams of their own here: every three seconds each
//! connection is looked at, and one by which nothing passed for ten seconds is over at both ends.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_core::Carrier;
use mesh_types::{AGENT_PORT, Instant};
use mesh_wire::control::{Notice, Reply, Request};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{HostId, Underlay};

/// As `mesh-control` does it: how often a client is heard of, and how long a connection lives without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// When the first packet is sent, after dialling began, and when the agent gives up.
const FIRST_PACKETS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];
const GIVE_UP: Duration = Duration::from_secs(5);

/// The first time until a lost segment is sent again, doubled each time.
const RETRANSMIT: Duration = Duration::from_millis(200);
const RETRANSMITS_MAX: u32 = 6;

/// The number of a connection; none comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChannelId(pub(super) u64);

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Controller,
}

/// What goes over a connection.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Ask(Request),
    /// What was asked, the answer, and the file that is attached.
    Answer(Request, Reply, Option<Arc<Vec<u8>>>),
    Notice(Notice),
    /// The other end has closed it.
    Close,
}

/// What an end hears.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few exist at a time, and in a simulation only"
)]
pub(super) enum Heard {
    /// The first has a connection to the second.
    Opened(HostId, HostId, ChannelId),
    /// The first has none to the second.
    Failed(HostId, HostId),
    /// Something came.
    Arrived {
        channel: ChannelId,
        host: HostId,
        at: End,
        /// Where the client is, as the controller sees it.
        source: SocketAddr,
        message: Message,
    },
    /// It is over.
    Lost(ChannelId, HostId, End),
}

#[derive(Debug)]
struct Dial {
    since: Instant,
    /// First packets that were sent.
    sent: usize,
    /// When it is open, if the controller has answered.
    answered: Option<Instant>,
}

#[derive(Debug)]
struct Channel {
    client: HostId,
    controller: HostId,
    source: IpAddr,
    /// Whether each end's process still has it: the client's, the controller's.
    has: [bool; 2],
    /// When something passed last.
    passed: Instant,
    /// What waits until something passes again.
    stuck: Vec<(End, Message)>,
}

#[derive(Debug)]
struct Flight {
    channel: ChannelId,
    to: End,
    message: Message,
}

/// All connections to controllers.
pub(super) struct Channels {
    dials: BTreeMap<(HostId, HostId), Dial>,
    open: BTreeMap<ChannelId, Channel>,
    flying: BTreeMap<(Instant, u64), Flight>,
    looked: Instant,
    count: u64,
    /// First packets and messages between clients and controllers.
    sent: u64,
    rng: ChaCha8Rng,
}

impl Channels {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dials: BTreeMap::new(),
            open: BTreeMap::new(),
            flying: BTreeMap::new(),
            looked: Instant::ZERO,
            count: 0,
            sent: 0,
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x6368_616e_6e65_6c73),
        }
    }

    /// How much was said since this was last asked, but for keepalives.
    pub(super) const fn take_sent(&mut self) -> u64 {
        std::mem::replace(&mut self.sent, 0)
    }

    /// Who is at the client's end.
    pub(super) fn client(&self, id: ChannelId) -> Option<HostId> {
        Some(self.open.get(&id)?.client)
    }

    /// Who is at the controller's end.
    pub(super) fn controller(&self, id: ChannelId) -> Option<HostId> {
        Some(self.open.get(&id)?.controller)
    }

    /// Begins to dial a controller.
    pub(super) fn dial(&mut self, client: HostId, controller: HostId, now: Instant) {
        let dial = Dial {
            since: now,
            sent: 0,
            answered: None,
        };
        self.dials.insert((client, controller), dial);
    }

    /// Sends to the other end.
    pub(super) fn send(
        &mut self,
        id: ChannelId,
        to: End,
        message: Message,
        underlay: &Underlay,
        now: Instant,
    ) {
        let Some(channel) = self.open.get_mut(&id) else {
            return;
        };
        self.sent += 1;
        let Some(pipe) = underlay.pipe(channel.client, channel.controller, Carrier::Quic) else {
            channel.stuck.push((to, message));
            return;
        };
        let mut delay = pipe.latency;
        let mut pause = RETRANSMIT;
        for _ in 0..RETRANSMITS_MAX {
            if self.rng.gen_range(0..100) >= pipe.loss_percent {
                break;
            }
            delay += pause + pipe.latency * 2;
            pause *= 2;
        }
        self.fly(now + delay, id, to, message);
    }

    /// Closes one end, and tells the other, unless it was the first to close.
    pub(super) fn close(&mut self, id: ChannelId, end: End, underlay: &Underlay, now: Instant) {
        let Some(channel) = self.open.get_mut(&id) else {
            return;
        };
        channel.has[end.index()] = false;
        if channel.has[end.other().index()] {
            self.send(id, end.other(), Message::Close, underlay, now);
        }
    }

    /// A process that had ends of this kind is gone, and tells nobody.
    pub(super) fn forget(&mut self, host: HostId, end: End) {
        if end == End::Client {
            self.dials.retain(|(client, _), _| *client != host);
        }
        for channel in self.open.values_mut() {
            if channel.host(end) == host {
                channel.has[end.index()] = false;
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let dials = self.dials.values().map(Dial::due).min();
        let look = Some(self.looked + KEEP_ALIVE).filter(|_| !self.open.is_empty());
        let flying = self.flying.keys().map(|(at, _)| *at).next();
        [dials, look, flying].into_iter().flatten().min()
    }

    /// Lets happen what is due. `listens` says whether a controller's process runs.
    pub(super) fn handle_timeout(
        &mut self,
        underlay: &Underlay,
        listens: impl Fn(HostId) -> bool,
        now: Instant,
    ) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= now
        {
            let flight = entry.remove();
            self.land(flight, underlay, &mut heard);
        }
        let due = self.dials.iter().filter(|(_, dial)| dial.due() <= now);
        let due: Vec<_> = due.map(|(line, _)| *line).collect();
        for line in due {
            self.go_on_dialling(line, underlay, &listens, now, &mut heard);
        }
        if self.looked + KEEP_ALIVE <= now {
            self.look(underlay, &listens, now, &mut heard);
        }
        heard
    }

    fn land(&mut self, flight: Flight, underlay: &Underlay, heard: &mut Vec<Heard>) {
        let Some(channel) = self.open.get_mut(&flight.channel) else {
            return;
        };
        if !channel.has[flight.to.index()] {
            return;
        }
        let pipe = underlay.pipe(channel.client, channel.controller, Carrier::Quic);
        let Some(pipe) = pipe else {
            channel.stuck.push((flight.to, flight.message));
            return;
        };
        channel.source = pipe.outer;
        heard.push(channel.arrived(flight.channel, flight.to, flight.message));
    }

    fn look(
        &mut self,
        underlay: &Underlay,
        listens: impl Fn(HostId) -> bool,
        now: Instant,
        heard: &mut Vec<Heard>,
    ) {
        self.looked = now;
        let mut freed = Vec::new();
        self.open.retain(|id, channel| {
            let pipe = underlay.pipe(channel.client, channel.controller, Carrier::Quic);
            if let Some(pipe) = pipe {
                if channel.has == [true; 2] {
                    channel.passed = now;
                    channel.source = pipe.outer;
                }
                let stuck = std::mem::take(&mut channel.stuck);
                freed.extend(stuck.into_iter().map(|(to, m)| (*id, to, m, pipe.latency)));
                // A process that knows nothing of a connection says so.
                if channel.has == [true, false] && listens(channel.controller) {
                    channel.lose(*id, End::Client, heard);
                }
            }
            if now.saturating_since(channel.passed) >= IDLE_TIMEOUT {
                for end in [End::Client, End::Controller] {
                    if channel.has[end.index()] && underlay.is_awake(channel.host(end)) {
                        channel.lose(*id, end, heard);
                    }
                }
            }
            channel.has.contains(&true)
        });
        for (id, to, message, latency) in freed {
            self.fly(now + latency, id, to, message);
        }
    }

    fn go_on_dialling(
        &mut self,
        (client, controller): (HostId, HostId),
        underlay: &Underlay,
        listens: impl Fn(HostId) -> bool,
        now: Instant,
        heard: &mut Vec<Heard>,
    ) {
        let Some(dial) = self.dials.get_mut(&(client, controller)) else {
            return;
        };
        let pipe = underlay.pipe(client, controller, Carrier::Quic);
        let pipe = pipe.filter(|_| listens(controller));
        if dial.answered.take().is_some() {
            if let Some(pipe) = pipe {
                self.dials.remove(&(client, controller));
                self.count += 1;
                let id = ChannelId(self.count);
                if self.open.is_empty() {
                    self.looked = now;
                }
                let channel = Channel {
                    client,
                    controller,
                    source: pipe.outer,
                    has: [true; 2],
                    passed: now,
                    stuck: Vec::new(),
                };
                self.open.insert(id, channel);
                heard.push(Heard::Opened(client, controller, id));
            }
            return;
        }
        let is_offline = underlay.addresses(client).next().is_none();
        if dial.sent >= FIRST_PACKETS.len() || is_offline {
            self.dials.remove(&(client, controller));
            heard.push(Heard::Failed(client, controller));
            return;
        }
        dial.sent += 1;
        self.sent += 1;
        let is_lost = |loss: u32| self.rng.gen_range(0..100) < loss;
        dial.answered = pipe
            .filter(|pipe| loss_free(pipe.loss_percent, is_lost))
            .map(|pipe| now + pipe.latency * 2);
    }

    fn fly(&mut self, at: Instant, channel: ChannelId, to: End, message: Message) {
        self.count += 1;
        let flight = Flight {
            channel,
            to,
            message,
        };
        self.flying.insert((at, self.count), flight);
    }
}

/// Whether a packet and its answer come through.
fn loss_free(loss_percent: u32, mut is_lost: impl FnMut(u32) -> bool) -> bool {
    !is_lost(loss_percent) && !is_lost(loss_percent)
}

impl Dial {
    fn due(&self) -> Instant {
        match self.answered {
            Some(at) => at,
            None => self.since + FIRST_PACKETS.get(self.sent).copied().unwrap_or(GIVE_UP),
        }
    }
}

impl End {
    const fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Controller => 1,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Controller,
            Self::Controller => Self::Client,
        }
    }
}

impl Channel {
    const fn host(&self, end: End) -> HostId {
        match end {
            End::Client => self.client,
            End::Controller => self.controller,
        }
    }

    fn arrived(&self, channel: ChannelId, at: End, message: Message) -> Heard {
        Heard::Arrived {
            channel,
            host: self.host(at),
            at,
            source: SocketAddr::new(self.source, AGENT_PORT),
            message,
        }
    }

    fn lose(&mut self, id: ChannelId, end: End, heard: &mut Vec<Heard>) {
        self.has[end.index()] = false;
        heard.push(Heard::Lost(id, self.host(end), end));
    }
}
