use mesh_api::{
    MoonStatus, Nat, PathKind, PeerState, PeerStatus, VERSION, WayChange, WayEvent, WayOrigin,
    WayStatus,
};

use super::*;

fn relayed() -> Why {
    let way = |endpoint: Option<&str>, relay: Option<&str>, origin| WayStatus {
        endpoint: endpoint.map(|text| text.parse().unwrap()),
        relay: relay.map(|text| text.parse().unwrap()),
        origin,
        known_seconds: 200,
        probes: 21,
        last_probe_seconds: Some(14),
        last_answer_seconds: None,
        rtt_micros: None,
        left_seconds: None,
        in_use: false,
    };
    let event = |seconds, what, endpoint: Option<&str>, relay: Option<&str>| WayEvent {
        time: "2026-11-20T12:57:20Z".to_owned(),
        seconds,
        times: 1,
        what,
        endpoint: endpoint.map(|text| text.parse().unwrap()),
        relay: relay.map(|text| text.parse().unwrap()),
    };
    let home = Some("203.0.113.9:4193");
    Why {
        version: VERSION,
        peer: PeerStatus {
            name: "galena".parse().unwrap(),
            address: "fdc3:582e:db61::2".parse().unwrap(),
            ipv4: None,
            tags: vec!["all".to_owned()],
            path: Some(PathKind::Relayed),
            mtu: Some(1420),
            endpoint: None,
            relay: Some("cinnabar".parse().unwrap()),
            rtt_micros: Some(24_100),
            last_handshake: Some("2026-11-20T12:57:20Z".to_owned()),
            last_handshake_seconds: Some(77),
            state: PeerState::Connected,
            reason: Some("both NATs give each destination another port".to_owned()),
            reason_code: "both-nats-vary".to_owned(),
            rx_bytes: 1_500,
            tx_bytes: 20_000,
        },
        helps: Some("a port forwarding of UDP 4193 to this machine or to `galena`".to_owned()),
        ways: vec![
            WayStatus {
                left_seconds: Some(190),
                last_answer_seconds: Some(192),
                ..way(home, None, WayOrigin::Peer)
            },
            way(Some("[2001:db8::9]:4193"), None, WayOrigin::Told),
            WayStatus {
                probes: 3,
                last_probe_seconds: None,
                last_answer_seconds: Some(2),
                rtt_micros: Some(24_100),
                in_use: true,
                ..way(None, Some("cinnabar"), WayOrigin::Moon)
            },
        ],
        own_candidates: vec![
            "10.0.0.4:4193".parse().unwrap(),
            "198.51.100.7:61011".parse().unwrap(),
        ],
        told_seconds: Some(14),
        nat_ipv4: Nat::PortVaries,
        nat_ipv6: Nat::Unseen,
        moons: vec![
            MoonStatus {
                name: Some("cinnabar".parse().unwrap()),
                relays: true,
                refused: None,
                unanswered_seconds: None,
                rtt_micros: Some(12_000),
                observed: vec!["198.51.100.7:61011".parse().unwrap()],
            },
            MoonStatus {
                name: Some("electrum".parse().unwrap()),
                relays: false,
                refused: Some("it has as many clients as it can serve".to_owned()),
                unanswered_seconds: None,
                rtt_micros: None,
                observed: Vec::new(),
            },
            MoonStatus {
                name: Some("stibnite".parse().unwrap()),
                relays: false,
                refused: None,
                unanswered_seconds: Some(75),
                rtt_micros: None,
                observed: Vec::new(),
            },
        ],
        history: vec![
            event(200, WayChange::Handshake, None, Some("cinnabar")),
            event(199, WayChange::Taken, home, None),
            WayEvent {
                times: 3,
                ..event(191, WayChange::Unanswered, home, None)
            },
            event(190, WayChange::Left, home, None),
            event(190, WayChange::Taken, None, Some("cinnabar")),
            event(20, WayChange::NetworkChanged, None, None),
        ],
    }
}

#[test]
fn a_relayed_peer_has_a_story() {
    insta::assert_snapshot!(text(&relayed(), false).unwrap());
}

#[test]
fn the_json_is_a_contract() {
    insta::assert_snapshot!(text(&relayed(), true).unwrap());
}

#[test]
fn one_that_was_never_tried_has_a_short_one() {
    let mut why = relayed();
    why.peer.state = PeerState::Unavailable;
    why.peer.reason = Some("switched off".to_owned());
    why.peer.relay = None;
    why.peer.path = None;
    why.peer.mtu = None;
    why.helps = Some("`enabled: true` for `galena` in the inventory".to_owned());
    why.ways.clear();
    why.history.clear();
    why.moons.clear();
    why.own_candidates.clear();
    why.told_seconds = None;
    insta::assert_snapshot!(text(&why, false).unwrap());
}

#[test]
fn the_headline_names_state_way_and_reason() {
    let line = |state, endpoint: Option<&str>, reason: Option<&str>| {
        let mut why = relayed();
        why.peer.state = state;
        why.peer.relay = None;
        why.peer.path = Some(PathKind::Direct);
        why.peer.endpoint = endpoint.map(|text| text.parse().unwrap());
        why.peer.reason = reason.map(str::to_owned);
        render::why(&why).lines().next().unwrap().to_owned()
    };
    let at = Some("192.0.2.7:4193");
    assert_eq!(
        line(PeerState::Connected, at, None),
        "galena is reached straight at 192.0.2.7:4193, 24.1 ms there and back"
    );
    assert_eq!(
        line(PeerState::Connected, None, Some("only port 443 answers")),
        "galena is reached on port 443, by QUIC or TLS: only port 443 answers"
    );
    assert_eq!(
        line(PeerState::Unreachable, at, Some("no answer for 20 s")),
        "galena is not reached: no answer for 20 s"
    );
    assert_eq!(
        line(PeerState::Idle, None, Some("no traffic")),
        "galena is idle: no traffic"
    );
}
