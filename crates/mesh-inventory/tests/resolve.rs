//! What inventories resolve to.
#![expect(clippy::unwrap_used, reason = "a failing unwrap fails the test")]

use mesh_inventory::{HeadFields, Report, Resolution, Role, Roster, diff, inventory, resolve};
use mesh_types::{IdentitySeed, Serial};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A small fleet, to be changed by each test.
fn fleet() -> Value {
    json!({
        "version": "mesh/v1",
        "network": {
            "id": "000102030405060708090a0b0c0d0e0f", "name": "fleet",
            "signers": [seed(1).public()],
        },
        "machines": {
            "cinnabar": { "tags": ["cloud"], "publicKey": seed(1).public() },
            "galena": { "tags": ["cloud", "fast"], "publicKey": seed(2).public() },
            "stibnite": { "machineClass": "darwin", "publicKey": seed(3).public() },
        },
        "instances": { "mesh": { "roles": {
            "controller": { "machines": { "cinnabar": {} } },
            "peer": { "tags": { "all": {} } },
        } } },
    })
}

fn seed(byte: u8) -> IdentitySeed {
    IdentitySeed::from_bytes([byte; 32])
}

fn try_resolve(inventory: &Value, previous: Option<&Roster>) -> Result<Resolution, Report> {
    let bytes = serde_json::to_vec_pretty(inventory).unwrap();
    resolve(&inventory::parse("inventory.json", &bytes)?, previous)
}

fn resolved(inventory: &Value) -> Resolution {
    try_resolve(inventory, None).unwrap_or_else(|report| panic!("{report}"))
}

fn signed(resolution: &Resolution, serial: u64) -> Roster {
    let fields = HeadFields {
        serial: Serial::try_from(serial).unwrap(),
        time: 1_800_000_000,
        revision: None,
        previous: None,
    };
    let unsigned = resolution.unsigned(fields).unwrap();
    unsigned.sign_with_seed(&seed(1)).unwrap()
}

fn member(resolution: &Resolution, name: &str) -> Value {
    json!(resolution.members()[name])
}

fn warnings(resolution: &Resolution) -> Vec<String> {
    let problems = resolution.warnings().problems();
    problems.iter().map(|p| p.message().to_owned()).collect()
}

#[test]
fn a_machine_has_its_tags_its_class_and_all() {
    let mut fleet = fleet();
    fleet["tags"] = json!({ "laptop": ["stibnite"], "nobody": [] });
    let resolution = resolved(&fleet);
    assert_eq!(
        member(&resolution, "galena")["tags"],
        json!(["all", "cloud", "fast", "nixos"])
    );
    assert_eq!(
        member(&resolution, "stibnite")["tags"],
        json!(["all", "darwin", "laptop"])
    );
    assert!(warnings(&resolution).is_empty());
}

#[test]
fn roles_come_by_tag_and_by_name() {
    let mut fleet = fleet();
    fleet["instances"]["mesh"]["roles"]["moon"] = json!({ "tags": { "fast": {} } });
    let resolution = resolved(&fleet);
    assert_eq!(
        resolution.members()["galena"].roles,
        [Role::Moon, Role::Peer]
    );
    assert_eq!(
        resolution.members()["cinnabar"].roles,
        [Role::Controller, Role::Peer]
    );
    assert_eq!(resolution.members()["stibnite"].roles, [Role::Peer]);
}

#[test]
fn an_instance_of_another_name_is_the_mesh_by_its_module() {
    let mut fleet = fleet();
    let mesh = fleet["instances"]["mesh"].take();
    fleet["instances"] = json!({ "overlay": mesh, "backup": { "settings": { "any": [1.5] } } });
    fleet["instances"]["overlay"]["module"] = json!({ "name": "mesh", "input": "mesh" });
    assert_eq!(
        resolved(&fleet).members()["cinnabar"].roles,
        [Role::Controller, Role::Peer]
    );
}

#[test]
fn settings_merge_from_role_over_tags_to_machine() {
    let mut fleet = fleet();
    fleet["machines"]["galena"]["mesh"] = json!({ "endpoints": ["192.0.2.1:4193"] });
    let moon = |settings: Value| {
        let mut fleet = fleet.clone();
        fleet["instances"]["mesh"]["roles"]["moon"] = settings;
        member(&resolved(&fleet), "galena")["endpoints"].clone()
    };
    let role = json!({ "endpoints": ["role.example:1"] });
    let tag = json!({ "settings": { "endpoints": ["tag.example:1"] } });
    let machine = json!({ "settings": { "endpoints": ["machine.example:1"] } });
    let unset = json!({ "settings": { "endpoints": null } });
    let own = "192.0.2.1:4193";
    assert_eq!(
        moon(json!({ "settings": role, "tags": { "fast": {} } })),
        json!([own, "role.example:1"])
    );
    assert_eq!(
        moon(json!({ "settings": role, "tags": { "fast": tag } })),
        json!([own, "tag.example:1"])
    );
    assert_eq!(
        moon(
            json!({ "settings": role, "tags": { "fast": tag }, "machines": { "galena": machine } })
        ),
        json!([own, "machine.example:1"])
    );
    assert_eq!(
        moon(json!({ "settings": role, "tags": { "fast": tag }, "machines": { "galena": unset } })),
        json!([own])
    );
    // Two tags that say the same are no conflict.
    assert_eq!(
        moon(json!({ "tags": { "fast": tag, "cloud": tag } })),
        json!([own, "tag.example:1"])
    );
}

#[test]
fn who_relays_and_how_much_is_in_the_roster() {
    let relaying = |controller: Value, moon: Value| {
        let mut fleet = fleet();
        let roles = &mut fleet["instances"]["mesh"]["roles"];
        roles["controller"]["settings"] = controller;
        roles["moon"] = json!({ "machines": { "cinnabar": {} }, "settings": moon });
        let cinnabar = member(&resolved(&fleet), "cinnabar");
        (
            cinnabar["relay"].clone(),
            cinnabar["relayRateLimit"].clone(),
        )
    };
    let (off, on, none) = (json!({ "relay": false }), json!({}), Value::Null);
    assert_eq!(
        relaying(on.clone(), on.clone()),
        (none.clone(), none.clone())
    );
    assert_eq!(
        relaying(off.clone(), on.clone()),
        (none.clone(), none.clone())
    );
    assert_eq!(relaying(off.clone(), off), (json!(false), none.clone()));
    let slow = json!({ "relayRateLimit": "10KiB" });
    let fast = json!({ "relayRateLimit": 20_000 });
    assert_eq!(relaying(slow, fast), (none.clone(), json!(10_240)));
}

#[test]
fn who_is_relayed_alone_is_in_the_roster() {
    let told = |role: Value, galena: Value| {
        let mut fleet = fleet();
        fleet["instances"]["mesh"]["roles"]["peer"] = json!({
            "tags": { "all": {} },
            "machines": { "galena": { "settings": galena } },
            "settings": role,
        });
        let resolution = resolved(&fleet);
        ["cinnabar", "galena"].map(|name| member(&resolution, name)["relayOnly"].clone())
    };
    let (only, not, null) = (
        json!({ "relayOnly": true }),
        json!({ "relayOnly": false }),
        Value::Null,
    );
    assert_eq!(told(json!({}), json!({})), [null.clone(), null.clone()]);
    assert_eq!(told(json!({}), not.clone()), [null.clone(), null.clone()]);
    assert_eq!(told(json!({}), only.clone()), [null.clone(), json!(true)]);
    assert_eq!(told(only, not), [json!(true), null]);
}

#[test]
fn a_guest_speaks_chacha_alone() {
    let mut fleet = fleet();
    let key = format!("wireguard:{}", seed(7).public().wireguard());
    fleet["machines"]["pixel"] = json!({ "machineClass": "external", "publicKey": key });
    let resolution = resolved(&fleet);
    assert_eq!(member(&resolution, "pixel")["ciphers"], json!(["chacha"]));
    assert_eq!(
        member(&resolution, "galena")["ciphers"],
        json!(["aes", "chacha"])
    );
}

#[test]
fn toml_and_json_resolve_alike() {
    let toml = r#"
        version = "mesh/v1"
        [network]
        id = "000102030405060708090a0b0c0d0e0f"
        name = "fleet"
        signers = ["SIGNER"]
        [machines.cinnabar]
        tags = ["cloud"]
        publicKey = "SIGNER"
        [instances.mesh.roles.controller.machines.cinnabar]
        [instances.mesh.roles.peer.tags.all]
    "#;
    let toml = toml.replace("SIGNER", &seed(1).public().to_string());
    let mut json = fleet();
    json["machines"]
        .as_object_mut()
        .unwrap()
        .retain(|name, _| name == "cinnabar");
    for name in ["inventory.toml", "inventory"] {
        let parsed = inventory::parse(name, toml.as_bytes()).unwrap();
        assert_eq!(
            resolve(&parsed, None).unwrap().to_json(),
            resolved(&json).to_json()
        );
    }
}

#[test]
fn ipv4_addresses_are_pinned_kept_or_the_lowest_free() {
    let mut fleet = fleet();
    fleet["network"]["ipv4"] = json!("10.7.0.0/29");
    fleet["machines"]["galena"]["mesh"] = json!({ "ipv4": "10.7.0.1" });
    let first = resolved(&fleet);
    assert_eq!(member(&first, "galena")["ipv4"], "10.7.0.1");
    assert_eq!(member(&first, "cinnabar")["ipv4"], "10.7.0.2");
    assert_eq!(member(&first, "stibnite")["ipv4"], "10.7.0.3");
    assert!(warnings(&first)[0].contains("provisional"));

    // A machine that sorts first comes, another goes: whoever stays keeps its address.
    let roster = signed(&first, 1);
    fleet["machines"]["argentum"] = json!({ "publicKey": seed(9).public() });
    fleet["machines"].as_object_mut().unwrap().remove("galena");
    let second = try_resolve(&fleet, Some(&roster)).unwrap();
    assert_eq!(member(&second, "argentum")["ipv4"], "10.7.0.1");
    assert_eq!(member(&second, "cinnabar")["ipv4"], "10.7.0.2");
    assert_eq!(member(&second, "stibnite")["ipv4"], "10.7.0.3");
    assert!(warnings(&second).is_empty());

    // A pin takes an address from whoever had it.
    fleet["machines"]["argentum"]["mesh"] = json!({ "ipv4": "10.7.0.2" });
    let third = try_resolve(&fleet, Some(&roster)).unwrap();
    assert_eq!(member(&third, "argentum")["ipv4"], "10.7.0.2");
    assert_eq!(member(&third, "cinnabar")["ipv4"], "10.7.0.1");
}

#[test]
fn a_pin_keeps_the_address_through_a_rename() {
    let mut fleet = fleet();
    let before = member(&resolved(&fleet), "galena")["address"].clone();
    let mut machine = fleet["machines"]
        .as_object_mut()
        .unwrap()
        .remove("galena")
        .unwrap();
    machine["mesh"] = json!({ "address": before });
    fleet["machines"]["bornite"] = machine;
    assert_eq!(member(&resolved(&fleet), "bornite")["address"], before);
}

#[test]
fn what_is_perhaps_not_meant_is_a_warning() {
    let mut fleet = fleet();
    fleet["network"]["signers"] = json!([]);
    fleet["machines"]["galena"]["publicKey"] = Value::Null;
    fleet["machines"]["galena"]["mesh"] = json!({ "endpoints": ["galena.example:4194"] });
    fleet["instances"]["mesh"]["roles"]["peer"] = json!({ "tags": { "cloud": {} } });
    let resolution = resolved(&fleet);
    let warnings = warnings(&resolution).join("\n");
    for expected in [
        "`signers` is empty",
        "no `publicKey` yet",
        "`stibnite` has no role",
    ] {
        assert!(warnings.contains(expected), "{warnings}");
    }
    assert!(resolution.members()["stibnite"].roles.is_empty());
}

#[test]
fn a_difference_names_who_joins_leaves_and_changes() {
    let old = resolved(&fleet());
    let mut fleet = fleet();
    fleet["network"]["domain"] = json!("zt");
    fleet["machines"]["pyrite"] = json!({});
    fleet["machines"]["galena"]["enabled"] = json!(false);
    fleet["machines"]
        .as_object_mut()
        .unwrap()
        .remove("stibnite");
    let new = resolved(&fleet);
    let changes = diff(old.parts(), new.parts());
    insta::assert_snapshot!(changes.to_string(), @r"
    ~ network: domain mesh -> zt
    + pyrite
    - stibnite
    ~ galena: enabled true -> false
    ");
    assert!(!changes.removes_over_half());
    assert!(diff(old.parts(), signed(&old, 1).parts()).is_empty());
}

#[test]
fn a_resolved_inventory_is_signed_and_verified() {
    let resolution = resolved(&fleet());
    let roster = signed(&resolution, 3);
    let read = Roster::verify(
        &roster.to_file(),
        &resolution.network().id,
        resolution.signers(),
    )
    .unwrap();
    assert_eq!(read.members(), resolution.members());
    assert_eq!(read.network(), resolution.network());
}

#[test]
fn a_problem_in_one_long_line_is_shown_around_its_place() {
    let mut fleet = fleet();
    fleet["machines"]["galena"]["enabeld"] = json!(true);
    let report = resolve(
        &inventory::parse("inventory.json", fleet.to_string().as_bytes()).unwrap(),
        None,
    )
    .unwrap_err();
    let text = report.to_string();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("1 | "));
    let (line, marks) = (lines.next().unwrap(), lines.next().unwrap());
    let at = marks.find('^').unwrap();
    assert!(line[at..].starts_with("\"enabeld\""), "{text}");
    assert!(line.len() < 140);
}

/// Machines with any mix of tags, in any order.
fn machines() -> impl Strategy<Value = Vec<(String, Vec<String>, bool)>> {
    let tags = proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4)
        .prop_map(|tags| tags.into_iter().map(str::to_owned).collect::<Vec<_>>())
        .prop_shuffle();
    proptest::collection::btree_map(
        "[a-z]([a-z0-9-]{0,8}[a-z0-9])?",
        (tags, any::<bool>()),
        1..12,
    )
    .prop_map(|map| {
        map.into_iter()
            .map(|(name, (tags, on))| (name, tags, on))
            .collect()
    })
}

/// The inventory as text in the order given, which no map of a library would keep.
fn written(machines: &[(String, Vec<String>, bool)], controller: &str) -> String {
    let entries: Vec<_> = machines
        .iter()
        .map(|(name, tags, on)| {
            format!(
                "\"{name}\":{}",
                json!({ "tags": tags, "enabled": *on || name == controller })
            )
        })
        .collect();
    format!(
        r#"{{"instances":{{"mesh":{{"roles":{{"peer":{{"tags":{{"all":{{}}}}}},
        "controller":{{"machines":{{"{controller}":{{}}}}}}}}}}}},"machines":{{{}}},"version":"mesh/v1",
        "network":{{"signers":[],"ipv4":"10.7.0.0/24","name":"x","id":"000102030405060708090a0b0c0d0e0f"}}}}"#,
        entries.join(",")
    )
}

proptest! {
    #[test]
    fn the_order_of_writing_does_not_matter(machines in machines(), at in any::<u64>()) {
        let controller = machines[0].0.clone();
        let mut shuffled = machines.clone();
        let length = shuffled.len();
        shuffled.rotate_left(usize::try_from(at % length as u64).unwrap());
        if at % 2 == 0 {
            shuffled.reverse();
        }
        let resolution = |text: String| {
            let parsed = inventory::parse("x.json", text.as_bytes()).unwrap();
            resolve(&parsed, None).unwrap_or_else(|report| panic!("{report}"))
        };
        let one = resolution(written(&machines, &controller));
        let other = resolution(written(&shuffled, &controller));
        prop_assert_eq!(one.to_json(), other.to_json());
        let roster = signed(&one, 7);
        prop_assert_eq!(roster.head_hash(), signed(&other, 7).head_hash());
        prop_assert_eq!(Roster::open(&roster.to_file()).unwrap(), roster);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        mesh_inventory::fuzz::inventory(&bytes);
        mesh_inventory::fuzz::roster(&bytes);
    }

    #[test]
    fn no_change_of_a_good_inventory_panics(at in any::<prop::sample::Index>(), cut in 0..40_usize, with in "[\\PC\n]{0,8}") {
        let text = serde_json::to_string_pretty(&fleet()).unwrap();
        let mut characters: Vec<char> = text.chars().collect();
        let start = at.index(characters.len());
        let end = (start + cut).min(characters.len());
        characters.splice(start..end, with.chars());
        let text: String = characters.into_iter().collect();
        mesh_inventory::fuzz::inventory(text.as_bytes());
    }
}
