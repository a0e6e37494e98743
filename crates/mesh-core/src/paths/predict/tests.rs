use std::collections::BTreeSet;

use super::*;
use crate::{
    Mapping, Via,
    paths::{Origin, budget},
};

fn at(millis: u64) -> Instant {
    Instant::from_micros(1_000_000 + millis * 1_000)
}

/// A port of the peer's NAT.
fn there(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], port))
}

/// A port of the NAT here.
fn here(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

fn own() -> OwnSide {
    OwnSide {
        families: [true, false],
        mappings: [Mapping::Varies, Mapping::Unseen],
    }
}

fn facts(now: Instant) -> Facts {
    Facts {
        session: true,
        traffic: Some(now),
        silent_since: None,
        sent: Some(now),
        received: Some(now),
        large: false,
        keep: crate::hold::Hold::BASE,
    }
}

/// Relayed, with a peer that moons see at two ports.
fn relayed() -> Paths {
    let moon = mesh_types::IdentitySeed::from_bytes([1; 32])
        .public()
        .wireguard();
    let mut paths = Paths::default();
    paths.set_moons(&[moon], at(0));
    paths.established(Via::Relay(moon), None, at(0));
    paths.told(&[there(5_000).into(), there(5_001).into()], at(0));
    paths
}

/// Lets time pass with traffic, and returns what is to be done, each with when.
fn run(paths: &mut Paths, part: Part, from: u64, to: u64) -> Vec<(u64, Step)> {
    let mut steps = Vec::new();
    for now in (from..to).step_by(50) {
        paths.run(&facts(at(now)), at(now));
        let step = paths.run_predict(part, own, &facts(at(now)), at(now));
        steps.extend(step.map(|step| (now, step)));
        let due = paths.deadline(&facts(at(now)), at(now));
        assert!(due.is_none_or(|due| due > at(now)), "no busy loop");
    }
    steps
}

/// The ports that a NAT gives one after the other, from `next` on.
fn given(next: u16, stride: i8, passed: u16, number: u16) -> Vec<u16> {
    let port = |i: u16| i32::from(next) + i32::from(stride) * i32::from(passed + i);
    (0..number)
        .map(|i| u16::try_from(port(i)).unwrap())
        .collect()
}

fn ports(targets: Option<Vec<SocketAddr>>) -> Vec<u16> {
    let targets = targets.unwrap();
    targets.iter().map(SocketAddr::port).collect()
}

#[test]
fn two_sweeps_meet_whatever_else_the_nats_do_up_to_four_mappings_each() {
    for (few_stride, many_stride) in [(1, 1), (1, 2), (2, 1), (2, 2), (-1, 8), (3, -2)] {
        let few = Forecast::told(here(40_000), few_stride).unwrap();
        let many = Forecast::told(there(7_000), many_stride).unwrap();
        let few_aims = ports(many.targets(Part::Few));
        let many_aims = ports(few.targets(Part::Many));
        for f in 0..=16 {
            for m in 0..=16 {
                let few_from = given(40_000, few_stride, f, 9);
                let many_from = given(7_000, many_stride, m, 16);
                let few_sends: BTreeSet<_> = few_from.into_iter().zip(few_aims.clone()).collect();
                let many_sends: BTreeSet<_> = many_aims.iter().copied().zip(many_from).collect();
                let meetings = few_sends.intersection(&many_sends).count();
                let within = f + m <= 8 && 2 * f + m <= 15;
                assert_eq!(meetings, usize::from(within), "{f} and {m} others");
                assert!(within || f > 4 || m > 4);
            }
        }
    }
}

#[test]
fn an_order_is_seen_in_two_ports_that_are_near() {
    for (first, second, next) in [
        (here(100), here(101), Some((102, 1))),
        (here(100), here(102), Some((104, 2))),
        (here(100), here(108), Some((116, 8))),
        (here(100), here(98), Some((96, -2))),
        (here(100), here(100), None),
        (here(100), here(109), None),
        (here(100), here(91), None),
        (here(40_000), here(100), None),
        (here(100), there(101), None),
        (here(65_534), here(65_535), None),
        (here(2), here(1), None),
    ] {
        let forecast = Forecast::of(first, second);
        let seen = forecast.map(|forecast| (forecast.next.port(), forecast.stride));
        assert_eq!(seen, next, "{first} and {second}");
    }
    for stride in [0, 9, -9, i8::MIN] {
        assert_eq!(Forecast::told(there(5_000), stride), None);
    }
    let ipv6 = "[2001:db8::1]:5000".parse().unwrap();
    assert_eq!(Forecast::told(ipv6, 1), None);
}

#[test]
fn ports_that_begin_from_the_other_end_are_not_guessed() {
    let last = Forecast::told(there(65_535 - 15), 1).unwrap();
    assert_eq!(ports(last.targets(Part::Many)).len(), 16);
    assert_eq!(last.targets(Part::Few), None);
    let over = Forecast::told(there(65_535 - 14), 1).unwrap();
    assert_eq!(over.targets(Part::Many), None);
}

#[test]
fn one_attempt_goes_with_each_search_and_six_are_enough() {
    let mut paths = relayed();
    let mut attempts = Vec::new();
    let mut sweeps = Vec::new();
    for now in (0..3_600_000).step_by(50) {
        for (when, step) in run(&mut paths, Part::Few, now, now + 50) {
            if step != Step::Measure {
                sweeps.push(step);
                continue;
            }
            attempts.push(when);
            let seen = Some((here(900), here(901)));
            let told: Vec<Step> = paths.measured(seen, 7, at(when)).collect();
            let [
                Step::Tell {
                    tell_yours: true, ..
                },
            ] = told.as_slice()
            else {
                panic!("{told:?}");
            };
            let theirs = Forecast::told(there(8_000), 1);
            sweeps.extend(paths.hear_forecast((7, false), theirs, &facts(at(when)), at(when)));
        }
    }
    let expected: Vec<u64> = [3, 13, 33, 73, 133, 193].map(|at| at * 1_000).to_vec();
    assert_eq!(attempts, expected);
    assert_eq!(sweeps.len(), 12, "each twice");
    for sweep in sweeps {
        let Step::Sweep { targets, openers } = sweep else {
            panic!("{sweep:?}");
        };
        assert!(targets.len() == 9 && !openers);
    }
    let seen = paths.why_relayed(&own(), at(3_600_000));
    let prediction = Prediction::Missed { attempts: 6 };
    assert_eq!(seen, Reason::BothNatsVary { prediction });
    paths.network_changed(at(3_600_000));
    let again = run(&mut paths, Part::Few, 3_600_000, 3_603_050);
    assert!(matches!(again.as_slice(), [(3_603_000, Step::Measure)]));
}

#[test]
fn ports_in_no_order_are_measured_twice_and_nothing_is_sent() {
    let mut paths = relayed();
    let mut measured = 0;
    for now in (0..600_000).step_by(50) {
        for (when, step) in run(&mut paths, Part::Few, now, now + 50) {
            assert_eq!(step, Step::Measure);
            measured += 1;
            let seen = Some((here(900), here(31_007)));
            assert_eq!(paths.measured(seen, 7, at(when)).count(), 0);
        }
    }
    assert_eq!(measured, 2);
    let prediction = Prediction::UnorderedHere;
    let seen = paths.why_relayed(&own(), at(600_000));
    assert_eq!(seen, Reason::BothNatsVary { prediction });
}

#[test]
fn what_is_not_answered_ends_an_attempt() {
    for (answered, expected) in [
        (false, Prediction::Unmeasured),
        (true, Prediction::Unanswered),
    ] {
        let mut paths = relayed();
        assert_eq!(run(&mut paths, Part::Few, 0, 3_050).len(), 1);
        if answered {
            let seen = Some((here(900), here(902)));
            assert_eq!(paths.measured(seen, 7, at(3_050)).count(), 1);
        }
        assert!(paths.is_foretelling());
        let steps = run(&mut paths, Part::Few, 3_050, 6_000);
        let repeats = [3_250, 3_500, 3_750].map(|at| (at, Step::Repeat));
        assert_eq!(steps, if answered { vec![] } else { repeats.to_vec() });
        assert!(!paths.is_foretelling());
        assert_eq!(paths.predict.outcome(), expected);
        // What comes late is about ports that are others' by then.
        let theirs = Forecast::told(there(8_000), 1);
        let late = paths.hear_forecast((7, false), theirs, &facts(at(6_000)), at(6_000));
        assert_eq!(late, None);
    }
}

#[test]
fn who_is_asked_opens_its_nat_first_and_tells_if_there_is_no_order() {
    let theirs = Forecast::told(there(8_000), 1);
    let mut paths = relayed();
    assert!(
        run(&mut paths, Part::Many, 0, 5_000).is_empty(),
        "the other begins"
    );
    let step = paths.hear_forecast((3, true), theirs, &facts(at(5_000)), at(5_000));
    assert_eq!(step, Some(Step::Measure));
    let steps: Vec<Step> = paths
        .measured(Some((here(900), here(902))), 7, at(5_050))
        .collect();
    let targets = theirs.unwrap().targets(Part::Many).unwrap();
    let sweep = |openers| Step::Sweep {
        targets: targets.clone(),
        openers,
    };
    let tell = Step::Tell {
        id: 3,
        tell_yours: false,
        forecast: Forecast::told(here(904), 2),
    };
    assert_eq!(steps, [sweep(true), tell]);
    assert!(paths.is_swept(there(8_015)) && !paths.is_swept(there(8_016)));
    assert_eq!(paths.count(), 3, "none of them is a way");
    let later = run(&mut paths, Part::Many, 5_050, 9_000);
    assert_eq!(later, [(5_550, sweep(false))]);
    assert!(!paths.is_swept(there(8_015)));

    let step = paths.hear_forecast((4, true), theirs, &facts(at(14_000)), at(14_000));
    assert_eq!(step, Some(Step::Measure));
    let steps: Vec<Step> = paths
        .measured(Some((here(900), here(9_020))), 7, at(14_050))
        .collect();
    let tell = Step::Tell {
        id: 4,
        tell_yours: false,
        forecast: None,
    };
    assert_eq!(steps, [tell]);
}

#[test]
fn an_address_that_the_peer_is_not_at_gets_nothing() {
    let mut paths = relayed();
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 8_000));
    let theirs = Forecast::told(elsewhere, 1);
    let step = paths.hear_forecast((3, true), theirs, &facts(at(5_000)), at(5_000));
    assert_eq!(step, None);
    // Nor one whose pair is not relayed.
    let theirs = Forecast::told(there(8_000), 1);
    paths.established(there(5_000).into(), None, at(5_000));
    let step = paths.hear_forecast((3, true), theirs, &facts(at(5_000)), at(5_000));
    assert_eq!(step, None);
}

#[test]
fn a_peer_that_asks_all_the_time_makes_third_parties_get_what_other_lies_do() {
    let mut paths = relayed();
    let (mut sent, mut sweeps) = (0, 0);
    let seconds = 600;
    for now in (0..seconds * 1_000).step_by(100) {
        // It has all addresses, one after the other, and asks for each.
        let victim = SocketAddr::from(([192, 0, 2, u8::try_from(now / 100 % 200).unwrap()], 9));
        paths.told(&[victim.into()], at(now));
        let theirs = Forecast::told(victim, 1);
        let mut steps: Vec<Step> = paths
            .hear_forecast((now, true), theirs, &facts(at(now)), at(now))
            .into_iter()
            .collect();
        if steps == [Step::Measure] {
            let seen = Some((here(900), here(901)));
            steps = paths.measured(seen, 7, at(now)).collect();
        }
        let due = paths.run(&facts(at(now)), at(now));
        sent += due
            .openers
            .iter()
            .chain(&due.probes)
            .filter(|via| !via.is_relay())
            .count();
        steps.extend(paths.run_predict(Part::Many, own, &facts(at(now)), at(now)));
        for step in steps {
            if let Step::Sweep { targets, .. } = step {
                sent += targets.len();
                sweeps += 1;
            }
        }
    }
    let bound = u64::from(budget::MAX) + seconds * u64::from(budget::PER_SECOND);
    // A sweep that began is sent to its end.
    let bound = bound + u64::from(Part::Many.cost());
    assert!(u64::try_from(sent).unwrap() <= bound, "{sent} of {bound}");
    assert!(sweeps > 0, "and it did have some sent");
}

#[test]
fn a_port_that_answers_becomes_a_way() {
    let mut paths = relayed();
    let theirs = Forecast::told(there(8_000), 1);
    paths.hear_forecast((3, true), theirs, &facts(at(5_000)), at(5_000));
    assert_eq!(
        paths
            .measured(Some((here(900), here(901))), 7, at(5_000))
            .count(),
        2
    );
    let via = there(8_003).into();
    assert!(!paths.answered(via, Duration::from_millis(20), &facts(at(5_040)), at(5_040)));
    paths.learn(via, Origin::Heard, at(5_040));
    assert!(paths.answered(via, Duration::from_millis(20), &facts(at(5_040)), at(5_040)));
    assert_eq!(paths.selected(), Some(via));
    assert!(
        run(&mut paths, Part::Many, 5_050, 9_000).is_empty(),
        "it is over"
    );
}
