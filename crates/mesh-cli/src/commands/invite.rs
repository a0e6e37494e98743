//! `mesh invite`.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use mesh_agent::HostPort;
use mesh_api::{Invited, Uninvited};
use mesh_inventory::{Invitation, InvitingController, roster::Signer};
use mesh_types::{CONTROLLER_PORT, MachineName};
use serde_json::json;
use zeroize::Zeroizing;

use super::keygen;
use crate::{
    client::{Daemon, block_on},
    failure::{Exit, Failure},
    output,
};

/// Invite a machine: print a token with which it joins, once
///
/// Run on the controller. The machine must be in the inventory and have no key there: `"NAME": {}`. On the new machine
/// `mesh join TOKEN` makes its identity and shows the controller the token's secret, of which the controller knows the public
/// half alone. Whoever has the token can join as that machine until it is used or expires, so hand it over as you would a password.
#[derive(clap::Args)]
#[command(after_help = "Example: mesh invite stibnite --expires 1h")]
pub(crate) struct Args {
    /// The machine's name
    name: MachineName,
    /// How long the invitation counts, such as `30m`, `1h` or `7d`; a month at most
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// Where the new machine reaches this controller; by default where the roster says that this machine is, port 4194
    #[arg(long, value_name = "HOST:PORT")]
    controller: Vec<HostPort>,
    /// Take back the machine's invitations instead, and the key that it joined with, unless the inventory has that
    #[arg(long, conflicts_with_all = ["expires", "controller"])]
    revoke: bool,
    /// The controller's socket
    #[arg(long, env = "MESH_CONTROLLER_SOCKET", default_value = mesh_controller::DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

/// How long the controller may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let daemon = Daemon::controller(&args.socket);
    let text = match args.revoke {
        true => revoke(&args, &daemon)?,
        false => invite(&args, &daemon)?,
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

fn revoke(args: &Args, daemon: &Daemon) -> Result<Zeroizing<String>, Failure> {
    let question = format!("/v1/uninvite?name={}", args.name);
    let answer: Uninvited = block_on(daemon.post(&question, LIMIT))?;
    let text = match (args.json, answer.invitations) {
        (true, _) => format!("{}\n", json!(answer)),
        (false, 0) => format!("`{}` has no invitation\n", args.name),
        (false, number) => format!("took back {number} of `{}`\n", args.name),
    };
    Ok(Zeroizing::new(text))
}

fn invite(args: &Args, daemon: &Daemon) -> Result<Zeroizing<String>, Failure> {
    let secret = keygen::random_seed()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("this machine's clock is before 1970")?;
    let expires = (now + args.expires).as_secs();
    let question = format!(
        "/v1/invite?name={}&key={}&expires={expires}",
        args.name,
        secret.public()
    );
    let invited: Invited = block_on(daemon.post(&question, LIMIT))?;
    let controllers = controllers(args, &invited)?;
    let signers = invited.signers.iter().map(|signer| signer.parse());
    let invitation = Invitation {
        network: invited.network.parse().map_err(anyhow::Error::new)?,
        name: args.name.clone(),
        expires,
        signers: signers
            .collect::<Result<Vec<Signer>, _>>()
            .map_err(anyhow::Error::new)?,
        controllers,
        secret,
    };
    let token = invitation.to_token();
    Ok(Zeroizing::new(match args.json {
        true => {
            let object = json!({
                "version": 1,
                "name": args.name,
                "token": *token,
                "expires": mesh_api::rfc3339(expires),
            });
            format!("{object}\n")
        }
        false => format!("{}\n", *token),
    }))
}

/// This controller, at each place where it is reached.
fn controllers(args: &Args, invited: &Invited) -> Result<Vec<InvitingController>, Failure> {
    let of_roster = invited.endpoints.iter().filter_map(|endpoint| {
        let (host, _) = endpoint.rsplit_once(':')?;
        Some(format!("{host}:{CONTROLLER_PORT}"))
    });
    let endpoints: Vec<String> = match args.controller.is_empty() {
        true => of_roster.collect(),
        false => args.controller.iter().map(ToString::to_string).collect(),
    };
    if endpoints.is_empty() {
        let error = anyhow!("the roster does not say where this controller is reached");
        return Err(Failure::new(Exit::Refused, error).hint(
            "say it with `--controller HOST:4194`, or give its machine `mesh.endpoints` in the inventory",
        ));
    }
    let here = |endpoint| InvitingController {
        endpoint,
        identity: invited.controller,
    };
    Ok(endpoints.into_iter().map(here).collect())
}
