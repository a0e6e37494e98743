//! A small fleet: identities, inventories, signed rosters.

use std::collections::BTreeMap;

use mesh_inventory::{
    Resolution, inventory, resolve,
    roster::{HeadFields, Roster},
};
use mesh_types::{IdentitySeed, NetworkId, Serial};
use serde_json::{Value, json};

/// Who signs the rosters.
pub(crate) const ADMIN: u8 = 200;

/// The controller's own number.
pub(crate) const CONTROLLER: u8 = 1;

pub(crate) fn identity(number: u8) -> IdentitySeed {
    IdentitySeed::from_bytes([number; 32])
}

pub(crate) fn network() -> NetworkId {
    "000102030405060708090a0b0c0d0e0f".parse().unwrap()
}

/// Machines by name, with the number of their identity and whether they are switched on. The
/// controller `cinnabar` is one without being listed.
pub(crate) type Machines<'a> = &'a [(&'a str, u8, bool)];

pub(crate) fn inventory_of(machines: Machines<'_>, signer: u8) -> Value {
    let cinnabar = [("cinnabar", CONTROLLER, true)];
    let machines: BTreeMap<_, _> = machines
        .iter()
        .chain(&cinnabar)
        .map(|(name, number, enabled)| {
            let key = identity(*number).public().to_string();
            (*name, json!({"publicKey": key, "enabled": enabled}))
        })
        .collect();
    json!({
        "version": "mesh/v1",
        "network": {
            "id": network().to_string(),
            "name": "test",
            "signers": [identity(signer).public().to_string()],
        },
        "machines": machines,
        "instances": {"mesh": {"roles": {
            "controller": {"machines": {"cinnabar": {}}},
            "peer": {"tags": {"all": {}}},
        }}},
    })
}

pub(crate) fn resolution(machines: Machines<'_>, signer: u8) -> Resolution {
    resolved(&inventory_of(machines, signer))
}

fn resolved(inventory: &Value) -> Resolution {
    let text = inventory.to_string();
    let inventory = inventory::parse("inventory.json", text.as_bytes()).unwrap();
    resolve(&inventory, None).unwrap()
}

/// A roster signed by `signer`.
pub(crate) fn signed_by(
    signer: u8,
    serial: u64,
    previous: Option<&Roster>,
    machines: Machines<'_>,
) -> Roster {
    sign(signer, serial, previous, &resolution(machines, signer))
}

/// A roster signed by the admin.
pub(crate) fn roster(serial: u64, previous: Option<&Roster>, machines: Machines<'_>) -> Roster {
    signed_by(ADMIN, serial, previous, machines)
}

/// A roster with many members more that are declared and have no key yet.
pub(crate) fn with_declared(
    serial: u64,
    previous: &Roster,
    machines: Machines<'_>,
    names: &[String],
) -> Roster {
    let mut inventory = inventory_of(machines, ADMIN);
    for name in names {
        inventory["machines"][name] = json!({});
    }
    sign(ADMIN, serial, Some(previous), &resolved(&inventory))
}

fn sign(signer: u8, serial: u64, previous: Option<&Roster>, resolution: &Resolution) -> Roster {
    resolution
        .unsigned(HeadFields {
            serial: Serial::try_from(serial).unwrap(),
            time: 1_700_000_000 + serial,
            revision: None,
            previous: previous.map(Roster::head_hash),
        })
        .unwrap()
        .sign_with_seed(&identity(signer))
        .unwrap()
}
