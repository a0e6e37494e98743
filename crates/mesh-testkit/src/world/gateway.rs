use std::{fmt, net::SocketAddr, time::Duration};

use mesh_types::Instant;
use rand_chacha::ChaCha8Rng;

use super::{Dependence, Filter, Line, Nat};

/// What a gateway does with one address family.
#[derive(Clone, Debug)]
pub enum Passage {
    /// The site does not have this family.
    Closed,
    /// Routes, and no more.
    Open,
    /// Routes, and lets in only what was asked for.
    Firewalled(Firewall),
    /// Translates.
    Translated(Nat),
}

/// A stateful firewall: a filter for each inner endpoint, without translation.
#[derive(Clone, Debug)]
pub struct Firewall {
    dependence: Dependence,
    lifetime: Duration,
    filters: std::collections::BTreeMap<SocketAddr, Filter>,
}

/// What joins a site to the one above it.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// For IPv4.
    pub v4: Passage,
    /// For IPv6.
    pub v6: Passage,
    /// Whether it drops all UDP.
    pub blocks_udp: bool,
    /// The line behind it.
    pub line: Line,
}

impl Firewall {
    /// A firewall with nothing opened.
    pub const fn new(dependence: Dependence, lifetime: Duration) -> Self {
        Self {
            dependence,
            lifetime,
            filters: std::collections::BTreeMap::new(),
        }
    }

    /// On what it depends.
    pub const fn dependence(&self) -> Dependence {
        self.dependence
    }

    /// Forgets what was opened.
    pub fn forget(&mut self) {
        self.filters.clear();
    }

    fn outbound(&mut self, inner: SocketAddr, remote: SocketAddr, now: Instant) {
        self.filters.retain(|_, filter| filter.is_open(now));
        self.filters
            .entry(inner)
            .or_insert_with(|| Filter::new(self.dependence, self.lifetime))
            .open(remote, now);
    }

    fn lets_in(&self, remote: SocketAddr, inner: SocketAddr, now: Instant) -> bool {
        self.filters
            .get(&inner)
            .is_some_and(|filter| filter.lets_in(remote, now))
    }
}

impl Passage {
    /// A usual stateful firewall: who was spoken to, for two minutes.
    pub const fn firewalled() -> Self {
        Self::Firewalled(Firewall::new(
            Dependence::AddressAndPort,
            Duration::from_secs(120),
        ))
    }

    /// Whether there are addresses of this family behind it.
    pub const fn is_there(&self) -> bool {
        !matches!(self, Self::Closed)
    }

    /// Forgets all state.
    pub fn forget(&mut self) {
        match self {
            Self::Closed | Self::Open => {}
            Self::Firewalled(firewall) => firewall.forget(),
            Self::Translated(nat) => nat.forget(),
        }
    }

    fn outbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Option<SocketAddr> {
        match self {
            Self::Closed => None,
            Self::Open => Some(from),
            Self::Firewalled(firewall) => {
                firewall.outbound(from, to, now);
                Some(from)
            }
            Self::Translated(nat) => Some(nat.outbound(from, to, now, rng)),
        }
    }

    fn inbound(&self, from: SocketAddr, to: SocketAddr, now: Instant) -> Option<SocketAddr> {
        match self {
            Self::Closed => None,
            Self::Open => Some(to),
            Self::Firewalled(firewall) => firewall.lets_in(from, to, now).then_some(to),
            Self::Translated(nat) if nat.external() == to.ip() => nat.inbound(from, to.port(), now),
            Self::Translated(_) => None,
        }
    }

    fn turns_back(&self, to: SocketAddr) -> bool {
        matches!(self, Self::Translated(nat) if nat.external() == to.ip())
    }

    fn hairpins(&self) -> bool {
        matches!(self, Self::Translated(nat) if nat.behaviour().hairpin)
    }
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Open => f.write_str("open"),
            Self::Firewalled(firewall) => write!(f, "firewall by {:?}", firewall.dependence),
            Self::Translated(nat) => write!(f, "{nat}"),
        }
    }
}

/// What a gateway made of a packet from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outbound {
    /// It goes on upwards, from this source.
    On(SocketAddr),
    /// It comes back into the site, from and to these endpoints.
    Back(SocketAddr, SocketAddr),
    /// It is dropped.
    Dropped,
}

impl Gateway {
    /// A gateway that only routes.
    pub const fn open(line: Line) -> Self {
        Self {
            v4: Passage::Open,
            v6: Passage::Open,
            blocks_udp: false,
            line,
        }
    }

    /// Forgets all mappings and opened endpoints.
    pub fn forget(&mut self) {
        self.v4.forget();
        self.v6.forget();
    }

    /// The passage of the family that `endpoint` is of.
    pub const fn passage(&self, endpoint: SocketAddr) -> &Passage {
        match endpoint {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        }
    }

    pub(super) fn outbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Outbound {
        if self.blocks_udp {
            return Outbound::Dropped;
        }
        let passage = match from {
            SocketAddr::V4(_) => &mut self.v4,
            SocketAddr::V6(_) => &mut self.v6,
        };
        let turns_back = passage.turns_back(to);
        if turns_back && !passage.hairpins() {
            return Outbound::Dropped;
        }
        let Some(source) = passage.outbound(from, to, now, rng) else {
            return Outbound::Dropped;
        };
        if !turns_back {
            return Outbound::On(source);
        }
        passage
            .inbound(source, to, now)
            .map_or(Outbound::Dropped, |inner| Outbound::Back(source, inner))
    }

    /// Takes a packet from above, and returns its destination in the site.
    pub(super) fn inbound(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        if self.blocks_udp {
            return None;
        }
        self.passage(to).inbound(from, to, now)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::world::NatBehaviour;

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn translated(behaviour: NatBehaviour) -> Gateway {
        let external = endpoint("198.18.0.1:1").ip();
        Gateway {
            v4: Passage::Translated(Nat::new(behaviour, external)),
            ..Gateway::open(Line::good(Duration::ZERO))
        }
    }

    #[test]
    fn a_hairpin_comes_back_from_the_external_endpoint() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (a, b) = (endpoint("192.168.1.2:4193"), endpoint("192.168.1.3:4193"));
        let server = endpoint("198.18.0.9:4193");
        let behaviour = NatBehaviour {
            filtering: Dependence::Independent,
            ..NatBehaviour::HOME
        };
        for hairpin in [true, false] {
            let mut gateway = translated(NatBehaviour {
                hairpin,
                ..behaviour
            });
            let now = Instant::ZERO;
            let Outbound::On(outer_b) = gateway.outbound(b, server, now, &mut rng) else {
                panic!("to the server");
            };
            let Outbound::On(outer_a) = gateway.outbound(a, server, now, &mut rng) else {
                panic!("to the server");
            };
            let turned = gateway.outbound(a, outer_b, now, &mut rng);
            let expected = if hairpin {
                Outbound::Back(outer_a, b)
            } else {
                Outbound::Dropped
            };
            assert_eq!(turned, expected);
        }
    }

    #[test]
    fn a_firewall_lets_in_answers_only() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut gateway = Gateway::open(Line::good(Duration::ZERO));
        gateway.v6 = Passage::firewalled();
        let (inner, remote) = (endpoint("[2001:db8:1::2]:1"), endpoint("[2001:db8::9]:1"));
        let now = Instant::ZERO;
        assert_eq!(gateway.inbound(remote, inner, now), None);
        let out = gateway.outbound(inner, remote, now, &mut rng);
        assert_eq!(out, Outbound::On(inner));
        assert_eq!(gateway.inbound(remote, inner, now), Some(inner));
        let other = endpoint("[2001:db8::9]:2");
        assert_eq!(gateway.inbound(other, inner, now), None);
        let later = now + Duration::from_secs(120);
        assert_eq!(gateway.inbound(remote, inner, later), None);
    }

    #[test]
    fn a_site_without_udp_lets_nothing_through() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut gateway = translated(NatBehaviour::HOME);
        gateway.blocks_udp = true;
        let (inner, remote) = (endpoint("192.168.1.2:1"), endpoint("198.18.0.9:1"));
        let out = gateway.outbound(inner, remote, Instant::ZERO, &mut rng);
        assert_eq!(out, Outbound::Dropped);
    }
}
