//! `mesh inventory init`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use mesh_inventory::Signer;
use mesh_os::file::{self, WriteFileError};
use mesh_types::{MachineName, NetworkId};
use rand::{RngCore as _, rngs::OsRng};
use serde_json::{Value, json};

use super::key::agent_keys;
use crate::{
    failure::{Exit, Failure},
    output,
};

/// The names that OpenSSH gives keys by default, the best first.
const KEY_FILES: [&str; 5] = [
    "id_ed25519.pub",
    "id_ed25519_sk.pub",
    "id_ecdsa.pub",
    "id_ecdsa_sk.pub",
    "id_rsa.pub",
];

/// Start an inventory with a random network id
///
/// Your own SSH public key (of `~/.ssh`, else of the ssh-agent) becomes the signer, unless others are
/// named. Machines are added by hand; `--controller` adds the first.
///
/// Example: `mesh inventory init --name home --controller cinnabar`
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where it goes: JSON, or TOML if it ends in `.toml`; `-` for stdout
    #[arg(long, value_name = "FILE", default_value = "inventory.json")]
    out: PathBuf,
    /// The network's name
    #[arg(long, default_value = "mesh")]
    name: String,
    /// DNS domain of the machines
    #[arg(long, default_value = "mesh")]
    domain: String,
    /// A machine to begin with, which has the role `controller`
    #[arg(long, value_name = "MACHINE")]
    controller: Option<MachineName>,
    /// Who may sign rosters: an SSH public key or a `mesh1` identity, as text or in a file
    #[arg(long, value_name = "KEY")]
    signer: Vec<String>,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let to_stdout = args.out == Path::new("-");
    if to_stdout && args.json {
        let error = anyhow!("`--out -` and `--json` would both answer on stdout");
        return Err(Failure::new(Exit::Usage, error).hint("name a file with `--out FILE`"));
    }
    let signers = signers(&args.signer)?;
    let id = random_network_id()?;
    let is_toml = args
        .out
        .extension()
        .is_some_and(|extension| extension == "toml");
    let text = if is_toml {
        as_toml(&args, id, &signers)
    } else {
        as_json(&args, id, &signers)
    };
    // Whatever the names given, what is written must be an inventory that can be read.
    let parsed = mesh_inventory::inventory::parse(&args.out.display().to_string(), text.as_bytes());
    let malformed = parsed.map_or_else(Some, |inventory| inventory.malformed());
    if let Some(report) = malformed {
        return Err(super::load::broken(&args.out, &report)
            .hint("nothing was written; mend `--name` or `--domain`"));
    }
    if to_stdout {
        output::answer(&text)?;
        return Ok(Exit::Done);
    }
    write(&args.out, &text)?;
    if signers.is_empty() {
        output::error(
            "warning: no SSH public key was found, so `signers` is empty\n\
             hint: `ssh-keygen -t ed25519` makes one; add the content of its `.pub` file to `signers`\n",
        );
    }
    let answer = if args.json {
        let object = json!({
            "version": 1, "file": args.out, "network": id, "prefix": id.prefix().net(), "signers": signers,
        });
        format!("{object}\n")
    } else {
        next_steps(&args, id)
    };
    output::answer(&answer)?;
    Ok(Exit::Done)
}

/// A network id that is nobody else's.
///
/// # Errors
///
/// A [`Failure`] if the system gives no random bytes.
pub(in crate::commands) fn random_network_id() -> Result<NetworkId, Failure> {
    let mut id = [0; 16];
    OsRng
        .try_fill_bytes(&mut id)
        .map_err(|error| anyhow!("the system gives no random bytes: {error}"))?;
    Ok(NetworkId::from_bytes(id))
}

/// Writes a new inventory; never over another file.
///
/// # Errors
///
/// A [`Failure`] that says what is in the way.
pub(in crate::commands) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    file::write_once(path, text.as_bytes(), 0o644).map_err(|error| {
        let exists = matches!(error, WriteFileError::Exists(_));
        let failure = Failure::new(Exit::Refused, error);
        if exists {
            failure.hint("a network id is made once; take another file with `--out FILE`")
        } else {
            failure
        }
    })
}

fn next_steps(args: &Args, id: NetworkId) -> String {
    let file = args.out.display();
    let machine = match &args.controller {
        Some(name) => name.as_str(),
        None => "NAME",
    };
    format!(
        "made `{file}`: network {id}, prefix {}\n\
         next: on each machine `mesh keygen --machine {machine} --out FILE`, put what it prints under \
         `machines`, then `mesh inventory check {file}`\n",
        id.prefix()
    )
}

/// The named signers, or the admin's own key.
///
/// # Errors
///
/// A [`Failure`] for what is neither a signer nor a file with one.
pub(in crate::commands) fn signers(named: &[String]) -> Result<Vec<Signer>, Failure> {
    if named.is_empty() {
        return Ok(own_key().into_iter().collect());
    }
    named.iter().map(|text| parse_signer(text)).collect()
}

/// Reads a signer from text, or from the file that the text names.
///
/// # Errors
///
/// A [`Failure`] with [`Exit::Usage`] if it is neither.
pub(crate) fn parse_signer(text: &str) -> Result<Signer, Failure> {
    let content = fs::read_to_string(text).unwrap_or_else(|_| text.to_owned());
    content
        .trim()
        .parse()
        .with_context(|| format!("`{text}` is neither a signer nor a file with one"))
        .map_err(|error| Failure::new(Exit::Usage, error))
}

fn own_key() -> Option<Signer> {
    let directory = env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh"));
    let from_file = |name: &str| {
        let text = fs::read_to_string(directory.as_ref()?.join(name)).ok()?;
        text.trim().parse().ok()
    };
    KEY_FILES.into_iter().find_map(from_file).or_else(|| {
        agent_keys()
            .into_iter()
            .find_map(|key| Signer::try_from(key).ok())
    })
}

fn as_json(args: &Args, id: NetworkId, signers: &[Signer]) -> String {
    let text = |value: Value| value.to_string();
    let signers: Vec<String> = signers.iter().map(|signer| text(json!(signer))).collect();
    let (machines, controllers) = match &args.controller {
        Some(name) => (
            format!(
                "{{\n    \"{name}\": {{ \"machineClass\": \"nixos\", \"tags\": [], \"publicKey\": null }}\n  }}"
            ),
            format!("{{ \"{name}\": {{}} }}"),
        ),
        None => ("{}".to_owned(), "{}".to_owned()),
    };
    let signers = match signers.as_slice() {
        [] => "[]".to_owned(),
        some => format!("[\n      {}\n    ]", some.join(",\n      ")),
    };
    format!(
        r#"{{
  "version": "mesh/v1",
  "network": {{
    "id": "{id}",
    "name": {},
    "domain": {},
    "signers": {signers}
  }},
  "machines": {machines},
  "instances": {{
    "mesh": {{
      "roles": {{
        "controller": {{ "machines": {controllers} }},
        "peer": {{ "tags": {{ "all": {{}} }} }}
      }}
    }}
  }}
}}
"#,
        text(json!(args.name)),
        text(json!(args.domain)),
    )
}

fn as_toml(args: &Args, id: NetworkId, signers: &[Signer]) -> String {
    let text = |text: &str| toml::Value::from(text).to_string();
    let signers: Vec<String> = signers
        .iter()
        .map(|signer| format!("    {},\n", text(&signer.to_string())))
        .collect();
    let list = if signers.is_empty() {
        "[]".to_owned()
    } else {
        format!("[\n{}]", signers.concat())
    };
    let machine = match &args.controller {
        Some(name) => format!("[machines.{name}]\nmachineClass = \"nixos\"\ntags = []\n"),
        None => {
            "# [machines.cinnabar]\n# machineClass = \"nixos\"   # or \"darwin\", \"external\"\n"
                .to_owned()
        }
    };
    let controller = match &args.controller {
        Some(name) => format!("[instances.mesh.roles.controller.machines.{name}]\n"),
        None => "# [instances.mesh.roles.controller.machines.cinnabar]\n".to_owned(),
    };
    format!(
        r#"version = "mesh/v1"

[network]
# Made once, at random. Every address derives from it, so it stays as it is.
id = "{id}"
name = {}
# Machines answer to NAME.{}.
domain = {}
# Who may sign rosters: SSH public keys, or identities of `mesh keygen`.
signers = {list}

# A machine; `mesh keygen --machine NAME --out FILE` prints its key.
{machine}# publicKey = "mesh1..."

# At least one machine is always on and has the role `controller`.
{controller}
# Every machine is a peer.
[instances.mesh.roles.peer.tags.all]
"#,
        text(&args.name),
        args.domain,
        text(&args.domain),
    )
}
