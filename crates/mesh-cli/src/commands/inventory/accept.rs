//! `mesh inventory accept`.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use mesh_api::{Pending, PendingKey};
use mesh_inventory::Edit;
use mesh_types::{MachineName, MemberKey};

use super::{change::Target, confirm::confirm};
use crate::{
    client::{Daemon, block_on},
    failure::{Exit, Failure},
    human, output,
};

/// Accept a machine: write the key that is pending under its name into the inventory
///
/// Asks the controller on this machine which key claims the name, shows it and asks whether it is the right one: compare it
/// with what `mesh keygen --public FILE` prints there. Everything else in the file stays as it was written. A controller that
/// watches the file admits the machine at once.
#[derive(clap::Args)]
#[command(
    after_help = "Example: mesh inventory accept stibnite --inventory /etc/mesh/inventory.toml"
)]
pub(super) struct Args {
    /// The machine's name; one that is not in the inventory is added
    name: MachineName,
    /// The key, if it is known: no controller is asked
    #[arg(long, value_name = "KEY", conflicts_with = "socket")]
    public_key: Option<MemberKey>,
    #[command(flatten)]
    target: Target,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// The controller's socket
    #[arg(long, env = "MESH_CONTROLLER_SOCKET", default_value = mesh_controller::DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
}

/// How long the controller may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    // Before anybody is asked anything.
    args.target.path()?;
    let key = match args.public_key {
        Some(key) => key,
        None => {
            let controller = Daemon::controller(&args.socket);
            let pending: Pending = block_on(controller.get("/v1/pending", LIMIT))?;
            let pending = claim(&args.name, pending.pending)?;
            let key = pending.key.parse().map_err(anyhow::Error::new)?;
            if !args.yes {
                ask(&args.name, &pending)?;
            }
            key
        }
    };
    args.target.change(&Edit::Key(args.name.clone(), Some(key)))
}

/// The one key that claims a name.
fn claim(name: &MachineName, pending: Vec<PendingKey>) -> Result<PendingKey, Failure> {
    let mut claims = pending
        .into_iter()
        .filter(|key| key.name.as_ref() == Some(name));
    let refused = |message: String| Failure::new(Exit::Refused, anyhow!(message));
    let Some(first) = claims.next() else {
        return Err(refused(format!("no key that is pending claims to be `{name}`")).hint(
            "`mesh pending` lists those that are; one that is known is given with `--public-key KEY`",
        ));
    };
    let others: Vec<_> = claims.map(|key| format!("\n  {}", key.key)).collect();
    if !others.is_empty() {
        let message = format!(
            "{} keys claim to be `{name}`:\n  {}{}",
            others.len() + 1,
            first.key,
            others.concat()
        );
        return Err(refused(message).hint(
            "`mesh keygen --public FILE` on that machine prints the right one; give it with `--public-key KEY`",
        ));
    }
    Ok(first)
}

fn ask(name: &MachineName, pending: &PendingKey) -> Result<(), Failure> {
    let shown = format!(
        "`{name}` claims the key\n  {}\nfrom {}, {} times, last {} ago\n",
        pending.key,
        pending.source,
        pending.attempts,
        human::age(pending.last_seen_seconds)
    );
    output::error(&shown);
    let refused = |message: &str| Failure::new(Exit::Refused, anyhow!(message.to_owned()));
    if !io::stdin().is_terminal() {
        return Err(
            refused("nobody is there to say whether that is the machine's key")
                .hint("pass `--yes`, or the key with `--public-key KEY`"),
        );
    }
    match confirm("is that what `mesh keygen --public FILE` prints there?")? {
        true => Ok(()),
        false => Err(refused("nothing was written")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(name: Option<&str>, key: &str) -> PendingKey {
        PendingKey {
            key: key.to_owned(),
            name: name.map(|name| name.parse().unwrap()),
            source: "192.0.2.7:4000".parse().unwrap(),
            first_seen: "2026-11-20T12:00:00Z".into(),
            last_seen: "2026-11-20T12:58:37Z".into(),
            last_seen_seconds: 125,
            attempts: 12,
        }
    }

    #[test]
    fn one_key_claims_a_name_or_none_is_taken() {
        let name = "stibnite".parse().unwrap();
        let keys = || {
            vec![
                pending(Some("stibnite"), "mesh1A"),
                pending(Some("galena"), "mesh1B"),
                pending(None, "mesh1C"),
            ]
        };
        assert_eq!(claim(&name, keys()).unwrap().key, "mesh1A");
        let refused = |keys| claim(&name, keys).unwrap_err().into_error().to_string();
        assert_eq!(
            refused(Vec::new()),
            "no key that is pending claims to be `stibnite`"
        );
        let two = [keys(), vec![pending(Some("stibnite"), "mesh1D")]].concat();
        assert_eq!(
            refused(two),
            "2 keys claim to be `stibnite`:\n  mesh1A\n  mesh1D"
        );
    }
}
