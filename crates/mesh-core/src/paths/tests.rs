use std::collections::BTreeMap;

use super::{table::WAYS_MAX, *};
use crate::{Carrier, Remote};

fn at(millis: u64) -> Instant {
    Instant::from_micros(1_000_000 + millis * 1_000)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn straight(number: u8) -> Via {
    Via::Direct(Remote::Udp(([192, 0, 2, number], 4193).into()))
}

fn moon(number: u8) -> WireguardPublicKey {
    mesh_types::IdentitySeed::from_bytes([number; 32])
        .public()
        .wireguard()
}

fn relay(number: u8) -> Via {
    Via::Relay(moon(number))
}

/// A pair with traffic, and who of the ways answers how fast.
struct Pair {
    paths: Paths,
    answers: BTreeMap<Via, Duration>,
    flying: Vec<(Instant, Via, Duration)>,
    now: Instant,
    traffic: Option<Instant>,
    silent_since: Option<Instant>,
    sent: Vec<(Instant, Via)>,
    runs: usize,
    handshakes: usize,
}

impl Pair {
    fn new() -> Self {
        Self {
            paths: Paths::default(),
            answers: BTreeMap::new(),
            flying: Vec::new(),
            now: at(0),
            traffic: Some(at(0)),
            silent_since: None,
            sent: Vec::new(),
            runs: 0,
            handshakes: 0,
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            session: true,
            traffic: self.traffic,
            silent_since: self.silent_since,
            sent: self.traffic,
            received: None,
            large: false,
            keep: crate::hold::Hold::BASE,
        }
    }

    fn run_to(&mut self, end: Instant) {
        loop {
            self.runs += 1;
            let facts = self.facts();
            let due = self.paths.run(&facts, self.now);
            self.handshakes += usize::from(due.handshake);
            let foretold = self.paths.run_predict(Part::Many, own, &facts, self.now);
            assert_eq!(foretold, None, "nobody asks");
            for via in due.openers.into_iter().chain(due.probes) {
                self.paths.probed(via, self.now);
                self.sent.push((self.now, via));
                if let Some(rtt) = self.answers.get(&via) {
                    self.flying.push((self.now + *rtt, via, *rtt));
                }
            }
            let answer = self.flying.iter().map(|(at, _, _)| *at).min();
            let deadline = self.paths.deadline(&self.facts(), self.now);
            assert!(deadline.is_none_or(|at| at > self.now), "no busy loop");
            let next = [answer, deadline].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = next;
            let (landed, flying) = self.flying.drain(..).partition(|(at, _, _)| *at <= next);
            self.flying = flying;
            let landed: Vec<(Instant, Via, Duration)> = landed;
            for (_, via, rtt) in landed {
                self.silent_since = None;
                let facts = self.facts();
                self.paths.answered(via, rtt, &facts, self.now);
            }
        }
    }

    fn since(&self, since: Instant) -> usize {
        self.sent.iter().filter(|(at, _)| *at >= since).count()
    }
}

/// A machine without NATs.
const fn own() -> OwnSide {
    OwnSide {
        families: [true, false],
        mappings: [crate::Mapping::None, crate::Mapping::Unseen],
    }
}

/// Relayed at first, with a straight way that answers.
fn relayed() -> Pair {
    let mut pair = Pair::new();
    pair.paths.set_moons(&[moon(1)], at(0));
    pair.answers.insert(relay(1), millis(60));
    pair.answers.insert(straight(1), millis(20));
    pair.paths.established(relay(1), Some(millis(60)), at(0));
    pair.paths.learn(straight(1), Origin::Told, at(0));
    pair
}

#[test]
fn a_straight_way_is_taken_once_it_answers_and_not_before() {
    let mut pair = relayed();
    pair.run_to(at(19));
    assert_eq!(pair.paths.selected(), Some(relay(1)));
    pair.run_to(at(20));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
}

#[test]
fn a_nat_is_opened_from_within_before_anything_comes_to_the_peers() {
    let mut pair = relayed();
    let facts = pair.facts();
    let ipv6 = Via::Direct(Remote::Udp(
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4193).into(),
    ));
    pair.paths.learn(ipv6, Origin::Told, at(0));
    let first = pair.paths.run(&facts, at(0));
    assert_eq!(first.openers, [straight(1)]);
    assert!(!first.probes.contains(&straight(1)));
    assert!(first.probes.contains(&ipv6), "which nobody translates");
    let second = pair.paths.run(&facts, at(100));
    assert!(second.probes.contains(&straight(1)));
    assert_eq!(second.openers, []);
}

#[test]
fn a_way_that_never_answers_is_never_taken_and_gets_a_bounded_number_of_probes() {
    let mut pair = relayed();
    pair.answers.remove(&straight(1));
    pair.traffic = Some(at(3_600_000));
    pair.run_to(at(600_000));
    assert_eq!(pair.paths.selected(), Some(relay(1)));
    let to_nobody = pair.sent.iter().filter(|(_, via)| *via == straight(1));
    // At 0, 10, 30 and 70 s, then once a minute.
    assert_eq!(to_nobody.count(), 12 * BURST.len());
}

#[test]
fn a_black_hole_is_left_for_the_relay_within_two_seconds_and_come_back_from_later() {
    let mut pair = relayed();
    pair.run_to(at(5_000));
    pair.answers.remove(&straight(1));
    pair.traffic = Some(at(100_000));
    pair.silent_since = Some(at(5_000));
    pair.run_to(at(6_500));
    assert_eq!(pair.paths.selected(), Some(relay(1)));
    pair.answers.insert(straight(1), millis(20));
    pair.run_to(at(30_000));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
}

#[test]
fn one_lost_probe_changes_nothing() {
    let mut pair = relayed();
    pair.run_to(at(5_000));
    pair.silent_since = Some(at(5_000));
    let rtt = pair.answers.remove(&straight(1)).unwrap();
    pair.run_to(at(5_600));
    pair.answers.insert(straight(1), rtt);
    pair.traffic = Some(at(5_000));
    pair.run_to(at(20_000));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
}

#[test]
fn packets_that_come_another_way_make_the_way_in_use_prove_itself() {
    let mut pair = relayed();
    pair.run_to(at(5_000));
    pair.answers.remove(&straight(1));
    pair.answers.insert(straight(2), millis(20));
    // The peer moved: its packets come from elsewhere.
    pair.paths.heard(straight(2), &pair.facts(), at(5_000));
    pair.traffic = Some(at(5_000));
    pair.run_to(at(5_600));
    assert_eq!(pair.paths.selected(), Some(straight(2)));
}

#[test]
fn who_only_hears_of_doubt_asks_the_way_in_use_first() {
    let mut pair = relayed();
    pair.run_to(at(5_000));
    pair.traffic = Some(at(5_000));
    // The peer probes all its ways. If this side did, too, the peer would hear that, and so on.
    pair.paths.heard(relay(1), &pair.facts(), at(5_000));
    pair.run_to(at(5_900));
    let sent: Vec<_> = pair
        .sent
        .iter()
        .filter(|(at, _)| *at >= self::at(5_000))
        .collect();
    assert_eq!(sent, [&(at(5_000), straight(1))]);

    pair.answers.remove(&straight(1));
    pair.paths.heard(relay(1), &pair.facts(), at(5_900));
    pair.run_to(at(6_500));
    let others = pair
        .sent
        .iter()
        .find(|(at, via)| *at >= self::at(5_900) && *via == relay(1));
    let overdue = at(5_900) + pair.paths.ways.get(straight(1)).unwrap().patience();
    assert!(others.is_some_and(|(at, _)| *at <= overdue), "{others:?}");
    assert_eq!(pair.paths.selected(), Some(relay(1)));
}

#[test]
fn in_doubt_a_way_that_the_peer_is_heard_by_is_probed_at_once() {
    let mut pair = relayed();
    pair.run_to(at(5_000));
    // Nothing comes through, and this side has not been told of anything else.
    pair.answers.clear();
    pair.traffic = Some(at(5_000));
    pair.silent_since = Some(at(5_000));
    pair.run_to(at(7_100));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
    // The peer has found a moon.
    pair.answers.insert(relay(1), millis(60));
    pair.paths.heard(relay(1), &pair.facts(), at(7_100));
    pair.run_to(at(7_160));
    assert_eq!(pair.paths.selected(), Some(relay(1)));
}

#[test]
fn an_idle_pair_follows_nothing_that_comes_another_way() {
    let mut pair = relayed();
    pair.run_to(at(70_000));
    assert_eq!(pair.paths.selected(), Some(relay(1)), "let go");
    // Requests to a moon, and what answers them, take their own way.
    pair.paths.heard(straight(1), &pair.facts(), at(70_000));
    assert!(
        !pair
            .paths
            .answered(straight(1), millis(20), &pair.facts(), at(70_000))
    );
    pair.run_to(at(100_000));
    assert_eq!(pair.since(at(70_000)), 0);
    assert_eq!(pair.paths.selected(), Some(relay(1)));
    pair.traffic = Some(at(100_000));
    pair.run_to(at(100_100));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
}

#[test]
fn two_good_ways_do_not_make_it_flap() {
    let mut pair = relayed();
    pair.answers.insert(straight(2), millis(21));
    pair.paths.learn(straight(2), Origin::Told, at(0));
    pair.run_to(at(1_000));
    let first = pair.paths.selected();
    for second in 1..100 {
        let faster = straight(1 + u8::try_from(second % 2).unwrap());
        pair.answers.insert(faster, millis(19));
        pair.answers
            .insert(straight(2 - u8::try_from(second % 2).unwrap()), millis(21));
        pair.traffic = Some(pair.now);
        pair.paths.heard(faster, &pair.facts(), pair.now);
        pair.run_to(at(1_000 + second * 1_000));
        assert_eq!(pair.paths.selected(), first);
    }
}

#[test]
fn a_lost_moon_gives_way_to_another() {
    let mut pair = relayed();
    pair.answers.remove(&straight(1));
    pair.answers.insert(relay(2), millis(80));
    pair.paths.set_moons(&[moon(1), moon(2)], at(0));
    pair.run_to(at(5_000));
    assert_eq!(pair.paths.selected(), Some(relay(1)));
    pair.answers.remove(&relay(1));
    pair.silent_since = Some(at(5_000));
    pair.traffic = Some(at(6_000));
    pair.run_to(at(7_000));
    assert_eq!(pair.paths.selected(), Some(relay(2)));
    pair.paths.set_moons(&[moon(1)], at(7_000));
    assert_ne!(pair.paths.selected(), Some(relay(2)));
}

#[test]
fn an_idle_pair_is_silent_and_wakes_on_the_relay() {
    let mut pair = relayed();
    pair.run_to(at(100_000));
    assert_eq!(pair.paths.selected(), Some(relay(1)), "cold");
    let runs = pair.runs;
    pair.run_to(at(10_000_000));
    assert_eq!(pair.since(at(61_000)), 0);
    assert!(pair.runs <= runs + 2);
    pair.traffic = Some(at(10_000_000));
    pair.run_to(at(10_000_100));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
}

#[test]
fn an_idle_pair_on_another_network_does_not_wake_for_relays_that_did_not_answer_there() {
    let mut pair = relayed();
    pair.run_to(at(1_000));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
    pair.answers.clear();
    pair.paths.network_changed(at(1_000));
    pair.run_to(at(100_000));
    let runs = pair.runs;
    pair.run_to(at(200_000));
    assert!(pair.runs <= runs + 2, "{} runs", pair.runs - runs);
}

#[test]
fn an_idle_pair_on_another_network_falls_back_on_a_relay_that_was_not_asked_there() {
    let mut pair = relayed();
    pair.run_to(at(70_000));
    pair.paths.network_changed(at(70_000));
    pair.paths.established(straight(1), None, at(70_020));
    pair.run_to(at(200_000));
    assert_eq!(pair.paths.selected(), Some(relay(1)));
    assert_eq!(pair.since(at(70_000)), 0);
}

#[test]
fn a_straight_way_that_was_kept_over_a_pause_is_settled_by_a_handshake() {
    let mut pair = Pair::new();
    pair.answers.insert(straight(1), millis(20));
    pair.traffic = None;
    pair.paths.established(straight(1), None, at(0));
    pair.run_to(at(100_000));
    assert_eq!((pair.handshakes, pair.paths.is_stale()), (0, false));
    pair.traffic = Some(at(100_000));
    pair.run_to(at(100_000));
    assert_eq!((pair.handshakes, pair.paths.is_stale()), (1, true));
    pair.paths.established(straight(1), None, at(100_020));
    pair.run_to(at(130_000));
    assert_eq!((pair.handshakes, pair.paths.is_stale()), (1, false));
}

#[test]
fn what_a_way_owes_it_does_not_owe_after_a_pause() {
    let mut pair = relayed();
    pair.run_to(at(5_000));
    pair.answers.remove(&straight(1));
    pair.traffic = Some(at(6_500));
    pair.silent_since = Some(at(5_000));
    pair.run_to(at(100_000));
    assert_eq!(pair.paths.selected(), Some(relay(1)));
    pair.answers.insert(straight(1), millis(20));
    pair.traffic = Some(at(100_000));
    pair.run_to(at(100_100));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
}

#[test]
fn a_way_of_an_earlier_network_is_probed_when_the_peer_is_heard_by_it() {
    let mut pair = relayed();
    pair.run_to(at(1_000));
    pair.answers.remove(&straight(1));
    pair.paths.network_changed(at(1_000));
    pair.paths
        .established(relay(1), Some(millis(60)), at(1_000));
    pair.run_to(at(8_000));
    pair.answers.insert(straight(1), millis(20));
    pair.paths.heard(straight(1), &pair.facts(), at(8_000));
    pair.run_to(at(8_100));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
}

#[test]
fn a_straight_way_is_kept_open_while_there_is_traffic_in_a_minute() {
    let mut pair = relayed();
    pair.run_to(at(3_000));
    let before = pair.sent.len();
    pair.run_to(at(59_000));
    let kept = &pair.sent[before..];
    assert!((1..=3).contains(&kept.len()), "{kept:?}");
}

#[test]
fn a_peer_that_lies_of_a_thousand_endpoints_makes_us_send_little() {
    let mut pair = relayed();
    pair.traffic = Some(at(100_000));
    for round in 0..50_u16 {
        for port in 0..100 {
            let victim = ([198, 51, 100, 1], 1 + round * 100 + port);
            pair.paths.learn(
                Via::Direct(Remote::Udp(victim.into())),
                Origin::Told,
                pair.now,
            );
        }
        pair.run_to(at(u64::from(round) * 1_000));
    }
    let to_victim = |via: &Via| {
        via.udp()
            .is_some_and(|endpoint| endpoint.ip().to_string() == "198.51.100.1")
    };
    let victims = pair.sent.iter().filter(|(_, via)| to_victim(via));
    let most = usize::try_from(budget::MAX + 50 * budget::PER_SECOND).unwrap();
    assert!(victims.count() <= most + 16);
    assert!(pair.paths.view().len() <= WAYS_MAX);
}

const fn stream(carrier: Carrier) -> StreamId {
    StreamId { carrier, number: 1 }
}

#[test]
fn a_stream_is_left_for_udp_once_that_answers_and_is_no_way_once_it_is_over() {
    let mut pair = Pair::new();
    let tls = stream(Carrier::Tls);
    let via = Via::Direct(Remote::Stream(tls));
    pair.answers.insert(via, millis(30));
    assert!(pair.paths.set_streams(&[tls], pair.now));
    pair.paths.learn(straight(1), Origin::Told, pair.now);
    pair.paths.established(via, Some(millis(30)), pair.now);
    pair.run_to(at(5_000));
    assert_eq!(pair.paths.selected(), Some(via));
    pair.answers.insert(straight(1), millis(90));
    pair.run_to(at(40_000));
    assert_eq!(pair.paths.selected(), Some(straight(1)));
    assert!(!pair.paths.set_streams(&[], pair.now));
    assert_eq!(pair.paths.all().collect::<Vec<_>>(), [straight(1)]);
    // What came by it last is looked at afterwards.
    pair.paths.heard(via, &pair.facts(), pair.now);
    pair.paths.established(via, None, pair.now);
    assert_eq!(pair.paths.all().collect::<Vec<_>>(), [straight(1)]);
    assert_eq!(pair.paths.selected(), Some(straight(1)));
}

#[test]
fn tls_is_left_for_quic_however_long_its_round_trip() {
    let mut pair = Pair::new();
    let [quic, tls] = [Carrier::Quic, Carrier::Tls].map(stream);
    let [by_quic, by_tls] = [quic, tls].map(|id| Via::Direct(Remote::Stream(id)));
    pair.answers.insert(by_tls, millis(30));
    pair.answers.insert(by_quic, millis(60));
    pair.paths.set_streams(&[tls], pair.now);
    pair.paths.established(by_tls, Some(millis(30)), pair.now);
    pair.run_to(at(1_000));
    assert!(pair.paths.set_streams(&[quic, tls], pair.now));
    pair.run_to(at(1_100));
    assert_eq!(pair.paths.selected(), Some(by_quic));
    // And taken again, by itself, when QUIC is over.
    pair.paths.set_streams(&[tls], pair.now);
    assert_eq!(pair.paths.selected(), Some(by_tls));
}

#[test]
fn a_stream_is_not_forgotten_for_endpoints_that_are_told_of() {
    let mut pair = relayed();
    let tls = stream(Carrier::Tls);
    let via = Via::Direct(Remote::Stream(tls));
    pair.paths.set_streams(&[tls], pair.now);
    // It has not answered yet, and its probes are over.
    pair.run_to(at(5_000));
    for number in 2..100 {
        pair.paths.learn(straight(number), Origin::Told, pair.now);
    }
    assert!(pair.paths.view().iter().any(|path| path.via == via));
    pair.paths
        .answered(via, millis(30), &pair.facts(), pair.now);
    pair.paths.heard(via, &pair.facts(), pair.now);
    assert!(pair.paths.all().any(|known| known == via));
}
