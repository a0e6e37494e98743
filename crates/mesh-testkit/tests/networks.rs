//! Machines whose network changes under them: another interface, no route, a log-in page, a line that takes
//! longer one way than the other.

use std::time::Duration;

use mesh_testkit::world::{Families, Fleet, HostId, NatBehaviour, Talk, Verdict};

const TICK: Duration = Duration::from_millis(100);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two nodes behind NATs and a moon, direct for a minute.
fn pair(seed: u64) -> (Fleet, [HostId; 2], Talk) {
    let mut fleet = Fleet::new(seed);
    fleet.moon();
    let hosts = [0, 1].map(|_| fleet.node_behind(NatBehaviour::HOME));
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    let talk = say(&mut fleet, hosts, seconds(60));
    assert!(talk.direct(&fleet).is_some());
    (fleet, hosts, talk)
}

fn say(fleet: &mut Fleet, [a, b]: [HostId; 2], time: Duration) -> Talk {
    fleet.forget_arrived();
    let mut talk = Talk::between(fleet, a, b);
    talk.go_on(fleet, TICK, time);
    talk
}

#[track_caller]
fn assert_direct_within(fleet: &mut Fleet, hosts: [HostId; 2], time: Duration) {
    assert_eq!(fleet.verdict(hosts[0], hosts[1]), Verdict::Direct);
    let direct = say(fleet, hosts, time + seconds(1)).direct(fleet);
    assert!(direct.is_some_and(|took| took <= time), "{direct:?}");
}

#[test]
fn another_interface_is_gone_over_to_and_back_while_both_stay() {
    let (mut fleet, hosts, _) = pair(1);
    let other = fleet.site(NatBehaviour::HOME);
    fleet.attach(hosts[0], other, Families::V4);
    fleet.notice(hosts[0]);
    assert_direct_within(&mut fleet, hosts, seconds(1));
    for _ in 0..2 {
        fleet.underlay.rotate(hosts[0]);
        fleet.notice(hosts[0]);
        assert_direct_within(&mut fleet, hosts, seconds(3));
    }
}

#[test]
fn the_first_interface_goes_and_the_other_goes_on() {
    let (mut fleet, hosts, _) = pair(2);
    let other = fleet.site(NatBehaviour::HOME);
    fleet.attach(hosts[0], other, Families::V4);
    fleet.notice(hosts[0]);
    fleet.underlay.detach_first(hosts[0]);
    fleet.notice(hosts[0]);
    assert_direct_within(&mut fleet, hosts, seconds(3));
}

#[test]
fn without_a_default_route_nothing_leaves_the_site_and_all_is_well_when_it_is_back() {
    let (mut fleet, hosts, _) = pair(3);
    let site = fleet.underlay.sites_of(hosts[0]).next().unwrap();
    let neighbour = fleet.node(site, Families::V4);
    fleet.publish(&[]);
    say(&mut fleet, [hosts[0], neighbour], seconds(5));
    fleet.underlay.set_routed(hosts[0], false);
    fleet.notice(hosts[0]);
    assert_eq!(fleet.verdict(hosts[0], hosts[1]), Verdict::Impossible);
    assert!(!fleet.share_a_moon(hosts[0], hosts[1]));
    assert_eq!(say(&mut fleet, hosts, seconds(20)).reached(&fleet), None);
    assert_direct_within(&mut fleet, [hosts[0], neighbour], seconds(1));
    fleet.underlay.set_routed(hosts[0], true);
    fleet.notice(hosts[0]);
    assert_direct_within(&mut fleet, hosts, seconds(10));
}

#[test]
fn behind_a_log_in_page_nothing_passes_and_nobody_is_told_when_it_does() {
    let (mut fleet, hosts, _) = pair(4);
    fleet.underlay.set_captive(hosts[0], true);
    fleet.notice(hosts[0]);
    assert!(!fleet.underlay.endpoints(hosts[0]).is_empty());
    assert_eq!(fleet.verdict(hosts[0], hosts[1]), Verdict::Impossible);
    assert!(!fleet.share_a_moon(hosts[0], hosts[1]), "nor by streams");
    assert_eq!(say(&mut fleet, hosts, seconds(120)).reached(&fleet), None);
    fleet.underlay.set_captive(hosts[0], false);
    assert_direct_within(&mut fleet, hosts, seconds(35));
}

#[test]
fn a_line_that_takes_longer_one_way_carries_both() {
    let (mut fleet, hosts, _) = pair(5);
    let site = fleet.underlay.sites_of(hosts[0]).next().unwrap();
    let line = &mut fleet.underlay.gateway_mut(site).line;
    line.down.detour = Duration::from_millis(400);
    line.down.quality.loss_percent = 10;
    let talk = say(&mut fleet, hosts, seconds(300));
    assert!(talk.direct(&fleet).is_some());
    // Ten of a hundred: four in a row once in ten thousand.
    assert!(talk.longest_gap(&fleet) <= seconds(1));
}
