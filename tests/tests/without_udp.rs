//! A network that lets no UDP through.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    fs::OpenOptions,
    io::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use mesh_lab::Fleet;
use mesh_tests::{PATIENCE, assert_reaches, fleet};

/// How long it may take until packets get through again.
const BLOCKED_FROM_THE_START: Duration = Duration::from_secs(2);
const BLOCKED_IN_MID_SESSION: Duration = Duration::from_secs(4);

/// All but what goes through the mesh itself.
const NO_UDP: &str = "
table inet underlay {
  chain out { type filter hook output priority 0; oifname != \"mesh0\" meta l4proto udp drop; }
  chain in { type filter hook input priority 0; iifname != \"mesh0\" meta l4proto udp drop; }
}
";

#[test]
fn a_machine_without_udp_reaches_the_others_through_a_moon_over_tls() {
    let Some(mut fleet) = fleet(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    fleet.set_static_endpoints().unwrap();
    fleet.store_rosters(7).unwrap();
    append(&fleet, "cinnabar", "relay_listen = \"[::]:443\"\n");
    let nft = fleet.run_on("galena", Command::new("nft").arg(NO_UDP));
    let nft = nft.unwrap();
    assert!(nft.status.success(), "{nft:?}");
    for name in ["cinnabar", "pyrite"] {
        fleet.start_agent(name).unwrap();
    }
    assert_reaches(&fleet, "pyrite", "cinnabar");
    let begin = Instant::now();
    fleet.start_agent("galena").unwrap();
    assert_reaches(&fleet, "galena", "pyrite");
    assert_within(begin, BLOCKED_FROM_THE_START);
    assert_reaches(&fleet, "pyrite", "galena");
    let relayed = |status: &mesh_api::Status| {
        let relayed = |name: &str| {
            let peer = status.peers.iter().find(|peer| peer.name.as_str() == name);
            peer.is_some_and(|peer| peer.relay.is_some())
        };
        relayed("pyrite")
    };
    fleet
        .wait_status("galena", PATIENCE, "is relayed", relayed)
        .unwrap();
}

#[test]
fn a_machine_that_loses_udp_is_back_through_a_moon_over_tls() {
    let Some(mut fleet) = fleet(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    fleet.set_static_endpoints().unwrap();
    fleet.store_rosters(7).unwrap();
    append(&fleet, "cinnabar", "relay_listen = \"[::]:443\"\n");
    for name in fleet.names() {
        fleet.start_agent(&name).unwrap();
    }
    assert_reaches(&fleet, "galena", "pyrite");
    let nft = fleet.run_on("galena", Command::new("nft").arg(NO_UDP));
    let nft = nft.unwrap();
    assert!(nft.status.success(), "{nft:?}");
    let begin = Instant::now();
    assert_reaches(&fleet, "galena", "pyrite");
    assert_within(begin, BLOCKED_IN_MID_SESSION);
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
