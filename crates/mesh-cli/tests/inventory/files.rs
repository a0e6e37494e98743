//! Inventories and rosters in files.

use std::fs;

use serde_json::Value;

use crate::workplace::{Workplace, errors};

#[test]
fn a_new_inventory_holds_the_admins_own_key_and_is_good_with_a_controller() {
    let place = Workplace::new();
    place.good("inventory init --out bare.json");
    assert_eq!(
        serde_json::from_str::<Value>(&place.read("bare.json")).unwrap()["network"]["signers"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    let error = place.bad("inventory check bare.json", 2);
    assert!(
        error.contains("no machine has the role `controller`"),
        "{error}"
    );

    fs::create_dir(place.path(".ssh")).unwrap();
    if !place.ssh_key(".ssh/id_ed25519", "ed25519", "") {
        return;
    }
    let key = place.read(".ssh/id_ed25519.pub");
    for file in ["inventory.json", "inventory.toml"] {
        place.good(&format!(
            "inventory init --out {file} --name home --domain zt --controller cinnabar"
        ));
        let resolved = place.json(&format!("inventory resolve {file} --json"));
        assert_eq!(resolved["network"]["signers"][0], key.trim());
        assert_eq!(resolved["network"]["name"], "home");
        assert_eq!(resolved["network"]["domain"], "zt");
        assert_eq!(
            resolved["members"]["cinnabar"]["roles"],
            serde_json::json!(["controller", "peer"])
        );
        assert!(
            place
                .good(&format!("inventory check {file}"))
                .contains("is good")
        );
        assert!(
            place
                .good(&format!("inventory show {file}"))
                .contains("cinnabar")
        );
    }
    assert_ne!(
        place.json("inventory resolve inventory.json")["network"]["id"],
        place.json("inventory resolve inventory.toml")["network"]["id"]
    );
    let before = place.read("inventory.json");
    place.bad("inventory init --out inventory.json", 1);
    let error = place.bad("inventory init --out other.json --domain My_Domain", 2);
    assert!(error.contains("use `my-domain`"), "{error}");
    assert!(!place.path("other.json").exists());
    assert_eq!(place.read("inventory.json"), before);
}

#[test]
fn broken_and_unreadable_inventories_end_with_2_and_leave_the_roster() {
    let place = Workplace::new();
    place.fleet();
    place.good("inventory sign inventory.json --key cinnabar.id --serial 1 --out roster");
    let roster = place.read("roster");
    place.write(
        "broken.json",
        &place.read("inventory.json").replace("machines", "machnies"),
    );
    for command in ["check", "show", "resolve"] {
        let error = place.bad(&format!("inventory {command} broken.json"), 2);
        assert!(error.contains("did you mean `machines`?"), "{error}");
        let error = place.bad(&format!("inventory {command} nothing.json"), 2);
        assert!(error.contains("cannot read `nothing.json`"), "{error}");
    }
    place.bad(
        "inventory sign broken.json --key cinnabar.id --serial 2 --out roster",
        2,
    );
    place.bad(
        "inventory sign inventory.json --key nothing --serial 2 --out roster",
        2,
    );
    place.bad(
        "inventory sign inventory.json --key cinnabar.id --out roster",
        2,
    );
    place.bad(
        "inventory sign inventory.json --key cinnabar.id --serial 0 --out roster",
        2,
    );
    place.bad("inventory diff inventory.json .", 2);
    assert_eq!(place.read("roster"), roster);

    let output = place.mesh("inventory check broken.json --json");
    assert_eq!(output.status.code(), Some(2));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["valid"], false);
    let findings = json["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|f| f["hint"] == "did you mean `machines`?")
        .unwrap();
    assert_eq!(
        (&finding["severity"], &finding["line"]),
        (&"error".into(), &1.into())
    );
}

#[test]
fn a_forged_or_altered_roster_ends_with_1() {
    let place = Workplace::new();
    place.fleet();
    place.good("inventory sign inventory.json --key cinnabar.id --serial 7 --out roster");
    let good = place.read("roster");
    place.write("allowed", &place.good("keygen --public cinnabar.id"));
    place.write("others", &place.good("keygen --public galena.id"));
    place.good("inventory verify roster --allowed allowed");
    place.bad("inventory verify roster --allowed others", 1);
    place.bad("inventory verify nothing --allowed allowed", 2);
    place.bad("inventory verify roster --allowed nothing", 2);
    for (old, new) in [
        ("\"serial\":7", "\"serial\":8"),
        ("\"enabled\":true", "\"enabled\":false"),
        ("\"domain\":\"mesh\"", "\"domain\":\"nest\""),
        ("\"format\":1", "\"format\":2"),
        ("{", "["),
    ] {
        let forged = good.replacen(old, new, 1);
        assert_ne!(forged, good);
        place.write("forged", &forged);
        let error = place.bad("inventory verify forged --allowed allowed", 1);
        assert!(error.contains("`forged` is refused"), "{error}");
    }
}

#[test]
fn a_roster_follows_the_previous_one() {
    let place = Workplace::new();
    place.fleet();
    place.good("inventory sign inventory.json --key cinnabar.id --serial 7 --out one");
    let signed = place
        .json("inventory sign inventory.json --key cinnabar.id --previous one --out two --json");
    assert_eq!(signed["head"]["serial"], 8);
    let one = place.json("inventory show one --json");
    assert_eq!(one["head"]["serial"], 7);
    assert!(signed["head"]["previous"].is_string());
    assert_eq!(place.good("inventory diff one two"), "no difference\n");

    // Fewer than half the members left, an old serial, a leap.
    let mut inventory: Value = serde_json::from_str(&place.read("inventory.json")).unwrap();
    let machines = inventory["machines"].as_object_mut().unwrap();
    machines.retain(|name, _| name == "cinnabar");
    place.write("small.json", &inventory.to_string());
    assert_eq!(
        place.good("inventory diff one small.json"),
        "- galena\n- stibnite\n"
    );
    let diff = place.json("inventory diff one small.json --json");
    assert_eq!(diff["leaves"], serde_json::json!(["galena", "stibnite"]));
    let sign = |options: &str| {
        format!("inventory sign {options} --key cinnabar.id --previous two --out three")
    };
    let error = place.bad(&sign("small.json"), 1);
    assert!(
        error.contains("removes 2 of 3") && error.contains("--force"),
        "{error}"
    );
    place.bad(&sign("inventory.json --serial 8"), 1);
    place.bad(&sign("inventory.json --serial 7 --force"), 1);
    place.bad(&sign("inventory.json --serial 2000000"), 1);
    assert!(!place.path("three").exists());
    place.good(&sign("inventory.json --serial 2000000 --force"));
    place.good(&sign("small.json --force"));
}

#[test]
fn a_stranger_may_sign_with_a_warning() {
    let place = Workplace::new();
    place.fleet();
    let output =
        place.mesh("inventory sign inventory.json --key galena.id --serial 1 --out roster");
    assert!(output.status.success());
    assert!(errors(&output).contains("is not among `signers`"));
}
