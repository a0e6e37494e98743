use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use mesh_types::Instant;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Dependence, Filter};

/// What a NAT gives, but for ports that it preserves.
const PORTS: RangeInclusive<u16> = 1024..=u16::MAX;

/// How a NAT chooses external ports (RFC 4787 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// The inner port, unless another inner endpoint has it towards the same remote; then any. This is
    /// what Linux does: with a mapping that depends on the remote, the same port serves many remotes.
    Preserved,
    /// Any that is free.
    Random,
    /// One after the other, whoever asks: what two servers see tells the next ones.
    Sequential {
        /// From each to the next.
        stride: u16,
    },
}

/// How a NAT behaves, in the words of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatBehaviour {
    /// When two packets from one inner endpoint get the same external endpoint.
    pub mapping: Dependence,
    /// Which packets are let in to it.
    pub filtering: Dependence,
    /// Which port it gets.
    pub ports: Ports,
    /// Whether a packet from inside to an external endpoint of the NAT itself comes back in; from the
    /// sender's own external endpoint (section 6).
    pub hairpin: bool,
    /// How long a mapping lasts after a packet went out on it. What comes in does not count.
    pub timeout: Duration,
}

impl NatBehaviour {
    /// What a home router in good order does: RFC 4787's requirements, and a filter that lets in only whom
    /// was spoken to.
    pub const HOME: Self = Self {
        mapping: Dependence::Independent,
        filtering: Dependence::AddressAndPort,
        ports: Ports::Preserved,
        hairpin: true,
        timeout: Duration::from_secs(120),
    };

    /// A "symmetric" NAT: each remote endpoint sees another port, which nobody can foretell.
    pub const SYMMETRIC: Self = Self {
        mapping: Dependence::AddressAndPort,
        filtering: Dependence::AddressAndPort,
        ports: Ports::Random,
        hairpin: false,
        timeout: Duration::from_secs(60),
    };

    /// A "symmetric" NAT that counts: each remote endpoint sees another port, the one after the last.
    pub const COUNTING: Self = Self {
        ports: Ports::Sequential { stride: 1 },
        ..Self::SYMMETRIC
    };
}

/// A NAT with one external address, for UDP.
///
/// A mapping carries its own filter, as in NATs that keep a table of sessions. RFC 4787 would let in through
/// any mapping of an inner endpoint what one of them permits; so a path through this one is a path through
/// that, too.
#[derive(Clone, Debug)]
pub struct Nat {
    behaviour: NatBehaviour,
    external: IpAddr,
    /// By inner endpoint and what counts of the remote one.
    mappings: BTreeMap<(SocketAddr, SocketAddr), Mapping>,
    /// Where a sequence stands; `None`: it has not begun.
    next: Option<u16>,
}

#[derive(Clone, Debug)]
struct Mapping {
    port: u16,
    refreshed: Instant,
    filter: Filter,
}

impl Nat {
    /// A NAT that translates to `external`.
    pub const fn new(behaviour: NatBehaviour, external: IpAddr) -> Self {
        Self {
            behaviour,
            external,
            mappings: BTreeMap::new(),
            next: None,
        }
    }

    /// How it behaves.
    pub const fn behaviour(&self) -> NatBehaviour {
        self.behaviour
    }

    /// Its external address.
    pub const fn external(&self) -> IpAddr {
        self.external
    }

    /// Gives it another external address; mappings go.
    pub fn set_external(&mut self, external: IpAddr) {
        self.external = external;
        self.mappings.clear();
    }

    /// Changes how long it holds a mapping, those that there are, too.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.behaviour.timeout = timeout;
        for mapping in self.mappings.values_mut() {
            mapping.filter.set_lifetime(timeout);
        }
    }

    /// Forgets all mappings, as a NAT that was restarted.
    pub fn forget(&mut self) {
        self.mappings.clear();
    }

    /// Takes a packet from inside to outside, and returns its external source.
    pub fn outbound(
        &mut self,
        inner: SocketAddr,
        remote: SocketAddr,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> SocketAddr {
        self.expire(now);
        let behaviour = self.behaviour;
        let key = (inner, behaviour.mapping.mask(remote));
        if !self.mappings.contains_key(&key) {
            let port = self.allocate(key, rng);
            let mapping = Mapping {
                port,
                refreshed: now,
                filter: Filter::new(behaviour.filtering, behaviour.timeout),
            };
            self.mappings.insert(key, mapping);
        }
        let mapping = self.mappings.get_mut(&key).expect("inserted above");
        mapping.refreshed = now;
        mapping.filter.open(remote, now);
        SocketAddr::new(self.external, mapping.port)
    }

    /// Takes a packet from outside to an external port, and returns where it goes; `None`: nowhere.
    pub fn inbound(&self, remote: SocketAddr, port: u16, now: Instant) -> Option<SocketAddr> {
        let scope = self.behaviour.mapping.mask(remote);
        let mut takers = self.mappings.iter().filter(|(_, mapping)| {
            mapping.port == port
                && self.is_live(mapping, now)
                && mapping.filter.lets_in(remote, now)
        });
        let any = takers.clone().next();
        let own = takers.find(|((_, mapped), _)| *mapped == scope);
        own.or(any).map(|((inner, _), _)| *inner)
    }

    /// Whether the external port of this inner endpoint is the same towards everybody: by the NAT's
    /// rules, or because it keeps ports and no one else behind it uses this one.
    pub fn is_stable_for(&self, inner: SocketAddr, now: Instant) -> bool {
        let behaviour = self.behaviour;
        let kept = |((other, _), mapping): (&(SocketAddr, SocketAddr), &Mapping)| {
            if *other == inner {
                mapping.port == inner.port()
            } else {
                // Towards someone else it may be the other who is first.
                mapping.port != inner.port() && other.port() != inner.port()
            }
        };
        behaviour.mapping == Dependence::Independent
            || behaviour.ports == Ports::Preserved
                && self
                    .mappings
                    .iter()
                    .filter(|(_, mapping)| self.is_live(mapping, now))
                    .all(kept)
    }

    /// The external port of an inner endpoint; `None` if it has no mapping or several.
    pub fn port_of(&self, inner: SocketAddr, now: Instant) -> Option<u16> {
        let mut ports = self
            .mappings
            .iter()
            .filter(|((other, _), mapping)| *other == inner && self.is_live(mapping, now))
            .map(|(_, mapping)| mapping.port);
        let first = ports.next()?;
        ports.all(|port| port == first).then_some(first)
    }

    /// The port that a sequence has next; `None`: it gives ports in no order, or has given none.
    pub const fn next(&self) -> Option<u16> {
        self.next
    }

    /// How many mappings it holds.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    fn expire(&mut self, now: Instant) {
        let timeout = self.behaviour.timeout;
        self.mappings
            .retain(|_, mapping| now < mapping.refreshed + timeout);
    }

    fn is_live(&self, mapping: &Mapping, now: Instant) -> bool {
        now < mapping.refreshed + self.behaviour.timeout
    }

    fn allocate(&mut self, (inner, scope): (SocketAddr, SocketAddr), rng: &mut ChaCha8Rng) -> u16 {
        let is_free = |port: u16| {
            !self
                .mappings
                .iter()
                .any(|((_, other), mapping)| mapping.port == port && *other == scope)
        };
        if self.behaviour.ports == Ports::Preserved && is_free(inner.port()) {
            return inner.port();
        }
        // A port that nobody has towards anyone. The tables of a simulation are far from full.
        loop {
            let port = self.draw(rng);
            let taken = self.mappings.values().any(|mapping| mapping.port == port);
            if !taken && port != inner.port() {
                return port;
            }
        }
    }

    /// A port that may be taken.
    fn draw(&mut self, rng: &mut ChaCha8Rng) -> u16 {
        let Ports::Sequential { stride } = self.behaviour.ports else {
            return rng.gen_range(PORTS);
        };
        let port = self.next.unwrap_or_else(|| rng.gen_range(PORTS));
        self.next = Some(port.checked_add(stride).unwrap_or(*PORTS.start()));
        port
    }
}

impl fmt::Display for Nat {
    /// Its behaviour, and its table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}:", self.behaviour, self.external)?;
        for ((inner, scope), mapping) in &self.mappings {
            write!(f, " {inner}>{scope}={}", mapping.port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
