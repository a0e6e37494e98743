//! Two machines that talk, and what happens to their network: they are back within the promised time. No
//! controller runs, but for the test of its end.
//!
//! The same, many times: `cargo xtask recovery`.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::time::{Duration, Instant};

use mesh_lab::{Fleet, Promise, Router, Talk, program_under_test, sandbox, wait_until};
use mesh_tests::{PATIENCE, running};

/// What the test itself may be held up by: two cores run several of them.
const SCHEDULING: Duration = Duration::from_millis(250);

/// The silence after which an agent doubts its way, at the earliest.
const NOTICED: Duration = Duration::from_millis(500);

/// What an agent that starts anew may cost who talks to it, from when it is ready on.
const AGENT_RESTARTED: Duration = Duration::from_secs(1);

/// The same of a moon that two others talk through.
const MOON_RESTARTED: Duration = Duration::from_secs(2);

#[expect(clippy::print_stdout, reason = "a figure, for who looks")]
fn keeps(promise: Promise) {
    if !sandbox::enter_test() {
        return;
    }
    let took = promise.measure(&program_under_test().unwrap(), 0).unwrap();
    let bound = promise.bound();
    println!("{promise}: {took:?} of {bound:?}");
    assert!(
        took <= bound + SCHEDULING,
        "{promise}: {took:?}, {bound:?} are promised"
    );
}

#[test]
fn the_first_packet_goes_through_the_moon_at_once() {
    keeps(Promise::FirstPacket);
}

#[test]
fn a_pair_that_begins_to_talk_is_soon_straight() {
    keeps(Promise::Direct);
}

#[test]
fn a_machine_moves_to_another_network() {
    keeps(Promise::Move);
}

#[test]
fn a_machine_gets_another_address() {
    keeps(Promise::Renumber);
}

#[test]
fn an_uplink_takes_over_by_ipv4() {
    keeps(Promise::SwitchV4);
}

#[test]
fn an_uplink_takes_over_by_ipv6() {
    keeps(Promise::SwitchV6);
}

#[test]
fn an_uplink_takes_over_by_both_families() {
    keeps(Promise::SwitchBoth);
}

#[test]
fn ipv4_takes_over_from_ipv6() {
    keeps(Promise::V6ToV4);
}

#[test]
fn default_routes_come_back() {
    keeps(Promise::RouteBack);
}

#[test]
fn a_link_comes_back() {
    keeps(Promise::LinkBack);
}

#[test]
fn a_machine_that_stood_still_goes_on() {
    keeps(Promise::Wake);
}

#[test]
fn a_nat_gives_other_ports() {
    keeps(Promise::Rebind);
}

#[test]
fn a_straight_way_is_lost_in_one_direction() {
    keeps(Promise::OneWay);
}

#[test]
fn a_straight_way_is_lost_in_both_directions() {
    keeps(Promise::TwoWays);
}

#[test]
fn a_moon_in_use_dies() {
    keeps(Promise::MoonDies);
}

#[test]
fn a_router_lets_no_udp_through() {
    keeps(Promise::NoUdp);
}

#[test]
fn a_router_stops_letting_udp_through() {
    keeps(Promise::UdpLost);
}

/// The only moon is killed and started again, as often as makes sure that the one who is called does not ask it by
/// chance: that happens every 20 seconds.
#[test]
fn who_only_listens_is_reached_through_a_moon_that_was_killed_and_started() {
    const RESTARTS: u32 = 3;
    if !sandbox::enter_test() {
        return;
    }
    let program = program_under_test().unwrap();
    let mut fleet = Fleet::of(&program, &["cinnabar", "galena", "pyrite"]).unwrap();
    fleet.set_moons(&["cinnabar"]).unwrap();
    for name in ["galena", "pyrite"] {
        let lab = fleet.lab();
        lab.put_behind(name, Router::MasqueradeRandom).unwrap();
    }
    for name in fleet.names() {
        fleet.start_agent(&name).unwrap();
    }
    let stored_path = fleet.files("cinnabar").unwrap().agent_state_dir();
    let stored_path = stored_path.join("clients.json");
    for _ in 0..RESTARTS {
        wait_until(PATIENCE, || {
            let stored = std::fs::read_to_string(&stored_path).unwrap_or_default();
            let both = ["galena", "pyrite"]
                .iter()
                .all(|name| stored.contains(name));
            if both { Ok(()) } else { Err(Box::new(stored)) }
        })
        .unwrap();
        fleet.agent_process("cinnabar").unwrap().kill().unwrap();
        fleet.start_agent("cinnabar").unwrap();
        let answer = fleet.ping("pyrite", "galena", MOON_RESTARTED + SCHEDULING);
        assert!(answer.unwrap().is_some(), "within {MOON_RESTARTED:?}");
    }
}

/// Who talks to it goes on in the session that is gone; without a word of the new agent's that would last three seconds.
#[test]
fn a_killed_agent_is_reached_at_once_by_who_goes_on_talking() {
    if !sandbox::enter_test() {
        return;
    }
    let program = program_under_test().unwrap();
    let mut fleet = Fleet::of(&program, &["galena", "pyrite"]).unwrap();
    fleet.set_static_endpoints().unwrap();
    fleet.store_rosters(1).unwrap();
    for name in fleet.names() {
        fleet.start_agent(&name).unwrap();
    }
    assert!(fleet.ping("pyrite", "galena", PATIENCE).unwrap().is_some());
    let stored_path = fleet.files("galena").unwrap().agent_state_dir();
    let stored_path = stored_path.join("endpoints.json");
    wait_until(PATIENCE, || {
        let stored = std::fs::read_to_string(&stored_path).unwrap_or_default();
        if stored.contains("pyrite") {
            Ok(())
        } else {
            Err(Box::new(stored))
        }
    })
    .unwrap();
    fleet.agent_process("galena").unwrap().kill().unwrap();
    fleet.start_agent("galena").unwrap();
    let answer = fleet.ping("pyrite", "galena", AGENT_RESTARTED + SCHEDULING);
    assert!(answer.unwrap().is_some(), "within {AGENT_RESTARTED:?}");
}

#[test]
fn a_controller_that_ends_is_not_missed() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    let talk = Talk::between(&fleet, "galena", "pyrite").unwrap();
    talk.reached(PATIENCE).unwrap();
    let since = Instant::now();
    fleet.controller_process().unwrap().kill().unwrap();
    let gap = talk.longest_gap(since, Duration::from_secs(2));
    assert!(gap < NOTICED, "{gap:?} without a packet");
}
