//! Many moons on three continents: whom a node keeps a session with, and how pairs meet that have none in
//! common.

use std::{collections::BTreeSet, time::Duration};

use mesh_core::Via;
use mesh_testkit::world::{
    Families, Fleet, HostId, NatBehaviour, Passage, SiteId, Talk, Traffic, Underlay,
};

const MOONS: usize = 30;
const NODES: usize = 60;
const MACHINES: u64 = 90;

/// One way, from a continent to the middle of the internet, and within it.
const FAR: Duration = Duration::from_millis(40);

/// What a node keeps without traffic: two homes and the two nearest.
const KEPT: usize = 4;

/// And for the sake of others.
const KEPT_FOR_OTHERS: usize = 12;

/// Datagrams between a client and one moon in a minute: requests, grants, and what keeps NATs open in both families.
const PER_MOON_AND_MINUTE: u64 = 62;

struct World {
    fleet: Fleet,
    moons: Vec<HostId>,
    nodes: Vec<HostId>,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    /// Nodes that never reach each other but through a moon, after they have found theirs.
    fn new(seed: u64, moons: usize, nodes: usize) -> Self {
        let mut fleet = Fleet::new(seed);
        let continents = [0; 3].map(|_| fleet.underlay.add_site(Underlay::INTERNET, FAR));
        let below = |fleet: &mut Fleet, index: usize| {
            // 1 to 11 ms from the middle of its continent.
            let millis = u64::try_from(1 + (index * 7) % 11).expect("a small number");
            let latency = Duration::from_millis(millis);
            fleet.underlay.add_site(continents[index % 3], latency)
        };
        let moons = (0..moons)
            .map(|index| {
                let site = below(&mut fleet, index);
                fleet.moon_at(site)
            })
            .collect();
        let nodes = (0..nodes)
            .map(|index| {
                let site = below(&mut fleet, index);
                symmetric(&mut fleet, site);
                fleet.node(site, Families::V4)
            })
            .collect();
        fleet.publish(&[]);
        fleet.run_for(seconds(10));
        Self {
            fleet,
            moons,
            nodes,
        }
    }

    fn kept(&self, host: HostId) -> BTreeSet<HostId> {
        let moons = self.fleet.moons_of(host).into_iter();
        moons.map(|(moon, _)| moon).collect()
    }

    fn relaying(&self, host: HostId) -> BTreeSet<HostId> {
        let moons = self.fleet.moons_of(host).into_iter();
        moons
            .filter_map(|(moon, open)| open.then_some(moon))
            .collect()
    }

    /// From a host to a moon and back.
    fn rtt(&self, host: HostId, moon: HostId) -> Duration {
        let path = |host: HostId| {
            let mut site = self
                .fleet
                .underlay
                .sites_of(host)
                .next()
                .expect("it is somewhere");
            let mut path = vec![site];
            while site != Underlay::INTERNET {
                site = self.fleet.underlay.parent(site);
                path.push(site);
            }
            path
        };
        let (a, b) = (path(host), path(moon));
        let apart = a.iter().filter(|site| !b.contains(site));
        let apart = apart.chain(b.iter().filter(|site| !a.contains(site)));
        let one_way: Duration = apart.map(|site| self.latency(*site)).sum();
        // And the line of each host to its site.
        (one_way + Duration::from_millis(2)) * 2
    }

    fn latency(&self, site: SiteId) -> Duration {
        self.fleet.underlay.gateway(site).line.up.quality.latency
    }

    /// Through which moon `a` sends to `b`.
    fn relay(&self, a: HostId, b: HostId) -> Option<HostId> {
        let (_, via) = self.fleet.view(a, b)?;
        let is_it =
            |moon: &&HostId| matches!(via, Some(Via::Relay(_))) && self.fleet.is_relay(via, **moon);
        self.moons.iter().find(is_it).copied()
    }

    fn sum(&self, a: HostId, b: HostId, moon: HostId) -> Duration {
        self.rtt(a, moon) + self.rtt(b, moon)
    }
}

/// Gives a site a NAT that nobody can open, and no IPv6.
fn symmetric(fleet: &mut Fleet, site: SiteId) {
    fleet.underlay.translate(site, NatBehaviour::SYMMETRIC);
    fleet.underlay.gateway_mut(site).v6 = Passage::Closed;
}

#[test]
fn a_node_keeps_two_homes_and_the_two_nearest_of_thirty_moons_and_is_quiet() {
    let mut world = World::new(1, MOONS, NODES);
    for node in world.nodes.clone() {
        let kept = world.kept(node);
        assert!(kept.len() <= KEPT, "{node:?} keeps {kept:?}");
        assert_eq!(world.relaying(node), kept, "all of them relay");
        let mut by_rtt: Vec<_> = world
            .moons
            .iter()
            .map(|moon| (world.rtt(node, *moon), *moon))
            .collect();
        by_rtt.sort_unstable();
        // One takes the place of another by a fifth and 2 ms only.
        let near = |rtt: Duration| rtt * 4 / 5 <= by_rtt[1].0 + Duration::from_millis(2);
        let near = kept
            .iter()
            .filter(|moon| near(world.rtt(node, **moon)))
            .count();
        assert!(near >= 2, "{node:?} keeps {kept:?}, and not the nearest");
    }
    world.fleet.traffic = Traffic::default();
    world.fleet.run_for(seconds(120));
    // What one moon and its client say to each other without traffic, whoever else there is; moons are clients of
    // others, too.
    let each = world.fleet.traffic.with_moons / MACHINES;
    let most = 4 * 2 * PER_MOON_AND_MINUTE;
    assert!(each <= most, "{each} datagrams in two minutes");
    assert!(world.fleet.traffic.between.is_empty());
}

#[test]
fn any_pair_meets_through_one_of_thirty_moons_and_settles_on_the_shortest_way() {
    let mut world = World::new(2, MOONS, NODES);
    for first in 0..8 {
        let (a, b) = (
            world.nodes[first * 2],
            world.nodes[(first * 17 + 3) % NODES],
        );
        if a == b {
            continue;
        }
        let mut talk = Talk::between(&world.fleet, a, b);
        talk.go_on(&mut world.fleet, Duration::from_millis(20), seconds(3));
        let reached = talk.reached(&world.fleet).expect("they meet");
        // Two round trips to a moon that is asked for this, then those of any first packet.
        let farthest = Duration::from_millis(2 * (2 * (40 + 12) + 4));
        assert!(
            reached <= farthest * 2 + farthest * 3 + Duration::from_millis(50),
            "{reached:?}"
        );
        talk.go_on(&mut world.fleet, Duration::from_millis(100), seconds(20));
        assert!(talk.longest_gap(&world.fleet) <= reached.max(Duration::from_millis(500)));

        let shared: BTreeSet<HostId> = world
            .relaying(a)
            .intersection(&world.relaying(b))
            .copied()
            .collect();
        assert!(shared.len() >= KEPT, "{shared:?}");
        let best = shared
            .iter()
            .map(|moon| world.sum(a, b, *moon))
            .min()
            .expect("one");
        for (from, to) in [(a, b), (b, a)] {
            let relay = world.relay(from, to).expect("relayed");
            assert!(shared.contains(&relay));
            let sum = world.sum(from, to, relay);
            assert!(
                sum * 4 / 5 <= best + Duration::from_millis(2),
                "{sum:?} in place of {best:?}"
            );
        }
        for node in [a, b] {
            let kept = world.kept(node).len();
            assert!(kept <= KEPT + KEPT_FOR_OTHERS, "{kept}");
        }
    }
    // What was kept for the sake of others goes with them.
    world.fleet.run_for(seconds(120));
    for node in &world.nodes {
        assert!(world.kept(*node).len() <= KEPT);
    }
}

#[test]
fn one_node_that_talks_to_all_others_keeps_few_moons_and_reaches_them() {
    let mut world = World::new(3, MOONS, NODES);
    let hub = world.nodes[0];
    let others: Vec<HostId> = world.nodes[1..].to_vec();
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.clear();
        for other in &others {
            sent.push(world.fleet.send(hub, *other));
            world.fleet.send(*other, hub);
        }
        world.fleet.run_for(Duration::from_millis(500));
        let kept = world.kept(hub).len();
        assert!(kept <= KEPT + KEPT_FOR_OTHERS, "{kept}");
    }
    let arrived = sent
        .iter()
        .filter(|packet| world.fleet.arrived(**packet).is_some());
    assert_eq!(arrived.count(), others.len());
}

#[test]
fn a_moon_that_dies_moves_its_clients_within_two_seconds() {
    let mut gaps = Vec::new();
    for seed in 0..3 {
        let mut world = World::new(seed, MOONS, 20);
        let pairs: Vec<_> = (0..10)
            .map(|index| (world.nodes[index], world.nodes[10 + (index * 3) % 10]))
            .collect();
        let each = |world: &mut World, talks: &mut Vec<Talk>, time: u64| {
            for _ in 0..time * 20 {
                for talk in talks.iter_mut() {
                    talk.go_on(
                        &mut world.fleet,
                        Duration::from_micros(1),
                        Duration::from_micros(1),
                    );
                }
                world.fleet.run_for(Duration::from_millis(50));
            }
        };
        let begin = |world: &World| -> Vec<Talk> {
            let talk = |(a, b): &(HostId, HostId)| Talk::between(&world.fleet, *a, *b);
            pairs.iter().map(talk).collect()
        };
        let mut talks = begin(&world);
        each(&mut world, &mut talks, 8);
        let relays = pairs.iter().filter_map(|(a, b)| world.relay(*a, *b));
        let mut relays: Vec<HostId> = relays.collect();
        relays.sort_unstable();
        // The one that most pairs use.
        let busiest = relays
            .iter()
            .max_by_key(|moon| relays.iter().filter(|other| other == moon).count());
        let dead = *busiest.expect("all are relayed");
        let moved: Vec<bool> = pairs
            .iter()
            .map(|(a, b)| world.relay(*a, *b) == Some(dead))
            .collect();
        world.fleet.set_running(dead, false);
        let mut talks = begin(&world);
        each(&mut world, &mut talks, 5);
        for (talk, moved) in talks.iter().zip(moved) {
            if moved {
                gaps.push(talk.longest_gap(&world.fleet));
            }
        }
    }
    gaps.sort_unstable();
    let p99 = gaps[(gaps.len() * 99).div_ceil(100) - 1];
    assert!(gaps.len() >= 3, "{gaps:?}");
    assert!(p99 <= seconds(2), "{gaps:?}");
}

#[test]
fn a_pair_of_two_moons_settles_on_the_shorter_way() {
    let mut fleet = Fleet::new(5);
    let moons = [35, 5].map(|millis| {
        let site = fleet
            .underlay
            .add_site(Underlay::INTERNET, Duration::from_millis(millis));
        fleet.moon_at(site)
    });
    let [a, b] = [0; 2].map(|_| fleet.node_behind(NatBehaviour::SYMMETRIC));
    fleet.publish(&[]);
    fleet.run_for(seconds(5));
    let mut talk = Talk::between(&fleet, a, b);
    talk.go_on(&mut fleet, Duration::from_millis(50), seconds(5));
    for (from, to) in [(a, b), (b, a)] {
        let via = fleet.view(from, to).and_then(|(_, via)| via);
        assert!(fleet.is_relay(via, moons[1]), "{via:?}");
    }
    // The near one moves away: the next look of a relayed pair finds out.
    let site = fleet.underlay.sites_of(moons[1]).next().expect("a site");
    let line = &mut fleet.underlay.gateway_mut(site).line;
    line.up.quality.latency = Duration::from_millis(80);
    line.down.quality.latency = Duration::from_millis(80);
    talk.go_on(&mut fleet, Duration::from_millis(50), seconds(200));
    for (from, to) in [(a, b), (b, a)] {
        let via = fleet.view(from, to).and_then(|(_, via)| via);
        assert!(fleet.is_relay(via, moons[0]), "{via:?}");
    }
}
