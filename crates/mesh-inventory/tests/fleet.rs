//! The reference fleet: one description in two forms, and what it resolves to.

#![expect(clippy::unwrap_used, reason = "a failing unwrap fails the test")]

use mesh_inventory::{MachineClass, Resolution, Role, inventory, resolve};
use serde_json::{Value, json};

fn fleet(file_name: &str) -> Resolution {
    let path = format!(
        "{}/../../tests/fleet/{file_name}",
        env!("CARGO_MANIFEST_DIR")
    );
    let inventory = inventory::parse(file_name, &std::fs::read(path).unwrap()).unwrap();
    resolve(&inventory, None).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn the_reference_fleet_has_its_eleven_machines() {
    let fleet = fleet("inventory.json");
    let named = |class| -> Vec<&str> {
        let members = fleet.members().values();
        members
            .filter(|member| member.class == class)
            .map(|member| member.name.as_str())
            .collect()
    };
    assert_eq!(
        named(MachineClass::Nixos),
        [
            "cinnabar",
            "electrum",
            "galena",
            "magnetite",
            "pyrite",
            "scheelite"
        ]
    );
    assert_eq!(
        named(MachineClass::Darwin),
        ["argentum", "blackphos", "rosegold", "stibnite"]
    );
    assert_eq!(named(MachineClass::External), ["pixel"]);
    assert_eq!(fleet.network().domain, "zt");
    let disabled: Vec<_> = fleet.members().values().filter(|m| !m.enabled).collect();
    assert_eq!(disabled.len(), 1);
    assert_eq!(disabled[0].name.as_str(), "scheelite");
    for member in fleet.members().values() {
        let is_controller = member.name.as_str() == "cinnabar";
        assert_eq!(member.roles.contains(&Role::Controller), is_controller);
        assert!(member.roles.contains(&Role::Peer));
        assert!(member.tags.contains(&"all".to_owned()));
    }
}

#[test]
fn clans_serialised_form_resolves_to_the_same_members() {
    assert_eq!(
        fleet("inventory.json").to_json(),
        fleet("inventory-clan.json").to_json()
    );
}

#[test]
fn the_resolution_of_the_fleet_is_what_it_was() {
    insta::assert_json_snapshot!(fleet("inventory.json").to_json());
}

#[test]
fn clans_form_describes_the_network_where_its_own_schema_lets_it() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fleet/inventory-clan.json"
    );
    let original: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let resolved = |inventory: &Value| {
        let inventory = inventory::parse("x.json", inventory.to_string().as_bytes()).unwrap();
        let resolution = resolve(&inventory, None).unwrap_or_else(|report| panic!("{report}"));
        resolution.to_json()
    };
    let expected = resolved(&original);
    let mut without = original.clone();
    let mesh = without["instances"]["mesh"].as_object_mut().unwrap();
    let network = mesh.remove("settings").unwrap()["network"].take();

    let mut plainly = without.clone();
    plainly["instances"]["mesh"]["settings"] = network.clone();
    assert_eq!(resolved(&plainly), expected);

    let mut by_role = without.clone();
    by_role["instances"]["mesh"]["roles"]["controller"]["settings"] = json!({ "network": network });
    assert_eq!(resolved(&by_role), expected);

    let mut beside_other_settings = without;
    let mut settings = network;
    settings["relay"] = json!(true);
    settings.as_object_mut().unwrap().remove("name");
    beside_other_settings["instances"]["mesh"]["roles"]["controller"]["settings"] = settings;
    // The name is then that of `meta`, which is the same here.
    assert_eq!(resolved(&beside_other_settings), expected);
}
