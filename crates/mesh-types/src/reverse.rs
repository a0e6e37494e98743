use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// The zones that hold the reverse names (RFC 1035 section 3.5, RFC 3596 section 2.5) of the addresses in
/// `net` and of no others, without a dot at the end.
///
/// Reverse names are cut at whole nibbles for IPv6 and whole octets for IPv4. Where `net` is not, there is
/// more than one zone: 2 for a /15, 128 for a /25; never more than 128.
pub fn reverse_zones(net: IpNet) -> Vec<String> {
    match net {
        IpNet::V6(net) => {
            let digits = net.prefix_len().div_ceil(4);
            net.subnets(digits * 4)
                .into_iter()
                .flatten()
                .map(|net| ipv6_name(net.network(), usize::from(digits)))
                .collect()
        }
        IpNet::V4(net) => ipv4_zones(net),
    }
}

fn ipv4_zones(net: Ipv4Net) -> Vec<String> {
    let octets = net.prefix_len().div_ceil(8);
    net.subnets(octets * 8)
        .into_iter()
        .flatten()
        .map(|net| ipv4_name(net.network(), usize::from(octets)))
        .collect()
}

/// The reverse name of an address, without a dot at the end: `…ip6.arpa` or `…in-addr.arpa`.
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => ipv4_name(address, 4),
        IpAddr::V6(address) => ipv6_name(address, 32),
    }
}

fn ipv6_name(address: Ipv6Addr, digits: usize) -> String {
    let hex = format!("{:032x}", u128::from(address));
    let labels: String = hex[..digits]
        .chars()
        .rev()
        .map(|digit| format!("{digit}."))
        .collect();
    labels + "ip6.arpa"
}

fn ipv4_name(address: Ipv4Addr, octets: usize) -> String {
    let labels: String = address.octets()[..octets]
        .iter()
        .rev()
        .map(|octet| format!("{octet}."))
        .collect();
    labels + "in-addr.arpa"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(net: &str) -> Vec<String> {
        reverse_zones(net.parse().unwrap())
    }

    #[test]
    fn zones_are_cut_at_nibbles_and_octets() {
        assert_eq!(
            zones("fdc3:582e:db61::/48"),
            ["1.6.b.d.e.2.8.5.3.c.d.f.ip6.arpa"]
        );
        assert_eq!(zones("100.64.7.0/24"), ["7.64.100.in-addr.arpa"]);
        assert_eq!(
            zones("10.2.0.0/15"),
            ["2.10.in-addr.arpa", "3.10.in-addr.arpa"]
        );
        assert_eq!(zones("100.64.0.0/10").len(), 64);
        let halves = zones("192.0.2.128/25");
        assert_eq!(halves.len(), 128);
        assert_eq!(halves[0], "128.2.0.192.in-addr.arpa");
        assert_eq!(zones("0.0.0.0/0"), ["in-addr.arpa"]);
    }

    #[test]
    fn names_of_addresses_are_those_of_the_rfcs() {
        let name = |text: &str| reverse_name(text.parse().unwrap());
        assert_eq!(
            name("4321:0:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa"
        );
        assert_eq!(name("10.2.0.52"), "52.0.2.10.in-addr.arpa");
    }
}
