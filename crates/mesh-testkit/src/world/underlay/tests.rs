use super::*;
use crate::world::Dependence;

const LATENCY: Duration = Duration::from_millis(10);
const LAN: Duration = Duration::from_millis(1);

/// An underlay and its clock.
struct World {
    underlay: Underlay,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self {
            underlay: Underlay::new(1),
            now: Instant::from_micros(1_000_000),
        }
    }

    fn site(&mut self, parent: SiteId, behaviour: NatBehaviour) -> SiteId {
        let site = self.underlay.add_site(parent, LATENCY);
        self.underlay.translate(site, behaviour);
        site
    }

    fn host(&mut self, site: SiteId, families: Families) -> HostId {
        let host = self.underlay.add_host();
        self.underlay.attach(host, site, families, LAN);
        host
    }

    fn endpoint(&self, host: HostId) -> SocketAddr {
        self.underlay.endpoints(host)[0]
    }

    /// Sends, lets all arrive, and returns what came to `at`.
    fn send(&mut self, from: HostId, to: SocketAddr, at: HostId) -> Option<SocketAddr> {
        self.underlay.send(from, to, vec![1; 100], self.now);
        let mut seen = None;
        while let Some(next) = self.underlay.poll_timeout() {
            self.now = self.now.max(next);
            self.underlay.handle_timeout(self.now);
            while let Some(arrival) = self.underlay.poll_arrival() {
                assert_eq!(arrival.origin, from);
                if arrival.host == at {
                    seen = Some(arrival.from);
                }
            }
        }
        seen
    }
}

#[test]
fn hosts_on_the_internet_reach_each_other_after_their_lines() {
    let mut world = World::new();
    let (a, b) = (
        world.host(Underlay::INTERNET, Families::Dual),
        world.host(Underlay::INTERNET, Families::Dual),
    );
    let before = world.now;
    for i in 0..2 {
        let to = world.underlay.endpoints(b)[i];
        assert_eq!(world.send(a, to, b), Some(world.underlay.endpoints(a)[i]));
    }
    assert_eq!(world.now.saturating_since(before), LAN * 4);
    world.underlay.sever(a, b);
    let to = world.endpoint(b);
    assert_eq!(world.send(a, to, b), None);
    let back = world.endpoint(a);
    assert!(world.send(b, back, a).is_some(), "one way only");
    world.underlay.mend_all();
    world.underlay.set_awake(b, false);
    assert_eq!(world.send(a, to, b), None);
}

#[test]
fn a_host_behind_two_nats_is_seen_from_the_outer_one_and_gets_answers() {
    let mut world = World::new();
    let server = world.host(Underlay::INTERNET, Families::V4);
    let carrier = world.site(Underlay::INTERNET, NatBehaviour::HOME);
    let home = world.site(carrier, NatBehaviour::HOME);
    let host = world.host(home, Families::V4);
    assert!(world.endpoint(host).to_string().starts_with("192.168."));
    let to = world.endpoint(server);
    let seen = world.send(host, to, server).unwrap();
    assert!(seen.to_string().starts_with("198.18."));
    assert_eq!(world.send(server, seen, host), Some(to));
    let inside = world.endpoint(host);
    assert_eq!(world.send(server, inside, host), None);
    world.underlay.gateway_mut(carrier).forget();
    assert_eq!(world.send(server, seen, host), None);
}

#[test]
fn hosts_of_one_carrier_meet_where_it_turns_packets_back() {
    for hairpin in [true, false] {
        let mut world = World::new();
        let server = world.host(Underlay::INTERNET, Families::V4);
        let behaviour = NatBehaviour {
            filtering: Dependence::Independent,
            hairpin,
            ..NatBehaviour::HOME
        };
        let carrier = world.site(Underlay::INTERNET, behaviour);
        let homes = [0, 1].map(|_| world.site(carrier, behaviour));
        let [a, b] = homes.map(|home| world.host(home, Families::V4));
        let to = world.endpoint(server);
        let seen_a = world.send(a, to, server).unwrap();
        let seen_b = world.send(b, to, server).unwrap();
        let expected = hairpin.then_some(seen_a);
        assert_eq!(world.send(a, seen_b, b), expected);
    }
}

#[test]
fn hosts_of_one_site_meet_on_their_lan_though_the_uplink_is_down() {
    let mut world = World::new();
    let home = world.site(Underlay::INTERNET, NatBehaviour::SYMMETRIC);
    let (a, b) = (
        world.host(home, Families::V4),
        world.host(home, Families::V4),
    );
    let gateway = world.underlay.gateway_mut(home);
    gateway.line.change(|way| way.is_up = false);
    let to = world.endpoint(b);
    assert_eq!(world.send(a, to, b), Some(world.endpoint(a)));
}

#[test]
fn ipv6_is_routed_through_firewalls_and_not_translated() {
    let mut world = World::new();
    let server = world.host(Underlay::INTERNET, Families::V6);
    let carrier = world.site(Underlay::INTERNET, NatBehaviour::SYMMETRIC);
    let home = world.site(carrier, NatBehaviour::HOME);
    world.underlay.gateway_mut(home).v6 = Passage::firewalled();
    let host = world.host(home, Families::Dual);
    let (to, own) = (world.endpoint(server), world.underlay.endpoints(host)[1]);
    assert_eq!(world.send(server, own, host), None);
    assert_eq!(world.send(host, to, server), Some(own));
    assert_eq!(world.send(server, own, host), Some(to));
}

#[test]
fn a_host_that_moves_has_another_address_and_its_old_one_goes_to_nobody() {
    let mut world = World::new();
    let server = world.host(Underlay::INTERNET, Families::V4);
    let [home, cafe] = [0, 1].map(|_| world.site(Underlay::INTERNET, NatBehaviour::HOME));
    let host = world.host(home, Families::V4);
    let to = world.endpoint(server);
    let seen = world.send(host, to, server).unwrap();
    world.underlay.detach(host);
    assert!(!world.underlay.is_online(host));
    world.underlay.attach(host, cafe, Families::V4, LAN);
    assert_eq!(world.send(server, seen, host), None);
    let after = world.send(host, to, server).unwrap();
    assert_ne!(seen, after);
    world.underlay.readdress(cafe);
    assert_eq!(world.send(server, after, host), None);
    let redialled = world.send(host, to, server).unwrap();
    assert_ne!(after.ip(), redialled.ip());
}

#[test]
fn two_interfaces_are_used_in_their_order_and_the_second_when_the_first_is_down() {
    let mut world = World::new();
    let server = world.host(Underlay::INTERNET, Families::V4);
    let [home, phone] = [0, 1].map(|_| world.site(Underlay::INTERNET, NatBehaviour::HOME));
    let neighbour = world.host(phone, Families::V4);
    let host = world.host(home, Families::V4);
    world.underlay.attach(host, phone, Families::V4, LAN);
    let to = world.endpoint(server);
    let by_home = world.send(host, to, server).unwrap();
    let beside = world.endpoint(neighbour);
    let own = world.underlay.endpoints(host)[1];
    assert_eq!(world.send(host, beside, neighbour), Some(own), "on its LAN");
    let first = world.underlay.host_lines_mut(host).next().unwrap();
    first.change(|way| way.is_up = false);
    let by_phone = world.send(host, to, server).unwrap();
    assert_ne!(by_home.ip(), by_phone.ip());
    assert_eq!(world.underlay.endpoints(host), vec![own]);
}

#[test]
fn what_is_too_big_is_told_to_its_sender() {
    let mut world = World::new();
    let server = world.host(Underlay::INTERNET, Families::V4);
    let home = world.site(Underlay::INTERNET, NatBehaviour::HOME);
    let host = world.host(home, Families::V4);
    let to = world.endpoint(server);
    world.underlay.gateway_mut(home).line.up.mtu = 127;
    assert_eq!(world.send(host, to, server), None);
    let told = TooBig { host, to, mtu: 127 };
    assert_eq!(world.underlay.take_too_big(), vec![told]);
    world.underlay.gateway_mut(home).line.up.mtu = 128;
    assert!(world.send(host, to, server).is_some());
}
