//! QUIC and TLS on port 443 between hosts and moons, as far as machines notice them.
//!
//! TLS goes wherever routing does and takes two round trips to open; it keeps the order and turns losses into
//! delays. QUIC goes where UDP does and takes one. What is sent while nothing passes is lost: TCP would deliver
//! it late, and late is no better here. A stream is not told that its host has moved; it ends when nothing came
//! by it for a minute, as the agent's do.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use mesh_core::{Carrier, StreamId};
use mesh_types::Instant;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{HostId, Underlay, underlay::Pipe};

/// When the first packet is sent, after dialling began (RFC 6298), and when the agent gives up.
const FIRST_PACKETS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];
const GIVE_UP: Duration = Duration::from_secs(5);

/// As the agent's.
const IDLE: Duration = Duration::from_secs(60);

/// The first time until a lost segment is sent again, doubled each time (Linux's least).
const RETRANSMIT: Duration = Duration::from_millis(200);
const RETRANSMITS_MAX: u32 = 6;

/// What happened to a host's streams.
#[derive(Debug)]
pub(super) enum Streamed {
    /// The first has a connection to the second.
    Opened(HostId, HostId, Carrier),
    /// The first has none to the second, or no more.
    Ended(HostId, HostId, Carrier),
    /// The streams between the first and the second are others.
    Changed(HostId, HostId),
    /// A datagram came.
    Arrived {
        host: HostId,
        origin: HostId,
        stream: StreamId,
        data: Vec<u8>,
    },
}

/// Who dials whom, over what.
type Line = (HostId, HostId, Carrier);

#[derive(Debug)]
struct Dial {
    since: Instant,
    /// First packets that were sent.
    sent: usize,
    /// When the stream is open, if the moon has answered.
    answered: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    client: HostId,
    moon: HostId,
    /// The address that it was opened from.
    source: IpAddr,
    /// Whether the moon has heard of it.
    accepted: bool,
    /// When each end, the client first, last heard of the other, and when what was sent to it last arrives.
    heard: [Instant; 2],
    arrives: [Instant; 2],
}

#[derive(Debug)]
struct Flight {
    stream: StreamId,
    to_moon: bool,
    data: Vec<u8>,
}

/// All streams of a world.
pub(super) struct Streams {
    dials: BTreeMap<Line, Dial>,
    open: BTreeMap<StreamId, Connection>,
    flying: BTreeMap<(Instant, u64), Flight>,
    count: u64,
    rng: ChaCha8Rng,
}

impl Streams {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dials: BTreeMap::new(),
            open: BTreeMap::new(),
            flying: BTreeMap::new(),
            count: 0,
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x7463_7034_3433),
        }
    }

    /// Begins to dial a moon.
    pub(super) fn dial(&mut self, host: HostId, moon: HostId, carrier: Carrier, now: Instant) {
        let dial = Dial {
            since: now,
            sent: 0,
            answered: None,
        };
        self.dials.insert((host, moon, carrier), dial);
    }

    /// Ends a connection, open or not. Its host is not told.
    pub(super) fn hang_up(
        &mut self,
        host: HostId,
        moon: HostId,
        carrier: Carrier,
    ) -> Vec<Streamed> {
        self.dials.remove(&(host, moon, carrier));
        let mut seen = self.close(|id, connection| {
            id.carrier == carrier && connection.client == host && connection.moon == moon
        });
        seen.retain(|streamed| !matches!(streamed, Streamed::Ended(..)));
        seen
    }

    /// The streams that a host has to another.
    pub(super) fn between(&self, host: HostId, other: HostId) -> Vec<StreamId> {
        self.open
            .iter()
            .filter(|(_, connection)| {
                connection.client == host && connection.moon == other
                    || connection.accepted && connection.moon == host && connection.client == other
            })
            .map(|(id, _)| *id)
            .collect()
    }

    /// Who is at the other end of a stream.
    pub(super) fn other_end(&self, host: HostId, stream: StreamId) -> Option<HostId> {
        let connection = self.open.get(&stream)?;
        let ends = [connection.client, connection.moon];
        ends.into_iter().find(|end| *end != host)
    }

    /// Sends a datagram.
    pub(super) fn send(
        &mut self,
        host: HostId,
        stream: StreamId,
        data: Vec<u8>,
        underlay: &Underlay,
        now: Instant,
    ) {
        let Some(connection) = self.open.get_mut(&stream) else {
            return;
        };
        let to_moon = connection.client == host;
        let Some(pipe) = connection.pipe(stream.carrier, underlay) else {
            return;
        };
        let mut delay = pipe.latency;
        let mut pause = RETRANSMIT;
        for _ in 0..RETRANSMITS_MAX {
            if self.rng.gen_range(0..100) >= pipe.loss_percent {
                break;
            }
            if stream.carrier == Carrier::Quic {
                return;
            }
            delay += pause + pipe.latency * 2;
            pause *= 2;
        }
        let arrives = &mut connection.arrives[usize::from(to_moon)];
        *arrives = (*arrives).max(now + delay);
        self.count += 1;
        let flight = Flight {
            stream,
            to_moon,
            data,
        };
        self.flying.insert((*arrives, self.count), flight);
    }

    /// A host's process ended: what it had is over, and who is reached hears of that.
    pub(super) fn end(&mut self, host: HostId) -> Vec<Streamed> {
        self.dials.retain(|(client, ..), _| *client != host);
        self.close(|_, connection| connection.client == host || connection.moon == host)
    }

    /// A host has a roster without some of those that it had streams to, or from.
    pub(super) fn retain(&mut self, host: HostId, keep: impl Fn(HostId) -> bool) -> Vec<Streamed> {
        self.close(|_, connection| {
            connection.client == host && !keep(connection.moon)
                || connection.moon == host && !keep(connection.client)
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let dials = self.dials.values().map(Dial::due);
        let idle = self.open.values().map(Connection::over);
        let flying = self.flying.keys().map(|(at, _)| *at).next();
        dials.chain(idle).chain(flying).min()
    }

    /// Lets happen what is due. `takes` says which moons take streams of which hosts.
    pub(super) fn handle_timeout(
        &mut self,
        underlay: &Underlay,
        takes: impl Fn(HostId, HostId) -> bool,
        now: Instant,
    ) -> Vec<Streamed> {
        let mut seen = Vec::new();
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= now
        {
            let flight = entry.remove();
            self.land(flight, underlay, now, &mut seen);
        }
        seen.extend(self.close(|_, connection| connection.over() <= now));
        let due = self.dials.iter().filter(|(_, dial)| dial.due() <= now);
        let due: Vec<Line> = due.map(|(line, _)| *line).collect();
        for line in due {
            self.go_on_dialling(line, underlay, &takes, now, &mut seen);
        }
        seen
    }

    fn land(
        &mut self,
        flight: Flight,
        underlay: &Underlay,
        now: Instant,
        seen: &mut Vec<Streamed>,
    ) {
        let Some(connection) = self.open.get_mut(&flight.stream) else {
            return;
        };
        let (client, moon) = (connection.client, connection.moon);
        let (host, origin) = if flight.to_moon {
            (moon, client)
        } else {
            (client, moon)
        };
        if !underlay.is_awake(host) {
            return;
        }
        if flight.to_moon && !connection.accepted {
            connection.accepted = true;
            seen.push(Streamed::Changed(moon, client));
        }
        connection.heard[usize::from(flight.to_moon)] = now;
        seen.push(Streamed::Arrived {
            host,
            origin,
            stream: flight.stream,
            data: flight.data,
        });
    }

    fn go_on_dialling(
        &mut self,
        (host, moon, carrier): Line,
        underlay: &Underlay,
        takes: impl Fn(HostId, HostId) -> bool,
        now: Instant,
        seen: &mut Vec<Streamed>,
    ) {
        let Some(dial) = self.dials.get_mut(&(host, moon, carrier)) else {
            return;
        };
        let pipe = underlay.pipe(host, moon, carrier);
        if dial.answered.take().is_some() {
            if let Some(pipe) = pipe.filter(|_| takes(moon, host)) {
                self.open(host, moon, carrier, pipe, now, seen);
            }
            return;
        }
        // Who is there and does not listen says so; so does a host without a network.
        let refused =
            pipe.is_some() && !takes(moon, host) || underlay.addresses(host).next().is_none();
        if dial.sent >= FIRST_PACKETS.len() || refused {
            self.dials.remove(&(host, moon, carrier));
            seen.push(Streamed::Ended(host, moon, carrier));
            return;
        }
        dial.sent += 1;
        let round_trips = match carrier {
            Carrier::Quic => 1,
            Carrier::Tls => 2,
        };
        dial.answered = pipe.map(|pipe| now + pipe.latency * 2 * round_trips);
    }

    fn open(
        &mut self,
        host: HostId,
        moon: HostId,
        carrier: Carrier,
        pipe: Pipe,
        now: Instant,
        seen: &mut Vec<Streamed>,
    ) {
        self.dials.remove(&(host, moon, carrier));
        self.count += 1;
        let connection = Connection {
            client: host,
            moon,
            source: pipe.source,
            accepted: false,
            heard: [now; 2],
            arrives: [now; 2],
        };
        let number = self.count;
        self.open.insert(StreamId { carrier, number }, connection);
        seen.push(Streamed::Opened(host, moon, carrier));
        seen.push(Streamed::Changed(host, moon));
    }

    fn close(&mut self, over: impl Fn(&StreamId, &Connection) -> bool) -> Vec<Streamed> {
        let closed = self
            .open
            .extract_if(.., |id, connection| over(id, connection));
        closed
            .flat_map(|(id, connection)| {
                let (client, moon) = (connection.client, connection.moon);
                [
                    Streamed::Changed(client, moon),
                    Streamed::Changed(moon, client),
                    Streamed::Ended(client, moon, id.carrier),
                ]
            })
            .collect()
    }
}

impl Dial {
    fn due(&self) -> Instant {
        match self.answered {
            Some(at) => at,
            None => self.since + FIRST_PACKETS.get(self.sent).copied().unwrap_or(GIVE_UP),
        }
    }
}

impl Connection {
    /// What its segments get through now; `None`: not from the address that it was opened from.
    fn pipe(&self, carrier: Carrier, underlay: &Underlay) -> Option<Pipe> {
        underlay
            .pipe(self.client, self.moon, carrier)
            .filter(|pipe| pipe.source == self.source)
    }

    fn over(&self) -> Instant {
        let [client, moon] = self.heard;
        client.min(moon) + IDLE
    }
}
