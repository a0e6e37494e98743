//! Machines behind the kernel's own routers reach each other: through the moon at once, and straight where
//! the routers allow it, which the simulator's reference model says.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use mesh_api::PathKind;
use mesh_lab::{Fleet, Lab, Router, wait_until};
use mesh_testkit::world::{
    Dependence, Verdict,
    reference::{Side, punch},
};
use mesh_tests::{PATIENCE, assert_does_not_reach, assert_reaches, fleet, peer};

/// What a straight way may take after the first answer (issue: 1 s), and a moment for who looks.
const STRAIGHT: Duration = Duration::from_millis(1500);

/// Long enough for all probes of a burst, so that a pair still relayed after it stays so.
const BURST: Duration = Duration::from_secs(3);

/// galena and pyrite, who know the moon cinnabar. No controller runs.
fn trio() -> Option<Fleet> {
    let mut fleet = fleet(&["cinnabar", "galena", "pyrite"])?;
    fleet.set_moons(&["cinnabar"]).unwrap();
    Some(fleet)
}

/// galena and pyrite behind a router each, or none, and started.
fn behind(galena: Option<Router>, pyrite: Option<Router>) -> Option<Fleet> {
    let mut fleet = trio()?;
    for (name, router) in [("galena", galena), ("pyrite", pyrite)] {
        if let Some(router) = router {
            fleet.lab().put_behind(name, router).unwrap();
        }
    }
    start(&mut fleet);
    Some(fleet)
}

fn start(fleet: &mut Fleet) {
    for name in fleet.names() {
        fleet.start_agent(&name).unwrap();
    }
    for name in ["galena", "pyrite"] {
        assert_reaches(fleet, name, "cinnabar");
    }
}

/// The address at which pyrite reaches galena.
fn becomes_straight(fleet: &Fleet) -> IpAddr {
    assert_reaches(fleet, "pyrite", "galena");
    let answered = Instant::now();
    for (of, to) in [("pyrite", "galena"), ("galena", "pyrite")] {
        wait_until(PATIENCE, || {
            assert_reaches(fleet, "pyrite", "galena");
            let peer = peer(fleet, of, to);
            if peer.path == Some(PathKind::Direct) {
                Ok(())
            } else {
                Err(Box::new(peer))
            }
        })
        .unwrap();
    }
    let took = answered.elapsed();
    assert!(took < STRAIGHT, "straight only after {took:?}");
    peer(fleet, "pyrite", "galena").endpoint.unwrap().ip()
}

fn stays_relayed(fleet: &Fleet) {
    assert_reaches(fleet, "pyrite", "galena");
    let end = Instant::now() + BURST;
    while Instant::now() < end {
        assert_reaches(fleet, "pyrite", "galena");
        let galena = peer(fleet, "pyrite", "galena");
        assert_eq!(galena.path, Some(PathKind::Relayed), "{galena:?}");
        assert_eq!(galena.relay.unwrap().as_str(), "cinnabar");
        assert_eq!(galena.endpoint, None);
    }
}

/// What a router is to the reference model, by IPv4.
fn side(router: Option<Router>) -> Side {
    let (mapping, filtering) = match router {
        None | Some(Router::Open) => (Dependence::Independent, Dependence::Independent),
        Some(Router::MasqueradeRandom | Router::DualStack) => {
            (Dependence::AddressAndPort, Dependence::AddressAndPort)
        }
        Some(
            Router::Firewall
            | Router::FirewallIpv6
            | Router::Masquerade
            | Router::MasqueradeUnfiltered,
        ) => (Dependence::Independent, Dependence::AddressAndPort),
    };
    Side {
        mapping,
        filtering,
        ..Side::OPEN
    }
}

/// A pair behind these becomes straight, if the model says that it can, and is relayed else.
fn as_the_model_says(galena: Option<Router>, pyrite: Option<Router>, verdict: Verdict) {
    assert_eq!(punch(side(galena), side(pyrite)), verdict);
    let Some(fleet) = behind(galena, pyrite) else {
        return;
    };
    match verdict {
        Verdict::Direct => {
            becomes_straight(&fleet);
        }
        Verdict::Impossible => stays_relayed(&fleet),
        Verdict::Possible => {}
    }
}

#[test]
fn two_port_preserving_nats_are_opened_from_within() {
    let nat = Some(Router::Masquerade);
    as_the_model_says(nat, nat, Verdict::Direct);
}

/// Linux tracks what comes unasked, if no filter drops it, and gives its port to nobody then.
#[test]
fn nats_without_a_filter_of_their_own_are_opened_from_within() {
    let Some(mut fleet) = trio() else {
        return;
    };
    for name in ["galena", "pyrite"] {
        below_a_provider(fleet.lab(), name, Router::MasqueradeUnfiltered);
    }
    start(&mut fleet);
    becomes_straight(&fleet);
}

#[test]
fn a_nat_without_a_filter_of_its_own_and_one_with_are_opened_from_within() {
    let Some(mut fleet) = trio() else {
        return;
    };
    below_a_provider(fleet.lab(), "galena", Router::MasqueradeUnfiltered);
    below_a_provider(fleet.lab(), "pyrite", Router::Masquerade);
    start(&mut fleet);
    becomes_straight(&fleet);
}

#[test]
fn a_random_nat_is_no_hindrance_to_who_has_none() {
    as_the_model_says(None, Some(Router::MasqueradeRandom), Verdict::Direct);
}

#[test]
fn two_firewalls_are_opened_from_within() {
    let firewall = Some(Router::Firewall);
    as_the_model_says(firewall, firewall, Verdict::Direct);
}

#[test]
fn a_firewall_and_a_port_preserving_nat_are_opened_from_within() {
    let routers = (Router::Firewall, Router::Masquerade);
    as_the_model_says(Some(routers.0), Some(routers.1), Verdict::Direct);
}

#[test]
fn a_port_preserving_and_a_random_nat_are_crossed_by_the_moon() {
    let nats = (Router::Masquerade, Router::MasqueradeRandom);
    as_the_model_says(Some(nats.0), Some(nats.1), Verdict::Impossible);
}

#[test]
fn a_firewall_and_a_random_nat_are_crossed_by_the_moon() {
    let routers = (Router::Firewall, Router::MasqueradeRandom);
    as_the_model_says(Some(routers.0), Some(routers.1), Verdict::Impossible);
}

#[test]
fn two_random_nats_are_crossed_by_the_moon() {
    let nat = Some(Router::MasqueradeRandom);
    as_the_model_says(nat, nat, Verdict::Impossible);
}

#[test]
fn firewalls_of_ipv6_alone_are_opened_from_within() {
    let firewall = Some(Router::FirewallIpv6);
    let Some(fleet) = behind(firewall, firewall) else {
        return;
    };
    assert!(becomes_straight(&fleet).is_ipv6());
}

#[test]
fn two_random_nats_are_gone_around_by_ipv6() {
    let router = Some(Router::DualStack);
    let Some(fleet) = behind(router, router) else {
        return;
    };
    assert!(becomes_straight(&fleet).is_ipv6());
}

#[test]
fn a_home_below_a_carriers_nat_is_opened_from_within() {
    let Some(mut fleet) = trio() else {
        return;
    };
    below_a_carrier(fleet.lab(), Router::Masquerade);
    fleet
        .lab()
        .put_behind("pyrite", Router::Masquerade)
        .unwrap();
    start(&mut fleet);
    becomes_straight(&fleet);
}

#[test]
fn a_home_below_a_carriers_random_nat_reaches_who_has_none() {
    let Some(mut fleet) = trio() else {
        return;
    };
    below_a_carrier(fleet.lab(), Router::MasqueradeRandom);
    start(&mut fleet);
    becomes_straight(&fleet);
}

#[test]
fn a_home_below_a_carriers_random_nat_is_reached_by_the_moon() {
    let Some(mut fleet) = trio() else {
        return;
    };
    below_a_carrier(fleet.lab(), Router::MasqueradeRandom);
    fleet
        .lab()
        .put_behind("pyrite", Router::Masquerade)
        .unwrap();
    start(&mut fleet);
    stays_relayed(&fleet);
}

/// Linux turns back no packets that are for its own external address.
#[test]
fn two_homes_below_one_carrier_that_turns_nothing_back_are_crossed_by_the_moon() {
    let Some(mut fleet) = trio() else {
        return;
    };
    let lab = fleet.lab();
    let carrier = lab.site(Router::Masquerade, Lab::INTERNET).unwrap();
    for name in ["galena", "pyrite"] {
        let home = lab.site(Router::Masquerade, carrier).unwrap();
        lab.join(name, home).unwrap();
    }
    start(&mut fleet);
    stays_relayed(&fleet);
}

#[test]
fn two_machines_behind_one_router_talk_within_their_network() {
    let Some(mut fleet) = trio() else {
        return;
    };
    let lab = fleet.lab();
    let home = lab.site(Router::MasqueradeRandom, Lab::INTERNET).unwrap();
    for name in ["galena", "pyrite"] {
        lab.join(name, home).unwrap();
    }
    start(&mut fleet);
    let at = becomes_straight(&fleet);
    assert!(
        matches!(at, IpAddr::V4(at) if at.is_private()),
        "by {at} instead of the network that they share"
    );
}

#[test]
fn a_relayed_pair_falls_silent_with_its_moon_and_is_back_with_it() {
    let nat = Some(Router::MasqueradeRandom);
    let Some(mut fleet) = behind(nat, nat) else {
        return;
    };
    stays_relayed(&fleet);
    fleet.agent_process("cinnabar").unwrap().kill().unwrap();
    assert_does_not_reach(&fleet, "pyrite", "galena");
    fleet.start_agent("cinnabar").unwrap();
    stays_relayed(&fleet);
}

/// Puts a machine behind a router, and that behind one of a provider's that translates nothing.
fn below_a_provider(lab: &mut Lab, name: &str, router: Router) {
    let provider = lab.site(Router::Open, Lab::INTERNET).unwrap();
    let home = lab.site(router, provider).unwrap();
    lab.join(name, home).unwrap();
}

/// Puts galena below a home's NAT, and that below a carrier's.
fn below_a_carrier(lab: &mut Lab, carrier: Router) {
    let carrier = lab.site(carrier, Lab::INTERNET).unwrap();
    let home = lab.site(Router::Masquerade, carrier).unwrap();
    lab.join("galena", home).unwrap();
}
