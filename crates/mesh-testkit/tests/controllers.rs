//! The real core of controllers and the real conversations of agents: who hears of a roster, who is found
//! without a moon, and what it costs.

use std::time::Duration;

use mesh_testkit::world::{
    Families, Fleet, HostId, NatBehaviour, Passage, Talk, Underlay, Verdict,
};

const TICK: Duration = Duration::from_millis(20);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A controller that does not relay, and what `nodes` makes, connected to it.
fn world<const N: usize>(
    seed: u64,
    nodes: impl FnOnce(&mut Fleet) -> [HostId; N],
) -> (Fleet, HostId, [HostId; N]) {
    let mut fleet = Fleet::new(seed);
    let controller = fleet.node(Underlay::INTERNET, Families::Dual);
    fleet.add_controller(controller);
    let nodes = nodes(&mut fleet);
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    assert!(nodes.iter().all(|node| fleet.is_served(*node)));
    (fleet, controller, nodes)
}

fn talk(fleet: &mut Fleet, a: HostId, b: HostId, time: Duration) -> Talk {
    let mut talk = Talk::between(fleet, a, b);
    talk.go_on(fleet, TICK, time);
    talk
}

fn homes(fleet: &mut Fleet) -> [HostId; 2] {
    [0, 1].map(|_| fleet.node_behind(NatBehaviour::HOME))
}

/// One on the internet and one behind the worst of NATs.
fn open_and_closed(fleet: &mut Fleet) -> [HostId; 2] {
    [
        fleet.node(Underlay::INTERNET, Families::V4),
        fleet.node_behind(NatBehaviour::SYMMETRIC),
    ]
}

#[test]
fn whoever_speaks_first_a_node_with_an_open_endpoint_is_found_without_a_moon() {
    for turned in [false, true] {
        let (mut fleet, _, [open, closed]) = world(1, open_and_closed);
        let (from, to) = if turned {
            (open, closed)
        } else {
            (closed, open)
        };
        let packet = fleet.send(from, to);
        fleet.run_for(seconds(1));
        let arrived = fleet.arrived(packet).expect("it was found");
        assert!(arrived.direct);
    }
}

#[test]
fn firewalls_are_opened_from_within_as_both_sides_are_told() {
    let (mut fleet, _, [a, b]) = world(2, |fleet| {
        [0, 1].map(|_| {
            let site = fleet.underlay.add_site(Underlay::INTERNET, TICK);
            fleet.underlay.gateway_mut(site).v6 = Passage::firewalled();
            fleet.node(site, Families::V6)
        })
    });
    assert_eq!(fleet.verdict_by_addresses(a, b), Verdict::Direct);
    let direct = talk(&mut fleet, a, b, seconds(3)).direct(&fleet);
    assert!(direct.is_some_and(|time| time <= seconds(1)), "{direct:?}");
}

#[test]
fn a_pair_that_was_introduced_goes_on_while_the_controller_is_dead() {
    let (mut fleet, controller, [a, b]) = world(3, open_and_closed);
    talk(&mut fleet, a, b, seconds(1));
    fleet.set_controller(controller, false);
    let talk = talk(&mut fleet, a, b, seconds(400));
    assert!(!fleet.is_served(a));
    assert!(talk.longest_gap(&fleet) <= seconds(1));
}

#[test]
fn a_roster_is_with_all_that_are_connected_within_a_second_and_who_is_removed_is_cut_off() {
    let (mut fleet, _, [a, b, c]) = world(4, |fleet| {
        [0, 1, 2].map(|_| fleet.node_behind(NatBehaviour::HOME))
    });
    fleet.set_member(c, false);
    assert!(!fleet.is_up_to_date(a), "nobody hears of it at once");
    fleet.run_for(seconds(1));
    assert!(fleet.is_up_to_date(a) && fleet.is_up_to_date(b));
    assert!(!fleet.is_up_to_date(c) && !fleet.is_served(c));
    assert!(!fleet.knows(a, c) && fleet.knows(c, a));
    fleet.set_member(c, true);
    fleet.run_for(seconds(10));
    assert!(fleet.is_up_to_date(c) && fleet.knows(a, c));
}

#[test]
fn who_was_away_has_the_roster_soon_after_a_controller_is_there_again() {
    let (mut fleet, controller, [a, b]) = world(5, homes);
    fleet.set_controller(controller, false);
    fleet.set_member(b, false);
    fleet.run_for(seconds(300));
    assert!(!fleet.is_up_to_date(a));
    fleet.set_controller(controller, true);
    // A wait of five seconds at most, and a dial.
    fleet.run_for(seconds(10));
    assert!(fleet.is_up_to_date(a));
}

#[test]
fn a_connection_outlives_a_change_of_networks_and_the_new_addresses_are_told() {
    let (mut fleet, _, [open, closed]) = world(6, open_and_closed);
    let before = fleet.underlay.endpoints(open);
    fleet.underlay.detach(open);
    fleet.attach(open, Underlay::INTERNET, Families::V4);
    fleet.notice(open);
    assert_ne!(fleet.underlay.endpoints(open), before);
    fleet.run_for(seconds(2));
    assert!(fleet.is_served(open));
    let packet = fleet.send(closed, open);
    fleet.run_for(seconds(1));
    assert!(fleet.arrived(packet).is_some());
}

#[test]
fn a_lost_connection_is_noticed_after_ten_seconds_and_had_again() {
    let (mut fleet, controller, [a, _]) = world(7, homes);
    fleet.underlay.sever(controller, a);
    fleet.run_for(seconds(9));
    assert!(fleet.is_served(a));
    fleet.run_for(seconds(5));
    assert!(!fleet.is_served(a));
    fleet.underlay.mend_all();
    // One attempt may be under way, and the wait after it.
    fleet.run_for(seconds(5 + 5 + 1));
    assert!(fleet.is_served(a));
}

#[test]
fn a_machine_that_reaches_no_controller_has_the_roster_from_a_peer() {
    let mut fleet = Fleet::new(8);
    fleet.moon();
    let controller = fleet.node(Underlay::INTERNET, Families::Dual);
    fleet.add_controller(controller);
    let [a, b] = homes(&mut fleet);
    let c = fleet.node_behind(NatBehaviour::HOME);
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    talk(&mut fleet, a, b, seconds(2));
    fleet.underlay.sever(controller, a);
    fleet.run_for(seconds(60));
    talk(&mut fleet, a, b, seconds(2));
    fleet.set_member(c, false);
    fleet.run_for(seconds(10));
    assert!(fleet.is_up_to_date(b) && !fleet.is_served(a));
    assert!(fleet.is_up_to_date(a), "b told it on their session");
}

#[test]
fn an_idle_machine_asks_its_controller_once_a_minute() {
    let (mut fleet, ..) = world(9, homes);
    fleet.run_for(seconds(120));
    fleet.take_said_to_controllers();
    fleet.run_for(seconds(600));
    // The controller's own agent is one of three; a question and its answer each.
    assert_eq!(fleet.take_said_to_controllers(), 3 * 10 * 2);
}
