//! `mesh netcheck` behind the kernel's own routers: what it says of each, and of how others are reached.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::IpAddr,
    process::{Command, Output},
};

use mesh_api::{Dependence, FamilyReport, MoonReport, Netcheck, Reach, UdpOut};
use mesh_lab::{Fleet, Router};
use mesh_tests::{assert_reaches, fleet};

/// All but what goes through the mesh itself.
const NO_UDP: &str = "
table inet underlay {
  chain out { type filter hook output priority 0; oifname != \"mesh0\" meta l4proto udp drop; }
  chain in { type filter hook input priority 0; iifname != \"mesh0\" meta l4proto udp drop; }
}
";

/// galena, who knows the moons cinnabar and electrum, both on the internet. No controller runs.
fn prepared() -> Option<Fleet> {
    let mut fleet = fleet(&["cinnabar", "electrum", "galena"])?;
    fleet.set_moons(&["cinnabar", "electrum"]).unwrap();
    Some(fleet)
}

/// The same, behind a router or none and started, after both moons have answered; and galena's address on the
/// internet, which is the router's, then.
fn running(router: Option<Router>) -> Option<(Fleet, IpAddr)> {
    let mut fleet = prepared()?;
    let outside = fleet.lab().address("galena").unwrap().into();
    if let Some(router) = router {
        fleet.lab().put_behind("galena", router).unwrap();
    }
    start(&mut fleet);
    Some((fleet, outside))
}

fn start(fleet: &mut Fleet) {
    for name in fleet.names() {
        fleet.start_agent(&name).unwrap();
    }
    for moon in ["cinnabar", "electrum"] {
        assert_reaches(fleet, "galena", moon);
    }
}

fn ask(fleet: &Fleet) -> Output {
    let socket = fleet.files("galena").unwrap().agent_socket();
    let socket = socket.to_str().unwrap();
    let asked = fleet.mesh("galena", &["netcheck", "--json", "--socket", socket]);
    asked.unwrap()
}

fn netcheck(fleet: &Fleet) -> Netcheck {
    let output = ask(fleet);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What both moons do where UDP gets out.
fn assert_answering(moons: &[MoonReport]) {
    let names: Vec<_> = moons.iter().map(|moon| moon.name.as_str()).collect();
    assert_eq!(names, ["cinnabar", "electrum"]);
    for moon in moons {
        assert!(moon.endpoint.is_some() && moon.rtt_micros.is_some());
        assert!(moon.relays && moon.reason.is_none(), "{moon:?}");
        // Pings are packets of programs, so the size of packets was tried. Ethernet by IPv4 or IPv6.
        assert!(matches!(moon.mtu, Some(1420 | 1440)), "{moon:?}");
    }
}

/// What IPv4 does behind a NAT.
fn translated(report: &Netcheck, outside: IpAddr) -> &FamilyReport {
    let ipv4 = report.ipv4.as_ref().unwrap();
    assert_eq!(ipv4.nat, Some(true));
    assert_ne!(ipv4.addresses, [outside]);
    assert_eq!(ipv4.seen_at.unwrap().ip(), outside);
    assert_eq!(report.ipv6, None);
    ipv4
}

#[test]
fn a_machine_without_nat_is_reached_by_everyone() {
    let Some((fleet, own)) = running(None) else {
        return;
    };
    let report = netcheck(&fleet);
    assert_eq!((report.reach, report.udp), (Reach::Direct, UdpOut::Yes));
    for family in [&report.ipv4, &report.ipv6] {
        let family = family.as_ref().unwrap();
        assert_eq!(family.nat, Some(false));
        assert!(family.addresses.contains(&family.seen_at.unwrap().ip()));
        assert_eq!(family.mapping, Some(Dependence::Independent));
        assert_eq!(family.filtering, Some(Dependence::Independent));
        assert_eq!((family.hairpin, family.keepalive_seconds), (None, 20));
    }
    let ipv4 = report.ipv4.unwrap();
    assert_eq!(ipv4.addresses, [own]);
    assert_answering(&report.moons);
    assert_eq!(report.port_mapping.external, None);
    assert!(report.port_mapping.reason.is_some());
    assert!(report.hints.is_empty(), "{:?}", report.hints);
}

#[test]
fn a_nat_that_keeps_ports_has_one_for_all_destinations() {
    let Some((fleet, outside)) = running(Some(Router::Masquerade)) else {
        return;
    };
    let report = netcheck(&fleet);
    assert_eq!((report.reach, report.udp), (Reach::Direct, UdpOut::Yes));
    let ipv4 = translated(&report, outside);
    assert_eq!(ipv4.mapping, Some(Dependence::Independent));
    assert_eq!(ipv4.filtering, Some(Dependence::AddressAndPort));
    assert_eq!(ipv4.hairpin, Some(false));
    assert_answering(&report.moons);
    assert!(report.hints.is_empty(), "{:?}", report.hints);
}

#[test]
fn a_random_nat_has_another_port_for_each_destination() {
    let Some((fleet, outside)) = running(Some(Router::MasqueradeRandom)) else {
        return;
    };
    let report = netcheck(&fleet);
    let found = (report.reach, report.udp);
    assert_eq!(found, (Reach::DirectToOpen, UdpOut::Yes));
    let ipv4 = translated(&report, outside);
    assert_eq!(ipv4.mapping, Some(Dependence::AddressAndPort));
    assert_eq!(ipv4.filtering, Some(Dependence::AddressAndPort));
    assert_eq!(ipv4.hairpin, Some(false));
    assert_answering(&report.moons);
    assert!(report.hints[0].contains("another port"));
}

#[test]
fn a_network_without_udp_has_port_443_left() {
    let Some(mut fleet) = prepared() else {
        return;
    };
    let config = fleet.files("cinnabar").unwrap().agent_config_path();
    let mut config = OpenOptions::new().append(true).open(config).unwrap();
    config.write_all(b"relay_listen = \"[::]:443\"\n").unwrap();
    let rules = fleet.run_on("galena", Command::new("nft").arg(NO_UDP));
    assert!(rules.unwrap().status.success());
    start(&mut fleet);
    let report = netcheck(&fleet);
    let found = (report.reach, report.udp);
    assert_eq!(found, (Reach::Only443, UdpOut::Only443));
    let ipv4 = report.ipv4.as_ref().unwrap();
    assert_eq!((ipv4.seen_at, ipv4.nat, ipv4.mapping), (None, None, None));
    let [cinnabar, electrum] = report.moons.as_slice() else {
        panic!("{report:?}");
    };
    assert!(cinnabar.tcp_443 && cinnabar.relays, "{cinnabar:?}");
    assert_eq!(cinnabar.endpoint, None);
    assert_eq!(cinnabar.reason.as_deref(), Some("reached over port 443"));
    assert!(!electrum.tcp_443 && !electrum.relays, "{electrum:?}");
    assert_eq!(electrum.reason.as_deref(), Some("reached through cinnabar"));
    assert!(report.hints[0].contains("drops UDP"));
}

#[test]
fn a_machine_whose_uplink_is_down_is_offline() {
    let Some((fleet, _)) = running(None) else {
        return;
    };
    let mut down = Command::new("ip");
    let down = fleet.run_on("galena", down.args(["link", "set", "eth0", "down"]));
    assert!(down.unwrap().status.success());
    let output = ask(&fleet);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Netcheck = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report.reach, report.udp), (Reach::Offline, UdpOut::No));
    // Whether an interface that is down keeps its addresses is the system's to say.
    for family in [&report.ipv4, &report.ipv6].into_iter().flatten() {
        assert_eq!((family.seen_at, family.nat), (None, None), "{family:?}");
    }
    for moon in &report.moons {
        assert_eq!((moon.endpoint, moon.rtt_micros), (None, None), "{moon:?}");
        assert!(!moon.tcp_443);
        assert_eq!(moon.reason.as_deref(), Some("no answer"));
    }
    assert_eq!(report.moons.len(), 2);
    assert!(report.hints[0].contains("is this machine online"));
}
