//! Inventories by the hundred, most of them valid; the same ones in every run.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mesh_types::{IdentitySeed, MemberKey};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, Value, json};

const TAGS: [&str; 5] = ["cloud", "gpu", "größe", "lap \"top\"", "zinc"];

/// Generates `count` inventories in the native form.
pub(crate) fn inventories(count: usize) -> Vec<Value> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = inventory();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

/// The same in the form that clan serialises: the network is settings of the mesh instance.
pub(crate) fn as_clans(native: &Value) -> Value {
    let mut clans = native.as_object().unwrap().clone();
    let mut network = clans.remove("network").unwrap();
    clans.remove("version");
    let name = network.as_object_mut().unwrap().remove("name").unwrap();
    clans.insert("meta".into(), json!({ "name": name, "description": null }));
    clans.insert("modules".into(), json!({}));
    for machine in clans["machines"].as_object_mut().unwrap().values_mut() {
        machine["description"] = json!("a machine");
        machine["installedAt"] = Value::Null;
    }
    let roles = clans["instances"]["mesh"]["roles"].as_object_mut().unwrap();
    for role in roles.values_mut() {
        role["extraModules"] = json!([]);
    }
    // Lists of tags are clan's, too.
    if let Some(tags) = roles["peer"]["tags"].as_object_mut()
        && tags.values().all(|tag| tag == &json!({}))
    {
        let names: Vec<_> = tags.keys().cloned().collect();
        roles["peer"]["tags"] = json!(names);
    }
    clans["instances"]["mesh"]["settings"] = json!({ "network": network });
    if let Some(rules) = clans.remove("rules") {
        clans["instances"]["mesh"]["settings"]["rules"] = rules;
    }
    Value::Object(clans)
}

fn inventory() -> impl Strategy<Value = Value> {
    let names = btree_set("[a-z][a-z0-9]{0,3}(-[a-z0-9]{1,3})?", 1..8);
    names
        .prop_flat_map(|names| {
            let names: Vec<String> = names.into_iter().collect();
            let machines: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(index, _)| machine(index, names.clone()))
                .collect();
            (
                Just(names.clone()),
                network(),
                machines,
                btree_map(
                    select(&TAGS[..]),
                    subsequence(names.clone(), 0..=names.len()),
                    0..3,
                ),
                mesh(names.clone()),
                option::weighted(0.5, rules(&names)),
                prop::bool::weighted(0.8),
            )
        })
        .prop_map(|(names, network, machines, tags, mesh, rules, is_mended)| {
            let machines: Map<_, _> = names.into_iter().zip(machines).collect();
            let used: BTreeSet<&str> = TAGS.into_iter().collect();
            let mut declared: Map<_, _> = used
                .into_iter()
                .map(|tag| (tag.to_owned(), json!([])))
                .collect();
            for (tag, machines) in tags {
                declared.insert(tag.to_owned(), json!(machines));
            }
            let mut inventory = json!({
                "version": "mesh/v1",
                "network": network,
                "machines": machines,
                "tags": declared,
                "instances": {
                    "mesh": mesh,
                    "sshd": {
                        "module": { "name": "sshd", "input": "clan-core" },
                        "settings": { "x": [1, null] },
                        "roles": { "server": { "tags": { "all": null } } },
                    },
                },
            });
            if let Some(rules) = rules {
                inventory["rules"] = rules;
            }
            if is_mended {
                mend(&mut inventory);
            }
            inventory
        })
}

/// Rules, and now and then a test that may fail.
fn rules(names: &[String]) -> impl Strategy<Value = Value> + use<> {
    let mut selectors: Vec<String> = [
        "*",
        "guests",
        "role:moon",
        "role:peer",
        "tag:all",
        "tag:cloud",
        "tag:größe",
    ]
    .map(str::to_owned)
    .into();
    selectors.extend(names.iter().cloned());
    selectors.extend(names.iter().map(|name| format!("machine:{name}")));
    let ends = || vec(select(selectors.clone()), 0..4);
    let traffic = select(vec![
        json!({}),
        json!({ "ports": [22, "80-90", "22"] }),
        json!({ "protocol": "tcp", "ports": ["443", 8] }),
        json!({ "protocol": "udp" }),
        json!({ "protocol": "icmp", "ports": [] }),
        json!({ "protocol": 47 }),
        json!({ "protocol": "06", "ports": null }),
    ]);
    let rule = (ends(), ends(), traffic).prop_map(|(from, to, mut rule)| {
        rule["from"] = json!(from);
        rule["to"] = json!(to);
        rule
    });
    let asked = select(vec![
        json!({ "port": 22 }),
        json!({ "protocol": "udp", "port": "85" }),
        json!({ "protocol": "icmp" }),
    ]);
    let one = || select(selectors.clone());
    let expect = select(vec!["allow", "deny"]);
    let test = (one(), one(), asked, expect).prop_map(|(from, to, mut test, expect)| {
        test["from"] = json!(from);
        test["to"] = json!(to);
        test["expect"] = json!(expect);
        test
    });
    let default = select(vec![json!("allow"), json!("deny"), Value::Null]);
    let accept = btree_map("[a-z \"]{1,4}", rule, 0..5);
    let tests = option::weighted(0.1, vec(test, 1..3));
    (default, accept, tests).prop_map(
        |(default, accept, tests)| json!({ "default": default, "accept": accept, "tests": tests }),
    )
}

/// Takes away what would most often be refused.
fn mend(inventory: &mut Value) {
    let mut roles = inventory["instances"]["mesh"]["roles"].take();
    let moon = roles["moon"]["machines"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .cloned();
    let has_room = inventory["network"]["ipv4"] == json!("10.7.3.0/24");
    let mut controllers = Map::new();
    for (name, machine) in inventory["machines"].as_object_mut().unwrap() {
        let is_guest = machine["publicKey"]
            .as_str()
            .is_some_and(|key| key.starts_with("wireguard:"));
        let gateways = moon.iter().filter(|_| is_guest).collect::<Vec<_>>();
        machine["mesh"]["gateways"] = json!(gateways);
        if is_guest {
            machine["mesh"]["ciphers"] = Value::Null;
        } else if controllers.is_empty() || roles["controller"]["machines"].get(name).is_some() {
            machine["enabled"] =
                json!(controllers.is_empty() || machine["enabled"] != json!(false));
            controllers.insert(name.clone(), roles["controller"]["machines"][name].take());
        }
        if !has_room {
            machine["mesh"]["ipv4"] = Value::Null;
        }
    }
    roles["controller"]["machines"] = Value::Object(controllers);
    inventory["instances"]["mesh"]["roles"] = roles;
}

fn network() -> impl Strategy<Value = Value> {
    let pool = select(vec![
        Value::Null,
        json!("10.7.3.0/24"),
        json!("10.7.3.0/24"),
        json!("10.7.200.77/29"),
        json!("10.9.0.0/31"),
    ]);
    let domain = option::of(select(&["zt", "home.example"][..]));
    let signers = subsequence(
        vec![
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDVM0wBmSKsgpf16fE10MiWgVzS2cPsnkUVCCb5S4wk admin",
            "  ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDVM0wBmSKsgpf16fE10MiWgVzS2cPsnkUVCCb5S4wk the same one ",
            "mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII4ESxQEbs0S1G6rA1mB4gD4b0BeVErhWITRCSEIHFVu",
            "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU= token",
        ],
        0..=5,
    );
    (any::<u128>(), "[ -~ä€]{1,12}", pool, domain, signers).prop_map(
        |(id, name, pool, domain, signers)| {
            let mut network = json!({
                "id": format!("{id:032x}"), "name": name, "signers": signers, "ipv4": pool,
            });
            if let Some(domain) = domain {
                network["domain"] = json!(domain);
            }
            network
        },
    )
}

fn machine(index: usize, names: Vec<String>) -> impl Strategy<Value = Value> {
    let class = select(&["nixos", "nixos", "darwin", "external"][..]);
    let tags = subsequence(TAGS.to_vec(), 0..=3);
    let key = (0..10_u8).prop_map(move |kind| {
        let public = IdentitySeed::from_bytes([u8::try_from(index).unwrap(); 32]).public();
        match kind {
            0..3 => Value::Null,
            3..9 => json!(public.to_string()),
            _ => json!(MemberKey::Wireguard(public.wireguard()).to_string()),
        }
    });
    let enabled = select(vec![Value::Null, json!(true), json!(true), json!(false)]);
    let endpoints = subsequence(
        vec![
            "192.0.2.7:4193",
            "[2001:DB8:0::7]:4193",
            "A_host.example:0443",
        ],
        0..=2,
    );
    let aliases = option::of(vec(
        select(&["wiki", "git", "git", "a.b", "*.apps"][..]),
        0..3,
    ));
    let routes = subsequence(
        vec![
            "192.0.2.0/24",
            "2001:DB8::/32",
            "::ffff:192.0.2.0/120",
            "0::/3",
            "198.51.100.1/32",
            "10.128.0.0/9",
            "fc00:0:0:1:0:0:0:0/64",
        ],
        0..=2,
    );
    let gateways = select(names).prop_map(|name| json!([name]));
    let gateways = prop_oneof![9 => Just(json!([])), 1 => gateways];
    let ciphers = prop_oneof![8 => Just(Value::Null), 1 => Just(json!(["chacha", "aes", "chacha"])), 1 => Just(json!(["chacha"]))];
    let pin =
        prop_oneof![20 => Just(Value::Null), 1 => Just(json!(format!("10.7.3.{}", index + 2)))];
    let host_keys = vec(ssh_key(index), 0..3);
    (class, tags, key, (enabled, host_keys), (endpoints, aliases, routes, gateways, ciphers, pin)).prop_map(
        move |(class, tags, key, (enabled, host_keys), (endpoints, aliases, routes, gateways, ciphers, pin))| {
            // Mostly one machine's alone.
            let aliases: Option<Vec<_>> = aliases.map(|aliases| {
                let own = |alias| if alias == "a.b" { format!("a.b{index}") } else { format!("{alias}-of-{index}") };
                aliases.into_iter().map(own).collect()
            });
            json!({
                "machineClass": class, "tags": tags, "publicKey": key, "enabled": enabled,
                "sshHostKeys": host_keys,
                "mesh": {
                    "endpoints": endpoints, "aliases": aliases, "routes": routes, "gateways": gateways,
                    "ciphers": ciphers, "ipv4": pin,
                },
                "deploy": { "targetHost": "root@example" },
            })
        },
    )
}

/// An SSH host key as its file has it, now and then with something else in its place.
fn ssh_key(index: usize) -> impl Strategy<Value = String> {
    let comment = select(&["", " root@host", "  two words \n"][..]);
    (0..30_u8, comment).prop_map(move |(kind, comment)| {
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        // One in thirty is two machines'.
        blob.extend(
            [if kind == 0 {
                0
            } else {
                u8::try_from(index).unwrap() + 1
            }; 32],
        );
        if kind == 1 {
            blob.pop();
        }
        format!("ssh-ed25519 {}{comment}", BASE64_STANDARD.encode(blob))
    })
}

/// The mesh instance. Settings of several layers, some of which contradict each other.
fn mesh(names: Vec<String>) -> impl Strategy<Value = Value> {
    let controllers = subsequence(names.clone(), 1..=names.len());
    let most = names.len().min(2);
    let moons = subsequence(names, 0..=most);
    let settings = || {
        let endpoints = select(vec![
            Value::Null,
            json!([]),
            json!(["relay.example:4193"]),
            json!(["192.0.2.9:1", "relay.example:4193"]),
        ]);
        let relay = select(vec![Value::Null, json!(true), json!(false)]);
        let rate = select(vec![
            json!(1000),
            json!("10MiB"),
            json!("0007KiB"),
            json!("1024GiB"),
            json!(1_u64 << 40),
        ]);
        let settings = (
            option::of(endpoints),
            option::weighted(0.3, relay),
            option::weighted(0.2, rate),
        );
        settings.prop_map(|(endpoints, relay, rate)| {
            let given = [
                ("endpoints", endpoints),
                ("relay", relay),
                ("relayRateLimit", rate),
            ];
            let given = given
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?)));
            Value::Object(given.collect())
        })
    };
    let tags = btree_map(select(&TAGS[..]), settings(), 0..3);
    (controllers, moons, tags, vec(settings(), 4), any::<bool>()).prop_map(
        |(controllers, moons, tags, settings, only)| {
            let assigned = |names: &[String], settings: &Value| -> Map<String, Value> {
                names.iter().map(|name| (name.clone(), json!({ "settings": settings }))).collect()
            };
            let tags: Map<_, _> = tags
                .into_iter()
                .map(|(tag, settings)| (tag.to_owned(), json!({ "settings": settings })))
                .collect();
            json!({
                "module": { "name": "mesh" },
                "roles": {
                    "controller": { "machines": assigned(&controllers, &settings[0]), "settings": settings[1] },
                    "moon": { "machines": assigned(&moons, &settings[2]), "tags": tags, "settings": settings[3] },
                    "peer": {
                        "tags": if only { json!({ "all": {} }) } else { json!({ "nixos": {}, "darwin": { "settings": { "relayOnly": true } } }) },
                    },
                },
            })
        },
    )
}

/// Generates `count` inventories of which one part each was replaced by something else.
pub(crate) fn damaged(count: usize) -> Vec<Value> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let others = vec![
        Value::Null,
        json!(true),
        json!(7),
        json!("Some_thing's \"else\""),
        json!([]),
        json!(["x", 7, null]),
        json!({}),
        json!({ "x": {} }),
    ];
    let strategy = (inventory(), any::<prop::sample::Index>(), select(others)).prop_map(
        |(mut inventory, place, other)| {
            let paths = paths(&inventory, "");
            let path = place.get(&paths);
            *inventory.pointer_mut(path).unwrap() = other;
            inventory
        },
    );
    let mut values = (0..).map(|_| strategy.new_tree(&mut runner).unwrap().current());
    // What stands around the mesh instance must be there for clan's form.
    let is_whole = |inventory: &Value| {
        let roles = &inventory["instances"]["mesh"]["roles"];
        inventory["network"]["name"] != Value::Null
            && inventory["machines"]
                .as_object()
                .is_some_and(|machines| machines.values().all(Value::is_object))
            && roles
                .as_object()
                .is_some_and(|roles| roles.values().all(Value::is_object))
            && roles.get("peer").is_some()
    };
    values.by_ref().filter(is_whole).take(count).collect()
}

/// JSON pointers to everything in a value.
fn paths(value: &Value, at: &str) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, value)| (index.to_string(), value))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    children
        .into_iter()
        .flat_map(|(key, value)| {
            let path = format!("{at}/{key}");
            let mut below = paths(value, &path);
            below.push(path);
            below
        })
        .collect()
}

/// Generates `count` texts, most of them no names.
pub(crate) fn texts(count: usize) -> Vec<String> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = prop_oneof!["[a-zA-Z0-9_. -]{0,12}", "[a-z-]{50,80}", "[ -~äß€\n]{0,8}"];
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}
