use mesh_core::Prediction;
use mesh_inventory::roster::Role;
use mesh_types::WireguardPublicKey;
use mesh_wire::tunnel::RelayRefused;

use super::*;
use crate::testing::{Fleet, member, name, seed};

const NOW: Instant = Instant::from_micros(1_000_000_000);

const SCENE: Scene = Scene {
    member: true,
    controller: true,
    skew: None,
    listen_port: 4193,
    now: NOW,
    unix_seconds: 1_795_179_517,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many seconds before [`NOW`].
fn ago(seconds: u64) -> Instant {
    Instant::from_micros(NOW.as_micros() - seconds * 1_000_000)
}

fn link(reason: Reason) -> Link {
    Link {
        endpoint: Some("192.0.2.7:4193".parse().unwrap()),
        reason,
        ..Link::default()
    }
}

/// One of each kind, in the order of the documentation; `place` is where a kind stands in it.
fn examples() -> Vec<Reason> {
    let since = ago(12);
    let refused = RelayRefused::Full;
    vec![
        Reason::Direct,
        Reason::Stream,
        Reason::Searching { since },
        Reason::StraightSilent { since },
        Reason::StraightOwes { answers: 2 },
        Reason::RelayOnly,
        Reason::NoCandidates,
        Reason::NoCommonFamily,
        Reason::BothNatsVary {
            prediction: Prediction::Pending,
        },
        Reason::OwnNatVaries,
        Reason::PeerNatVaries,
        Reason::NoAnswer {
            candidates: 3,
            probes: 21,
        },
        Reason::NoTraffic,
        Reason::Handshake { since },
        Reason::NoWay,
        Reason::NoNetwork { since },
        Reason::NeedsDisk { since },
        Reason::NoMoonAnswers { since },
        Reason::MoonsRefuse { since, refused },
        Reason::NotThere { since },
        Reason::NotAllowed { since },
        Reason::Unanswered { since, ways: 2 },
        Reason::Silent { since },
        Reason::SwitchedOff,
        Reason::NoKey,
        Reason::Guest,
        Reason::GuestWithoutGateway,
        Reason::NotAdmitted,
        Reason::ThisMachine,
    ]
}

/// A new kind does not compile before it has a place, and the test below fails before it has an example.
const fn place(reason: Reason) -> usize {
    match reason {
        Reason::Direct => 0,
        Reason::Stream => 1,
        Reason::Searching { .. } => 2,
        Reason::StraightSilent { .. } => 3,
        Reason::StraightOwes { .. } => 4,
        Reason::RelayOnly => 5,
        Reason::NoCandidates => 6,
        Reason::NoCommonFamily => 7,
        Reason::BothNatsVary { .. } => 8,
        Reason::OwnNatVaries => 9,
        Reason::PeerNatVaries => 10,
        Reason::NoAnswer { .. } => 11,
        Reason::NoTraffic => 12,
        Reason::Handshake { .. } => 13,
        Reason::NoWay => 14,
        Reason::NoNetwork { .. } => 15,
        Reason::NeedsDisk { .. } => 16,
        Reason::NoMoonAnswers { .. } => 17,
        Reason::MoonsRefuse { .. } => 18,
        Reason::NotThere { .. } => 19,
        Reason::NotAllowed { .. } => 20,
        Reason::Unanswered { .. } => 21,
        Reason::Silent { .. } => 22,
        Reason::SwitchedOff => 23,
        Reason::NoKey => 24,
        Reason::Guest => 25,
        Reason::GuestWithoutGateway => 26,
        Reason::NotAdmitted => 27,
        Reason::ThisMachine => LAST_PLACE,
    }
}

const LAST_PLACE: usize = 28;

fn guest() -> Member {
    let mut pixel = member("pixel", None, Role::Peer);
    let key = WireguardPublicKey::try_from(seed().public().wireguard().as_bytes().as_slice());
    pixel.public_key = Some(MemberKey::Wireguard(key.unwrap()));
    pixel
}

#[test]
fn the_documentation_has_every_reason_as_it_is_shown() {
    let places: Vec<_> = examples().into_iter().map(place).collect();
    assert_eq!(places, Vec::from_iter(0..=LAST_PLACE));
    let page = include_str!("../../../../docs/paths.md");
    let section = page.split("\n## Reasons\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap();
    let documented: Vec<(String, String)> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let mut cells = row.split(" | ");
            let code = cells.next().unwrap().trim_end_matches('`');
            let shown = cells.next().unwrap().trim_matches('`');
            (code.to_owned(), shown.to_owned())
        })
        .collect();
    let mut galena = member("galena", Some(&seed()), Role::Peer);
    galena.gateways = vec![name("cinnabar")];
    let shown =
        |reason: Reason| words::short(reason, &galena, None, &SCENE).unwrap_or("-".to_owned());
    let expected: Vec<(String, String)> = examples()
        .into_iter()
        .map(|reason| (reason.code().to_owned(), shown(reason)))
        .collect();
    assert_eq!(documented, expected);
}

#[test]
fn two_nats_that_vary_are_told_with_what_came_of_guessing_their_ports() {
    let galena = member("galena", Some(&seed()), Role::Peer);
    let shown = |prediction| {
        let reason = Reason::BothNatsVary { prediction };
        words::short(reason, &galena, None, &SCENE).unwrap()
    };
    let plain = "both NATs give each destination another port";
    for (prediction, rest) in [
        (Prediction::Pending, ""),
        (
            Prediction::Unmeasured,
            "; which one comes next, no two moons say",
        ),
        (Prediction::UnorderedHere, ", the one here in no order"),
        (Prediction::UnorderedThere, ", the one there in no order"),
        (
            Prediction::Unanswered,
            "; its agent does not say which one comes next",
        ),
        (
            Prediction::Missed { attempts: 1 },
            "; guessing them failed once",
        ),
        (
            Prediction::Missed { attempts: 6 },
            "; guessing them failed 6 times",
        ),
    ] {
        assert_eq!(shown(prediction), format!("{plain}{rest}"));
    }
}

#[test]
fn whatever_is_wrong_has_a_next_step() {
    let galena = member("galena", Some(&seed()), Role::Peer);
    let at_rest = [
        "direct",
        "searching",
        "straight-owes",
        "handshake",
        "this-machine",
    ];
    for reason in examples() {
        let helps = words::helps(reason, &galena, &SCENE);
        assert_eq!(
            helps.is_none(),
            at_rest.contains(&reason.code()),
            "{reason:?}: {helps:?}"
        );
    }
}

#[test]
fn a_wrong_clock_is_named_where_it_may_be_the_cause() {
    let galena = member("galena", Some(&seed()), Role::Peer);
    let skewed = Scene {
        skew: Some(seconds(9 * 60 + 5)),
        ..SCENE
    };
    let shown = |reason: Reason| peer(&galena, Some(&link(reason)), &skewed).reason;
    let silent = Reason::Unanswered {
        since: ago(12),
        ways: 1,
    };
    assert_eq!(
        shown(silent).as_deref(),
        Some("clock differs by 9 min; handshake unanswered for 12 s")
    );
    assert_eq!(shown(Reason::Direct), None);
    assert_eq!(shown(Reason::NoTraffic).as_deref(), Some("no traffic"));
    assert_eq!(
        shown(Reason::Handshake { since: ago(2) }).as_deref(),
        Some("handshake under way")
    );
}

#[test]
fn a_state_follows_from_each_reason() {
    use PeerState::{Connected, Connecting, Idle, Unavailable, Unreachable};
    let galena = member("galena", Some(&seed()), Role::Peer);
    for reason in examples() {
        let expected = match place(reason) {
            0..=11 => Connected,
            12 => Idle,
            13 => Connecting,
            14..=22 => Unreachable,
            _ => Unavailable,
        };
        let status = peer(&galena, Some(&link(reason)), &SCENE);
        assert_eq!(status.state, expected, "{reason:?}");
        assert_eq!(status.reason_code, reason.code());
        assert_eq!(status.reason.is_none(), reason == Reason::Direct);
    }
}

#[test]
fn a_member_that_cannot_be_tried_says_why() {
    let mut off = member("scheelite", Some(&seed()), Role::Peer);
    off.enabled = false;
    let keyless = member("rosegold", None, Role::Peer);
    let pixel = guest();
    let mut gated = guest();
    gated.gateways = vec![name("cinnabar"), name("electrum")];
    for (member, reason) in [
        (&off, "switched off"),
        (&keyless, "no key in roster"),
        (&pixel, "a guest without a gateway"),
        (&gated, "a guest of cinnabar, electrum"),
    ] {
        // Even if the engine still had a session.
        let status = peer(member, Some(&link(Reason::Direct)), &SCENE);
        assert_eq!(status.state, PeerState::Unavailable);
        assert_eq!(status.reason.as_deref(), Some(reason));
        assert_eq!(status.path, None);
    }
}

#[test]
fn a_peer_without_a_way_says_whether_anybody_could_know_one() {
    let galena = member("galena", Some(&seed()), Role::Peer);
    let alone = Scene {
        controller: false,
        ..SCENE
    };
    let shown = |scene: &Scene| {
        peer(&galena, Some(&link(Reason::NoWay)), scene)
            .reason
            .unwrap()
    };
    assert_eq!(shown(&SCENE), "no endpoint known");
    assert_eq!(
        shown(&alone),
        "no endpoint known, and no controller is connected"
    );
    assert_eq!(peer(&galena, None, &SCENE).reason_code, "no-traffic");
}

#[test]
fn a_misspelt_name_finds_the_one_that_was_meant() {
    let names = ["cinnabar", "galena", "pyrite"].map(name);
    assert_eq!(nearest(&name("galina"), &names), Some(&names[1]));
    assert_eq!(nearest(&name("pirite"), &names), Some(&names[2]));
    assert_eq!(nearest(&name("zirconia"), &names), None);
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
        ..link(Reason::Direct)
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
