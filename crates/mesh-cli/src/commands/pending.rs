//! `mesh pending`.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use mesh_api::Pending;

use crate::{
    client::{Daemon, block_on},
    failure::{Exit, Failure},
    output,
};

/// List the keys that asked to join and are in no roster
///
/// Asks the controller on this machine. A key is copied from here to the inventory, as the machine's
/// `publicKey`, by whoever knows that it is that machine's: the name is only what it claims.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The controller's socket
    #[arg(long, env = "MESH_CONTROLLER_SOCKET", default_value = mesh_controller::DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

/// How long the controller may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let controller = Daemon::controller(&args.socket);
    let pending: Pending = block_on(controller.get("/v1/pending", ANSWER_TIMEOUT))?;
    let text = if args.json {
        output::json(&pending)?
    } else {
        render(&pending)
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

fn render(pending: &Pending) -> String {
    if pending.pending.is_empty() {
        return "no key is pending\n".to_owned();
    }
    let mut text = format!(
        "{:<16}  {:>8}  {:>8}  {:<24}  KEY\n",
        "CLAIMED NAME", "LAST", "ATTEMPTS", "SOURCE"
    );
    for key in &pending.pending {
        let name = key.name.as_ref().map_or("-", |name| name.as_str());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name:<16}  {:>8}  {:>8}  {:<24}  {}",
            age(key.last_seen_seconds),
            key.attempts,
            key.source.to_string(),
            key.key
        );
    }
    text
}

/// A time in its largest whole unit.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::PendingKey;

    use super::*;

    #[test]
    fn pending_keys_are_a_table() {
        let pending = Pending {
            version: 1,
            pending: vec![PendingKey {
                key: "mesh1AAAA".into(),
                name: Some("electrum".parse().unwrap()),
                source: "[2001:db8::1]:40000".parse().unwrap(),
                first_seen: "2026-11-20T12:00:00Z".into(),
                last_seen: "2026-11-20T12:58:37Z".into(),
                last_seen_seconds: 125,
                attempts: 12,
            }],
        };
        insta::assert_snapshot!(render(&pending), @r"
        CLAIMED NAME          LAST  ATTEMPTS  SOURCE                    KEY
        electrum             2 min        12  [2001:db8::1]:40000       mesh1AAAA
        ");
    }

    #[test]
    fn nothing_pending_is_said_in_words() {
        let pending = Pending {
            version: 1,
            pending: vec![],
        };
        assert_eq!(render(&pending), "no key is pending\n");
    }
}
