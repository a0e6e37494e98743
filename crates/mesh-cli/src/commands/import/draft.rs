//! An inventory in the making.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use mesh_inventory::{Signer, inventory, resolve};
use mesh_types::{MachineName, NetworkId};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::inventory::{init, load, show::count};
use crate::{
    failure::{Exit, Failure},
    output,
};

/// What every import takes.
#[derive(clap::Args)]
pub(super) struct Target {
    /// Where the inventory goes: JSON, or TOML if it ends in `.toml`; `-` for stdout
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// The network's id, where the inventory is made anew from the same source; by default a random one
    #[arg(long, value_name = "ID")]
    network_id: Option<NetworkId>,
    /// DNS domain of the machines
    #[arg(long)]
    domain: Option<String>,
    /// Who may sign rosters: an SSH public key or a `mesh1` identity, as text or in a file; by default
    /// your own SSH key
    #[arg(long, value_name = "KEY")]
    signer: Vec<String>,
}

/// An inventory in its native form.
#[derive(Debug, Serialize)]
pub(super) struct Draft {
    pub(super) version: &'static str,
    pub(super) network: Network,
    pub(super) machines: BTreeMap<MachineName, Machine>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) tags: BTreeMap<String, Vec<String>>,
    pub(super) instances: BTreeMap<String, Value>,
}

/// The network itself.
#[derive(Debug, Serialize)]
pub(super) struct Network {
    pub(super) id: NetworkId,
    pub(super) name: String,
    pub(super) domain: String,
    pub(super) signers: Vec<Signer>,
}

/// A machine.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    pub(super) machine_class: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) public_key: Option<String>,
    #[serde(skip_serializing_if = "is_true")]
    pub(super) enabled: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) mesh: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) deploy: BTreeMap<String, Value>,
}

impl Target {
    /// The network as the options say, and else as the source does.
    ///
    /// # Errors
    ///
    /// A [`Failure`] for a signer that is none.
    pub(super) fn network(
        &self,
        name: &str,
        id: Option<NetworkId>,
        domain: Option<&str>,
    ) -> Result<Network, Failure> {
        let id = match self.network_id.or(id) {
            Some(id) => id,
            None => init::random_network_id()?,
        };
        Ok(Network {
            id,
            name: name.to_owned(),
            domain: self
                .domain
                .as_deref()
                .or(domain)
                .unwrap_or("mesh")
                .to_owned(),
            signers: init::signers(&self.signer)?,
        })
    }

    /// Checks the draft as `mesh inventory check` does, and writes it; `notes` go to stderr.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if what was read makes no inventory, or it cannot be written.
    pub(super) fn write(&self, draft: &Draft, notes: &[String]) -> Result<Exit, Failure> {
        let is_toml = self
            .out
            .extension()
            .is_some_and(|extension| extension == "toml");
        let text = if is_toml {
            toml::to_string_pretty(draft).context("cannot write the inventory as TOML")?
        } else {
            let text = serde_json::to_string_pretty(draft);
            text.context("cannot write the inventory as JSON")? + "\n"
        };
        let resolved = inventory::parse(&self.out.display().to_string(), text.as_bytes())
            .and_then(|inventory| resolve(&inventory, None));
        for note in notes {
            output::error(&format!("note: {note}\n"));
        }
        // That no machine has a key yet is what an import looks like.
        if let Err(report) = resolved {
            return Err(load::broken(&self.out, &report)
                .hint("nothing was written; the options of this command mend it"));
        }
        if self.out == Path::new("-") {
            output::answer(&text)?;
            return Ok(Exit::Done);
        }
        init::write(&self.out, &text)?;
        let file = self.out.display();
        output::answer(&format!(
            "made `{file}`: network {}, {}\n\
             next: on each machine `mesh keygen --machine NAME --out FILE`, put what it prints under its \
             name, then `mesh inventory check {file}`\n",
            draft.network.id,
            count(draft.machines.len(), "machine"),
        ))?;
        Ok(Exit::Done)
    }
}

/// The mesh as an instance: who controls it, and everyone in it.
pub(super) fn mesh_instance(controllers: &[MachineName]) -> Value {
    let machines: serde_json::Map<String, Value> = controllers
        .iter()
        .map(|name| (name.to_string(), json!({})))
        .collect();
    json!({
        "roles": {
            "controller": { "machines": machines },
            "peer": { "tags": { "all": {} } },
        }
    })
}

/// Reads text as JSON.
///
/// # Errors
///
/// A [`Failure`] with [`Exit::Usage`] that names the source.
pub(super) fn parse_json(source: &str, bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(Exit::Usage, anyhow!("{source} is not JSON: {error}")))
}

/// `NAME=VALUE` of an option.
///
/// # Errors
///
/// What clap shows.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("give it as `KEY=VALUE`".to_owned()),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_true(value: &bool) -> bool {
    *value
}
