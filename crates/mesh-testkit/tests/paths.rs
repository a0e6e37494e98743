//! The real engine behind simulated NATs: what a user notices.

use std::time::Duration;

use mesh_testkit::world::{
    Families, Fleet, HostId, NatBehaviour, Passage, Talk, Traffic, Verdict, recovery::Promise,
};

const TICK: Duration = Duration::from_millis(20);

/// Three round trips of 48 ms through the moon, and 50 ms.
const AT_ONCE: Duration = Duration::from_millis(3 * 48 + 50);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two nodes behind NATs and one moon, with whom both have a session.
fn pair(seed: u64, a: NatBehaviour, b: NatBehaviour) -> (Fleet, HostId, HostId) {
    let mut fleet = Fleet::new(seed);
    fleet.moon();
    let (a, b) = (fleet.node_behind(a), fleet.node_behind(b));
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    (fleet, a, b)
}

fn talk(fleet: &mut Fleet, a: HostId, b: HostId, time: Duration) -> Talk {
    let mut talk = Talk::between(fleet, a, b);
    talk.go_on(fleet, TICK, time);
    talk
}

#[track_caller]
fn assert_direct_in_a_second(fleet: &mut Fleet, a: HostId, b: HostId) {
    assert_eq!(fleet.verdict(a, b), Verdict::Direct);
    let talk = talk(fleet, a, b, seconds(3));
    let reached = talk.reached(fleet).expect("they reach each other");
    assert!(reached <= AT_ONCE, "{reached:?}");
    let direct = talk.direct(fleet).expect("they find the direct path");
    assert!(direct <= seconds(1), "{direct:?}");
}

#[test]
fn two_homes_speak_through_the_moon_at_once_and_directly_within_a_second() {
    let (mut fleet, a, b) = pair(1, NatBehaviour::HOME, NatBehaviour::HOME);
    assert_direct_in_a_second(&mut fleet, a, b);
}

#[test]
fn two_symmetric_sides_stay_on_the_moon() {
    let (mut fleet, a, b) = pair(2, NatBehaviour::SYMMETRIC, NatBehaviour::SYMMETRIC);
    assert_eq!(fleet.verdict(a, b), Verdict::Impossible);
    let talk = talk(&mut fleet, a, b, seconds(30));
    let reached = talk.reached(&fleet).expect("they reach each other");
    assert!(reached <= AT_ONCE, "{reached:?}");
    assert_eq!(talk.direct(&fleet), None);
    assert!(talk.longest_gap(&fleet) <= AT_ONCE);
}

#[test]
fn two_hosts_of_one_lan_are_direct_behind_the_worst_of_nats() {
    let mut fleet = Fleet::new(3);
    fleet.moon();
    let site = fleet.site(NatBehaviour::SYMMETRIC);
    let (a, b) = (
        fleet.node(site, Families::V4),
        fleet.node(site, Families::V4),
    );
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    assert_direct_in_a_second(&mut fleet, a, b);
}

#[test]
fn ipv6_makes_a_pair_direct_where_ipv4_cannot() {
    let mut fleet = Fleet::new(4);
    fleet.moon();
    let [a, b] = [0, 1].map(|_| {
        let site = fleet.site(NatBehaviour::SYMMETRIC);
        fleet.underlay.gateway_mut(site).v6 = Passage::firewalled();
        fleet.node(site, Families::Dual)
    });
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    assert_direct_in_a_second(&mut fleet, a, b);
}

#[test]
fn two_customers_of_a_carrier_meet_at_its_nat_if_it_turns_packets_back() {
    for hairpin in [true, false] {
        let mut fleet = Fleet::new(5);
        fleet.moon();
        let behaviour = NatBehaviour {
            hairpin,
            ..NatBehaviour::HOME
        };
        let carrier = fleet.site(behaviour);
        let [a, b] = [0, 1].map(|_| {
            let home = fleet.underlay.add_site(carrier, Duration::from_millis(1));
            fleet.underlay.translate(home, NatBehaviour::HOME);
            fleet.node(home, Families::V4)
        });
        fleet.publish(&[]);
        fleet.run_for(seconds(5));
        if hairpin {
            assert_direct_in_a_second(&mut fleet, a, b);
        } else {
            let talk = talk(&mut fleet, a, b, seconds(3));
            assert!(talk.reached(&fleet).is_some_and(|time| time <= AT_ONCE));
            assert_eq!(talk.direct(&fleet), None);
        }
    }
}

#[test]
fn a_removed_member_gets_nothing_through_to_who_has_the_newer_roster() {
    let (mut fleet, a, b) = pair(6, NatBehaviour::HOME, NatBehaviour::HOME);
    let before = talk(&mut fleet, a, b, seconds(3));
    assert!(before.direct(&fleet).is_some());
    fleet.set_member(a, false);
    assert!(
        fleet.knows(a, b) && !fleet.knows(b, a),
        "it does not hear of it"
    );
    // The fleet checks each packet that comes out against its receiver's roster.
    let after = talk(&mut fleet, a, b, seconds(30));
    assert_eq!(after.reached(&fleet), None);
    fleet.set_member(a, true);
    let back = talk(&mut fleet, a, b, seconds(10));
    assert!(back.reached(&fleet).is_some());
}

#[test]
fn every_promise_of_recovery_is_kept() {
    for promise in Promise::ALL {
        for seed in 0..6 {
            let time = promise.measure(seed);
            assert!(
                time <= promise.bound(),
                "{promise:?}, seed {seed}: {time:?}"
            );
        }
    }
}

#[test]
fn an_idle_node_is_silent_but_for_its_moons() {
    for moons in [1, 3] {
        let mut fleet = Fleet::new(7);
        for _ in 0..moons {
            fleet.moon();
        }
        let (a, b) = (
            fleet.node_behind(NatBehaviour::HOME),
            fleet.node_behind(NatBehaviour::HOME),
        );
        fleet.publish(&[]);
        fleet.run_for(seconds(5));
        talk(&mut fleet, a, b, seconds(3));
        fleet.run_for(seconds(300));
        fleet.traffic = Traffic::default();
        fleet.run_for(seconds(600));
        // Each moon is a client of the others, too.
        let clients = (2 + moons - 1) * moons;
        let a_minute = fleet.traffic.with_moons / 10 / clients;
        assert!(a_minute <= 24, "{a_minute} datagrams a minute");
        let Traffic {
            strays, between, ..
        } = &fleet.traffic;
        assert!(strays.is_empty() && between.is_empty());
    }
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let run = || {
        let (mut fleet, a, b) = pair(8, NatBehaviour::HOME, NatBehaviour::SYMMETRIC);
        let site = fleet.underlay.sites_of(a).next().unwrap();
        let line = &mut fleet.underlay.gateway_mut(site).line;
        line.change(|way| way.quality.loss_percent = 20);
        let talk = talk(&mut fleet, a, b, seconds(20));
        (talk.longest_gap(&fleet), fleet.traffic.clone())
    };
    assert_eq!(run(), run());
}

#[test]
fn two_sides_without_udp_reach_each_other_through_streams() {
    let mut fleet = Fleet::new(9);
    fleet.moon();
    fleet.moon();
    let sites = [0, 1].map(|_| fleet.site(NatBehaviour::HOME));
    let [a, b] = sites.map(|site| {
        fleet.underlay.gateway_mut(site).blocks_udp = true;
        fleet.node(site, Families::V4)
    });
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    let without = talk(&mut fleet, a, b, seconds(3));
    let reached = without.reached(&fleet).expect("they reach each other");
    assert!(reached <= AT_ONCE, "{reached:?}");
    assert_eq!(without.direct(&fleet), None);
    for site in sites {
        fleet.underlay.gateway_mut(site).blocks_udp = false;
    }
    let with = talk(&mut fleet, a, b, seconds(90));
    assert!(with.direct(&fleet).is_some(), "UDP is found again");
    assert!(with.longest_gap(&fleet) <= seconds(1));
}

#[test]
fn a_moon_that_is_away_is_tried_ever_more_rarely_unless_somebody_is_wanted() {
    let (mut fleet, a, b) = pair(10, NatBehaviour::SYMMETRIC, NatBehaviour::SYMMETRIC);
    let moon = fleet.moons().next().unwrap();
    fleet.set_running(moon, false);
    fleet.run_for(seconds(600));
    fleet.traffic = Traffic::default();
    fleet.run_for(seconds(600));
    // To both of its addresses.
    let per_node = fleet.traffic.with_moons / 2 / 2;
    assert!((25..=35).contains(&per_node), "{per_node} in ten minutes");
    fleet.set_running(moon, true);
    fleet.run_for(Duration::from_millis(100));
    let talk = talk(&mut fleet, a, b, seconds(10));
    // The first attempt finds no way, the second one second later no relay, the third two seconds after that.
    let reached = talk.reached(&fleet).expect("they reach each other");
    assert!(reached <= seconds(4), "{reached:?}");
}
