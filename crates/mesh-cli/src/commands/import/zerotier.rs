//! `mesh import zerotier`.

mod api;
mod members;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use ipnet::IpNet;
use mesh_os::file;
use mesh_types::MachineName;
use serde_json::json;

use self::members::{Network, NodeAddress};
use super::{
    super::inventory::load,
    draft::{Draft, Machine, Target, key_value, mesh_instance, parse_json},
};
use crate::failure::{Exit, Failure};

/// Make an inventory from a ZeroTier network
///
/// Asks the ZeroTier service of this machine, which must be the network's controller; or reads what an
/// API gave, with `--file`: an object with `network` and `members`, or a list of members as ZeroTier
/// Central exports it. ZeroTier knows its members by a node address of ten hex digits: `--name`, or the
/// vars of a clan with `--vars`, say which machine each one is.
///
/// Example: `sudo mesh import zerotier --vars vars --domain zt --out mesh.json`
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// The ZeroTier network, 16 hex digits, where the controller has several
    #[arg(long, value_name = "ID")]
    network: Option<String>,
    /// Where the ZeroTier service answers
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9993")]
    api: SocketAddr,
    /// The service's token; by default where ZeroTier keeps it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read the members from a file instead; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["network", "token_file"])]
    file: Option<PathBuf>,
    /// Which machine a node address is
    #[arg(long = "name", value_name = "NODE=MACHINE", value_parser = key_value)]
    names: Vec<(String, String)>,
    /// The `vars` folder of a clan, which tells the machine of each ZeroTier address
    #[arg(long, value_name = "DIR")]
    vars: Option<PathBuf>,
    /// The class of a machine: `nixos`, `darwin` or `external`; without it `nixos`
    #[arg(long = "class", value_name = "MACHINE=CLASS", value_parser = key_value)]
    classes: Vec<(String, String)>,
    /// The machine that is to be the controller; by default the one that is ZeroTier's
    #[arg(long, value_name = "MACHINE")]
    controller: Vec<MachineName>,
    /// Let each machine answer to its ZeroTier addresses on the mesh, too, as routes of its own
    #[arg(long)]
    keep_addresses: bool,
    /// Also write which machine each ZeroTier address is, for `mesh lint addresses --map FILE`
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let network = match &args.file {
        Some(path) => from_file(path)?,
        None => api::ask(
            args.api,
            args.token_file.as_deref(),
            args.network.as_deref(),
        )?,
    };
    let vars = args
        .vars
        .as_deref()
        .map_or_else(|| Ok(BTreeMap::new()), clan_addresses)?;
    let mut notes = Vec::new();
    if network.is_assumed {
        notes.push("the source does not tell the network's settings: members are taken to have ZeroTier's RFC 4193 addresses".to_owned());
    }
    let named = name_members(&network, &args.names, &vars, &mut notes)?;
    let classes: BTreeMap<&str, &str> = args
        .classes
        .iter()
        .map(|(name, class)| (name.as_str(), class.as_str()))
        .collect();
    if let Some(unknown) = classes
        .keys()
        .find(|name| !named.keys().any(|n| n.as_str() == **name))
    {
        let error = anyhow!("`--class {unknown}=…` names a machine that is not in the network");
        return Err(Failure::new(Exit::Usage, error));
    }
    let controllers = controllers(&args.controller, &network, &named, &mut notes)?;
    let mut machines = BTreeMap::new();
    for (name, addresses) in named.iter().map(|(name, member)| (name, &member.addresses)) {
        let mut machine = Machine {
            machine_class: (*classes.get(name.as_str()).unwrap_or(&"nixos")).to_owned(),
            enabled: true,
            ..Machine::default()
        };
        if args.keep_addresses && !addresses.is_empty() {
            let hosts: Vec<_> = addresses
                .iter()
                .map(|ip| IpNet::from(*ip).to_string())
                .collect();
            machine.mesh.insert("routes".to_owned(), json!(hosts));
        }
        machines.insert(name.clone(), machine);
    }
    if args.classes.is_empty() {
        notes.push("ZeroTier does not tell what its members are: each is `nixos` here, `--class NAME=darwin` says otherwise".to_owned());
    }
    let title = if network.name.is_empty() {
        &network.id
    } else {
        &network.name
    };
    let draft = Draft {
        version: "mesh/v1",
        network: args
            .target
            .network(if title.is_empty() { "mesh" } else { title }, None, None)?,
        machines,
        tags: BTreeMap::new(),
        instances: BTreeMap::from([("mesh".to_owned(), mesh_instance(&controllers))]),
    };
    if let Some(path) = &args.map {
        write_map(path, &named)?;
    }
    args.target.write(&draft, &notes)
}

/// The members under their machines' names.
type Named = BTreeMap<MachineName, members::Member>;

fn from_file(path: &Path) -> Result<Network, Failure> {
    let source = path.display().to_string();
    let value = parse_json(&format!("`{source}`"), &load::bytes(path)?)?;
    members::network(&value)
        .with_context(|| format!("`{source}` does not describe a ZeroTier network"))
        .map_err(|error| {
            Failure::new(Exit::Usage, error).hint(
                "it takes `{\"network\": …, \"members\": […]}` of the service's API, or ZeroTier Central's list of members; \
                 what `zerotier-cli` prints is a member's view and names no others",
            )
        })
}

/// Names each authorised member: as told, by the clan's vars, by its own name, by its node address.
fn name_members(
    network: &Network,
    told: &[(String, String)],
    vars: &BTreeMap<IpAddr, MachineName>,
    notes: &mut Vec<String>,
) -> Result<Named, Failure> {
    let usage = |error: anyhow::Error| Failure::new(Exit::Usage, error);
    let mut by_node = BTreeMap::new();
    for (node, name) in told {
        let node: NodeAddress = node.parse().map_err(usage)?;
        let name: MachineName = name
            .parse()
            .map_err(|error: mesh_types::ParseNameError| usage(error.into()))?;
        if !network.members.iter().any(|member| member.node == node) {
            return Err(usage(anyhow!(
                "`--name {node}={name}`: the network has no such member"
            )));
        }
        by_node.insert(node, name);
    }
    let mut named = Named::new();
    for member in &network.members {
        if !member.authorized {
            notes.push(format!(
                "left out {}: not authorised in ZeroTier",
                member.node
            ));
            continue;
        }
        let of_vars = || member.addresses.iter().find_map(|ip| vars.get(ip)).cloned();
        let name = by_node
            .get(&member.node)
            .cloned()
            .or_else(of_vars)
            .or_else(|| member.own_name());
        let name = match name {
            Some(name) => name,
            None => {
                let name = member.fallback_name();
                notes.push(format!(
                    "nothing names {}, so it is `{name}`; `--name {}=MACHINE` names it",
                    member.node, member.node
                ));
                name
            }
        };
        if let Some(other) = named.insert(name.clone(), member.clone()) {
            return Err(usage(anyhow!(
                "{} and {} would both be `{name}`; tell them apart with `--name {}=OTHER`",
                other.node,
                member.node,
                member.node
            )));
        }
    }
    if named.is_empty() {
        return Err(Failure::new(
            Exit::Refused,
            anyhow!("the ZeroTier network has no authorised member"),
        ));
    }
    Ok(named)
}

fn controllers(
    told: &[MachineName],
    network: &Network,
    named: &Named,
    notes: &mut Vec<String>,
) -> Result<Vec<MachineName>, Failure> {
    for name in told {
        if !named.contains_key(name) {
            let error = anyhow!("`--controller {name}` is not in the network");
            let names: Vec<_> = named.keys().map(MachineName::as_str).collect();
            return Err(Failure::new(Exit::Usage, error)
                .hint(format!("its machines are {}", names.join(", "))));
        }
    }
    if !told.is_empty() {
        return Ok(told.to_vec());
    }
    let zerotiers = network.controller();
    let found = named
        .iter()
        .find(|(_, member)| Some(member.node) == zerotiers);
    let Some((name, _)) = found else {
        let error = anyhow!(
            "ZeroTier's controller is no member of its network, so it is not clear who is to be the mesh's"
        );
        return Err(Failure::new(Exit::Usage, error).hint("name it with `--controller MACHINE`"));
    };
    notes.push(format!(
        "`{name}` controls the ZeroTier network, so it is the mesh's controller"
    ));
    Ok(vec![name.clone()])
}

/// The ZeroTier address of each machine, as clan keeps it: `per-machine/NAME/zerotier/zerotier-ip/value`.
fn clan_addresses(vars: &Path) -> Result<BTreeMap<IpAddr, MachineName>, Failure> {
    let machines = vars.join("per-machine");
    let entries = fs::read_dir(&machines)
        .with_context(|| format!("cannot read `{}`", machines.display()))
        .map_err(|error| {
            Failure::new(Exit::Usage, error).hint("`--vars` names the folder `vars` of a clan")
        })?;
    let mut addresses = BTreeMap::new();
    for entry in entries.flatten() {
        let Some(Ok(name)) = entry.file_name().to_str().map(str::parse::<MachineName>) else {
            continue;
        };
        let value = entry.path().join("zerotier/zerotier-ip/value");
        if let Ok(text) = fs::read_to_string(value)
            && let Ok(address) = text.trim().parse()
        {
            addresses.insert(address, name);
        }
    }
    Ok(addresses)
}

fn write_map(path: &Path, named: &Named) -> Result<(), Failure> {
    let addresses: BTreeMap<IpAddr, &MachineName> = named
        .iter()
        .flat_map(|(name, member)| member.addresses.iter().map(move |ip| (*ip, name)))
        .collect();
    let text = serde_json::to_string_pretty(&json!({ "version": 1, "addresses": addresses }))
        .context("cannot write the map as JSON")?;
    file::write_atomic(path, (text + "\n").as_bytes(), 0o644)
        .map_err(|error| Failure::new(Exit::Refused, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let value = json!({
            "network": { "id": "8056c2e21c000001", "name": "fleet", "v6AssignMode": { "rfc4193": true } },
            "members": [
                { "id": "8056c2e21c", "authorized": true, "ipAssignments": ["10.147.20.1"] },
                { "id": "0123456789", "authorized": true, "ipAssignments": [], "name": "Gale na" },
                { "id": "efcc1b0947", "authorized": true, "ipAssignments": [] },
                { "id": "ffffffffff", "authorized": false, "ipAssignments": [] },
            ],
        });
        members::network(&value).unwrap()
    }

    #[test]
    fn members_are_named_as_told_by_vars_by_themselves_or_by_their_address() {
        let vars = BTreeMap::from([("10.147.20.1".parse().unwrap(), "cinnabar".parse().unwrap())]);
        let mut notes = Vec::new();
        let named = name_members(&network(), &[], &vars, &mut notes).unwrap();
        let names: Vec<_> = named.keys().map(MachineName::as_str).collect();
        assert_eq!(names, ["cinnabar", "gale-na", "zt-efcc1b0947"]);
        assert!(
            notes
                .iter()
                .any(|note| note.contains("left out ffffffffff")),
            "{notes:?}"
        );
        assert!(
            notes
                .iter()
                .any(|note| note.contains("--name efcc1b0947=MACHINE")),
            "{notes:?}"
        );

        let told = [("efcc1b0947".to_owned(), "cinnabar".to_owned())];
        let refused = name_members(&network(), &told, &vars, &mut notes).unwrap_err();
        assert!(crate::failure::render(&refused).contains("would both be `cinnabar`"));
    }

    #[test]
    fn zerotiers_controller_becomes_the_meshs() {
        let named = name_members(&network(), &[], &BTreeMap::new(), &mut Vec::new()).unwrap();
        let chosen = controllers(&[], &network(), &named, &mut Vec::new()).unwrap();
        assert_eq!(chosen, ["zt-8056c2e21c".parse().unwrap()]);
    }
}
