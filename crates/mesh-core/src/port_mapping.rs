//! A port of the router's that leads to this machine: asked for, kept, given back.
//!
//! ```text
//!             a router            PCP: mapped ──────────────────────────┐
//!   Resting ───────────> Asking ─ NAT-PMP: address ─> NatPmp: mapped ───┤
//!      ^                   │      SSDP: location ───> Upnp: mapped ─────┤
//!      │    nobody answers │                                            │ half of the lease is over,
//!      └───────────────────┴──── Resting with a lease <─────────────────┘ or the router started anew
//! ```
//!
//! All three protocols are asked at once; the first of them in this order that the router speaks is used:
//! PCP (RFC 6887), NAT-PMP (RFC 6886), UPnP's IGD. Renewals ask that one only, and all again if it is silent.
//!
//! What a router says is a hint, as none of the three proves who speaks: it has to come from the router's
//! address and to fit the question, and what comes of it is a candidate that peers probe like any other.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use mesh_types::Instant;
use mesh_wire::gateway::{
    self, Response,
    pcp::Nonce,
    upnp::{self, Url},
};

mod answers;
mod conversation;
mod questions;
mod view;

use self::{
    answers::Answers,
    conversation::{Conversation, Outcome},
};
pub use view::{MappedView, MappingProtocol, MappingView, Unmapped};

/// When questions are sent that nobody answered. A router on the same link answers within milliseconds, but
/// for those that ask their own uplink; NAT-PMP's 64 seconds of patience are for modems that dial.
const ROUNDS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(750),
    Duration::from_millis(1750),
];

/// From this round on a protocol that answered is used although a better one might answer yet.
const PATIENCE_PCP: Duration = ROUNDS[1];
const PATIENCE_NAT_PMP: Duration = ROUNDS[2];

/// After this nobody answers any more.
const ASKING_MAX: Duration = Duration::from_secs(3);

/// The lease that is asked for. Short, so that the port of a machine that crashed or left is soon free, and a
/// router that started anew without a word is noticed by the renewal.
const LEASE: Duration = Duration::from_secs(30 * 60);

/// The shortest lease that is taken: one that is renewed every minute is no use to anyone.
const LEASE_MIN: Duration = Duration::from_secs(120);

/// And the longest, whatever the router says.
const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A router that does not map is asked again after this, unless the network changes.
const RETRY: Duration = Duration::from_secs(30 * 60);

/// A renewal that failed is tried again after half of what is left of the lease, and no sooner than this.
const RENEW_MIN: Duration = Duration::from_secs(60);

/// How often a router is asked whether it has started anew, where the protocol tells.
const CHECK: Duration = Duration::from_secs(2 * 60);

/// Whatever others say, a router is asked no more often than this, except in another network.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// And one that maps nothing no more often than this: where containers come and go, something changes all the
/// time.
const ASK_SILENT_EVERY: Duration = Duration::from_secs(60);

/// When the end of a mapping is asked for, and how long an answer is waited for: the process is ending.
const RELEASE_ROUNDS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
];
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// A router and this machine, as they see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The router's address.
    pub address: Ipv4Addr,
    /// This machine's address on the same link.
    pub local: Ipv4Addr,
}

/// What the owner is to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAsk {
    /// A datagram, always from the same port of [`Gateway::local`].
    Datagram {
        /// To whom.
        to: SocketAddrV4,
        /// What.
        bytes: Vec<u8>,
    },
    /// A question by HTTP, answered to [`PortMapper::handle_http`] within 3 seconds. There is one at a time: a
    /// later one means that the answer to the one before is no more waited for.
    Http {
        /// To be given back with the answer.
        id: u64,
        /// Whom and what.
        url: Url,
        /// The header `SOAPAction` and the body of a POST; `None`: it is a GET.
        soap: Option<(String, String)>,
    },
}

/// Keeps one UDP port of this machine mapped on its router. Without I/O.
///
/// After every call: drain [`PortMapper::poll_ask`], look at [`PortMapper::external`], and re-arm the timer from
/// [`PortMapper::poll_timeout`].
#[derive(Debug)]
pub struct PortMapper {
    nonce: Nonce,
    port: u16,
    gateway: Option<Gateway>,
    phase: Phase,
    lease: Option<Lease>,
    answers: Answers,
    unmapped: Unmapped,
    /// The protocol and the router's clock at this machine's: one that goes astray means lost mappings.
    epoch: Option<(MappingProtocol, u32, Instant)>,
    /// When it is asked whether the router has started anew.
    check: Option<Instant>,
    /// When asking began last.
    asked: Option<Instant>,
    asks: VecDeque<GatewayAsk>,
    next_id: u64,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is to be done before this; `None`: nothing ever.
    Resting(Option<Instant>),
    /// The router's protocols are asked for, all or one.
    Asking {
        since: Instant,
        sent: usize,
        only: Option<MappingProtocol>,
    },
    /// A mapping is asked for by NAT-PMP, of a router with this address.
    NatPmp {
        external: Ipv4Addr,
        since: Instant,
        sent: usize,
    },
    /// One is asked for by UPnP.
    Upnp(Conversation),
    /// The mapping is given back.
    Releasing {
        lease: Lease,
        since: Instant,
        sent: usize,
    },
}

#[derive(Clone, Debug)]
struct Lease {
    protocol: MappingProtocol,
    external: SocketAddrV4,
    /// `None`: it has no end.
    until: Option<Instant>,
    /// Where UPnP is asked.
    service: Option<upnp::Service>,
}

impl PortMapper {
    /// A mapper for UDP `port`. `nonce` is this machine's secret, the same in all its processes: by it a router
    /// knows whose mapping is asked for again.
    pub fn new(nonce: [u8; 12], port: u16) -> Self {
        Self {
            nonce: Nonce(nonce),
            port,
            gateway: None,
            phase: Phase::Resting(None),
            lease: None,
            answers: Answers::default(),
            unmapped: Unmapped::NoRouter,
            epoch: None,
            check: None,
            asked: None,
            asks: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Hears which router there is. Another one is asked at once, and the mapping of the one before is
    /// forgotten: it is out of reach and ends by itself.
    pub fn set_gateway(&mut self, gateway: Result<Gateway, Unmapped>, now: Instant) {
        match gateway {
            Ok(gateway)
                if self.gateway == Some(gateway) && self.unmapped != Unmapped::SwitchedOff => {}
            Ok(gateway) => {
                self.forget();
                self.asks.clear();
                self.gateway = Some(gateway);
                self.ask(None, now);
            }
            Err(Unmapped::SwitchedOff) if self.lease.is_some() => {
                self.release(true, now);
                self.unmapped = Unmapped::SwitchedOff;
            }
            Err(reason) => {
                self.forget();
                self.unmapped = reason;
            }
        }
    }

    /// The machine slept, or something about its network changed: who knows what the router did meanwhile.
    pub fn refresh(&mut self, now: Instant) {
        if self.gateway.is_none() || !matches!(self.phase, Phase::Resting(_)) {
            return;
        }
        let every = match self.lease {
            Some(_) => ASK_EVERY,
            None => ASK_SILENT_EVERY,
        };
        match self.asked {
            Some(asked) if now.saturating_since(asked) < every => {
                self.phase = Phase::Resting(Some(asked + every));
            }
            Some(_) | None => self.ask(self.protocol(), now),
        }
    }

    /// Takes a datagram from the port that asks, or an announcement to [`gateway::ANNOUNCE_PORT`].
    pub fn handle_datagram(&mut self, from: SocketAddrV4, bytes: &[u8], now: Instant) {
        let Some(gateway) = self.gateway.filter(|it| it.address == *from.ip()) else {
            return;
        };
        if from.port() != gateway::PORT {
            if let Ok(url) = upnp::location(bytes, gateway.address) {
                self.answers.upnp.get_or_insert(Ok(url));
                self.run(now);
            }
            return;
        }
        match Response::parse(bytes) {
            Ok(Response::Pcp(response)) => self.handle_pcp(response, now),
            Ok(Response::NatPmp(response)) => self.handle_nat_pmp(response, now),
            Err(_) => {}
        }
        self.run(now);
    }

    /// Takes the answer to the question `id`: HTTP's status and the body, or why there is none.
    pub fn handle_http(&mut self, id: u64, answer: Result<(u16, &[u8]), String>, now: Instant) {
        match &mut self.phase {
            Phase::Upnp(conversation) if conversation.id == id => {
                let outcome = conversation.handle(answer);
                self.go_on(outcome, now);
            }
            Phase::Releasing { lease, .. } if lease.protocol == MappingProtocol::Upnp => {
                self.phase = Phase::Resting(None);
            }
            Phase::Resting(_)
            | Phase::Asking { .. }
            | Phase::NatPmp { .. }
            | Phase::Upnp(_)
            | Phase::Releasing { .. } => {}
        }
        self.run(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// When [`PortMapper::handle_timeout`] is to be called next; `None`: nothing is scheduled.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Resting(until) => *until,
            Phase::Asking { since, sent, .. } | Phase::NatPmp { since, sent, .. } => {
                Some(*since + ROUNDS.get(*sent).copied().unwrap_or(ASKING_MAX))
            }
            Phase::Upnp(conversation) => Some(conversation.deadline),
            Phase::Releasing { since, sent, .. } => {
                Some(*since + RELEASE_ROUNDS.get(*sent).copied().unwrap_or(RELEASE_MAX))
            }
        };
        let end = self.lease.as_ref().and_then(|lease| lease.until);
        [phase, end, self.check].into_iter().flatten().min()
    }

    /// The router that is asked.
    pub fn gateway(&self) -> Option<Gateway> {
        self.gateway
    }

    /// What is to be sent next.
    pub fn poll_ask(&mut self) -> Option<GatewayAsk> {
        self.asks.pop_front()
    }

    /// Where this machine is reached through its router, as far as that can be believed.
    pub fn external(&self) -> Option<SocketAddrV4> {
        self.lease.as_ref().map(|lease| lease.external)
    }

    /// Gives the mapping back, if it would outlive the process or `all` of them are to go. Over when
    /// [`PortMapper::is_released`], a second later at the latest.
    pub fn release(&mut self, all: bool, now: Instant) {
        let lease = self.lease.take();
        self.check = None;
        self.unmapped = Unmapped::Released;
        self.phase = match lease {
            Some(lease) if all || lease.until.is_none() => Phase::Releasing {
                lease,
                since: now,
                sent: 0,
            },
            Some(_) | None => Phase::Resting(None),
        };
        self.run(now);
    }

    /// Whether nothing is being given back.
    pub fn is_released(&self) -> bool {
        !matches!(self.phase, Phase::Releasing { .. })
    }

    /// What is known, for people.
    pub fn view(&self) -> MappingView {
        let mapped = self.lease.as_ref().map(|lease| MappedView {
            protocol: lease.protocol,
            external: lease.external,
            until: lease.until,
        });
        MappingView {
            router: self.gateway.map(|gateway| gateway.address),
            mapped: mapped.ok_or_else(|| self.unmapped.clone()),
        }
    }

    /// Forgets the router and what it was asked.
    fn forget(&mut self) {
        self.gateway = None;
        self.lease = None;
        self.epoch = None;
        self.check = None;
        self.asked = None;
        self.phase = Phase::Resting(None);
    }

    fn protocol(&self) -> Option<MappingProtocol> {
        self.lease.as_ref().map(|lease| lease.protocol)
    }

    /// Begins to ask, `only` by the protocol of the lease or by all.
    fn ask(&mut self, only: Option<MappingProtocol>, now: Instant) {
        self.answers = Answers::default();
        self.asked = Some(now);
        self.check = None;
        if self.lease.is_none() {
            self.unmapped = Unmapped::Asking;
        }
        let service = self.lease.as_ref().and_then(|lease| lease.service.clone());
        if let (Some(MappingProtocol::Upnp), Some(service)) = (only, service) {
            return self.converse(|port| Conversation::renew(service, port), now);
        }
        self.begin_asking(only, now);
    }

    /// Asks for what has not answered since [`PortMapper::ask`].
    fn begin_asking(&mut self, only: Option<MappingProtocol>, now: Instant) {
        self.phase = Phase::Asking {
            since: now,
            sent: 0,
            only,
        };
        self.run(now);
    }

    fn run(&mut self, now: Instant) {
        let ended = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        if self.lease.as_ref().is_some_and(|lease| ended(lease.until)) {
            self.lease = None;
            self.check = None;
        }
        if ended(self.check) {
            self.check = Some(now + CHECK);
            self.ask_whether_it_is_there();
        }
        match &mut self.phase {
            Phase::Resting(until) => {
                if ended(*until) {
                    let protocol = self.protocol();
                    self.ask(protocol, now);
                }
            }
            Phase::Asking { since, sent, only } => {
                let (since, only) = (*since, *only);
                let due = rounds(since, sent, &ROUNDS, now);
                if due {
                    self.ask_all(only);
                }
                self.choose(since, only, now);
            }
            Phase::NatPmp { since, sent, .. } => {
                if now >= *since + ASKING_MAX {
                    self.refused_by_nat_pmp(Unmapped::Nonsense(MappingProtocol::NatPmp), now);
                } else if rounds(*since, sent, &ROUNDS, now) {
                    self.ask_nat_pmp();
                }
            }
            Phase::Upnp(conversation) => {
                if now >= conversation.deadline {
                    let outcome = conversation.handle(Err("no answer in 4 s".to_owned()));
                    self.go_on(outcome, now);
                }
            }
            Phase::Releasing { since, sent, lease } => {
                let over = now >= *since + RELEASE_MAX;
                let lease = lease.clone();
                let first = *sent == 0;
                let due = rounds(*since, sent, &RELEASE_ROUNDS, now);
                // A question by HTTP is repeated by TCP.
                if due && (first || lease.protocol != MappingProtocol::Upnp) {
                    self.ask_to_release(&lease);
                }
                if over {
                    self.phase = Phase::Resting(None);
                }
            }
        }
    }

    /// Goes on with the best protocol that the router speaks, once that is known.
    fn choose(&mut self, since: Instant, only: Option<MappingProtocol>, now: Instant) {
        let elapsed = now.saturating_since(since);
        let answers = &self.answers;
        let pcp_is_out = answers.no_pcp.is_some() || elapsed >= PATIENCE_PCP;
        let nat_pmp_is_out = matches!(answers.nat_pmp, Some(Err(_))) || elapsed >= PATIENCE_NAT_PMP;
        match (&answers.nat_pmp, &answers.upnp) {
            (Some(Ok(external)), _) if pcp_is_out => {
                self.phase = Phase::NatPmp {
                    external: *external,
                    since: now,
                    sent: 0,
                };
                self.run(now);
            }
            (_, Some(Ok(url))) if pcp_is_out && nat_pmp_is_out => {
                let url = url.clone();
                self.converse(|port| Conversation::new(url, port), now);
            }
            _ if elapsed >= ASKING_MAX || answers.is_refused(only) => match only {
                // The router may have become another.
                Some(_) => self.ask(None, now),
                None => self.give_up(now),
            },
            _ => {}
        }
    }

    fn converse(&mut self, begin: impl FnOnce(Port) -> Conversation, now: Instant) {
        let Some(gateway) = self.gateway else {
            return;
        };
        let port = Port {
            internal: SocketAddrV4::new(gateway.local, self.port),
            external: self.suggested().port(),
            nonce: self.nonce,
        };
        let mut conversation = begin(port);
        let outcome = conversation.begin();
        self.phase = Phase::Upnp(conversation);
        self.go_on(outcome, now);
    }

    /// Does what a conversation wants, which is in `self.phase`.
    fn go_on(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Ask(url, soap) => {
                let id = self.ask_http(url, soap);
                if let Phase::Upnp(conversation) = &mut self.phase {
                    conversation.id = id;
                    conversation.deadline = now + conversation::PATIENCE;
                }
            }
            Outcome::Mapped {
                service,
                external,
                lifetime_seconds,
            } => {
                let lifetime = Some(lifetime_seconds).filter(|seconds| *seconds > 0);
                let lease = Lease {
                    service: Some(service),
                    ..Lease::new(MappingProtocol::Upnp, external)
                };
                self.granted(lease, lifetime, now);
            }
            Outcome::Failed(reason) => {
                // What is left may answer yet, also to a renewal that failed.
                self.answers.upnp = Some(Err(reason));
                self.begin_asking(None, now);
            }
        }
    }

    /// A router mapped the port, for so many seconds or for good: judged, and kept or given back.
    fn granted(&mut self, mut lease: Lease, lifetime_seconds: Option<u32>, now: Instant) {
        let lifetime = lifetime_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let ip = *lease.external.ip();
        let problem = if lease.external.port() == 0 || lifetime.is_some_and(|it| it < LEASE_MIN) {
            Some(Unmapped::Nonsense(lease.protocol))
        } else if is_public(ip) {
            None
        } else {
            Some(Unmapped::BehindNat(ip))
        };
        if let Some(problem) = problem {
            self.ask_to_release(&lease);
            self.lease = None;
            self.unmapped = problem;
            self.phase = Phase::Resting(Some(now + RETRY));
            return;
        }
        let lifetime = lifetime.map(|it| it.min(LEASE_MAX));
        lease.until = lifetime.map(|it| now + it);
        self.check = (lease.protocol != MappingProtocol::Upnp).then_some(now + CHECK);
        self.lease = Some(lease);
        self.phase = Phase::Resting(Some(now + lifetime.unwrap_or(LEASE) / 2));
    }

    fn give_up(&mut self, now: Instant) {
        let wait = match &self.lease {
            Some(Lease {
                until: Some(until), ..
            }) => (until.saturating_since(now) / 2).max(RENEW_MIN),
            Some(_) | None => RETRY,
        };
        let router = self.gateway.map(|gateway| gateway.address);
        let answers = std::mem::take(&mut self.answers);
        self.unmapped = answers
            .worst()
            .or(router.map(Unmapped::Silent))
            .unwrap_or(Unmapped::NoRouter);
        self.phase = Phase::Resting(Some(now + wait));
    }
}

impl Lease {
    /// One that has no end until [`PortMapper::granted`] knows it.
    const fn new(protocol: MappingProtocol, external: SocketAddrV4) -> Self {
        Self {
            protocol,
            external,
            until: None,
            service: None,
        }
    }
}

/// What a mapping is asked for, by UPnP.
#[derive(Clone, Copy, Debug)]
struct Port {
    internal: SocketAddrV4,
    external: u16,
    /// For other ports, should this be taken.
    nonce: Nonce,
}

/// Takes note of the rounds that are due; true if there was one.
fn rounds(since: Instant, sent: &mut usize, rounds: &[Duration], now: Instant) -> bool {
    let before = *sent;
    while rounds.get(*sent).is_some_and(|round| since + *round <= now) {
        *sent += 1;
    }
    *sent > before
}

/// Whether an address may be one of the internet's: none of a home, a carrier's inside, a link, a group or a
/// future (RFC 6890). Those for documentation are let pass: they lead nowhere but in a laboratory.
pub fn is_public(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_shared = a == 100 && b & 0xc0 == 64;
    let is_benchmark = a == 198 && b & 0xfe == 18;
    let is_protocol = ip.octets()[..3] == [192, 0, 0];
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || is_shared
        || is_benchmark
        || is_protocol
        || a == 0
        || a >= 224)
}

#[cfg(test)]
mod tests;
