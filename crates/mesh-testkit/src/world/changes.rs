//! What happens to a world.

use std::time::Duration;

use arbitrary::{Result, Unstructured};

use super::{Families, Fleet, HostId, SiteId, Underlay, Way, shape, shape::Shape};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Time, in which nobody has anything to say.
    Pass(Duration),
    /// A host goes to another site.
    Move(HostId, SiteId, Families),
    /// A host loses its network, and hears of it.
    Unplug(HostId),
    /// A site's line to the one above breaks, or is there again. Hosts do not hear of it.
    Uplink(SiteId, bool),
    /// A site's gateway forgets its mappings.
    Forget(SiteId),
    /// A site's NAT gets another external address.
    Readdress(SiteId),
    /// A site begins to drop UDP, or ceases to.
    BlockUdp(SiteId, bool),
    /// A site's line loses, delays, reorders and doubles this much, upwards and downwards.
    Weather(SiteId, Weather, Weather),
    /// A host gets another interface, behind those that it has.
    Second(HostId, SiteId, Families),
    /// A host's second interface becomes its default route, and the first stays.
    Flip(HostId),
    /// A host's first interface goes, and the second stays.
    Switch(HostId),
    /// A host loses its default route and keeps its addresses, or has one again.
    Route(HostId, bool),
    /// A host is in a network where nothing passes although all looks well, or passes it again; of the latter it
    /// does not hear.
    Captive(HostId, bool),
    /// A host goes to sleep, or wakes up.
    Sleep(HostId, bool),
    /// A process is killed, or starts again.
    Run(HostId, bool),
    /// A host's wall clock is this far off, in milliseconds.
    Clock(HostId, i64),
    /// Nothing more gets from the first to the second.
    Sever(HostId, HostId),
    /// Nothing more gets from a machine to all others, or to it from them.
    Isolate(HostId, Isolation),
    /// A controller's process is killed, or starts again.
    Control(HostId, bool),
    /// All that was severed is mended.
    Mend,
    /// A node leaves the roster, or comes back.
    Member(HostId, bool),
}

/// What does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// What comes from it.
    From,
    /// What goes to it.
    To,
    /// Nothing does.
    Both,
}

/// How bad one direction of a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Datagrams lost, of a hundred.
    pub loss_percent: u32,
    /// Datagrams that come twice, of a hundred.
    pub duplicate_percent: u32,
    /// The most that one datagram is delayed over another.
    pub jitter: Duration,
    /// The time that all are late.
    pub detour: Duration,
}

impl Weather {
    /// Whether nothing goes wrong.
    pub fn is_calm(self) -> bool {
        self == Self::default()
    }

    fn set(self, way: &mut Way) {
        way.quality.loss_percent = self.loss_percent;
        way.quality.duplicate_percent = self.duplicate_percent;
        way.quality.jitter = self.jitter;
        way.detour = self.detour;
    }
}

impl Change {
    pub(super) fn make(fleet: &Fleet, shape: &Shape, bytes: &mut Unstructured<'_>) -> Result<Self> {
        let site = |bytes: &mut Unstructured<'_>| bytes.choose(&shape.sites).copied();
        let node = |bytes: &mut Unstructured<'_>| bytes.choose(&shape.nodes).copied();
        // What is broken is mended at the next occasion, and seldom broken: else little would be left
        // after a while of which anything could be said.
        let breaks = bytes.ratio(1, 4)?;
        let kinds = if shape.is_wide { 30 } else { 23 };
        Ok(match bytes.int_in_range(0..=kinds)? {
            0..=2 => Self::Pass(Duration::from_millis(bytes.int_in_range(0..=3_000)?)),
            3..=4 => Self::Pass(Duration::from_secs(bytes.int_in_range(1..=200)?)),
            5 if breaks => Self::Pass(Duration::from_secs(1_000)),
            5 => Self::Pass(Duration::from_secs(61)),
            6..=8 => Self::Move(node(bytes)?, shape.place(bytes)?, shape::families(bytes)?),
            9 if breaks => Self::Unplug(node(bytes)?),
            9 => Self::Move(node(bytes)?, shape.place(bytes)?, shape::families(bytes)?),
            10..=11 => {
                let site = site(bytes)?;
                Self::Uplink(site, !(breaks && fleet.underlay.gateway(site).line.is_up()))
            }
            12..=13 => Self::Forget(site(bytes)?),
            14 => Self::Readdress(site(bytes)?),
            15 => {
                let site = site(bytes)?;
                Self::BlockUdp(site, breaks && !fleet.underlay.gateway(site).blocks_udp)
            }
            16 if breaks => {
                let site = site(bytes)?;
                let up = weather(shape.is_wide, bytes)?;
                let down = if !shape.is_wide || bytes.arbitrary()? {
                    up
                } else {
                    weather(shape.is_wide, bytes)?
                };
                Self::Weather(site, up, down)
            }
            16 => Self::Weather(site(bytes)?, Weather::default(), Weather::default()),
            17..=18 => {
                let node = node(bytes)?;
                Self::Sleep(node, breaks && fleet.underlay.is_awake(node))
            }
            19..=20 => {
                let machine = shape.machine(bytes)?;
                Self::Run(machine, !(breaks && fleet.is_running(machine)))
            }
            21 => Self::Clock(
                shape.machine(bytes)?,
                bytes.int_in_range(-100_000_000..=100_000_000)?,
            ),
            22 => {
                let (from, to) = (shape.machine(bytes)?, shape.machine(bytes)?);
                if from == to || !breaks {
                    Self::Mend
                } else {
                    Self::Sever(from, to)
                }
            }
            24 => Self::second(
                fleet,
                node(bytes)?,
                shape.place(bytes)?,
                shape::families(bytes)?,
            ),
            25 if breaks => Self::Switch(node(bytes)?),
            25 => Self::Flip(node(bytes)?),
            26 => {
                let node = node(bytes)?;
                Self::Route(node, !(breaks && fleet.underlay.is_routed(node)))
            }
            27 => {
                let node = node(bytes)?;
                Self::Captive(node, breaks && !fleet.underlay.is_captive(node))
            }
            28 => {
                let among = [&*shape.moons, &*shape.controllers].concat();
                let host = *bytes.choose(&among)?;
                let isolations = [Isolation::From, Isolation::To, Isolation::Both];
                match breaks {
                    true => Self::Isolate(host, *bytes.choose(&isolations)?),
                    false => Self::Mend,
                }
            }
            29 if !shape.controllers.is_empty() => {
                let controller = *bytes.choose(&shape.controllers)?;
                Self::Control(controller, !(breaks && fleet.controls(controller)))
            }
            _ => {
                let node = node(bytes)?;
                Self::Member(node, !(breaks && fleet.is_member(node)))
            }
        })
    }

    /// Of several interfaces none is on the internet: there all are next to each other, as nobody is in truth.
    fn second(fleet: &Fleet, host: HostId, site: SiteId, families: Families) -> Self {
        let mut sites = fleet.underlay.sites_of(host);
        let is_apart = |at: SiteId| at != Underlay::INTERNET && at != site;
        if site != Underlay::INTERNET
            && sites.next().is_some_and(is_apart)
            && sites.next().is_none()
        {
            Self::Second(host, site, families)
        } else {
            Self::Move(host, site, families)
        }
    }

    /// Whether paths may be others than before.
    pub(super) const fn disturbs(self) -> bool {
        !matches!(self, Self::Pass(_) | Self::Clock(..))
    }

    pub(super) fn apply(self, fleet: &mut Fleet) {
        match self {
            Self::Pass(time) => fleet.run_for(time),
            Self::Move(host, site, families) => {
                fleet.underlay.detach(host);
                fleet.attach(host, site, families);
                fleet.notice(host);
            }
            Self::Unplug(host) => {
                fleet.underlay.detach(host);
                fleet.notice(host);
            }
            Self::Uplink(site, up) => {
                let line = &mut fleet.underlay.gateway_mut(site).line;
                line.change(|way| way.is_up = up);
            }
            Self::Forget(site) => fleet.underlay.gateway_mut(site).forget(),
            Self::Readdress(site) => fleet.underlay.readdress(site),
            Self::BlockUdp(site, blocks) => fleet.underlay.gateway_mut(site).blocks_udp = blocks,
            Self::Weather(site, up, down) => {
                let line = &mut fleet.underlay.gateway_mut(site).line;
                up.set(&mut line.up);
                down.set(&mut line.down);
            }
            Self::Second(host, site, families) => {
                fleet.attach(host, site, families);
                fleet.notice(host);
            }
            Self::Flip(host) => {
                fleet.underlay.rotate(host);
                fleet.notice(host);
            }
            Self::Switch(host) => {
                if fleet.underlay.sites_of(host).count() > 1 {
                    fleet.underlay.detach_first(host);
                    fleet.notice(host);
                }
            }
            Self::Route(host, routed) => {
                fleet.underlay.set_routed(host, routed);
                fleet.notice(host);
            }
            Self::Captive(host, captive) => {
                fleet.underlay.set_captive(host, captive);
                if captive {
                    fleet.notice(host);
                }
            }
            Self::Sleep(host, asleep) => {
                fleet.underlay.set_awake(host, !asleep);
                fleet.notice(host);
            }
            Self::Run(host, running) => fleet.set_running(host, running),
            Self::Clock(host, millis) => fleet.set_clock_ahead(host, millis),
            Self::Sever(from, to) => fleet.underlay.sever(from, to),
            Self::Isolate(host, isolation) => {
                for other in fleet.hosts().filter(|other| *other != host) {
                    if isolation != Isolation::To {
                        fleet.underlay.sever(host, other);
                    }
                    if isolation != Isolation::From {
                        fleet.underlay.sever(other, host);
                    }
                }
            }
            Self::Control(host, running) => fleet.set_controller(host, running),
            Self::Mend => fleet.underlay.mend_all(),
            Self::Member(host, is_member) => fleet.set_member(host, is_member),
        }
    }
}

fn weather(detours: bool, bytes: &mut Unstructured<'_>) -> Result<Weather> {
    Ok(Weather {
        loss_percent: bytes.int_in_range(0..=30)?,
        duplicate_percent: bytes.int_in_range(0..=10)?,
        jitter: Duration::from_millis(bytes.int_in_range(0..=50)?),
        detour: match detours {
            true => Duration::from_millis(*bytes.choose(&[0, 0, 40, 150])?),
            false => Duration::ZERO,
        },
    })
}
