//! The reference against brute force: both sides send to all endpoints that they know of each other, in all
//! orders, through the NATs of the world.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::world::Families;

/// What one side does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    A,
    B,
    /// Both, before anything arrives.
    Both,
}

/// Two hosts that know each other's addresses and what a server saw of them.
struct Exchange {
    underlay: Underlay,
    now: Instant,
    hosts: [HostId; 2],
    /// What each knows of the other.
    known: [BTreeSet<SocketAddr>; 2],
    /// Who got an answer to something it sent.
    answered: [bool; 2],
}

const QUESTION: u8 = 1;
const ANSWER: u8 = 2;

impl Exchange {
    fn new(mut underlay: Underlay, server: HostId, hosts: [HostId; 2]) -> Self {
        let mut now = Instant::from_micros(1_000_000);
        let mut known = [0, 1].map(|i| BTreeSet::from_iter(underlay.endpoints(hosts[1 - i])));
        for (i, host) in hosts.into_iter().enumerate() {
            for to in underlay.endpoints(server) {
                underlay.send(host, to, vec![0], now);
            }
            while let Some(at) = underlay.poll_timeout() {
                now = at;
                underlay.handle_timeout(now);
            }
            while let Some(arrival) = underlay.poll_arrival() {
                assert_eq!(arrival.host, server);
                known[1 - i].insert(arrival.from);
            }
        }
        Self {
            underlay,
            now,
            hosts,
            known,
            answered: [false; 2],
        }
    }

    fn send_to_all_known(&mut self, i: usize) {
        for to in self.known[i].clone() {
            self.underlay
                .send(self.hosts[i], to, vec![QUESTION], self.now);
        }
    }

    fn settle(&mut self) {
        while let Some(at) = self.underlay.poll_timeout() {
            self.now = at;
            self.underlay.handle_timeout(at);
            while let Some(arrival) = self.underlay.poll_arrival() {
                let Some(i) = self.hosts.iter().position(|host| *host == arrival.host) else {
                    continue;
                };
                // What came from a third party is not theirs to learn from.
                if arrival.origin != self.hosts[1 - i] {
                    continue;
                }
                if arrival.data == [ANSWER] {
                    self.answered[i] = true;
                    continue;
                }
                self.known[i].insert(arrival.from);
                self.underlay
                    .send(arrival.host, arrival.from, vec![ANSWER], at);
            }
        }
    }

    /// Whether both got through to each other.
    fn run(mut self, turns: &[Turn]) -> bool {
        for turn in turns {
            if *turn != Turn::B {
                self.send_to_all_known(0);
            }
            if *turn != Turn::A {
                self.send_to_all_known(1);
            }
            self.settle();
        }
        self.answered == [true; 2]
    }
}

/// Any three turns, and then both sides in turn for long enough that each has sent after the other.
fn schedules() -> Vec<Vec<Turn>> {
    use Turn::{A, B, Both};
    let mut all = Vec::new();
    for first in [A, B, Both] {
        for second in [A, B, Both] {
            for third in [A, B, Both] {
                for tail in [[A, B, A, B, A], [B, A, B, A, B], [Both; 5]] {
                    all.push([[first, second, third].as_slice(), &tail].concat());
                }
            }
        }
    }
    all
}

/// A chain of NATs, the innermost first, with the host behind it.
fn behind(underlay: &mut Underlay, top: SiteId, chain: &[NatBehaviour]) -> HostId {
    let mut site = top;
    for behaviour in chain.iter().rev() {
        site = underlay.add_site(site, Duration::from_millis(10));
        underlay.translate(site, *behaviour);
    }
    let host = underlay.add_host();
    underlay.attach(host, site, Families::V4, Duration::from_millis(1));
    host
}

fn exchange(a: &[NatBehaviour], b: &[NatBehaviour], carrier: Option<NatBehaviour>) -> Exchange {
    let mut underlay = Underlay::new(1);
    let server = underlay.add_host();
    underlay.attach(
        server,
        Underlay::INTERNET,
        Families::Dual,
        Duration::from_millis(1),
    );
    let mut top = Underlay::INTERNET;
    if let Some(behaviour) = carrier {
        top = underlay.add_site(top, Duration::from_millis(5));
        underlay.translate(top, behaviour);
    }
    let hosts = [a, b].map(|chain| behind(&mut underlay, top, chain));
    Exchange::new(underlay, server, hosts)
}

/// Compares the verdict with every schedule.
fn judge(a: &[NatBehaviour], b: &[NatBehaviour], carrier: Option<NatBehaviour>) {
    let made = || exchange(a, b, carrier);
    let example = made();
    let [first, second] = example.hosts;
    let verdict = pair(&example.underlay, first, second, example.now);
    let back = pair(&example.underlay, second, first, example.now);
    assert_eq!(verdict, back, "the same from both sides");
    for schedule in schedules() {
        let through = made().run(&schedule);
        match verdict {
            Verdict::Direct => assert!(through, "{a:?}\n{b:?}\n{carrier:?}\n{schedule:?}"),
            Verdict::Impossible => assert!(!through, "{a:?}\n{b:?}\n{carrier:?}\n{schedule:?}"),
            Verdict::Possible => {}
        }
    }
}

fn behaviours(ports: Ports) -> Vec<NatBehaviour> {
    let mut all = Vec::new();
    for mapping in Dependence::ALL {
        for filtering in Dependence::ALL {
            all.push(NatBehaviour {
                mapping,
                filtering,
                ports,
                ..NatBehaviour::HOME
            });
        }
    }
    all
}

#[test]
fn every_pair_of_single_nats_is_judged_right() {
    for ports in [
        Ports::Random,
        Ports::Preserved,
        Ports::Sequential { stride: 2 },
    ] {
        for a in behaviours(ports) {
            for b in behaviours(Ports::Random) {
                judge(&[a], &[b], None);
            }
        }
    }
}

#[test]
fn a_host_on_the_internet_is_reached_from_behind_any_nat() {
    for a in behaviours(Ports::Random) {
        judge(&[a], &[], None);
    }
}

#[test]
fn two_symmetric_sides_cannot_and_two_linux_routers_can() {
    let symmetric = NatBehaviour::SYMMETRIC;
    let linux = NatBehaviour {
        ports: Ports::Preserved,
        ..symmetric
    };
    let verdict = |a, b| {
        let example = exchange(&[a], &[b], None);
        pair(
            &example.underlay,
            example.hosts[0],
            example.hosts[1],
            example.now,
        )
    };
    assert_eq!(verdict(symmetric, symmetric), Verdict::Impossible);
    let counting = NatBehaviour::COUNTING;
    assert_eq!(verdict(counting, counting), Verdict::Possible);
    assert_eq!(verdict(counting, symmetric), Verdict::Impossible);
    assert_eq!(verdict(counting, NatBehaviour::HOME), Verdict::Impossible);
    assert_eq!(verdict(symmetric, NatBehaviour::HOME), Verdict::Impossible);
    assert_eq!(verdict(linux, linux), Verdict::Direct);
    assert_eq!(verdict(linux, NatBehaviour::HOME), Verdict::Direct);
}

#[test]
fn the_same_lan_or_ipv6_makes_a_pair_direct_and_blocked_udp_does_not() {
    let mut underlay = Underlay::new(1);
    let now = Instant::ZERO;
    let [home, work] = [0, 1].map(|_| {
        let site = underlay.add_site(Underlay::INTERNET, Duration::from_millis(10));
        underlay.translate(site, NatBehaviour::SYMMETRIC);
        underlay.gateway_mut(site).v6 = Passage::firewalled();
        site
    });
    let mut host = |site, families| {
        let host = underlay.add_host();
        underlay.attach(host, site, families, Duration::from_millis(1));
        host
    };
    let (a, b) = (host(home, Families::V4), host(home, Families::Dual));
    let (c, d) = (host(work, Families::V4), host(work, Families::Dual));
    let verdict = |underlay: &Underlay, x, y| pair(underlay, x, y, now);
    assert_eq!(verdict(&underlay, a, b), Verdict::Direct);
    assert_eq!(verdict(&underlay, a, c), Verdict::Impossible);
    assert_eq!(verdict(&underlay, b, d), Verdict::Direct);
    underlay.gateway_mut(home).blocks_udp = true;
    assert_eq!(verdict(&underlay, b, d), Verdict::Impossible);
    assert_eq!(verdict(&underlay, a, b), Verdict::Direct, "on their LAN");
    underlay.sever(a, b);
    assert_eq!(verdict(&underlay, b, a), Verdict::Impossible);
}

fn any_behaviour() -> impl Strategy<Value = NatBehaviour> {
    let counting = Ports::Sequential { stride: 1 };
    let all: Vec<NatBehaviour> = [Ports::Random, Ports::Preserved, counting]
        .into_iter()
        .flat_map(behaviours)
        .collect();
    (prop::sample::select(all), any::<bool>()).prop_map(|(behaviour, hairpin)| NatBehaviour {
        hairpin,
        ..behaviour
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn chains_of_nats_and_carriers_are_judged_right(
        a in prop::collection::vec(any_behaviour(), 0..3),
        b in prop::collection::vec(any_behaviour(), 0..3),
        carrier in prop::option::of(any_behaviour()),
    ) {
        judge(&a, &b, carrier);
    }
}
