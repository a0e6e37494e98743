use mesh_wire::wireguard::{INITIATION_BYTES, INITIATION_MACS_OFFSET};
use rand::SeedableRng;

use super::*;

fn own() -> ReceiverKeys {
    ReceiverKeys::new(&[7; 32])
}

fn source(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4193))
}

fn message(cookie: Option<&[u8; 16]>) -> [u8; INITIATION_BYTES] {
    let mut message = [3; INITIATION_BYTES];
    own().sign(&mut message, INITIATION_MACS_OFFSET, cookie);
    message
}

fn loaded() -> Gate {
    let mut gate = Gate::new(Instant::ZERO);
    for _ in 0..CALM_INITIATIONS_PER_SECOND {
        let message = message(None);
        assert_eq!(
            gate.admit(&message, INITIATION_MACS_OFFSET, source(1), Instant::ZERO),
            Admission::Welcome
        );
    }
    gate
}

fn cookie_for(gate: &mut Gate, from: SocketAddr, now: Instant) -> [u8; 16] {
    let mac1 = [9; 16];
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let reply = CookieReply::parse(&gate.reply(&own(), 5, &mac1, from, now, &mut rng));
    assert_eq!(reply.receiver, 5);
    assert_eq!(own().open_cookie(&reply, &[8; 16]), None, "another mac1");
    assert_eq!(
        ReceiverKeys::new(&[8; 32]).open_cookie(&reply, &mac1),
        None,
        "another receiver"
    );
    own().open_cookie(&reply, &mac1).unwrap()
}

#[test]
fn mac1_covers_all_before_it() {
    let mut message = message(None);
    assert!(own().verify(&message, INITIATION_MACS_OFFSET));
    message[50] ^= 1;
    assert!(!own().verify(&message, INITIATION_MACS_OFFSET));
    assert!(!ReceiverKeys::new(&[8; 32]).verify(&message, INITIATION_MACS_OFFSET));
}

#[test]
fn a_cookie_serves_its_own_address_under_load_and_for_two_minutes() {
    let mut gate = loaded();
    let now = Instant::ZERO;
    let offset = INITIATION_MACS_OFFSET;
    assert_eq!(
        gate.admit(&message(None), offset, source(1), now),
        Admission::CookieFirst
    );
    let cookie = cookie_for(&mut gate, source(1), now);
    let signed = message(Some(&cookie));
    assert_eq!(
        gate.admit(&signed, offset, source(1), now),
        Admission::Welcome
    );
    assert_eq!(
        gate.admit(&signed, offset, source(2), now),
        Admission::CookieFirst,
        "another address"
    );
    let later = now + COOKIE_LIFETIME;
    gate.loaded_until = Some(later + Duration::from_secs(1));
    assert_eq!(
        gate.admit(&signed, offset, source(1), later),
        Admission::CookieFirst,
        "expired"
    );
    let cookie = Cookie::new(cookie, now);
    assert!(cookie.fresh(now).is_some());
    assert!(cookie.fresh(later).is_none());
}

#[test]
fn one_source_under_load_is_served_a_few_times_and_then_at_a_rate() {
    let mut gate = loaded();
    let mut now = Instant::ZERO;
    let offset = INITIATION_MACS_OFFSET;
    let cookie = cookie_for(&mut gate, source(1), now);
    let signed = message(Some(&cookie));
    let admit = |gate: &mut Gate, now| gate.admit(&signed, offset, source(1), now);
    for _ in 0..BURST_PER_SOURCE {
        assert_eq!(admit(&mut gate, now), Admission::Welcome);
    }
    assert_eq!(admit(&mut gate, now), Admission::TooOften);
    now = now + INTERVAL_PER_SOURCE;
    assert_eq!(admit(&mut gate, now), Admission::Welcome);
    assert_eq!(admit(&mut gate, now), Admission::TooOften);
    // A second without a flood, and all is calm.
    now = now + Duration::from_secs(2);
    assert_eq!(
        gate.admit(&message(None), offset, source(9), now),
        Admission::Welcome
    );
}

#[test]
fn the_sources_under_watch_are_bounded() {
    let mut gate = loaded();
    for number in 0..5000u32 {
        let address = IpAddr::V4((0x0a00_0000 + number).into());
        assert!(gate.within_rate(address, Instant::ZERO));
        assert!(gate.sources.len() <= SOURCES_MAX);
    }
    let host = |number: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | number).into());
    for number in 0..u128::from(BURST_PER_SOURCE) {
        assert!(gate.within_rate(host(number), Instant::ZERO));
    }
    assert!(
        !gate.within_rate(host(99), Instant::ZERO),
        "one /64 is one source"
    );
}
