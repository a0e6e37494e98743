use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::word_hasher::HashesWords;

/// Which peer an address belongs to: longest prefix first, as in WireGuard's cryptokey routing.
///
/// One hash map a prefix length. In a mesh nearly every entry is a /128, so a look-up is one probe; a
/// trie would be one probe a bit or a larger piece of code.
pub(crate) struct AllowedIps<T> {
    v4: Vec<(u8, Networks<T>)>,
    v6: Vec<(u8, Networks<T>)>,
}

/// Networks of one length. The same roster must give the same table.
type Networks<T> = HashMap<u128, T, HashesWords>;

impl<T: Clone> AllowedIps<T> {
    /// Builds the table. If a network occurs twice, its first owner keeps it.
    pub(crate) fn new(entries: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let mut v4 = BTreeMap::<u8, Networks<T>>::new();
        let mut v6 = BTreeMap::<u8, Networks<T>>::new();
        for (network, owner) in entries {
            let family = match network {
                IpNet::V4(_) => &mut v4,
                IpNet::V6(_) => &mut v6,
            };
            let (address, width) = bits(network.addr());
            family
                .entry(network.prefix_len())
                .or_default()
                .entry(masked(address, width, network.prefix_len()))
                .or_insert(owner);
        }
        Self {
            v4: v4.into_iter().rev().collect(),
            v6: v6.into_iter().rev().collect(),
        }
    }

    /// The owner of the longest network that holds `address`.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<&T> {
        let family = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let (address, width) = bits(address);
        family
            .iter()
            .find_map(|(length, networks)| networks.get(&masked(address, width, *length)))
    }

    /// Whether `address` itself, and not a network around it, is somebody's.
    pub(crate) fn has_host(&self, address: IpAddr) -> bool {
        let family = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let (address, width) = bits(address);
        family
            .first()
            .is_some_and(|(length, hosts)| *length == width && hosts.contains_key(&address))
    }
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

fn masked(address: u128, width: u8, length: u8) -> u128 {
    let host_bits = u32::from(width - length);
    match host_bits {
        128 => 0,
        host_bits => address >> host_bits << host_bits,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_families_are_apart() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let table = AllowedIps::new([
            (net("fd00::/8"), 1),
            (net("fd00::1/128"), 2),
            (net("fd00::1/128"), 3),
            (net("10.0.0.0/8"), 4),
            (net("0.0.0.0/0"), 5),
        ]);
        let owner = |text: &str| table.lookup(text.parse().unwrap()).copied();
        assert_eq!(owner("fd00::1"), Some(2), "the first owner keeps it");
        assert_eq!(owner("fd00::2"), Some(1));
        assert_eq!(owner("fe80::1"), None);
        assert_eq!(owner("10.1.2.3"), Some(4));
        assert_eq!(owner("192.0.2.1"), Some(5));
        assert_eq!(owner("::ffff:10.1.2.3"), None);
        for (text, expected) in [("fd00::1", true), ("fd00::2", false), ("10.0.0.0", false)] {
            assert_eq!(table.has_host(text.parse().unwrap()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_lookup_agrees_with_trying_every_network(
            entries in prop::collection::vec((any::<u32>(), 0u8..=32, any::<bool>()), 0..20),
            probes in prop::collection::vec(any::<u32>(), 0..20),
        ) {
            let networks: Vec<IpNet> = entries
                .iter()
                .map(|(address, length, v6)| if *v6 {
                    let address = std::net::Ipv6Addr::from(u128::from(*address) << 96);
                    ipnet::Ipv6Net::new(address, *length).unwrap().into()
                } else {
                    ipnet::Ipv4Net::new((*address).into(), *length).unwrap().into()
                })
                .collect();
            let table = AllowedIps::new(networks.iter().copied().zip(0..));
            let near = entries.iter().map(|(address, _, _)| address ^ 1);
            for probe in probes.into_iter().chain(near) {
                for address in [
                    IpAddr::V4(probe.into()),
                    IpAddr::V6((u128::from(probe) << 96).into()),
                ] {
                    let expected = networks
                        .iter()
                        .enumerate()
                        .filter(|(_, network)| network.contains(&address))
                        .max_by_key(|(i, network)| (network.prefix_len(), std::cmp::Reverse(*i)))
                        .map(|(i, _)| i);
                    prop_assert_eq!(table.lookup(address).copied(), expected);
                }
            }
        }
    }
}
