//! Connections by a network that lets through what the test says.

use std::net::SocketAddr;

use super::*;
use crate::StreamId;

const fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

fn moon(number: u8) -> WireguardPublicKey {
    let mut bytes = [9; 32];
    bytes[0] = number;
    WireguardPublicKey::try_from(bytes.as_slice()).unwrap()
}

fn udp() -> Remote {
    Remote::Udp(SocketAddr::from(([192, 0, 2, 1], 4193)))
}

fn stream(carrier: Carrier) -> Remote {
    Remote::Stream(StreamId { carrier, number: 1 })
}

/// What was to be done, with the time in milliseconds.
type Log = Vec<(u64, Dial)>;

#[derive(Default)]
struct Run {
    dialler: Dialler,
    now: Instant,
    log: Log,
}

impl Run {
    /// Moon 1 is not reached, from time 0 on.
    fn unreached() -> Self {
        let mut run = Self::default();
        run.reached(None);
        run
    }

    fn reached(&mut self, by: Option<Remote>) {
        self.dialler.set_moons([(moon(1), by)], self.now);
        self.drain();
    }

    fn opened(&mut self, carrier: Carrier) {
        self.dialler.opened(&moon(1), carrier, self.now);
        self.drain();
    }

    fn ended(&mut self, carrier: Carrier) {
        self.dialler.ended(&moon(1), carrier, self.now);
        self.drain();
    }

    fn to(&mut self, until: Instant) {
        while let Some(next) = self.dialler.poll_timeout().filter(|next| *next <= until) {
            assert!(next > self.now, "a busy loop at {next:?}");
            self.now = next;
            self.dialler.handle_timeout(next);
            self.drain();
        }
        self.now = until;
    }

    fn drain(&mut self) {
        while let Some(dial) = self.dialler.poll_dial() {
            self.log.push((self.now.as_micros() / 1_000, dial));
        }
    }

    fn take_log(&mut self) -> Log {
        std::mem::take(&mut self.log)
    }
}

const fn open(millis: u64, moon: WireguardPublicKey, carrier: Carrier) -> (u64, Dial) {
    (millis, Dial::Open(moon, carrier))
}

const fn close(millis: u64, moon: WireguardPublicKey, carrier: Carrier) -> (u64, Dial) {
    (millis, Dial::Close(moon, carrier))
}

#[test]
fn nothing_is_dialled_while_udp_reaches_a_moon_or_may_yet_do_so() {
    let mut run = Run::unreached();
    run.to(at(299));
    run.reached(Some(udp()));
    run.to(at(100_000));
    // One that is off while another answers.
    run.dialler
        .set_moons([(moon(1), Some(udp())), (moon(2), None)], run.now);
    run.to(at(200_000));
    assert_eq!(run.log, []);
}

#[test]
fn quic_is_dialled_first_and_tls_behind_it() {
    let mut run = Run::unreached();
    run.to(at(3_000));
    assert_eq!(
        run.take_log(),
        [
            open(300, moon(1), Carrier::Quic),
            open(500, moon(1), Carrier::Tls)
        ]
    );
}

#[test]
fn while_a_peer_is_wanted_attempts_are_five_seconds_apart_at_most() {
    let mut run = Run::unreached();
    let mut begun = Vec::new();
    for second in 1..600 {
        if second >= 300 {
            run.dialler.want(run.now);
            run.drain();
        }
        run.to(at(second * 1_000));
        for (at, dial) in run.take_log() {
            match dial {
                Dial::Open(_, carrier) => {
                    begun.extend((carrier == Carrier::Quic).then_some(at));
                    // Neither gets through.
                    run.ended(carrier);
                }
                Dial::Close(..) => {}
            }
        }
    }
    let pauses = |wanted: bool| {
        let pairs = begun.windows(2);
        let pairs = pairs.filter(|pair| (pair[0] >= 300_000) == wanted);
        pairs.map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
    };
    // TLS is dialled, and fails, within a second each.
    assert!(pauses(false).iter().any(|pause| *pause >= 60_000));
    assert!(pauses(true).len() >= 40, "{begun:?}");
    for pause in pauses(true) {
        assert!((5_000..=7_000).contains(&pause), "{begun:?}");
    }
}

#[test]
fn who_answers_quic_in_time_is_not_dialled_over_tls() {
    let mut run = Run::unreached();
    run.to(at(450));
    run.opened(Carrier::Quic);
    run.reached(Some(stream(Carrier::Quic)));
    run.to(at(100_000));
    assert_eq!(run.log, [open(300, moon(1), Carrier::Quic)]);
}

#[test]
fn where_udp_ceases_to_reach_any_moon_quic_is_dialled_at_once() {
    let mut run = Run::unreached();
    run.reached(Some(udp()));
    run.to(at(5_000));
    run.reached(None);
    run.to(at(5_201));
    let both = [
        open(5_000, moon(1), Carrier::Quic),
        open(5_200, moon(1), Carrier::Tls),
    ];
    assert_eq!(run.take_log(), both);
    // Another network is met as any other.
    run.dialler.network_changed(run.now);
    run.drain();
    run.take_log();
    run.to(at(6_000));
    let both = [
        open(5_501, moon(1), Carrier::Quic),
        open(5_701, moon(1), Carrier::Tls),
    ];
    assert_eq!(run.take_log(), both);
}

#[test]
fn quic_that_was_open_before_udp_ceased_to_pass_does_not_keep_tls_away() {
    let mut run = Run::unreached();
    run.to(at(350));
    run.opened(Carrier::Quic);
    run.reached(Some(stream(Carrier::Quic)));
    run.to(at(1_000));
    run.reached(Some(udp()));
    run.to(at(5_000));
    run.reached(None);
    run.to(at(6_000));
    assert_eq!(
        run.take_log(),
        [
            open(300, moon(1), Carrier::Quic),
            open(5_200, moon(1), Carrier::Tls)
        ]
    );
    // It is left alone while it is dialled and while it serves, and tried again where it fails.
    run.ended(Carrier::Tls);
    run.to(at(7_000));
    assert_eq!(run.take_log(), [open(7_000, moon(1), Carrier::Tls)]);
    run.opened(Carrier::Tls);
    run.reached(Some(stream(Carrier::Tls)));
    run.ended(Carrier::Quic);
    run.to(at(50_000));
    assert_eq!(run.take_log(), []);
}

#[test]
fn where_quic_still_serves_when_udp_does_not_tls_is_not_dialled() {
    let mut run = Run::unreached();
    run.to(at(350));
    run.opened(Carrier::Quic);
    run.reached(Some(udp()));
    run.to(at(5_000));
    run.reached(None);
    run.to(at(5_100));
    run.reached(Some(stream(Carrier::Quic)));
    run.to(at(100_000));
    assert_eq!(run.take_log(), [open(300, moon(1), Carrier::Quic)]);
}

#[test]
fn quic_that_opens_and_leads_to_no_relay_is_followed_by_tls() {
    let mut run = Run::unreached();
    run.to(at(510));
    run.opened(Carrier::Quic);
    run.to(at(10_000));
    assert_eq!(
        run.take_log(),
        [
            open(300, moon(1), Carrier::Quic),
            open(500, moon(1), Carrier::Tls),
            close(510, moon(1), Carrier::Tls),
            open(2_510, moon(1), Carrier::Tls)
        ]
    );
}

#[test]
fn tls_under_way_is_given_up_once_quic_is_open() {
    let mut run = Run::unreached();
    run.to(at(600));
    run.take_log();
    run.opened(Carrier::Quic);
    assert_eq!(run.take_log(), [close(600, moon(1), Carrier::Tls)]);
}

#[test]
fn quic_that_fails_makes_way_for_tls_at_once_and_both_are_tried_again() {
    let mut run = Run::unreached();
    run.to(at(310));
    run.take_log();
    run.ended(Carrier::Quic);
    run.to(at(320));
    run.ended(Carrier::Tls);
    run.to(at(1_320));
    assert_eq!(
        run.take_log(),
        [
            open(310, moon(1), Carrier::Tls),
            open(1_320, moon(1), Carrier::Quic)
        ]
    );
}

#[test]
fn attempts_become_rare() {
    let mut run = Run::unreached();
    for _ in 0..20 {
        let next = run.dialler.poll_timeout().unwrap();
        run.to(next);
        run.ended(Carrier::Quic);
        run.ended(Carrier::Tls);
    }
    let begun: Vec<u64> = run
        .log
        .iter()
        .filter(|(_, dial)| *dial == Dial::Open(moon(1), Carrier::Quic))
        .map(|(millis, _)| *millis)
        .collect();
    let pauses: Vec<u64> = begun.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(
        pauses[..7],
        [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000]
    );
    assert!(pauses[7..].iter().all(|pause| *pause == 60_000));
    // Another network is another matter.
    run.dialler.network_changed(run.now);
    assert_eq!(run.dialler.poll_timeout(), Some(run.now + HEAD_START));
}

#[test]
fn tls_is_left_for_quic_when_that_works_later() {
    let mut run = Run::unreached();
    run.to(at(550));
    run.opened(Carrier::Tls);
    run.reached(Some(stream(Carrier::Tls)));
    run.to(at(5_300));
    run.ended(Carrier::Quic);
    run.take_log();
    run.to(at(60_100));
    assert_eq!(run.take_log(), [open(60_000, moon(1), Carrier::Quic)]);
    run.opened(Carrier::Quic);
    assert_eq!(
        run.take_log(),
        [],
        "TLS stays until the moon answers by QUIC"
    );
    run.reached(Some(stream(Carrier::Quic)));
    assert_eq!(run.take_log(), [close(60_100, moon(1), Carrier::Tls)]);
    run.to(at(1_000_000));
    assert_eq!(run.log, []);
}

#[test]
fn attempts_to_have_quic_in_place_of_tls_become_rare() {
    let mut run = Run::unreached();
    run.to(at(550));
    run.ended(Carrier::Quic);
    run.opened(Carrier::Tls);
    run.reached(Some(stream(Carrier::Tls)));
    run.take_log();
    for _ in 0..6 {
        let next = run.dialler.poll_timeout().unwrap();
        run.to(next);
        run.ended(Carrier::Quic);
    }
    let seconds: Vec<u64> = run.log.iter().map(|(millis, _)| millis / 1_000).collect();
    assert_eq!(seconds, [60, 120, 240, 480, 960, 1_560]);
}

#[test]
fn both_are_left_for_udp_once_that_holds() {
    let mut run = Run::unreached();
    run.to(at(550));
    run.opened(Carrier::Tls);
    run.take_log();
    run.to(at(600));
    run.reached(Some(udp()));
    assert_eq!(run.take_log(), [close(600, moon(1), Carrier::Quic)]);
    run.to(at(20_000));
    // Not for good yet: what is open serves again, without a dial.
    run.reached(None);
    run.to(at(20_400));
    assert_eq!(run.take_log(), []);
    run.reached(Some(udp()));
    run.to(at(100_000));
    assert_eq!(run.take_log(), [close(50_400, moon(1), Carrier::Tls)]);
}

#[test]
fn each_moon_that_is_wanted_is_dialled_and_one_that_is_not_is_left() {
    let mut run = Run::default();
    run.dialler
        .set_moons([(moon(1), None), (moon(2), None)], run.now);
    run.to(at(300));
    assert_eq!(
        run.take_log(),
        [
            open(300, moon(1), Carrier::Quic),
            open(300, moon(2), Carrier::Quic)
        ]
    );
    run.opened(Carrier::Quic);
    run.reached(Some(stream(Carrier::Quic)));
    assert_eq!(run.take_log(), [close(300, moon(2), Carrier::Quic)]);
    // What opens in spite of that is closed again.
    run.dialler.opened(&moon(2), Carrier::Quic, run.now);
    run.drain();
    assert_eq!(run.take_log(), [close(300, moon(2), Carrier::Quic)]);
}

#[test]
fn tls_that_breaks_is_dialled_again_without_waiting_for_quic() {
    let mut run = Run::unreached();
    run.to(at(550));
    run.opened(Carrier::Tls);
    run.reached(Some(stream(Carrier::Tls)));
    run.to(at(700));
    run.take_log();
    run.ended(Carrier::Tls);
    run.reached(None);
    run.to(at(2_000));
    assert_eq!(run.take_log(), [open(1_700, moon(1), Carrier::Tls)]);
}

#[test]
fn a_connection_that_breaks_is_dialled_again_and_not_faster_than_the_pauses() {
    let mut run = Run::unreached();
    run.to(at(300));
    for _ in 0..10 {
        run.opened(Carrier::Quic);
        run.ended(Carrier::Quic);
        run.ended(Carrier::Tls);
        let next = run.dialler.poll_timeout().unwrap();
        run.to(next);
    }
    assert!(run.now >= at(100_000), "{:?}", run.now);
}
