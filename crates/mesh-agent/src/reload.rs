//! Reads the configuration again, on SIGHUP and when the file changes.

use std::{path::PathBuf, sync::Arc};

use mesh_os::watch::FileWatch;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::{agent::Agent, chain, config::Config};

/// Reloads the file at `path` whenever there is a reason to, for ever.
pub(crate) async fn watch(agent: Arc<Agent>, path: PathBuf) {
    let mut file = FileWatch::new(&path);
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            warn!(%error, "SIGHUP will not reload the configuration");
            return std::future::pending().await;
        }
    };
    loop {
        tokio::select! {
            () = file.changed() => {}
            _ = hangup.recv() => {}
        }
        match Config::load(&path) {
            Ok(config) => apply(&agent, config),
            Err(error) => warn!(
                error = chain(&error),
                "the configuration is wrong; the one in force stays"
            ),
        }
    }
}

fn apply(agent: &Agent, read: Config) {
    let (next, restart) = merge(&agent.config(), read);
    info!("configuration reloaded");
    if !restart.is_empty() {
        warn!(
            keys = restart.join(", "),
            "restart needed for these keys to take effect"
        );
    }
    let orphaned = agent
        .roster()
        .is_some_and(|roster| !next.signers.contains(roster.signer()));
    if orphaned {
        warn!(
            "the roster in force is by a signer that is not configured any more; it stays until a newer one comes, and is passed over at the next start"
        );
    }
    agent.overlay.moon.set_total_rate(next.relay_rate);
    agent.restart_needed.send_replace(restart);
    agent.config.send_replace(Arc::new(next));
}

/// What of `read` takes effect in place of `current`, and the keys that need a restart.
fn merge(current: &Config, read: Config) -> (Config, Vec<&'static str>) {
    let mut restart = Vec::new();
    let mut differs = |key, differs| {
        if differs {
            restart.push(key);
        }
    };
    differs("network", read.network != current.network);
    differs("identity_file", read.identity_file != current.identity_file);
    differs("listen", read.listen != current.listen);
    differs("interface", read.interface != current.interface);
    differs("state_dir", read.state_dir != current.state_dir);
    differs("socket", read.socket != current.socket);
    differs("group", read.group != current.group);
    differs("name", read.name != current.name);
    differs("user", read.user != current.user);
    differs("confine", read.confine != current.confine);
    differs("dns", read.dns != current.dns);
    differs("relay_listen", read.relay_listen != current.relay_listen);
    differs("offload", read.offload != current.offload);
    differs("queues", read.queues != current.queues);
    differs(
        "metrics_listen",
        read.metrics_listen != current.metrics_listen,
    );
    let next = Config {
        signers: read.signers,
        controllers: read.controllers,
        min_serial: read.min_serial,
        relay_rate: read.relay_rate,
        // Read by another process, each time.
        resolver: read.resolver,
        port_mapping: read.port_mapping,
        ..current.clone()
    };
    (next, restart)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::{Fleet, network};

    fn config(signer: &Fleet, more: &str) -> Config {
        let text = format!(
            "network = \"{}\"\nsigners = [\"{}\"]\n{more}\n",
            network(),
            signer.signer()
        );
        Config::parse(&text, Path::new("agent.toml")).unwrap()
    }

    #[test]
    fn what_needs_no_new_start_changes_at_run_time() {
        let (old, new) = (Fleet::new(&[]), Fleet::new(&[]));
        let current = config(&old, "controllers = []");
        let read = config(
            &new,
            "controllers = [\"a:1\"]\nmin_serial = 7\nrelay_rate = 9\nport_mapping = false",
        );
        let (next, restart) = merge(&current, read.clone());
        assert_eq!(next, read);
        assert_eq!(restart, Vec::<&str>::new());
    }

    #[test]
    fn what_is_open_already_needs_a_restart_and_stays_as_it_is() {
        let fleet = Fleet::new(&[]);
        let current = config(&fleet, "controllers = []");
        let read = config(
            &fleet,
            "controllers = [\"a:1\"]\nlisten = \"[::]:1\"\ninterface = \"x\"\ngroup = \"g\"",
        );
        let (next, restart) = merge(&current, read);
        assert_eq!(restart, ["listen", "interface", "group"]);
        assert_eq!(next.interface, current.interface);
        assert_eq!(next.controllers.len(), 1);
    }
}
