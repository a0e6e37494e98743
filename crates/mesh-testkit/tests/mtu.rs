//! The real engine on lines that carry packets of different sizes, with routers that tell so and others
//! that do not: what is proven, and that nothing is lost for its size.

use std::time::Duration;

use mesh_testkit::world::{Families, Fleet, HostId, NatBehaviour, Passage, SiteId, Underlay};
use proptest::prelude::*;

const TICK: Duration = Duration::from_millis(20);

/// What every way is said to carry, proven or not.
const BASE: u16 = 1280;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two nodes behind open gateways of their own, and a moon.
struct Pair {
    fleet: Fleet,
    a: HostId,
    b: HostId,
    site: SiteId,
}

impl Pair {
    fn new(seed: u64, families: Families) -> Self {
        let mut fleet = Fleet::new(seed);
        fleet.moon();
        let [site, other] = [0, 1].map(|_| {
            fleet
                .underlay
                .add_site(Underlay::INTERNET, Duration::from_millis(10))
        });
        let (a, b) = (fleet.node(site, families), fleet.node(other, families));
        let mut pair = Self { fleet, a, b, site };
        pair.fleet.publish(&[]);
        pair.fleet.run_for(seconds(5));
        pair
    }

    /// Both directions of the line between A's site and the internet.
    fn set_line(&mut self, mtu: usize, tells: bool) {
        let line = &mut self.fleet.underlay.gateway_mut(self.site).line;
        line.change(|way| {
            way.mtu = mtu;
            way.tells_too_big = tells;
        });
    }

    /// Every line on the way.
    fn set_all_lines(&mut self, mtu: usize) {
        let sites: Vec<SiteId> = [self.a, self.b]
            .iter()
            .flat_map(|host| self.fleet.underlay.sites_of(*host).collect::<Vec<_>>())
            .collect();
        for site in sites {
            let line = &mut self.fleet.underlay.gateway_mut(site).line;
            line.change(|way| way.mtu = mtu);
        }
        for host in [self.a, self.b] {
            for line in self.fleet.underlay.host_lines_mut(host) {
                line.change(|way| way.mtu = mtu);
            }
        }
    }

    /// Both send for a while, in turns the largest packet that is said to fit, and a small one.
    fn talk(&mut self, time: Duration) -> Sent {
        let mut sent = Sent::default();
        let end = self.fleet.now().instant + time;
        while self.fleet.now().instant < end {
            for (from, to) in [(self.a, self.b), (self.b, self.a)] {
                let mtu = self.fleet.mtu(from, to).unwrap_or(BASE).max(BASE);
                let at = self.fleet.now().instant.as_micros();
                let large = self.fleet.send_sized(from, to, mtu.into());
                sent.0.push((at, large));
                sent.0.push((at, self.fleet.send(from, to)));
            }
            self.fleet.run_for(TICK);
        }
        self.fleet.run_for(seconds(1));
        sent
    }

    fn mtus(&self) -> [Option<u16>; 2] {
        let of = |from, to| self.fleet.mtu(from, to);
        [of(self.a, self.b), of(self.b, self.a)]
    }
}

/// When packets were sent, and their numbers.
#[derive(Default)]
struct Sent(Vec<(u64, u64)>);

impl Sent {
    fn lost(&self, fleet: &Fleet) -> Vec<u64> {
        let lost = |(_, number): &&(u64, u64)| fleet.arrived(*number).is_none();
        self.0.iter().filter(lost).map(|(at, _)| *at).collect()
    }

    /// From the first packet that was lost to the last.
    fn outage(&self, fleet: &Fleet) -> Duration {
        let lost = self.lost(fleet);
        let span = lost
            .last()
            .zip(lost.first())
            .map(|(last, first)| last - first);
        Duration::from_micros(span.unwrap_or_default())
    }
}

#[test]
fn ethernet_carries_1440_bytes_by_ipv4_and_1420_by_ipv6() {
    for (families, inside) in [(Families::V4, 1440), (Families::V6, 1420)] {
        let mut pair = Pair::new(1, families);
        let sent = pair.talk(seconds(3));
        assert_eq!(pair.mtus(), [Some(inside); 2]);
        assert_eq!(sent.lost(&pair.fleet), Vec::<u64>::new());
    }
}

#[test]
fn jumbo_frames_are_used_where_every_line_has_them() {
    let mut pair = Pair::new(2, Families::V6);
    pair.set_all_lines(9000);
    let sent = pair.talk(seconds(3));
    assert_eq!(pair.mtus(), [Some(8920); 2]);
    assert_eq!(sent.lost(&pair.fleet), Vec::<u64>::new());
}

#[test]
fn a_line_in_the_middle_is_found_whether_it_tells_or_not() {
    for tells in [true, false] {
        for (line, inside) in [(1492, 1412), (1400, 1320), (1300, 1200), (1280, 1200)] {
            let mut pair = Pair::new(3, Families::V6);
            pair.set_line(line, tells);
            let sent = pair.talk(seconds(4));
            assert_eq!(pair.mtus(), [Some(inside); 2], "{line} {tells}");
            assert_eq!(sent.lost(&pair.fleet), Vec::<u64>::new(), "{line} {tells}");
        }
    }
}

#[test]
fn what_ipv6_promises_goes_in_pieces_where_it_does_not_fit() {
    let mut pair = Pair::new(4, Families::V4);
    pair.set_line(1280, false);
    pair.talk(seconds(4));
    assert_eq!(pair.mtus(), [Some(1220); 2]);
    let before = pair.fleet.cut(pair.a);
    let sent = pair.talk(seconds(2));
    assert!(
        pair.fleet.cut(pair.a) - before >= 99,
        "all large ones are cut"
    );
    assert_eq!(sent.lost(&pair.fleet), Vec::<u64>::new());
    assert!(pair.fleet.take_too_big(pair.a).is_empty());
}

#[test]
fn who_sends_more_than_fits_is_told_what_does() {
    let mut pair = Pair::new(5, Families::V6);
    pair.talk(seconds(3));
    let (a, b) = (pair.a, pair.b);
    let lost = pair.fleet.send_sized(a, b, 1500);
    let told: Vec<u16> = pair
        .fleet
        .take_too_big(a)
        .iter()
        .map(|told| told.1)
        .collect();
    assert_eq!(told, [1420]);
    pair.fleet.run_for(seconds(1));
    assert_eq!(pair.fleet.arrived(lost), None);
    let fits = pair.fleet.send_sized(a, b, 1420);
    pair.fleet.run_for(seconds(1));
    assert!(pair.fleet.arrived(fits).is_some());
}

#[test]
fn a_way_that_shrinks_is_followed_within_two_seconds_whether_it_tells_or_not() {
    for families in [Families::V4, Families::V6] {
        for tells in [true, false] {
            for line in [1480, 1400, 1300] {
                let mut pair = Pair::new(6, families);
                pair.talk(seconds(3));
                pair.set_line(line, tells);
                let sent = pair.talk(seconds(5));
                let outage = sent.outage(&pair.fleet);
                assert!(outage > Duration::ZERO, "it carried more before");
                assert!(outage <= seconds(2), "{line}: {outage:?}");
                let [mtu, _] = pair.mtus();
                let headers = if families == Families::V4 { 60 } else { 80 };
                assert!(mtu.is_some_and(|mtu| usize::from(mtu) + headers <= line));
            }
        }
    }
}

#[test]
fn a_way_that_widens_is_used_again_after_ten_minutes() {
    let mut pair = Pair::new(7, Families::V6);
    pair.set_line(1400, false);
    pair.talk(seconds(3));
    pair.set_line(1500, true);
    pair.talk(seconds(300));
    assert_eq!(pair.mtus(), [Some(1320); 2]);
    pair.talk(seconds(310));
    assert_eq!(pair.mtus(), [Some(1420); 2]);
}

#[test]
fn each_way_has_its_own_size_and_a_change_of_way_loses_nothing_for_it() {
    // Relayed at first, straight later, relayed again.
    let mut pair = Pair::new(8, Families::V6);
    let (a, b) = (pair.a, pair.b);
    pair.fleet.underlay.sever(a, b);
    pair.fleet.underlay.sever(b, a);
    let relayed = pair.talk(seconds(5));
    assert_eq!(pair.mtus(), [Some(1400); 2]);
    assert_eq!(relayed.lost(&pair.fleet), Vec::<u64>::new());
    pair.fleet.underlay.mend_all();
    let straight = pair.talk(seconds(90));
    assert_eq!(pair.mtus(), [Some(1420); 2]);
    assert_eq!(straight.lost(&pair.fleet), Vec::<u64>::new());
    pair.fleet.underlay.sever(a, b);
    pair.fleet.underlay.sever(b, a);
    let back = pair.talk(seconds(5));
    assert_eq!(pair.mtus(), [Some(1400); 2]);
    assert!(
        back.outage(&pair.fleet) <= seconds(2),
        "{:?}",
        back.outage(&pair.fleet)
    );
}

#[test]
fn a_machine_that_moves_to_a_narrower_network_goes_on() {
    let mut pair = Pair::new(9, Families::V4);
    pair.talk(seconds(3));
    let narrow = pair
        .fleet
        .underlay
        .add_site(Underlay::INTERNET, Duration::from_millis(10));
    let line = &mut pair.fleet.underlay.gateway_mut(narrow).line;
    line.change(|way| (way.mtu, way.tells_too_big) = (1300, false));
    pair.fleet.underlay.detach(pair.a);
    pair.fleet.attach(pair.a, narrow, Families::V4);
    pair.fleet.notice(pair.a);
    let sent = pair.talk(seconds(5));
    assert_eq!(pair.mtus(), [Some(1220); 2]);
    assert!(
        sent.outage(&pair.fleet) <= seconds(2),
        "{:?}",
        sent.outage(&pair.fleet)
    );
}

#[test]
fn a_pair_of_small_packets_pays_little_and_an_idle_one_nothing() {
    let mut pair = Pair::new(10, Families::V6);
    pair.talk(seconds(3));
    pair.fleet.run_for(seconds(120));
    pair.fleet.traffic = Default::default();
    pair.fleet.run_for(seconds(1000));
    assert!(pair.fleet.traffic.between.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever lines do, two seconds later what is said to fit arrives.
    #[test]
    fn nothing_is_lost_for_its_size(
        seed: u64,
        v4: bool,
        nat: bool,
        lines in prop::collection::vec((1280usize..1600, any::<bool>()), 1..5),
    ) {
        let families = if v4 || nat { Families::V4 } else { Families::V6 };
        let mut pair = Pair::new(seed, families);
        if nat {
            let home = pair.fleet.site(NatBehaviour::HOME);
            pair.fleet.underlay.detach(pair.b);
            pair.fleet.attach(pair.b, home, Families::V4);
            pair.fleet.notice(pair.b);
            prop_assert!(matches!(pair.fleet.underlay.gateway(home).v6, Passage::Closed));
        }
        pair.talk(seconds(2));
        for (mtu, tells) in lines {
            pair.set_line(mtu, tells);
            pair.talk(seconds(2));
            let sent = pair.talk(seconds(2));
            prop_assert_eq!(sent.lost(&pair.fleet), Vec::<u64>::new(), "{} {}", mtu, tells);
        }
    }
}
