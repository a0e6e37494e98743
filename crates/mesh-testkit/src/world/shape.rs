//! Worlds made of bytes.

use std::time::Duration;

use arbitrary::{Result, Unstructured};

use super::{Dependence, Families, Fleet, HostId, NatBehaviour, Passage, Ports, SiteId, Underlay};

const HOME_LATENCY: Duration = Duration::from_millis(10);
/// How NATs choose ports.
const PORTS: [Ports; 4] = [
    Ports::Preserved,
    Ports::Random,
    Ports::Sequential { stride: 1 },
    Ports::Sequential { stride: 2 },
];

const CARRIER_LATENCY: Duration = Duration::from_millis(15);

/// The nodes and sites of a world, for those who change it.
pub(super) struct Shape {
    pub(super) moons: Vec<HostId>,
    pub(super) nodes: Vec<HostId>,
    /// Where controllers are: on moons, or on machines of their own, which do not relay.
    pub(super) controllers: Vec<HostId>,
    /// All but the internet.
    pub(super) sites: Vec<SiteId>,
    /// Whether there may be controllers, second interfaces, captive networks, isolated machines and lines that differ by
    /// direction.
    pub(super) is_wide: bool,
}

impl Shape {
    /// One to three moons, two to five sites of all kinds, three to six nodes at them, and up to two controllers.
    /// Controllers in a wide world alone.
    pub(super) fn make(
        fleet: &mut Fleet,
        is_wide: bool,
        bytes: &mut Unstructured<'_>,
    ) -> Result<Self> {
        let moons = (0..bytes.int_in_range(1..=3)?)
            .map(|_| fleet.moon())
            .collect();
        let mut sites = Vec::new();
        for _ in 0..bytes.int_in_range(2..=5)? {
            site(fleet, &mut sites, bytes)?;
        }
        let mut shape = Self {
            moons,
            nodes: Vec::new(),
            controllers: Vec::new(),
            sites,
            is_wide,
        };
        for _ in 0..bytes.int_in_range(3..=6)? {
            let site = shape.place(bytes)?;
            let families = families(bytes)?;
            shape.nodes.push(fleet.node(site, families));
        }
        let controllers = match is_wide {
            true => *bytes.choose(&[0, 0, 1, 2])?,
            false => 0,
        };
        for index in 0..controllers {
            let moon = shape.moons.get(index).copied();
            let own = bytes.ratio(1, 3)?;
            let host = match moon.filter(|_| !own) {
                Some(moon) => moon,
                None => fleet.node(Underlay::INTERNET, Families::Dual),
            };
            fleet.add_controller(host);
            shape.controllers.push(host);
        }
        Ok(shape)
    }

    /// A site where a node may be, the internet among them.
    pub(super) fn place(&self, bytes: &mut Unstructured<'_>) -> Result<SiteId> {
        if bytes.ratio(1, 8)? {
            return Ok(Underlay::INTERNET);
        }
        bytes.choose(&self.sites).copied()
    }

    /// A node or a moon.
    pub(super) fn machine(&self, bytes: &mut Unstructured<'_>) -> Result<HostId> {
        let among = if bytes.ratio(1, 4)? {
            &self.moons
        } else {
            &self.nodes
        };
        bytes.choose(among).copied()
    }
}

/// Both mostly: a node with IPv6 alone reaches nobody who has IPv4 alone but through a moon.
pub(super) fn families(bytes: &mut Unstructured<'_>) -> Result<Families> {
    bytes
        .choose(&[Families::V4, Families::V6, Families::Dual, Families::Dual])
        .copied()
}

fn site(fleet: &mut Fleet, sites: &mut Vec<SiteId>, bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut parent = Underlay::INTERNET;
    if bytes.ratio(1, 4)? {
        // One carrier serves every site behind a carrier that comes after it.
        let mut carriers = sites.iter().copied().filter(|site| {
            let below = sites.iter();
            below
                .clone()
                .any(|other| fleet.underlay.parent(*other) == *site)
        });
        parent = match carriers.next_back() {
            Some(carrier) => carrier,
            None => {
                let carrier = fleet.underlay.add_site(Underlay::INTERNET, CARRIER_LATENCY);
                fleet.underlay.translate(carrier, behaviour(bytes)?);
                sites.push(carrier);
                carrier
            }
        };
    }
    let site = fleet.underlay.add_site(parent, HOME_LATENCY);
    if bytes.ratio(7, 8)? {
        fleet.underlay.translate(site, behaviour(bytes)?);
    } else {
        fleet.underlay.gateway_mut(site).v4 = Passage::firewalled();
    }
    fleet.underlay.gateway_mut(site).v6 = match bytes.int_in_range(0..=3)? {
        0 => Passage::firewalled(),
        1 => Passage::Open,
        _ => Passage::Closed,
    };
    sites.push(site);
    Ok(())
}

fn behaviour(bytes: &mut Unstructured<'_>) -> Result<NatBehaviour> {
    let seconds: u64 = *bytes.choose(&[30, 60, 120, 300])?;
    Ok(NatBehaviour {
        mapping: *bytes.choose(&Dependence::ALL)?,
        filtering: *bytes.choose(&Dependence::ALL)?,
        ports: *bytes.choose(&PORTS)?,
        hairpin: bytes.arbitrary()?,
        timeout: Duration::from_secs(seconds),
    })
}
