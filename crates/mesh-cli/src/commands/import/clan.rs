//! `mesh import clan`.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::anyhow;
use mesh_inventory::Signer;
use mesh_types::{AGENT_PORT, MachineName, NetworkId};
use serde_json::{Map, Value, json};

use super::{
    super::inventory::load,
    draft::{Draft, Machine, Target, mesh_instance, parse_json},
    modules,
};
use crate::failure::{Exit, Failure};

/// What describes the network, in settings of clan's mesh instance.
const NETWORK: [&str; 5] = ["id", "name", "domain", "signers", "ipv4"];

/// Make an inventory from that of a clan
///
/// Reads what `nix eval --json .#clanInternals.inventoryClass.inventorySerialization` prints, or an
/// `inventory.json` of clan's. A clan with an instance of `mesh` keeps its network, roles and settings. One
/// with an instance of `zerotier` gets the same roles in a new network; settings that have no counterpart are
/// named.
///
/// This is for those who leave clan's inventory. A clan that has the service `mesh` needs no import: each of
/// its machines has the whole inventory as `services.mesh.inventory`.
///
/// Example: `nix eval --json .#clanInternals.inventoryClass.inventorySerialization | mesh import clan - --domain zt --out mesh.json`
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// The clan's inventory as JSON; `-` for stdin
    file: PathBuf,
    /// The instance that describes the network, where there are several
    #[arg(long)]
    instance: Option<String>,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let source = args.file.display().to_string();
    let clan = modules::plain(parse_json(
        &format!("`{source}`"),
        &load::bytes(&args.file)?,
    )?);
    let found = instance(&clan, args.instance.as_deref())?;
    let mut notes = Vec::new();
    let machines = machines(&clan)?;
    let network = found
        .as_ref()
        .map_or_else(Map::new, |found| found.network());
    let text = |key: &str| network.get(key).and_then(Value::as_str);
    let id: Option<NetworkId> = text("id").and_then(|id| id.parse().ok());
    let of_meta = clan
        .get("meta")
        .and_then(|meta| meta.get("name"))
        .and_then(Value::as_str);
    let name = text("name").or(of_meta).unwrap_or("mesh");
    let mut described = args.target.network(name, id, text("domain"))?;
    let signers = network.get("signers").and_then(Value::as_array);
    if let Some(signers) = signers.filter(|signers| !signers.is_empty()) {
        let parsed: Result<Vec<Signer>, _> = signers
            .iter()
            .filter_map(Value::as_str)
            .map(str::parse)
            .collect();
        described.signers =
            parsed.map_err(|error| Failure::new(Exit::Usage, anyhow::Error::new(error)))?;
    }
    let mesh = match &found {
        Some(found) => found.roles(&mut notes),
        None => {
            notes.push("the clan has neither `mesh` nor `zerotier`: name a controller under `instances.mesh.roles`".to_owned());
            mesh_instance(&[])
        }
    };
    let draft = Draft {
        version: "mesh/v1",
        network: described,
        machines,
        tags: tags(&clan),
        instances: BTreeMap::from([("mesh".to_owned(), mesh)]),
    };
    args.target.write(&draft, &notes)
}

/// The instance that describes the network, and which of clan's services it is.
struct Found<'c> {
    name: &'c str,
    is_zerotier: bool,
    value: &'c Value,
}

fn instance<'c>(clan: &'c Value, wanted: Option<&str>) -> Result<Option<Found<'c>>, Failure> {
    let all = clan.get("instances").and_then(Value::as_object);
    let found: Vec<Found<'_>> = all
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let module = value.get("module").and_then(|module| module.get("name"));
            let module = module.and_then(Value::as_str).unwrap_or(name);
            let is_zerotier = module == "zerotier";
            (is_zerotier || module == "mesh").then_some(Found {
                name,
                is_zerotier,
                value,
            })
        })
        .collect();
    let names = || {
        found
            .iter()
            .map(|found| found.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(wanted) = wanted {
        let error = anyhow!(
            "the clan has no instance `{}` of `mesh` or `zerotier`",
            wanted.escape_debug()
        );
        let failure = Failure::new(Exit::Usage, error).hint(format!("it has: {}", names()));
        return found
            .into_iter()
            .find(|found| found.name == wanted)
            .map(Some)
            .ok_or(failure);
    }
    // A clan on its way has both; what it moves to is what counts.
    let meshes = found.iter().filter(|found| !found.is_zerotier).count();
    let candidates = if meshes > 0 { meshes } else { found.len() };
    if candidates > 1 {
        let error = anyhow!("the clan has several networks");
        let hint = format!("choose one with `--instance`: {}", names());
        return Err(Failure::new(Exit::Usage, error).hint(hint));
    }
    Ok(found.into_iter().min_by_key(|found| found.is_zerotier))
}

fn machines(clan: &Value) -> Result<BTreeMap<MachineName, Machine>, Failure> {
    let Some(all) = clan.get("machines").and_then(Value::as_object) else {
        let error = anyhow!("this is no clan's inventory: it has no `machines`");
        return Err(Failure::new(Exit::Usage, error).hint(
            "`nix eval --json .#clanInternals.inventoryClass.inventorySerialization` prints it",
        ));
    };
    let mut machines = BTreeMap::new();
    for (name, value) in all {
        let name: MachineName = name.parse().map_err(|error: mesh_types::ParseNameError| {
            Failure::new(Exit::Usage, anyhow::Error::new(error))
        })?;
        let class = value
            .get("machineClass")
            .and_then(Value::as_str)
            .unwrap_or("nixos");
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let machine = Machine {
            machine_class: class.to_owned(),
            // `all` and the class are everyone's.
            tags: texts(value.get("tags"))
                .into_iter()
                .filter(|tag| tag != "all" && tag != class)
                .collect(),
            public_key: text("publicKey"),
            enabled: value
                .get("enabled")
                .and_then(Value::as_bool)
                .unwrap_or(true),
            mesh: without_nulls(value.get("mesh")),
            deploy: without_nulls(value.get("deploy")),
        };
        machines.insert(name, machine);
    }
    Ok(machines)
}

fn tags(clan: &Value) -> BTreeMap<String, Vec<String>> {
    let tags = clan.get("tags").and_then(Value::as_object);
    let tags = tags.into_iter().flatten();
    // clan computes these three itself.
    tags.filter(|(name, _)| !["all", "nixos", "darwin"].contains(&name.as_str()))
        .map(|(name, machines)| (name.clone(), texts(Some(machines))))
        .collect()
}

impl Found<'_> {
    /// What its settings say of the network.
    fn network(&self) -> Map<String, Value> {
        let roles = self.value.get("roles").and_then(Value::as_object);
        let of_roles = roles
            .into_iter()
            .flat_map(Map::values)
            .filter_map(|role| role.get("settings"));
        let mut network = Map::new();
        for settings in of_roles.chain(self.value.get("settings")) {
            let described = settings.get("network").unwrap_or(settings);
            for key in NETWORK.into_iter().filter(|_| !self.is_zerotier) {
                if let Some(value) = described.get(key).filter(|value| !value.is_null()) {
                    network.insert(key.to_owned(), value.clone());
                }
            }
        }
        network
    }

    /// Its roles, with settings as the mesh has them.
    fn roles(&self, notes: &mut Vec<String>) -> Value {
        let mut roles = Map::new();
        let all = self.value.get("roles").and_then(Value::as_object);
        for (role, value) in all.into_iter().flatten() {
            let mut assigned = Map::new();
            for of in ["tags", "machines"] {
                let entries = self.assignments(role, value.get(of), notes);
                if !entries.is_empty() {
                    assigned.insert(of.to_owned(), Value::Object(entries));
                }
            }
            if assigned.is_empty() {
                continue;
            }
            self.put_settings(role, value.get("settings"), &mut assigned, notes);
            roles.insert(role.clone(), Value::Object(assigned));
        }
        json!({ "roles": roles })
    }

    /// Names with settings, or a list of names.
    fn assignments(
        &self,
        role: &str,
        value: Option<&Value>,
        notes: &mut Vec<String>,
    ) -> Map<String, Value> {
        if let Some(Value::Array(_)) = value {
            return texts(value)
                .into_iter()
                .map(|name| (name, json!({})))
                .collect();
        }
        let mut entries = Map::new();
        for (name, value) in value.and_then(Value::as_object).into_iter().flatten() {
            let mut entry = Map::new();
            self.put_settings(role, value.get("settings"), &mut entry, notes);
            entries.insert(name.clone(), Value::Object(entry));
        }
        entries
    }

    fn put_settings(
        &self,
        role: &str,
        settings: Option<&Value>,
        to: &mut Map<String, Value>,
        notes: &mut Vec<String>,
    ) {
        let mut kept = Map::new();
        for (key, value) in without_nulls(settings) {
            match (self.is_zerotier, key.as_str()) {
                (true, "stableEndpoints") => {
                    let endpoints: Vec<_> = texts(Some(&value)).iter().map(|text| endpoint(text)).collect();
                    kept.insert("endpoints".to_owned(), json!(endpoints));
                }
                (true, "allowedIps" | "allowedIds") => {
                    if value.as_array().is_some_and(|list| !list.is_empty()) {
                        notes.push(format!(
                            "role `{role}` admits others by `{key}` ({}): add each as a machine of class `external` with its key",
                            texts(Some(&value)).join(", "),
                        ));
                    }
                }
                (true, "public" | "orbitMoons") => notes.push(format!(
                    "`{key}` of role `{role}` has no counterpart: members are who is in the inventory, and every peer uses every moon",
                )),
                (true, other) => notes.push(format!("left out the setting `{other}` of role `{role}`")),
                (false, "network") => {}
                (false, other) if NETWORK.contains(&other) => {}
                (false, _) => {
                    kept.insert(key, value);
                }
            }
        }
        if !kept.is_empty() {
            to.insert("settings".to_owned(), Value::Object(kept));
        }
    }
}

/// A moon's endpoint, `ADDRESS` or `ADDRESS/PORT` with ZeroTier's port, as the agent's on the same machine.
fn endpoint(text: &str) -> String {
    let host = text.split('/').next().unwrap_or_default();
    match host.contains(':') {
        true => format!("[{host}]:{AGENT_PORT}"),
        false => format!("{host}:{AGENT_PORT}"),
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// An object's entries that say something: Nix prints what is not set as null.
fn without_nulls(value: Option<&Value>) -> BTreeMap<String, Value> {
    let entries = value.and_then(Value::as_object);
    let entries = entries
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null());
    entries
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zerotiers_roles_and_endpoints_become_the_meshs() {
        let clan = json!({
            "instances": { "zerotier": { "module": { "name": "zerotier", "input": "clan-core" }, "roles": {
                "controller": { "machines": { "cinnabar": { "settings": { "allowedIps": ["fd5d::1"] } } }, "tags": {} },
                "moon": { "machines": { "cinnabar": { "settings": { "stableEndpoints": ["1.2.3.4", "2001:db8::3/9993"] } } } },
                "peer": { "tags": ["all"] },
            } } }
        });
        let mut notes = Vec::new();
        let found = instance(&clan, None).unwrap().unwrap();
        let roles = found.roles(&mut notes);
        assert_eq!(
            roles,
            json!({ "roles": {
            "controller": { "machines": { "cinnabar": {} } },
            "moon": { "machines": { "cinnabar": { "settings": { "endpoints": ["1.2.3.4:4193", "[2001:db8::3]:4193"] } } } },
            "peer": { "tags": { "all": {} } },
        } })
        );
        assert!(notes[0].contains("`allowedIps` (fd5d::1)"), "{notes:?}");
    }

    #[test]
    fn a_clan_on_its_way_is_taken_as_what_it_moves_to() {
        let clan = json!({ "instances": {
            "mesh": { "module": { "name": "mesh" } },
            "zt": { "module": { "name": "zerotier" } },
        } });
        assert_eq!(instance(&clan, None).unwrap().unwrap().name, "mesh");
        assert_eq!(instance(&clan, Some("zt")).unwrap().unwrap().name, "zt");
        assert!(instance(&clan, Some("x")).is_err());
        let two = json!({ "instances": { "a": { "module": { "name": "mesh" } }, "b": { "module": { "name": "mesh" } } } });
        assert!(instance(&two, None).is_err());
    }
}
