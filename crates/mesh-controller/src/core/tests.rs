//! Decisions on a made-up clock.

use std::{net::SocketAddr, time::Duration};

use mesh_inventory::{Resolution, inventory, resolve, roster::HeadFields};
use mesh_store::{AuditEvent, PENDING_MAX};
use mesh_types::IdentitySeed;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NETWORK: &str = "000102030405060708090a0b0c0d0e0f";

pub(super) fn identity(number: u16) -> IdentitySeed {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    IdentitySeed::from_bytes(seed)
}

pub(super) fn at(seconds: u64) -> Now {
    Now {
        millis: seconds * 1000,
        instant: Instant::from_micros(seconds * 1_000_000),
    }
}

pub(super) fn source(number: u16) -> SocketAddr {
    ([198, 51, 100, 1], number).into()
}

fn hello(number: u16, serial: Option<u64>) -> Hello {
    Hello {
        identity: identity(number).public(),
        name: Some("whoever".parse().unwrap()),
        release: "0.1.0".to_owned(),
        serial: serial.map(|serial| Serial::try_from(serial).unwrap()),
        head: None,
        endpoints: vec![],
    }
}

/// The controller, and a machine with the key of each number.
fn resolution(numbers: &[u16]) -> Resolution {
    let mut machines = serde_json::Map::new();
    machines.insert(
        "controller".to_owned(),
        json!({"publicKey": identity(0).public()}),
    );
    for number in numbers {
        let key = identity(*number).public();
        machines.insert(format!("machine-{number}"), json!({"publicKey": key}));
    }
    let text = json!({
        "version": "mesh/v1",
        "network": {"id": NETWORK, "name": "test", "signers": [identity(0).public()]},
        "machines": machines,
        "instances": {"mesh": {"roles": {"controller": {"machines": {"controller": {}}}}}},
    });
    let inventory = inventory::parse("i.json", text.to_string().as_bytes()).unwrap();
    resolve(&inventory, None).unwrap()
}

fn roster(serial: u64, time: u64, numbers: &[u16]) -> Arc<Roster> {
    let fields = HeadFields {
        serial: Serial::try_from(serial).unwrap(),
        time,
        revision: None,
        previous: None,
    };
    let unsigned = resolution(numbers).unsigned(fields).unwrap();
    Arc::new(unsigned.sign_with_seed(&identity(0)).unwrap())
}

fn core(now: Now) -> Core {
    Core::new(
        NETWORK.parse().unwrap(),
        identity(0).public(),
        Mode::Inventory("inventory.json".into()),
        vec![Signer::from(identity(0).public())],
        Snapshot::default(),
        now,
    )
}

/// A machine of [`core_with`] that has no key yet.
pub(super) fn unkeyed() -> MachineName {
    "unkeyed".parse().unwrap()
}

/// A controller with a roster of one machine with a key, and one without.
pub(super) fn core_with(now: Now) -> Core {
    let mut core = core(now);
    core.install(now, roster_with(1, None));
    core
}

/// That roster, or one in which the machine without has this key.
pub(super) fn roster_with(serial: u64, key: Option<PublicIdentity>) -> Arc<Roster> {
    let text = json!({
        "version": "mesh/v1",
        "network": {"id": NETWORK, "name": "test", "signers": [identity(0).public()]},
        "machines": {
            "controller": {"publicKey": identity(0).public()},
            "machine-1": {"publicKey": identity(1).public()},
            unkeyed().as_str(): {"publicKey": key},
        },
        "instances": {"mesh": {"roles": {"controller": {"machines": {"controller": {}}}}}},
    });
    let inventory = inventory::parse("i.json", text.to_string().as_bytes()).unwrap();
    let resolution = resolve(&inventory, None).unwrap();
    let fields = HeadFields {
        serial: Serial::try_from(serial).unwrap(),
        time: 1,
        revision: None,
        previous: None,
    };
    let unsigned = resolution.unsigned(fields).unwrap();
    Arc::new(unsigned.sign_with_seed(&identity(0)).unwrap())
}

/// A stranger or member asks in; true if it is welcome.
fn asks(core: &mut Core, now: Now, id: u64, number: u16) -> Outcome {
    let proven = Some(identity(number).public().node_id());
    core.hello(
        now,
        ClientId(id),
        proven,
        source(number),
        hello(number, None),
    )
}

#[test]
fn a_clock_that_went_back_is_reported_and_signs_no_older_time() {
    let mut core = core(at(2_000_000));
    core.install(at(2_000_000), roster(1, 2_000_000, &[1]));
    assert!(!core.has_problem("clock"));

    let past = at(1_000_000);
    let (_, _) = core.install(past, roster(2, 2_000_000, &[1]));
    assert!(core.has_problem("clock"));
    let welcome = asks(&mut core, past, 1, 1);
    assert!(matches!(welcome.reply, Reply::Welcome { .. }));
    let unsigned = core.to_sign(past, &resolution(&[1, 2])).unwrap().unwrap();
    assert_eq!(unsigned.head().time, 2_000_000);
    assert_eq!(unsigned.head().serial.get(), 3);
    let machine = &core.report_answer(past).machines[1];
    assert_eq!(machine.last_seen_seconds, Some(0));

    core.install(at(2_000_001), roster(3, 2_000_001, &[1]));
    assert!(!core.has_problem("clock"));
}

#[test]
fn pending_keys_are_bounded_and_the_stalest_makes_room() {
    let mut core = core(at(1));
    core.install(at(1), roster(1, 1, &[]));
    let strangers = u16::try_from(PENDING_MAX).unwrap() + 10;
    let asks = |core: &mut Core, now: u16, number: u16| {
        let proven = Some(identity(number).public().node_id());
        let [high, low] = number.to_be_bytes();
        let source = SocketAddr::from(([198, 51, high, low], 1));
        let id = ClientId(u64::from(number));
        core.hello(at(u64::from(now)), id, proven, source, hello(number, None));
    };
    for number in 1..=strangers {
        asks(&mut core, number, number);
        // The first one keeps asking.
        asks(&mut core, number, 1);
    }
    let pending = core.pending_answer(at(1000)).pending;
    assert_eq!(pending.len(), PENDING_MAX);
    let has = |number: u16| {
        let key = identity(number).public().to_string();
        pending.iter().any(|pending| pending.key == key)
    };
    assert!(has(1) && has(strangers) && !has(2));
    assert!(core.unsaved_pending().is_some());
    assert!(core.unsaved_pending().is_none(), "nothing changed since");
}

#[test]
fn one_source_with_many_keys_pushes_nobody_else_out() {
    let mut core = core(at(1));
    core.install(at(1), roster(1, 1, &[]));
    let proven = Some(identity(1).public().node_id());
    let elsewhere = SocketAddr::from(([203, 0, 113, 9], 1));
    core.hello(at(1), ClientId(1), proven, elsewhere, hello(1, None));
    for number in 2..1000 {
        asks(&mut core, at(2), u64::from(number), number);
    }
    let pending = core.pending_answer(at(3)).pending;
    let key = identity(1).public().to_string();
    assert!(pending.iter().any(|pending| pending.key == key));
    assert_eq!(pending.len(), 33);
}

#[test]
fn greeting_again_and_again_is_limited_like_any_question() {
    let mut core = core(at(1));
    core.install(at(1), roster(1, 1, &[1]));
    let limited = |outcome: &Outcome| {
        matches!(
            &outcome.reply,
            Reply::Error {
                code: ErrorCode::RateLimited,
                ..
            }
        )
    };
    let count = (0..3000)
        .filter(|_| limited(&asks(&mut core, at(1), 1, 1)))
        .count();
    assert_eq!(count, 3000 - 1 - 1024);
    let (reply, _) = core.roster_for(at(1), ClientId(1), None);
    assert!(matches!(reply, Reply::Error { .. }), "{reply:?}");
}

#[test]
fn a_member_that_lies_cannot_have_rosters_signed_all_the_time() {
    let mut core = core(at(1));
    core.install(at(1), roster(1, 1, &[1]));
    let lie = |core: &mut Core, now: Now, serial: u64| {
        let proven = Some(identity(1).public().node_id());
        core.hello(now, ClientId(1), proven, source(1), hello(1, Some(serial)));
    };
    lie(&mut core, at(2), 5);
    assert!(core.is_overtaken(at(2)));
    core.install(at(2), roster(6, 2, &[1]));
    lie(&mut core, at(3), 7);
    assert!(!core.is_overtaken(at(3)));
    assert!(core.is_overtaken(at(12)));
}

#[test]
fn pushes_of_junk_neither_fill_the_audit_log_nor_keep_the_admin_out() {
    let mut core = core(at(1));
    let mut entries = 0;
    for number in 0..5 {
        let source = SocketAddr::from(([198, 51, 100, number], 1));
        for _ in 0..100 {
            if core.may_push(at(1), source).is_err() {
                continue;
            }
            let junk = Roster::verify(b"junk", &core.network.clone(), &core.trusted());
            let by = By::Push {
                source,
                force: true,
            };
            entries += core.judge(at(1), junk, &by).1.len();
        }
    }
    assert_eq!(entries, 64);
    let admin = SocketAddr::from(([203, 0, 113, 9], 1));
    assert!(core.may_push(at(1), admin).is_ok());
}

#[test]
fn a_clock_that_goes_back_while_it_serves_is_reported() {
    let mut core = core(at(2_000_000));
    core.install(at(2_000_000), roster(1, 2_000_000, &[1]));
    core.watch_clock(at(1_000_000));
    assert!(core.has_problem("clock"));
}

#[test]
fn strangers_cannot_flood_the_audit_log() {
    let mut core = core(at(1));
    core.install(at(1), roster(1, 1, &[]));
    let mut entries = 0;
    for number in 1..=500 {
        entries += asks(&mut core, at(1), 1, number).writes.len();
    }
    assert_eq!(entries, 64);
    // An hour later, the same key is worth an entry again.
    let later = at(3700);
    assert_eq!(asks(&mut core, later, 1, 1).writes.len(), 1);
    assert_eq!(asks(&mut core, later, 1, 1).writes.len(), 0);
}

#[test]
fn a_machine_that_gets_a_new_name_keeps_its_connection() {
    let mut core = core(at(1));
    core.install(at(1), roster(1, 1, &[1]));
    asks(&mut core, at(1), 5, 1);
    let mut renamed = json!({"publicKey": identity(1).public()});
    renamed["tags"] = json!([]);
    let text = json!({
        "version": "mesh/v1",
        "network": {"id": NETWORK, "name": "test", "signers": [identity(0).public()]},
        "machines": {"controller": {"publicKey": identity(0).public()}, "new-name": renamed},
        "instances": {"mesh": {"roles": {"controller": {"machines": {"controller": {}}}}}},
    });
    let inventory = inventory::parse("i.json", text.to_string().as_bytes()).unwrap();
    let resolution = resolve(&inventory, None).unwrap();
    let unsigned = core.to_sign(at(2), &resolution).unwrap().unwrap();
    let renamed = Arc::new(unsigned.sign_with_seed(&identity(0)).unwrap());
    let (effects, _) = core.install(at(2), renamed);
    assert_eq!(effects, []);
    let machines = core.report_answer(at(2)).machines;
    assert!(machines[1].online && machines[1].name.as_str() == "new-name");
}

#[test]
fn a_machine_that_gets_a_new_key_is_cut_off() {
    let mut core = core(at(1));
    core.install(at(1), roster(1, 1, &[1, 2]));
    asks(&mut core, at(1), 5, 1);
    asks(&mut core, at(1), 6, 2);
    let (effects, writes) = core.install(at(2), roster(2, 2, &[2]));
    let reason = "this key is not in the roster (serial 2)".to_owned();
    assert_eq!(effects, [Effect::Cut(ClientId(5), reason)]);
    let removed = writes.iter().filter(|write| {
        matches!(write, Write::Audit(entry) if matches!(entry.event, AuditEvent::Removed { .. }))
    });
    assert_eq!(removed.count(), 1);
    let forgotten = identity(1).public().node_id();
    assert!(
        writes
            .iter()
            .any(|write| matches!(write, Write::Forget(id) if *id == forgotten))
    );
    // Its questions find no open door, and its end is no news.
    let (reply, _) = core.roster_for(at(2), ClientId(5), None);
    assert!(matches!(
        reply,
        Reply::Error {
            code: ErrorCode::NotAdmitted,
            ..
        }
    ));
    assert!(core.disconnected(at(2), ClientId(5)).is_empty());
}

#[test]
fn a_controller_whose_signature_counts_no_more_signs_no_more() {
    let mut core = core(at(1));
    core.install(at(1), roster(1, 1, &[1]));
    core.trust(vec![Signer::from(identity(9).public())]);
    assert!(core.to_sign(at(2), &resolution(&[1, 2])).is_err());
    core.trust(vec![Signer::from(identity(0).public())]);
    assert!(core.to_sign(at(2), &resolution(&[1, 2])).unwrap().is_some());
}

#[test]
fn the_last_serial_there_is_cannot_be_followed() {
    let mut core = core(at(1));
    core.install(at(1), roster(Serial::MAX.get(), 1, &[1]));
    assert!(core.to_sign(at(2), &resolution(&[1, 2])).is_err());
    assert!(core.to_sign(at(2), &resolution(&[1])).unwrap().is_none());
}

/// What the outside may do.
#[derive(Clone, Debug)]
enum Step {
    Hello(u64, u16, Option<u64>),
    Leave(u64),
    Endpoints(u64, u16),
    Install(Vec<u16>),
    Wait(u64),
    ClockBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u64, 0..6_u16, proptest::option::of(1..20_u64))
            .prop_map(|(id, number, serial)| Step::Hello(id, number, serial)),
        1 => (0..30_u64).prop_map(Step::Leave),
        2 => (0..30_u64, 0..6_u16).prop_map(|(id, number)| Step::Endpoints(id, number)),
        2 => proptest::sample::subsequence((1..6_u16).collect::<Vec<_>>(), 0..5)
            .prop_map(Step::Install),
        1 => (0..100_u64).prop_map(Step::Wait),
        1 => Just(Step::ClockBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_only_members_are_online_and_serials_rise(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let mut now = at(1_000_000);
        let mut core = core(now);
        let mut last = 0;
        for step in steps {
            match step {
                Step::Hello(id, number, serial) => {
                    let proven = Some(identity(number).public().node_id());
                    let hello = hello(number, serial);
                    // A connection proves one key, and keeps it.
                    let id = ClientId(id * 10 + u64::from(number));
                    core.hello(now, id, proven, source(number), hello);
                }
                Step::Leave(id) => {
                    core.disconnected(now, ClientId(id));
                }
                Step::Endpoints(id, number) => {
                    let peer = format!("machine-{number}").parse().unwrap();
                    core.endpoints(now, ClientId(id), source(number), &peer);
                }
                Step::Install(numbers) => {
                    if let Some(unsigned) = core.to_sign(now, &resolution(&numbers)).unwrap() {
                        let roster = unsigned.sign_with_seed(&identity(0)).unwrap();
                        prop_assert!(roster.head().serial.get() > last);
                        last = roster.head().serial.get();
                        core.install(now, Arc::new(roster));
                    }
                }
                Step::Wait(seconds) => {
                    now.millis += seconds * 1000;
                    now.instant = now.instant + Duration::from_secs(seconds);
                }
                Step::ClockBack => now.millis /= 2,
            }
            let roster = core.roster.clone();
            for (id, client) in &core.clients {
                let member = roster.as_ref().and_then(|r| r.member_by_node_id(&client.identity.node_id()));
                prop_assert_eq!(member.map(|member| &member.name), Some(&client.name));
                prop_assert!(core.clients.contains_key(id));
            }
            for (name, id) in &core.online {
                prop_assert_eq!(core.clients.get(id).map(|client| &client.name), Some(name));
            }
            prop_assert!(core.pending.latest_first().len() <= PENDING_MAX);
        }
    }
}
