//! `mesh join`.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use mesh_control::{Expect, connect};
use mesh_inventory::Invitation;
use mesh_os::file::{self, WriteFileError};
use mesh_types::IdentitySeed;
use mesh_wire::control::{Reply, Request};
use serde_json::json;
use zeroize::Zeroizing;

use super::keygen;
use crate::{
    client::block_on,
    failure::{Exit, Failure},
    output,
};

/// Join a mesh with the token of an invitation
///
/// Makes this machine's identity, unless it has one, and its configuration, shows the controller that it was invited, and says
/// whether it is admitted: at once where the controller signs rosters, and else when somebody who does has accepted it. The
/// identity never leaves this machine.
#[derive(clap::Args)]
#[command(after_help = "Example: sudo mesh join mesh1-invitation-…")]
pub(crate) struct Args {
    /// The token, as `mesh invite` printed it; `-` for stdin, where no other user sees it
    token: Zeroizing<String>,
    /// The identity; made if there is no such file
    #[arg(long, value_name = "FILE", default_value = "/etc/mesh/identity")]
    identity: PathBuf,
    /// The agent's configuration; written if there is no such file
    #[arg(long, value_name = "FILE", default_value = mesh_agent::CONFIG_PATH)]
    config: PathBuf,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

/// The longest token that is read from stdin, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let token = match args.token.as_str() {
        "-" => {
            let mut text = Zeroizing::new(String::new());
            io::stdin()
                .take(TOKEN_BYTES_MAX)
                .read_to_string(&mut text)
                .context("cannot read the token")?;
            text
        }
        _ => args.token.clone(),
    };
    let invitation: Invitation = token
        .parse()
        .map_err(|error| Failure::new(Exit::Usage, anyhow::Error::new(error)))?;
    let identity = identity(&args.identity)?;
    let admitted = block_on(join(&invitation, &identity))?;
    let written = configure(&args, &invitation)?;
    let text = match args.json {
        true => {
            let object = json!({
                "version": 1,
                "name": invitation.name,
                "network": invitation.network,
                "publicKey": identity.public(),
                "admitted": admitted,
                "config": args.config,
                "configWritten": written,
            });
            format!("{object}\n")
        }
        false => render(&args, &invitation, &identity, admitted, written),
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

/// The one that is there, or a new one.
fn identity(path: &Path) -> Result<IdentitySeed, Failure> {
    if path.symlink_metadata().is_err() {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make `{}`", dir.display()))?;
        }
        keygen::generate(path)?;
    }
    keygen::read_identity(path)
}

/// Shows the first controller that answers that this machine was invited; whether it is admitted.
async fn join(invitation: &Invitation, identity: &IdentitySeed) -> Result<bool, Failure> {
    let public = identity.public();
    let request = Request::Join {
        network: invitation.network,
        name: invitation.name.clone(),
        identity: public,
        invitation: invitation.secret.public(),
        proof: invitation.proof(&public),
    };
    let mut failure = anyhow!("the invitation names no controller");
    for controller in &invitation.controllers {
        let expect = Expect::OneOf(vec![controller.identity.node_id()]);
        let connection = match connect(&controller.endpoint, Some(identity), expect).await {
            Ok(connection) => connection,
            Err(error) => {
                failure = error.into();
                continue;
            }
        };
        let reply = connection.request(&request, &[]).await;
        connection.close().await;
        match reply {
            Ok((Reply::Joined { admitted }, _)) => return Ok(admitted),
            Ok((Reply::Error { message, .. } | Reply::Refused { reason: message }, _)) => {
                let error = anyhow!(message).context("the controller refuses");
                return Err(Failure::new(Exit::Refused, error)
                    .hint("`mesh invite NAME` on the controller makes another invitation"));
            }
            Ok(_) => failure = anyhow!("the controller answers something else than asked"),
            Err(error) => failure = error.into(),
        }
    }
    Err(Failure::new(
        Exit::Unreachable,
        failure.context("no controller of the invitation can be asked"),
    )
    .hint("check that UDP gets through to the controller's port; the invitation still counts"))
}

/// Writes the agent's configuration where there is none; whether it did.
fn configure(args: &Args, invitation: &Invitation) -> Result<bool, Failure> {
    let list = |items: Vec<String>| {
        let items: Vec<_> = items.into_iter().map(toml::Value::String).collect();
        toml::Value::Array(items)
    };
    let mut table = toml::Table::new();
    table.insert("network".to_owned(), invitation.network.to_string().into());
    let signers = invitation.signers.iter().cloned().map(String::from);
    table.insert("signers".to_owned(), list(signers.collect()));
    let controllers = invitation.controllers.iter();
    let controllers = controllers.map(|controller| controller.endpoint.clone());
    table.insert("controllers".to_owned(), list(controllers.collect()));
    let identity = args.identity.display().to_string();
    table.insert("identity_file".to_owned(), identity.into());
    let text = format!("# Written by `mesh join`.\n{table}");
    match file::write_once(&args.config, text.as_bytes(), 0o644) {
        Ok(()) => Ok(true),
        Err(WriteFileError::Exists(_)) => Ok(false),
        Err(error) => Err(Failure::new(Exit::Refused, error)),
    }
}

fn render(
    args: &Args,
    invitation: &Invitation,
    identity: &IdentitySeed,
    admitted: bool,
    written: bool,
) -> String {
    let name = &invitation.name;
    let standing = match admitted {
        true => format!("`{name}` is admitted\n"),
        false => format!(
            "`{name}` has joined, and waits for who signs rosters: `mesh inventory accept {name} --public-key {}`\n",
            identity.public()
        ),
    };
    let config = args.config.display();
    let configured = match written {
        true => format!("wrote `{config}`\n"),
        false => format!("`{config}` was there and is left as it is\n"),
    };
    format!(
        "{standing}{configured}next: start the agent, as a service (`mesh service install agent`, `systemctl enable --now mesh-agent`) or with `mesh agent run`\n"
    )
}
