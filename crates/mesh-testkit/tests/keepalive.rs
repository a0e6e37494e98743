//! How seldom a machine lets itself be heard of, behind NATs that forget.

use std::time::Duration;

use mesh_core::{Remote, Via};
use mesh_testkit::world::{
    Dependence, Families, Fleet, HostId, Nat, NatBehaviour, Passage, Ports, Traffic,
};

const HOUR: u64 = 3_600;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A node behind a NAT of its own, another on the internet, and a moon.
struct World {
    fleet: Fleet,
    moon: HostId,
    node: HostId,
    other: HostId,
}

impl World {
    fn new(seed: u64, behaviour: NatBehaviour) -> Self {
        let mut fleet = Fleet::new(seed);
        let moon = fleet.moon();
        let node = fleet.node_behind(behaviour);
        Self::with(fleet, moon, node)
    }

    /// The same with a node that begins with IPv6 alone, so that it speaks to the moon by that, and has IPv4 behind the
    /// NAT after five seconds.
    fn dual(seed: u64, behaviour: NatBehaviour) -> Self {
        let mut fleet = Fleet::new(seed);
        let moon = fleet.moon();
        let site = fleet.site(behaviour);
        fleet.underlay.gateway_mut(site).v6 = Passage::firewalled();
        let node = fleet.node(site, Families::Dual);
        fleet.underlay.gateway_mut(site).v4 = Passage::Closed;
        let mut world = Self::with(fleet, moon, node);
        world.fleet.run_for(seconds(5));
        world.fleet.underlay.translate(site, behaviour);
        world
    }

    fn with(mut fleet: Fleet, moon: HostId, node: HostId) -> Self {
        let other = fleet.node_behind(NatBehaviour::HOME);
        fleet.publish(&[]);
        Self {
            fleet,
            moon,
            node,
            other,
        }
    }

    /// The NAT in front of the node.
    fn nat(&mut self) -> &mut Nat {
        let site = self
            .fleet
            .underlay
            .sites_of(self.node)
            .next()
            .expect("it has one");
        match &mut self.fleet.underlay.gateway_mut(site).v4 {
            Passage::Translated(nat) => nat,
            Passage::Closed | Passage::Open | Passage::Firewalled(_) => panic!("a NAT"),
        }
    }

    /// Changes for how long the node's NAT holds a mapping.
    fn set_timeout(&mut self, timeout: u64) {
        self.nat().set_timeout(seconds(timeout));
    }

    /// Whether the node's NAT has a mapping of the agent's port.
    fn is_mapped(&mut self) -> bool {
        let inner = self.fleet.underlay.endpoints(self.node)[0];
        let now = self.fleet.now().instant;
        self.nat().port_of(inner, now).is_some()
    }

    /// Lets so many seconds pass, and returns in how many of them the node's NAT had forgotten it.
    fn pass(&mut self, time: u64) -> u64 {
        let mut forgotten = 0;
        for _ in 0..time {
            self.fleet.run_for(seconds(1));
            forgotten += u64::from(!self.is_mapped());
        }
        forgotten
    }

    fn interval(&self) -> u64 {
        self.fleet.keeping(self.node).interval.as_secs()
    }

    /// Whether the first packet to the node after a silence comes through.
    fn is_reached(&mut self) -> bool {
        let packet = self.fleet.send(self.other, self.node);
        self.fleet.run_for(seconds(1));
        self.fleet.arrived(packet).is_some()
    }
}

/// NATs of every kind.
fn behaviours() -> impl Iterator<Item = NatBehaviour> + Clone {
    let mapping = Dependence::ALL.into_iter();
    mapping.flat_map(|mapping| {
        [Ports::Preserved, Ports::Random].map(|ports| NatBehaviour {
            mapping,
            ports,
            ..NatBehaviour::HOME
        })
    })
}

#[test]
fn the_interval_found_is_below_what_the_nat_holds_and_above_half_of_it() {
    let timeouts = [25, 31, 40, 61, 100, 121, 185, 300, 600];
    for (seed, (timeout, behaviour)) in (0..).zip(timeouts.into_iter().zip(behaviours().cycle())) {
        let behaviour = NatBehaviour {
            timeout: seconds(timeout),
            ..behaviour
        };
        let mut world = World::new(seed, behaviour);
        assert!(world.fleet.keeping(world.node).seen.is_none());
        world.pass(5);
        assert_eq!(world.pass(2 * HOUR), 0, "mapped throughout: {behaviour:?}");
        let found = world.interval();
        assert!(found < timeout, "{found} s, {behaviour:?}");
        assert!(2 * found >= timeout.min(300), "{found} s, {behaviour:?}");
        assert!(world.is_reached(), "{behaviour:?}");
    }
}

#[test]
fn a_mapping_is_held_by_the_family_that_the_moon_is_not_reached_by() {
    for (seed, timeout) in (0..).zip([25, 31, 61, 121, 185, 300, 600]) {
        let behaviour = NatBehaviour {
            timeout: seconds(timeout),
            ..NatBehaviour::HOME
        };
        let mut world = World::dual(seed, behaviour);
        world.pass(30);
        assert_eq!(world.pass(2 * HOUR), 0, "mapped throughout: {timeout} s");
        let (_, via) = world.fleet.view(world.node, world.moon).expect("a peer");
        assert!(matches!(via, Some(Via::Direct(Remote::Udp(moon))) if moon.is_ipv6()));
        world.nat().forget();
        let interval = world.interval();
        let forgotten = world.pass(HOUR);
        assert!(forgotten <= interval, "{forgotten} s of {interval}");
    }
}

#[test]
fn a_nat_that_changes_its_mind_is_survived() {
    for (seed, behaviour) in (0..).zip(behaviours()) {
        let mut world = World::new(seed, behaviour);
        world.set_timeout(400);
        world.pass(HOUR);
        assert_eq!(world.interval(), 150, "{behaviour:?}");
        world.set_timeout(40);
        // Once it sleeps too long; then it knows.
        let forgotten = world.pass(180);
        assert!(forgotten <= 120, "{forgotten} s, {behaviour:?}");
        assert_eq!(world.pass(2 * HOUR), 0, "{behaviour:?}");
        assert!((20..40).contains(&world.interval()), "{behaviour:?}");
        world.set_timeout(400);
        world.pass(9 * HOUR);
        assert_eq!(world.interval(), 150, "it grows again: {behaviour:?}");
    }
}

#[test]
fn a_machine_that_moves_begins_anew() {
    let mut world = World::new(1, NatBehaviour::HOME);
    world.pass(HOUR);
    assert!(world.interval() > 20);
    let site = world.fleet.site(NatBehaviour {
        timeout: seconds(25),
        ..NatBehaviour::HOME
    });
    world.fleet.underlay.detach(world.node);
    world.fleet.notice(world.node);
    world.fleet.attach(world.node, site, Families::V4);
    world.fleet.notice(world.node);
    assert_eq!(world.interval(), 20);
    world.fleet.run_for(seconds(5));
    assert_eq!(world.pass(HOUR), 0);
    assert_eq!(world.interval(), 20);
}

#[test]
fn an_idle_hour_costs_little() {
    let mut figures = Vec::new();
    for timeout in [25, 120, 300] {
        let mut world = World::new(3, NatBehaviour::HOME);
        world.set_timeout(timeout);
        // The other one is away: this is about a client and its moon.
        world.fleet.set_running(world.other, false);
        world.pass(3 * HOUR);
        world.fleet.traffic = Traffic::default();
        world.pass(HOUR);
        figures.push((timeout, world.fleet.traffic.with_moons));
    }
    println!("datagrams in an idle hour, by what the NAT holds: {figures:?}");
    let bounds = [14 * 60, 300, 180];
    for ((timeout, datagrams), bound) in figures.into_iter().zip(bounds) {
        assert!(datagrams <= bound, "{datagrams} with {timeout} s");
    }
}

#[test]
fn a_client_of_several_moons_costs_each_as_much_as_of_one() {
    for moons in [1, 3] {
        let mut fleet = Fleet::new(5);
        for _ in 0..moons {
            fleet.moon();
        }
        let site = fleet.site(NatBehaviour::HOME);
        fleet.underlay.gateway_mut(site).v6 = Passage::firewalled();
        fleet.node(site, Families::Dual);
        fleet.publish(&[]);
        fleet.run_for(seconds(3 * HOUR));
        fleet.traffic = Traffic::default();
        fleet.run_for(seconds(HOUR));
        // Each moon is a client of the others, too.
        let clients = (1 + moons - 1) * moons;
        let datagrams = fleet.traffic.with_moons / clients;
        println!("{datagrams} datagrams an idle hour for each of {moons} moons");
        assert!(datagrams <= 500, "{datagrams}");
    }
}
