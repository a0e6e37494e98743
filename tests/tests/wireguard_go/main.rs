//! Debian's `wireguard-go` as a live peer of the engine: over real UDP, in a network namespace of its
//! own, with `wg` as the witness. Needs Linux and root; says why it is skipped elsewhere.
#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a step that fails fails the test"
)]
#![cfg(target_os = "linux")]

mod driver;
mod icmp;
mod namespace;
mod peer;

use std::{
    net::Ipv6Addr,
    thread,
    time::{Duration, Instant},
};

use driver::Driver;
use namespace::Namespace;
use peer::WireguardGo;

const OURS: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const THEIRS: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// How soon a packet sent must be answered when nothing is wrong, on a busy machine.
const PROMPT: Duration = Duration::from_secs(3);

/// Why this machine cannot run the test.
fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root is needed to make a network namespace");
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun");
    }
    let lacks = |program: &str| !namespace::succeeds("which", &[program]);
    if lacks("wireguard-go") {
        return Some("`wireguard-go` is not installed (Debian: wireguard-go)");
    }
    if lacks("wg") {
        return Some("`wg` is not installed (Debian: wireguard-tools)");
    }
    if lacks("ping") {
        return Some("`ping` is not installed (Debian: iputils-ping)");
    }
    None
}

/// A namespace with wireguard-go in it, and an engine that is its peer.
fn set_up(name: &str, they_know_where_we_are: bool) -> Option<(Namespace, WireguardGo, Driver)> {
    if let Some(reason) = missing() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let namespace = Namespace::new(name);
    let mut driver = Driver::new(&namespace);
    let peer = WireguardGo::start(&namespace, name);
    let endpoint = they_know_where_we_are.then(|| driver.endpoint());
    peer.configure(&driver.public_key(), endpoint);
    driver.set_peer(peer.public_key());
    if !they_know_where_we_are {
        driver.set_candidate(peer.endpoint());
    }
    Some((namespace, peer, driver))
}

#[test]
fn wireguard_go_takes_our_handshake_and_pings_pass_both_ways() {
    let Some((namespace, peer, mut driver)) = set_up("a", false) else {
        return;
    };
    assert_eq!(peer.latest_handshake(), 0);
    assert!(driver.ping(PROMPT), "ours to theirs");
    assert!(peer.latest_handshake() > 0, "wg shows the handshake");
    assert!(driver.is_pinged(&namespace, PROMPT), "theirs to ours");
    let (received, sent) = peer.transfer();
    assert!(received > 0 && sent > 0);
    assert_eq!(driver.sessions(), [true], "one session, asked for by us");
}

#[test]
fn we_take_wireguard_gos_handshake() {
    let Some((namespace, peer, mut driver)) = set_up("b", true) else {
        return;
    };
    assert!(driver.is_pinged(&namespace, PROMPT), "theirs to ours");
    assert!(peer.latest_handshake() > 0);
    assert!(driver.ping(PROMPT), "ours to theirs");
    assert_eq!(driver.sessions(), [false], "one session, asked for by them");
}

/// Two real minutes, in both roles beside each other.
#[test]
fn sessions_with_wireguard_go_are_renewed_after_two_minutes() {
    let renewals = [("c", false), ("d", true)].map(|(name, they_ask)| {
        thread::spawn(move || {
            let Some((namespace, peer, mut driver)) = set_up(name, they_ask) else {
                return;
            };
            if they_ask {
                assert!(driver.is_pinged(&namespace, PROMPT));
            } else {
                assert!(driver.ping(PROMPT));
            }
            let first = peer.latest_handshake();
            let start = Instant::now();
            while driver.sessions().len() < 2 {
                assert!(
                    start.elapsed() < Duration::from_secs(135),
                    "renewed within two minutes and a little"
                );
                assert!(driver.ping(PROMPT), "no gap, ours to theirs");
                assert!(
                    driver.is_pinged(&namespace, PROMPT),
                    "no gap, theirs to ours"
                );
                driver.run_until(Instant::now() + Duration::from_millis(500), |_| false);
            }
            assert!(start.elapsed() > Duration::from_secs(115), "and not sooner");
            assert!(driver.ping(PROMPT));
            assert!(peer.latest_handshake() > first);
            assert_eq!(driver.sessions(), [!they_ask, !they_ask]);
        })
    });
    for renewal in renewals {
        renewal.join().expect("both roles renew their sessions");
    }
}

#[test]
fn a_hand_over_keeps_the_session_with_wireguard_go() {
    for (name, they_ask) in [("f", false), ("g", true)] {
        let Some((namespace, peer, mut driver)) = set_up(name, they_ask) else {
            return;
        };
        if they_ask {
            assert!(driver.is_pinged(&namespace, PROMPT));
        }
        assert!(driver.ping(PROMPT));
        let handshake = peer.latest_handshake();
        for _ in 0..3 {
            driver.hand_over();
            assert!(driver.ping(PROMPT), "ours to theirs");
            assert!(driver.is_pinged(&namespace, PROMPT), "theirs to ours");
        }
        assert_eq!(peer.latest_handshake(), handshake);
        assert_eq!(driver.sessions(), [!they_ask], "no other session was made");
    }
}

#[test]
fn a_restart_of_either_side_heals_by_itself() {
    let Some((namespace, peer, mut driver)) = set_up("e", false) else {
        return;
    };
    assert!(driver.ping(PROMPT));
    let peer = peer.restart(&namespace, &driver.public_key());
    driver.set_candidate(peer.endpoint());
    let start = Instant::now();
    while !driver.ping(Duration::from_secs(1)) {
        assert!(
            start.elapsed() < Duration::from_secs(25),
            "found again after the fifteen seconds that a silent peer is given"
        );
    }
    driver.restart();
    driver.set_peer(peer.public_key());
    driver.set_candidate(peer.endpoint());
    // wireguard-go heard a stamp of the old process, and takes the new one's because it is later.
    assert!(driver.ping(PROMPT), "our own restart costs one handshake");
    assert!(driver.is_pinged(&namespace, PROMPT));
}
