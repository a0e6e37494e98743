//! `nix-modules/lib.nix` against the formulas in Rust.
#![expect(clippy::unwrap_used, reason = "a failing unwrap fails the test")]
#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::{io::Write, process::Command};

use mesh_types::{MachineName, NetworkId};
use serde_json::{Value, json};

/// Evaluates `expression`, in which `lib` is the library; `None` where there is no Nix.
fn evaluate(expression: &str) -> Option<Value> {
    let library = format!("{}/../../nix-modules/lib.nix", env!("CARGO_MANIFEST_DIR"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "let lib = import {library}; in {expression}").unwrap();
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--json", "--strict"])
        .arg(file.path())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no nix-instantiate");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A thousand names of every length, with all characters that names have, one of them with an address
/// that is written with `::`.
fn names(id: NetworkId) -> Vec<MachineName> {
    let characters = b"abcdefghijklmnopqrstuvwxyz0123456789-";
    let shortened = (0..).find_map(|number: u32| {
        let name: MachineName = format!("zeros{number}").parse().unwrap();
        let address = id.address_of(&name).unwrap().to_string();
        address.contains("::").then_some(name)
    });
    (0..999_usize)
        .map(|number| {
            let middle: String = (0..number % 58)
                .map(|at| char::from(characters[(number * 31 + at * 17) % characters.len()]))
                .collect();
            format!("n{middle}{number:04x}").parse().unwrap()
        })
        .chain(shortened)
        .collect()
}

#[test]
fn a_thousand_names_have_the_same_address_in_nix() {
    let id: NetworkId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let names = names(id);
    let list = json!(names).to_string().replace(',', " ");
    let Some(addresses) = evaluate(&format!("map (lib.addressFor \"{id}\") {list}")) else {
        return;
    };
    let expected: Vec<_> = names
        .iter()
        .map(|name| id.address_of(name).unwrap().to_string())
        .collect();
    assert_eq!(addresses, json!(expected));
    // Some must be shortened, or the comparison shows nothing about that.
    assert!(
        expected
            .iter()
            .any(|address| address.split(':').any(|group| group.len() < 4))
    );
}

#[test]
fn prefixes_are_the_same_in_nix() {
    let ids: Vec<_> = (0..1000_u128)
        .map(|number| {
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            NetworkId::from_bytes(spread.to_be_bytes())
        })
        .collect();
    let list = json!(ids).to_string().replace(',', " ");
    let Some(prefixes) = evaluate(&format!("map lib.prefixFor {list}")) else {
        return;
    };
    let expected: Vec<_> = ids.iter().map(|id| id.prefix().to_string()).collect();
    assert_eq!(prefixes, json!(expected));
}

#[test]
fn the_addresses_of_the_fleet_are_those_that_it_resolves_to() {
    let path = format!(
        "{}/../../tests/fleet/inventory.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let expression = format!("lib.addressesOf (builtins.fromJSON (builtins.readFile {path}))");
    let Some(addresses) = evaluate(&expression) else {
        return;
    };
    let bytes = std::fs::read(&path).unwrap();
    let inventory = mesh_inventory::inventory::parse("inventory.json", &bytes).unwrap();
    let resolution = mesh_inventory::resolve(&inventory, None).unwrap();
    for (name, member) in resolution.members() {
        assert_eq!(addresses[name.as_str()], json!(member.address), "{name}");
    }
}

#[test]
fn the_flake_output_of_an_inventory_is_read_as_it_is() {
    let path = format!(
        "{}/../../tests/fleet/inventory.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let Some(value) = evaluate(&format!("builtins.fromJSON (builtins.readFile {path})")) else {
        return;
    };
    let resolve = |bytes: &[u8]| {
        let inventory = mesh_inventory::inventory::parse("inventory.json", bytes).unwrap();
        mesh_inventory::resolve(&inventory, None).unwrap().to_json()
    };
    assert_eq!(
        resolve(value.to_string().as_bytes()),
        resolve(&std::fs::read(&path).unwrap())
    );
}

#[test]
fn what_is_no_name_or_id_is_an_error_in_nix_too() {
    let tried = |expression: &str| {
        let expression = format!("(builtins.tryEval ({expression})).success");
        evaluate(&expression).map(|success| success == json!(true))
    };
    let id = "000102030405060708090a0b0c0d0e0f";
    for name in ["", "-a", "a-", "A", "a_b", &"a".repeat(64)] {
        let Some(success) = tried(&format!("lib.addressFor \"{id}\" \"{name}\"")) else {
            return;
        };
        assert!(!success, "{name}");
    }
    assert_eq!(tried("lib.prefixFor \"0001\""), Some(false));
    assert_eq!(
        tried(&format!("lib.addressFor \"{id}\" \"a-b\"")),
        Some(true)
    );
}
