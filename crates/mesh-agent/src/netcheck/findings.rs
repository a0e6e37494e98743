//! From what was tried to what it means. Pure.

use std::net::{IpAddr, SocketAddr};

use mesh_api::{
    Dependence, FamilyReport, MoonReport, Netcheck, PortMappingStatus, Reach, UdpOut, VERSION,
};
use mesh_core::Keeping;

/// All that was tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// IPv4 and IPv6.
    pub(super) families: [Family; 2],
    pub(super) moons: Vec<MoonReport>,
    /// Whether a moon that relays is of a release that cannot help to look.
    pub(super) old_moons: bool,
    pub(super) port_mapping: PortMappingStatus,
}

/// What was tried with one family.
#[derive(Clone, Debug, Default)]
pub(super) struct Family {
    /// This machine's own addresses.
    pub(super) own: Vec<IpAddr>,
    /// One socket, as several moons see it: where the moon is, and what it sees.
    pub(super) seen: Vec<(SocketAddr, SocketAddr)>,
    /// Another socket, that spoke to one moon alone.
    pub(super) alone: Alone,
    pub(super) hairpin: Option<bool>,
    pub(super) keeping: Option<Keeping>,
}

/// A socket that spoke to one moon alone. `None`: could not be tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alone {
    /// What the moon sees at its usual port, and at its other one.
    pub(super) seen: Option<(SocketAddr, Option<SocketAddr>)>,
    /// Whether the other port got through to it.
    pub(super) other_port: Option<bool>,
    /// Whether another moon did.
    pub(super) other_address: Option<bool>,
}

impl Seen {
    pub(super) fn report(self) -> Netcheck {
        let udp = self.udp();
        let [ipv4, ipv6] = self.families.each_ref().map(Family::report);
        let is_mapped = self.port_mapping.external.is_some();
        let reach = reach(udp, is_mapped, &ipv4, &ipv6);
        let mut report = Netcheck {
            version: VERSION,
            reach,
            udp,
            ipv4,
            ipv6,
            port_mapping: self.port_mapping,
            moons: self.moons,
            hints: Vec::new(),
        };
        report.hints = hints(&report, self.old_moons);
        report
    }

    fn udp(&self) -> UdpOut {
        let reflected = self.families.iter().any(|family| !family.seen.is_empty());
        let answered = self.moons.iter().any(|moon| moon.endpoint.is_some());
        let over_443 = self.moons.iter().any(|moon| moon.tcp_443);
        match (reflected || answered, over_443) {
            (true, _) => UdpOut::Yes,
            (false, true) => UdpOut::Only443,
            (false, false) => UdpOut::No,
        }
    }
}

impl Family {
    fn report(&self) -> Option<FamilyReport> {
        let seen_at = self.seen.first().map(|(_, seen)| *seen);
        if self.own.is_empty() && seen_at.is_none() {
            return None;
        }
        let nat = seen_at.map(|seen| !self.own.contains(&seen.ip()));
        let holds = self.keeping.and_then(|keeping| keeping.seen);
        let interval = self.keeping.map(|keeping| keeping.interval);
        Some(FamilyReport {
            addresses: self.own.clone(),
            seen_at,
            nat,
            mapping: self.mapping(),
            filtering: self.filtering(),
            hairpin: self.hairpin.filter(|_| nat == Some(true)),
            holds_seconds: holds.map(|holds| holds.as_secs()),
            keepalive_seconds: interval.map_or(0, |interval| interval.as_secs()),
        })
    }

    fn mapping(&self) -> Option<Dependence> {
        let by_address = self.seen.first().and_then(|(first, seen)| {
            let mut others = self.seen.iter().filter(|(at, _)| at.ip() != first.ip());
            let (_, other) = others.next()?;
            Some(other != seen)
        });
        let by_port = self
            .alone
            .seen
            .and_then(|(usual, other)| other.map(|other| other != usual));
        match (by_address, by_port) {
            (Some(false), _) => Some(Dependence::Independent),
            (Some(true), Some(false)) => Some(Dependence::Address),
            (Some(true), None) => Some(Dependence::AddressOrPort),
            (_, Some(true)) => Some(Dependence::AddressAndPort),
            (None, Some(false)) => Some(Dependence::NotPort),
            (None, None) => None,
        }
    }

    fn filtering(&self) -> Option<Dependence> {
        match (self.alone.other_address, self.alone.other_port) {
            (Some(true), _) => Some(Dependence::Independent),
            (_, Some(false)) => Some(Dependence::AddressAndPort),
            (Some(false), Some(true)) => Some(Dependence::Address),
            (Some(false), None) => Some(Dependence::AddressOrPort),
            (None, Some(true)) => Some(Dependence::NotPort),
            (None, None) => None,
        }
    }
}

fn reach(
    udp: UdpOut,
    is_mapped: bool,
    ipv4: &Option<FamilyReport>,
    ipv6: &Option<FamilyReport>,
) -> Reach {
    match udp {
        UdpOut::No => return Reach::Offline,
        UdpOut::Only443 => return Reach::Only443,
        // Everyone may come to that port.
        UdpOut::Yes if is_mapped => return Reach::Direct,
        UdpOut::Yes => {}
    }
    let of = |family: &FamilyReport| match (family.nat?, family.mapping) {
        (false, _) | (true, Some(Dependence::Independent | Dependence::NotPort)) => {
            Some(Reach::Direct)
        }
        (
            true,
            Some(Dependence::Address | Dependence::AddressOrPort | Dependence::AddressAndPort),
        ) => Some(Reach::DirectToOpen),
        (true, None) => None,
    };
    // IPv6 alone does not reach who has none.
    match (ipv4.as_ref().and_then(of), ipv6.as_ref().and_then(of)) {
        (Some(reach), _) => reach,
        (None, Some(_)) => Reach::DirectToOpen,
        (None, None) => Reach::Relayed,
    }
}

fn hints(report: &Netcheck, old_moons: bool) -> Vec<String> {
    let mut hints = Vec::new();
    let mut hint = |text: &str| hints.push(text.to_owned());
    if report.moons.is_empty() {
        hint("no moon is known: make an always-on machine `moon` or `controller` in the inventory");
    }
    match report.reach {
        Reach::Direct => {}
        Reach::DirectToOpen => hint(
            "this network's NAT gives every destination another port: peers behind such a NAT, too, \
             are reached through a moon; IPv6, a router that maps ports by PCP, NAT-PMP or UPnP, or a forwarded \
             port as an `endpoint` in the inventory would help",
        ),
        Reach::Relayed => hint(
            "no moon could tell what lies between; packets go through the moon until a direct way shows",
        ),
        Reach::Only443 => hint(
            "this network drops UDP: everything goes through a moon over TLS, which is slower; \
             let UDP out, at least to port 4193",
        ),
        Reach::Offline if !report.moons.is_empty() => hint(
            "no moon answers, by UDP or on TCP 443: is this machine online, and are the moons? \
             where UDP is dropped, a moon with `relay_listen` would help",
        ),
        Reach::Offline => {}
    }
    if old_moons {
        hint("a moon is of an earlier release: upgrade it to learn what the NAT does");
    }
    if report.ipv4.is_none() && report.ipv6.is_some() {
        hint("there is no IPv4 here: peers without IPv6 are reached through a moon that has both");
    }
    hints
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn moon(name: &str, udp: bool, tcp_443: bool) -> MoonReport {
        MoonReport {
            name: name.parse().unwrap(),
            endpoint: udp.then(|| endpoint("198.51.100.1:4193")),
            rtt_micros: udp.then_some(12_300),
            mtu: udp.then_some(1_440),
            relays: udp,
            reason: (!udp).then(|| "no answer by UDP".to_owned()),
            tcp_443,
            tcp_443_micros: tcp_443.then_some(30_000),
        }
    }

    /// What two moons and the second port of the first see of a NAT.
    fn behind(at_first: &str, at_second: Option<&str>, at_port: Option<&str>) -> Family {
        let mut seen = vec![(endpoint("198.51.100.1:4193"), endpoint(at_first))];
        if let Some(at) = at_second {
            seen.push((endpoint("198.51.100.2:4193"), endpoint(at)));
        }
        Family {
            own: vec!["192.168.1.7".parse().unwrap()],
            alone: Alone {
                seen: at_port.map(|at| (endpoint(at_first), Some(endpoint(at)))),
                ..Alone::default()
            },
            seen,
            keeping: Some(Keeping {
                seen: None,
                interval: Duration::from_secs(20),
            }),
            ..Family::default()
        }
    }

    fn seen(v4: Family, moons: Vec<MoonReport>) -> Seen {
        Seen {
            families: [v4, Family::default()],
            moons,
            old_moons: false,
            port_mapping: PortMappingStatus::default(),
        }
    }

    #[test]
    fn a_port_that_the_router_maps_makes_up_for_a_strict_nat() {
        let strict = behind("203.0.113.9:5000", Some("203.0.113.9:5001"), None);
        let mut mapped = seen(strict, vec![moon("cinnabar", true, true)]);
        mapped.port_mapping.external = Some(endpoint("203.0.113.9:4193"));
        let report = mapped.clone().report();
        assert_eq!(report.reach, Reach::Direct);
        assert_eq!(report.port_mapping, mapped.port_mapping);
        // What is mapped is of no use where UDP does not get out.
        mapped.families = <[Family; 2]>::default();
        mapped.moons = vec![moon("cinnabar", false, true)];
        assert_eq!(mapped.report().reach, Reach::Only443);
    }

    #[test]
    fn mapping_is_told_by_what_two_moons_and_two_ports_see() {
        const A: &str = "203.0.113.9:5000";
        const B: &str = "203.0.113.9:5001";
        use Dependence::*;
        for (second, port, expected) in [
            (Some(A), Some(A), Some(Independent)),
            (Some(A), None, Some(Independent)),
            (Some(B), Some(A), Some(Address)),
            (Some(B), Some(B), Some(AddressAndPort)),
            (Some(B), None, Some(AddressOrPort)),
            (None, Some(B), Some(AddressAndPort)),
            (None, Some(A), Some(NotPort)),
            (None, None, None),
        ] {
            assert_eq!(behind(A, second, port).mapping(), expected);
        }
    }

    #[test]
    fn filtering_is_told_by_what_gets_in() {
        use Dependence::*;
        for (other_address, other_port, expected) in [
            (Some(true), Some(true), Some(Independent)),
            (Some(false), Some(true), Some(Address)),
            (Some(false), Some(false), Some(AddressAndPort)),
            (None, Some(false), Some(AddressAndPort)),
            (None, Some(true), Some(NotPort)),
            (Some(false), None, Some(AddressOrPort)),
            (None, None, None),
        ] {
            let family = Family {
                alone: Alone {
                    seen: None,
                    other_port,
                    other_address,
                },
                ..Family::default()
            };
            assert_eq!(family.filtering(), expected);
        }
    }

    #[test]
    fn the_headline_says_how_others_are_reached() {
        const A: &str = "203.0.113.9:5000";
        const B: &str = "203.0.113.9:5001";
        let good = || vec![moon("cinnabar", true, true)];
        let open = Family {
            own: vec!["203.0.113.9".parse().unwrap()],
            ..behind(A, None, None)
        };
        let none = Family::default();
        for (v4, moons, expected) in [
            (open, good(), Reach::Direct),
            (behind(A, Some(A), None), good(), Reach::Direct),
            (behind(A, Some(B), None), good(), Reach::DirectToOpen),
            (behind(A, None, None), good(), Reach::Relayed),
            (none.clone(), good(), Reach::Relayed),
            (
                none.clone(),
                vec![moon("cinnabar", false, true)],
                Reach::Only443,
            ),
            (
                none.clone(),
                vec![moon("cinnabar", false, false)],
                Reach::Offline,
            ),
            (none, Vec::new(), Reach::Offline),
        ] {
            let report = seen(v4, moons).report();
            assert_eq!(report.reach, expected, "{report:?}");
            assert_eq!(
                report.hints.is_empty(),
                expected == Reach::Direct,
                "{report:?}"
            );
        }
    }

    #[test]
    fn an_address_of_the_machine_itself_is_no_nat() {
        let report = behind("192.168.1.7:5000", None, None).report().unwrap();
        assert_eq!(report.nat, Some(false));
        let report = behind("203.0.113.9:5000", None, None).report().unwrap();
        assert_eq!(report.nat, Some(true));
    }
}
