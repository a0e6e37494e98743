//! Which pairs of hosts must have a direct path: a judge that knows the rules of the world and nothing of
//! how nodes look for paths.
//!
//! A side's external endpoint can be foretold if its mapping depends on nothing: then a server that saw it
//! can tell it to the other side. With both foretold, each side opens its own filter by sending there
//! ("hole punching"). With one foretold, the other sends first, from an endpoint that nobody knows
//! beforehand; its address is known, so a filter that depends on no more than that lets it in. With none
//! foretold, a packet only comes through where a filter depends on nothing at all. Ports that are given one after
//! the other can be guessed; nothing is claimed then, as others behind the NAT may take them first.

use std::net::{IpAddr, SocketAddr};

use mesh_types::Instant;

use super::{Dependence, HostId, NatBehaviour, PORT, Passage, Ports, SiteId, Underlay};

/// What is to be expected of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There is no direct path, whatever they try.
    Impossible,
    /// There may be one, by luck or with more than both sides sending to what they know.
    Possible,
    /// There is one, and sending to each other's known endpoints finds it.
    Direct,
}

/// What is between a host and the internet, or the site that it shares with the other host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// On what its external endpoint depends.
    pub mapping: Dependence,
    /// On what it depends who is let in.
    pub filtering: Dependence,
    /// Whether more than one gateway translates with a dependence: then not all is known that may work.
    pub vague: bool,
    /// Whether hosts contend for a port that a gateway would keep: then it is not known which of them gets
    /// what comes to it, either.
    pub contended: bool,
    /// Whether all ports that depend on the remote are given one after the other, so that they may be guessed.
    pub counts: bool,
}

impl Side {
    /// Nothing between.
    pub const OPEN: Self = Self {
        mapping: Dependence::Independent,
        filtering: Dependence::Independent,
        vague: false,
        contended: false,
        counts: false,
    };

    /// One NAT between, whose ports nobody else contends for.
    pub fn of(behaviour: NatBehaviour) -> Self {
        let keeps = behaviour.ports == Ports::Preserved;
        Self {
            mapping: if keeps {
                Dependence::Independent
            } else {
                behaviour.mapping
            },
            filtering: behaviour.filtering,
            vague: false,
            contended: false,
            counts: counts(behaviour),
        }
    }
}

/// Whether two sides get through to each other when each sends to the endpoints that a server saw, and to
/// those that it heard from.
pub fn punch(a: Side, b: Side) -> Verdict {
    use Dependence::{Address, AddressAndPort, Independent};
    if a.contended || b.contended {
        return Verdict::Possible;
    }
    let may = if a.vague || b.vague || a.counts && b.counts {
        Verdict::Possible
    } else {
        Verdict::Impossible
    };
    let either = |holds: bool| if holds { Verdict::Direct } else { may };
    match (a.mapping, b.mapping) {
        (Independent, Independent) => Verdict::Direct,
        (Independent, Address | AddressAndPort) => either(a.filtering <= Address),
        (Address | AddressAndPort, Independent) => either(b.filtering <= Address),
        (Address | AddressAndPort, Address | AddressAndPort) => {
            let through = a.filtering == Independent && b.filtering <= Address
                || b.filtering == Independent && a.filtering <= Address;
            // Each answer comes from yet another endpoint.
            let restless = a.mapping == AddressAndPort && b.mapping == AddressAndPort;
            if through && restless {
                Verdict::Possible
            } else {
                either(through)
            }
        }
    }
}

/// What is to be expected of two hosts at this moment, once each knows the other's addresses and the
/// endpoints that a server on the internet sees.
pub fn pair(underlay: &Underlay, a: HostId, b: HostId, now: Instant) -> Verdict {
    let severed = underlay.is_severed(a, b) || underlay.is_severed(b, a);
    if severed || !underlay.is_online(a) || !underlay.is_online(b) {
        return Verdict::Impossible;
    }
    [true, false]
        .into_iter()
        .map(|v4| family(underlay, a, b, v4, now))
        .max()
        .expect("two families")
}

/// What is to be expected of two hosts that know of each other no more than their addresses, as a controller
/// tells them: nothing where one has to be reached through a NAT.
pub fn by_addresses(underlay: &Underlay, a: HostId, b: HostId) -> Verdict {
    let severed = underlay.is_severed(a, b) || underlay.is_severed(b, a);
    let through = |v4: bool| {
        let shares_a_site = share_a_site(underlay, a, b, v4);
        let sides = underlay
            .default_interface(a, v4)
            .zip(underlay.default_interface(b, v4));
        shares_a_site
            || sides.is_some_and(|((from, _), (to, _))| {
                let meeting = meeting_site(underlay, from, to);
                let translates = |site: SiteId| {
                    below(underlay, site, meeting)
                        .any(|at| matches!(passage(underlay, at, v4), Passage::Translated(_)))
                };
                passes(underlay, from, meeting, v4)
                    && passes(underlay, to, meeting, v4)
                    && (!translates(from) && !translates(to) || from == meeting || to == meeting)
            })
    };
    let is_online = underlay.is_online(a) && underlay.is_online(b);
    if is_online && !severed && (through(true) || through(false)) {
        Verdict::Direct
    } else {
        Verdict::Possible
    }
}

/// Whether datagrams go both ways between a host and one that is on the internet directly.
pub fn reaches_internet(underlay: &Underlay, host: HostId, server: HostId) -> bool {
    let severed = underlay.is_severed(host, server) || underlay.is_severed(server, host);
    !severed
        && [true, false].into_iter().any(|v4| {
            let there = underlay.default_interface(server, v4).is_some();
            let way = underlay.default_interface(host, v4);
            underlay.is_awake(host)
                && underlay.is_awake(server)
                && there
                && way.is_some_and(|(site, _)| passes(underlay, site, Underlay::INTERNET, v4))
        })
}

fn family(underlay: &Underlay, a: HostId, b: HostId, v4: bool, now: Instant) -> Verdict {
    if share_a_site(underlay, a, b, v4) {
        return Verdict::Direct;
    }
    let (Some(from), Some(to)) = (
        underlay.default_interface(a, v4),
        underlay.default_interface(b, v4),
    ) else {
        return Verdict::Impossible;
    };
    let meeting = meeting_site(underlay, from.0, to.0);
    if !passes(underlay, from.0, meeting, v4) || !passes(underlay, to.0, meeting, v4) {
        return Verdict::Impossible;
    }
    if from.0 == meeting || to.0 == meeting {
        // The one that is there can be reached at its own address, and answers.
        return Verdict::Direct;
    }
    let top = turning_site(underlay, meeting, v4);
    if top != meeting
        && (!hairpins(underlay, meeting) || !passes_gateways(underlay, meeting, top, v4))
    {
        return Verdict::Impossible;
    }
    punch(
        side(underlay, from, top, v4, now),
        side(underlay, to, top, v4, now),
    )
}

/// Whether two hosts are at one site, and send to each other there.
fn share_a_site(underlay: &Underlay, a: HostId, b: HostId, v4: bool) -> bool {
    underlay.interfaces(a, v4).any(|(site, from)| {
        underlay.interfaces(b, v4).any(|(other, to)| {
            site == other && underlay.is_sent_at(a, to, site) && underlay.is_sent_at(b, from, site)
        })
    })
}

/// The lowest site that both are below of, or at.
fn meeting_site(underlay: &Underlay, a: SiteId, b: SiteId) -> SiteId {
    let above_b: Vec<SiteId> = upwards(underlay, b).collect();
    upwards(underlay, a)
        .find(|site| above_b.contains(site))
        .unwrap_or(Underlay::INTERNET)
}

/// Where endpoints that are known of sides below `meeting` are: there, unless a gateway above translates.
fn turning_site(underlay: &Underlay, meeting: SiteId, v4: bool) -> SiteId {
    let translated = upwards(underlay, meeting)
        .filter(|site| *site != Underlay::INTERNET)
        .any(|site| matches!(passage(underlay, site, v4), Passage::Translated(_)));
    if translated {
        Underlay::INTERNET
    } else {
        meeting
    }
}

/// Whether the NAT whose external endpoints the internet sees, of sides below `site`, turns packets back.
fn hairpins(underlay: &Underlay, site: SiteId) -> bool {
    upwards(underlay, site)
        .filter_map(|site| match passage(underlay, site, true) {
            Passage::Translated(nat) => Some(nat.behaviour().hairpin),
            Passage::Closed | Passage::Open | Passage::Firewalled(_) => None,
        })
        .last()
        .unwrap_or(false)
}

/// Whether datagrams of a family go both ways through all gateways and lines from `site` up to `top`.
fn passes(underlay: &Underlay, site: SiteId, top: SiteId, v4: bool) -> bool {
    below(underlay, site, top).all(|site| underlay.gateway(site).line.is_up())
        && passes_gateways(underlay, site, top, v4)
}

fn passes_gateways(underlay: &Underlay, site: SiteId, top: SiteId, v4: bool) -> bool {
    below(underlay, site, top)
        .all(|site| !underlay.gateway(site).blocks_udp && passage(underlay, site, v4).is_there())
}

/// All gateways of a side as one: as strict as the strictest.
fn side(
    underlay: &Underlay,
    (site, address): (SiteId, IpAddr),
    top: SiteId,
    v4: bool,
    now: Instant,
) -> Side {
    let mut side = Side::OPEN;
    let mut inner = SocketAddr::new(address, PORT);
    let mut dependent = 0;
    let mut counting = 0;
    for site in below(underlay, site, top) {
        match passage(underlay, site, v4) {
            Passage::Closed | Passage::Open => {}
            Passage::Firewalled(firewall) => {
                side.filtering = side.filtering.max(firewall.dependence());
                dependent += u32::from(side.mapping != Dependence::Independent);
            }
            Passage::Translated(nat) => {
                let behaviour = nat.behaviour();
                side.filtering = side.filtering.max(behaviour.filtering);
                if !nat.is_stable_for(inner, now) {
                    side.mapping = side.mapping.max(behaviour.mapping);
                    side.contended |= behaviour.ports == Ports::Preserved;
                    dependent += 1;
                    counting += u32::from(counts(behaviour));
                }
                let port = nat.port_of(inner, now).unwrap_or(inner.port());
                inner = SocketAddr::new(nat.external(), port);
            }
        }
    }
    let gateways = below(underlay, site, top).count();
    side.vague |= dependent > 0 && gateways > 1;
    side.counts = counting > 0 && counting == dependent;
    side
}

fn counts(behaviour: NatBehaviour) -> bool {
    matches!(behaviour.ports, Ports::Sequential { .. })
        && behaviour.mapping != Dependence::Independent
}

fn passage(underlay: &Underlay, site: SiteId, v4: bool) -> &Passage {
    let gateway = underlay.gateway(site);
    if v4 { &gateway.v4 } else { &gateway.v6 }
}

/// `site` and those above it, up to and without `top`.
fn below(underlay: &Underlay, site: SiteId, top: SiteId) -> impl Iterator<Item = SiteId> + '_ {
    upwards(underlay, site).take_while(move |at| *at != top)
}

/// `site` and those above it, up to the internet.
fn upwards(underlay: &Underlay, site: SiteId) -> impl Iterator<Item = SiteId> + '_ {
    std::iter::successors(Some(site), |at| {
        (*at != Underlay::INTERNET).then(|| underlay.parent(*at))
    })
}

#[cfg(test)]
mod tests;
