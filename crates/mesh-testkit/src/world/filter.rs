use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use mesh_types::Instant;

/// How much of the remote endpoint a mapping or a filter depends on (RFC 4787 sections 4.1 and 5).
///
/// The later, the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// On nothing of it.
    Independent,
    /// On the address.
    Address,
    /// On address and port.
    AddressAndPort,
}

impl Dependence {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Independent, Self::Address, Self::AddressAndPort];

    /// What is left of a remote endpoint if the rest does not count: two endpoints with one rest are
    /// treated alike.
    pub const fn mask(self, remote: SocketAddr) -> SocketAddr {
        match self {
            Self::Independent => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Self::Address => SocketAddr::new(remote.ip(), 0),
            Self::AddressAndPort => remote,
        }
    }
}

/// The remote endpoints from which one inner endpoint may be reached, each for as long as something was
/// sent there lately. What comes in keeps nothing open.
#[derive(Clone, Debug)]
pub struct Filter {
    dependence: Dependence,
    lifetime: Duration,
    opened: BTreeMap<SocketAddr, Instant>,
}

impl Filter {
    /// A filter that lets nothing in. A remote that was opened stays so for `lifetime`.
    pub const fn new(dependence: Dependence, lifetime: Duration) -> Self {
        Self {
            dependence,
            lifetime,
            opened: BTreeMap::new(),
        }
    }

    /// Changes for how long a remote stays open, those that are, too.
    pub const fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Takes note of a packet sent to `remote`.
    pub fn open(&mut self, remote: SocketAddr, now: Instant) {
        let lifetime = self.lifetime;
        self.opened.retain(|_, at| now < *at + lifetime);
        self.opened.insert(self.dependence.mask(remote), now);
    }

    /// Whether a packet from `remote` is let in.
    pub fn lets_in(&self, remote: SocketAddr, now: Instant) -> bool {
        self.opened
            .get(&self.dependence.mask(remote))
            .is_some_and(|at| now < *at + self.lifetime)
    }

    /// Whether anything at all would be let in.
    pub fn is_open(&self, now: Instant) -> bool {
        self.opened.values().any(|at| now < *at + self.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn endpoint(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([198, 18, 0, last], port))
    }

    #[test]
    fn each_dependence_lets_in_what_it_says() {
        let others = [endpoint(1, 1), endpoint(1, 2), endpoint(2, 1)];
        for (dependence, expected) in [
            (Dependence::Independent, [true, true, true]),
            (Dependence::Address, [true, true, false]),
            (Dependence::AddressAndPort, [true, false, false]),
        ] {
            let mut filter = Filter::new(dependence, LIFETIME);
            assert!(!others.iter().any(|other| filter.lets_in(*other, at(0))));
            filter.open(others[0], at(0));
            assert_eq!(others.map(|other| filter.lets_in(other, at(1))), expected);
        }
    }

    #[test]
    fn a_filter_closes_unless_something_is_sent() {
        let mut filter = Filter::new(Dependence::AddressAndPort, LIFETIME);
        let remote = endpoint(1, 1);
        filter.open(remote, at(0));
        assert!(filter.lets_in(remote, at(29)) && filter.is_open(at(29)));
        assert!(!filter.lets_in(remote, at(30)) && !filter.is_open(at(30)));
        filter.open(remote, at(29));
        assert!(filter.lets_in(remote, at(58)));
    }
}
