//! A network that lets no UDP through, or only what looks like the web.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    fs::OpenOptions,
    io::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use mesh_api::{PathKind, Status};
use mesh_lab::Fleet;
use mesh_tests::{PATIENCE, assert_reaches, fleet};

/// How long it may take until packets get through again.
const BLOCKED_FROM_THE_START: Duration = Duration::from_secs(2);
const BLOCKED_IN_MID_SESSION: Duration = Duration::from_secs(4);

/// The search for a straight way is repeated after 10 and 20 s, and this is for who looks.
const UDP_IS_BACK: Duration = Duration::from_secs(40);

/// Long enough for all probes of a burst.
const BURST: Duration = Duration::from_secs(3);

/// All but what goes through the mesh itself.
const NO_UDP: &str = "
table inet underlay {
  chain out { type filter hook output priority 0; oifname != \"mesh0\" meta l4proto udp drop; }
  chain in { type filter hook input priority 0; iifname != \"mesh0\" meta l4proto udp drop; }
}
";

/// The same, but for the port of HTTP/3.
const ONLY_WEB: &str = "
table inet underlay {
  chain out { type filter hook output priority 0; oifname != \"mesh0\" udp dport != 443 drop; }
  chain in { type filter hook input priority 0; iifname != \"mesh0\" udp sport != 443 drop; }
}
";

/// cinnabar, which takes streams, and pyrite, both with UDP, and galena with what `rules` let through.
fn from_the_start(rules: &str) -> Option<Fleet> {
    let mut fleet = prepared()?;
    filter(&fleet, rules);
    for name in ["cinnabar", "pyrite"] {
        fleet.start_agent(name).unwrap();
    }
    assert_reaches(&fleet, "pyrite", "cinnabar");
    let begin = Instant::now();
    fleet.start_agent("galena").unwrap();
    assert_reaches(&fleet, "galena", "pyrite");
    assert_within(begin, BLOCKED_FROM_THE_START);
    assert_reaches(&fleet, "pyrite", "galena");
    fleet
        .wait_status("galena", PATIENCE, "is relayed", |status| {
            path(status) == Some(PathKind::Relayed)
        })
        .unwrap();
    Some(fleet)
}

/// The same, with UDP for galena until all have spoken.
fn in_mid_session(rules: &str) -> Option<Fleet> {
    let mut fleet = prepared()?;
    for name in fleet.names() {
        fleet.start_agent(&name).unwrap();
    }
    assert_reaches(&fleet, "galena", "pyrite");
    filter(&fleet, rules);
    let begin = Instant::now();
    assert_reaches(&fleet, "galena", "pyrite");
    assert_within(begin, BLOCKED_IN_MID_SESSION);
    Some(fleet)
}

#[test]
fn a_machine_without_udp_reaches_the_others_through_a_moon_over_tls() {
    if let Some(fleet) = from_the_start(NO_UDP) {
        assert_eq!(carriers(&fleet), ["TLS"]);
    }
}

#[test]
fn a_machine_that_loses_udp_is_back_through_a_moon_over_tls() {
    if let Some(fleet) = in_mid_session(NO_UDP) {
        assert_eq!(carriers(&fleet), ["TLS"]);
    }
}

#[test]
fn a_machine_with_nothing_but_the_web_reaches_the_others_through_a_moon_over_quic() {
    if let Some(fleet) = from_the_start(ONLY_WEB) {
        assert_eq!(carriers(&fleet), ["QUIC"]);
    }
}

#[test]
fn a_machine_that_keeps_nothing_but_the_web_is_back_through_a_moon_over_quic() {
    if let Some(fleet) = in_mid_session(ONLY_WEB) {
        assert_eq!(carriers(&fleet), ["QUIC"]);
    }
}

#[test]
fn a_machine_goes_straight_again_when_udp_is_back() {
    let Some(fleet) = from_the_start(NO_UDP) else {
        return;
    };
    // All probes of the first search are lost.
    let end = Instant::now() + BURST;
    while Instant::now() < end {
        assert_reaches(&fleet, "galena", "pyrite");
    }
    filter(&fleet, "flush ruleset");
    let begin = Instant::now();
    fleet
        .wait_status("galena", UDP_IS_BACK, "is straight", |status| {
            // Without traffic nobody looks.
            assert_reaches(&fleet, "galena", "pyrite");
            path(status) == Some(PathKind::Direct)
        })
        .unwrap();
    assert_within(begin, UDP_IS_BACK);
}

fn prepared() -> Option<Fleet> {
    let mut fleet = fleet(&["cinnabar", "galena", "pyrite"])?;
    fleet.set_static_endpoints().unwrap();
    fleet.store_rosters(7).unwrap();
    append(&fleet, "cinnabar", "relay_listen = \"[::]:443\"\n");
    Some(fleet)
}

/// What galena sees of pyrite.
fn path(status: &Status) -> Option<PathKind> {
    let peer = |name: &str| status.peers.iter().find(|peer| peer.name.as_str() == name);
    peer("pyrite").and_then(|peer| peer.path)
}

/// What galena has reached its moon over, in order.
fn carriers(fleet: &Fleet) -> Vec<String> {
    let log = std::fs::read_to_string(fleet.files("galena").unwrap().log_path("agent")).unwrap();
    log.lines()
        .filter(|line| line.contains("reached a moon"))
        .filter_map(|line| Some(line.split("carrier=").nth(1)?.trim().to_owned()))
        .collect()
}

fn filter(fleet: &Fleet, rules: &str) {
    let nft = fleet.run_on("galena", Command::new("nft").arg(rules));
    let nft = nft.unwrap();
    assert!(nft.status.success(), "{nft:?}");
}

#[expect(clippy::print_stdout, reason = "a figure of docs/relay.md")]
fn assert_within(begin: Instant, budget: Duration) {
    let elapsed = begin.elapsed();
    println!("{elapsed:?} of {budget:?}");
    assert!(elapsed <= budget, "{elapsed:?}; {budget:?} are allowed");
}

fn append(fleet: &Fleet, name: &str, line: &str) {
    let path = fleet.files(name).unwrap().agent_config_path();
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}
