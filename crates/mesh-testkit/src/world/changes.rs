//! What happens to a world.

use std::time::Duration;

use arbitrary::{Result, Unstructured};

use super::{Families, Fleet, HostId, SiteId, Way, shape, shape::Shape};

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
    /// A site's line loses, delays, reorders and doubles this much.
    Weather(SiteId, Weather),
    /// A host goes to sleep, or wakes up.
    Sleep(HostId, bool),
    /// A process is killed, or starts again.
    Run(HostId, bool),
    /// A host's wall clock is this far off, in milliseconds.
    Clock(HostId, i64),
    /// Nothing more gets from the first to the second.
    Sever(HostId, HostId),
    /// All that was severed is mended.
    Mend,
    /// A node leaves the roster, or comes back.
    Member(HostId, bool),
}

/// How bad a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Datagrams lost, of a hundred, each way.
    pub loss_percent: u32,
    /// Datagrams that come twice, of a hundred.
    pub duplicate_percent: u32,
    /// The most that one datagram is delayed over another.
    pub jitter: Duration,
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
    }
}

impl Change {
    pub(super) fn make(fleet: &Fleet, shape: &Shape, bytes: &mut Unstructured<'_>) -> Result<Self> {
        let site = |bytes: &mut Unstructured<'_>| bytes.choose(&shape.sites).copied();
        let node = |bytes: &mut Unstructured<'_>| bytes.choose(&shape.nodes).copied();
        // What is broken is mended at the next occasion, and seldom broken: else little would be left
        // after a while of which anything could be said.
        let breaks = bytes.ratio(1, 4)?;
        Ok(match bytes.int_in_range(0..=23)? {
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
            16 if breaks => Self::Weather(site(bytes)?, weather(bytes)?),
            16 => Self::Weather(site(bytes)?, Weather::default()),
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
            _ => {
                let node = node(bytes)?;
                Self::Member(node, !(breaks && fleet.is_member(node)))
            }
        })
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
            Self::Weather(site, weather) => {
                let line = &mut fleet.underlay.gateway_mut(site).line;
                line.change(|way| weather.set(way));
            }
            Self::Sleep(host, asleep) => {
                fleet.underlay.set_awake(host, !asleep);
                fleet.notice(host);
            }
            Self::Run(host, running) => fleet.set_running(host, running),
            Self::Clock(host, millis) => fleet.set_clock_ahead(host, millis),
            Self::Sever(from, to) => fleet.underlay.sever(from, to),
            Self::Mend => fleet.underlay.mend_all(),
            Self::Member(host, is_member) => fleet.set_member(host, is_member),
        }
    }
}

fn weather(bytes: &mut Unstructured<'_>) -> Result<Weather> {
    Ok(Weather {
        loss_percent: bytes.int_in_range(0..=30)?,
        duplicate_percent: bytes.int_in_range(0..=10)?,
        jitter: Duration::from_millis(bytes.int_in_range(0..=50)?),
    })
}
