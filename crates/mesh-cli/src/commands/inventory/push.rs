//! `mesh inventory push`.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use anyhow::anyhow;
use mesh_agent::HostPort;
use mesh_control::{ConnectError, Connection, Expect, connect};
use mesh_inventory::{Role, Roster, diff};
use mesh_types::NodeId;
use mesh_wire::control::{ErrorCode, Reply, Request};
use serde_json::json;

use super::{confirm::confirm, load, verify::summary};
use crate::{
    client::block_on,
    failure::{Exit, Failure},
    output,
};

/// Hand a signed roster to a controller, which takes it at once
///
/// Needs no identity: the signature is what authorises. The server must hold the key of a controller in
/// the roster. On a terminal, shows who joins, leaves and changes, and asks.
///
/// Example: `mesh inventory push roster.json --controller cinnabar.example.org:4194`
#[derive(clap::Args)]
pub(super) struct Args {
    /// The roster
    roster: PathBuf,
    /// The controller
    #[arg(long, value_name = "HOST:PORT")]
    controller: HostPort,
    /// The roster in force, to compare with if the controller does not show its own
    #[arg(long, value_name = "ROSTER")]
    previous: Option<PathBuf>,
    /// Let it be taken although it follows another roster, or removes over half of the members
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let roster = load::roster(&args.roster)?;
    let previous = args.previous.as_deref().map(load::roster).transpose()?;
    block_on(push(&args, &roster, previous))
}

async fn push(args: &Args, roster: &Roster, previous: Option<Roster>) -> Result<Exit, Failure> {
    let controllers = controllers(roster);
    if controllers.is_empty() {
        let error = anyhow!(
            "`{}` has no controller with a key, so no server could be told from an impostor",
            args.roster.display()
        );
        return Err(Failure::new(Exit::Refused, error)
            .hint("give the controller its `publicKey` in the inventory, and sign that"));
    }
    if !args.yes && io::stdin().is_terminal() {
        // A connection of its own: a controller may close it on a stranger who asks for the roster.
        let connection = reach(args, &controllers).await?;
        let in_force = in_force(&connection).await.or(previous);
        connection.close().await;
        output::error(&plan(roster, in_force.as_ref()));
        let question = format!("push {} to `{}`?", summary(roster), args.controller);
        if !confirm(&question)? {
            return Err(Failure::new(Exit::Refused, anyhow!("nothing was pushed")));
        }
    }
    let connection = reach(args, &controllers).await?;
    let request = Request::Push { force: args.force };
    let reply = connection.request(&request, &roster.to_file()).await;
    // Or the controller would keep the connection until it times out.
    connection.close().await;
    let (reply, _) = reply.map_err(|error| Failure::new(Exit::Unreachable, error))?;
    answer(args, reply)
}

async fn reach(args: &Args, controllers: &[NodeId]) -> Result<Connection, Failure> {
    connect(
        args.controller.as_str(),
        None,
        Expect::OneOf(controllers.to_vec()),
    )
    .await
    .map_err(|error| unreachable(args, error))
}

/// The keys of the roster's controllers that are switched on.
fn controllers(roster: &Roster) -> Vec<NodeId> {
    roster
        .members()
        .values()
        .filter(|member| member.enabled && member.roles.contains(&Role::Controller))
        .filter_map(|member| member.public_key.as_ref()?.node_id())
        .collect()
}

/// The controller's roster, if it shows it to a stranger.
async fn in_force(connection: &Connection) -> Option<Roster> {
    let request = Request::Roster { have: None };
    match connection.request(&request, &[]).await {
        Ok((Reply::Roster { .. }, file)) => Roster::open(&file).ok(),
        Ok(_) | Err(_) => None,
    }
}

fn plan(roster: &Roster, in_force: Option<&Roster>) -> String {
    let Some(in_force) = in_force else {
        return "the roster in force is not known here; `--previous ROSTER` would show what changes\n"
            .to_owned();
    };
    let diff = diff(in_force.parts(), roster.parts());
    let mut text = format!("in force: {}\n", summary(in_force));
    if diff.is_empty() {
        text.push_str("no difference\n");
    } else {
        text.push_str(&diff.to_string());
    }
    if diff.removes_over_half() {
        text.push_str("this removes over half of the members, which needs `--force`\n");
    }
    text
}

fn unreachable(args: &Args, error: ConnectError) -> Failure {
    if matches!(error, ConnectError::Unexpected { .. }) {
        return Failure::new(Exit::Refused, error).hint(format!(
            "check the address, and that the controller's `publicKey` in `{}` is what `mesh keygen --public FILE` prints there",
            args.roster.display()
        ));
    }
    Failure::new(Exit::Unreachable, error).hint(
        "check the address and port (4194 by default), and that `mesh controller run` runs there",
    )
}

fn answer(args: &Args, reply: Reply) -> Result<Exit, Failure> {
    match reply {
        Reply::Accepted { serial, members } => {
            let text = if args.json {
                let object = json!({ "version": 1, "serial": serial, "members": members });
                format!("{object}\n")
            } else {
                let members = usize::try_from(members).unwrap_or(usize::MAX);
                let members = super::show::count(members, "member");
                format!("serial {serial} is in force, with {members}\n")
            };
            output::answer(&text)?;
            Ok(Exit::Done)
        }
        Reply::Error { code, message } => {
            let error = anyhow!("the controller did not take the roster: {message}");
            let failure = Failure::new(Exit::Refused, error);
            Err(match code {
                ErrorCode::ForceNeeded => failure.hint("pass `--force` if that is meant"),
                ErrorCode::RateLimited => failure.hint("wait a minute and try again"),
                ErrorCode::Internal => failure.hint("the controller's log says more"),
                ErrorCode::Unsupported
                | ErrorCode::Malformed
                | ErrorCode::NotAdmitted
                | ErrorCode::RosterRefused
                | ErrorCode::InvitationRefused
                | ErrorCode::NoRoster => failure,
            })
        }
        Reply::Refused { reason } => Err(Failure::new(
            Exit::Refused,
            anyhow!("the controller refused: {reason}"),
        )),
        Reply::Welcome { .. }
        | Reply::Roster { .. }
        | Reply::UpToDate
        | Reply::Endpoints { .. }
        | Reply::Joined { .. }
        | Reply::Done => Err(Failure::new(
            Exit::Refused,
            anyhow!("the controller answered something else than was asked"),
        )),
    }
}
