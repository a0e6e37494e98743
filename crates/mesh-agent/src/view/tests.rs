use mesh_inventory::roster::Role;
use mesh_types::WireguardPublicKey;

use super::*;
use crate::testing::{Fleet, member, name, seed};

const SCENE: Scene = Scene {
    member: true,
    controller: true,
    skew: None,
    unix_seconds: 1_795_179_517,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn link(phase: Phase) -> Link {
    Link {
        endpoint: Some("192.0.2.7:4193".parse().unwrap()),
        phase,
        ..Link::default()
    }
}

#[test]
fn every_state_of_a_peer_has_a_named_reason() {
    use PeerState::{Connected, Connecting, Idle, Unreachable};
    let galena = member("galena", Some(&seed()), Role::Peer);
    let homeless = Link {
        endpoint: None,
        ..link(Phase::Connecting(seconds(7)))
    };
    let alone = Scene {
        controller: false,
        ..SCENE
    };
    let skewed = Scene {
        skew: Some(seconds(9 * 60 + 5)),
        ..SCENE
    };
    let table = [
        (None, SCENE, Idle, Some("no traffic")),
        (Some(link(Phase::Idle)), SCENE, Idle, Some("no traffic")),
        (Some(link(Phase::Connected)), SCENE, Connected, None),
        (Some(link(Phase::Connected)), skewed, Connected, None),
        (
            Some(homeless.clone()),
            SCENE,
            Unreachable,
            Some("no endpoint known"),
        ),
        (
            Some(homeless.clone()),
            alone,
            Unreachable,
            Some("no endpoint known, and no controller is connected"),
        ),
        (
            Some(link(Phase::Connecting(seconds(3)))),
            SCENE,
            Connecting,
            Some("handshake under way"),
        ),
        (
            Some(link(Phase::Connecting(seconds(12)))),
            SCENE,
            Unreachable,
            Some("handshake unanswered for 12 s"),
        ),
        (
            Some(link(Phase::Connecting(seconds(12)))),
            skewed,
            Unreachable,
            Some("clock differs by 9 min; handshake unanswered for 12 s"),
        ),
        (
            Some(link(Phase::Silent(seconds(200)))),
            SCENE,
            Unreachable,
            Some("no answer for 3 min"),
        ),
    ];
    for (link, scene, expected, reason) in table {
        let status = peer(&galena, link.as_ref(), &scene);
        assert_eq!((status.state, status.reason.as_deref()), (expected, reason));
    }
}

#[test]
fn a_member_that_cannot_be_tried_says_why() {
    let mut off = member("scheelite", Some(&seed()), Role::Peer);
    off.enabled = false;
    let keyless = member("rosegold", None, Role::Peer);
    let mut pixel = member("pixel", None, Role::Peer);
    let key = WireguardPublicKey::try_from(seed().public().wireguard().as_bytes().as_slice());
    pixel.public_key = Some(MemberKey::Wireguard(key.unwrap()));
    let mut gated = pixel.clone();
    gated.gateways = vec![name("cinnabar"), name("electrum")];
    for (member, reason) in [
        (&off, "switched off"),
        (&keyless, "no key in roster"),
        (&pixel, "a guest without a gateway"),
        (&gated, "a guest of cinnabar, electrum"),
    ] {
        // Even if the engine still had a session.
        let status = peer(member, Some(&link(Phase::Connected)), &SCENE);
        assert_eq!(status.state, PeerState::Unavailable);
        assert_eq!(status.reason.as_deref(), Some(reason));
        assert_eq!(status.path, None);
    }
}

#[test]
fn without_membership_of_its_own_a_machine_tries_nobody() {
    let galena = member("galena", Some(&seed()), Role::Peer);
    let outside = Scene {
        member: false,
        ..SCENE
    };
    let status = peer(&galena, None, &outside);
    assert_eq!(status.state, PeerState::Unavailable);
    assert_eq!(
        status.reason.as_deref(),
        Some("this machine is not admitted")
    );
}

#[test]
fn a_connected_peer_shows_its_path_and_numbers() {
    let galena = member("galena", Some(&seed()), Role::Peer);
    let link = Link {
        last_handshake: Some(seconds(77)),
        rtt: Some(Duration::from_micros(1_234)),
        rx_bytes: 10,
        tx_bytes: 20,
        ..link(Phase::Connected)
    };
    let status = peer(&galena, Some(&link), &SCENE);
    assert_eq!(status.path, Some(PathKind::Direct));
    assert_eq!(status.rtt_micros, Some(1_234));
    assert_eq!(status.last_handshake_seconds, Some(77));
    assert_eq!(
        status.last_handshake.as_deref(),
        Some("2026-11-20T12:57:20Z")
    );
    assert_eq!((status.rx_bytes, status.tx_bytes), (10, 20));
}

#[test]
fn a_machine_that_is_not_admitted_always_says_why() {
    let serial = Serial::try_from(7).unwrap();
    let refused = Verdict::Refused("this key is not in the roster (serial 8)".to_owned());
    let table: [(&[Verdict], Standing, Result<(), &str>); 9] = [
        (
            &[],
            Standing::NoRoster,
            Err("no roster yet, and no controller is configured"),
        ),
        (
            &[Verdict::None],
            Standing::NoRoster,
            Err("no roster yet, and no controller answers"),
        ),
        (
            &[Verdict::None],
            Standing::UnknownKey(serial),
            Err("this key is not in the roster (serial 7)"),
        ),
        (
            &[Verdict::None],
            Standing::SwitchedOff(serial),
            Err("this machine is switched off in the roster (serial 7)"),
        ),
        (&[Verdict::None], Standing::Member, Ok(())),
        (&[], Standing::Member, Ok(())),
        (
            &[Verdict::None, refused.clone()],
            Standing::Member,
            Err("this key is not in the roster (serial 8)"),
        ),
        (&[refused, Verdict::Admitted], Standing::Member, Ok(())),
        (&[Verdict::Admitted], Standing::NoRoster, Ok(())),
    ];
    for (verdicts, standing, expected) in table {
        let admission = admission(verdicts, &standing);
        assert_eq!(
            admission.as_ref().copied().map_err(String::as_str),
            expected
        );
    }
}

#[test]
fn a_machine_finds_itself_in_the_roster_by_its_key() {
    let mut fleet = Fleet::new(&["cinnabar", "galena"]);
    let id = fleet.seed_of("galena").public().node_id();
    let serial = Serial::try_from(7).unwrap();
    assert_eq!(Standing::of(None, &id), Standing::NoRoster);
    assert_eq!(Standing::of(Some(&fleet.roster(7)), &id), Standing::Member);
    let stranger = seed().public().node_id();
    assert_eq!(
        Standing::of(Some(&fleet.roster(7)), &stranger),
        Standing::UnknownKey(serial)
    );
    fleet.member_mut("galena").enabled = false;
    assert_eq!(
        Standing::of(Some(&fleet.roster(7)), &id),
        Standing::SwitchedOff(serial)
    );
}
