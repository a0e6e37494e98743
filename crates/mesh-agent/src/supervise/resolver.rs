//! The machine's resolver, where the supervisor looks after it: on macOS, which has no unit that would.
//!
//! The installed program does it, in a process of its own: the supervisor outlives upgrades, and reads
//! nothing that the agent wrote.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use mesh_api::NAMES_FILE;
use mesh_os::{paths, watch::FileWatch};
use tokio::process::Command;
use tracing::warn;

use super::Supervise;
use crate::config::Config;

/// Sets the resolver at once, which mends what a crash left, and whenever the agent's names change. For ever;
/// may be dropped at any time.
pub(super) async fn follow(options: Supervise) {
    let mut names = FileWatch::new(names_path(&options.config));
    loop {
        run(&options, &["apply", "--wait"]).await;
        names.changed().await;
    }
}

/// Takes back what was set.
pub(super) async fn undo(options: &Supervise) {
    run(options, &["undo"]).await;
}

fn names_path(config: &Path) -> PathBuf {
    let socket = Config::load(config).map(|config| config.socket);
    // Without a configuration there is no agent yet, nor names.
    let socket = socket.unwrap_or_else(|_| PathBuf::from(paths::AGENT_SOCKET));
    socket.with_file_name(NAMES_FILE)
}

async fn run(options: &Supervise, verb: &[&str]) {
    let ended = Command::new(&options.program)
        .arg("resolver")
        .args(verb)
        .arg("--config")
        .arg(&options.config)
        // It is no daemon of ours.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    match ended {
        Ok(status) if status.success() => {}
        // It said why in the log.
        Ok(status) => warn!(%status, verb = verb[0], "the resolver was not set"),
        Err(error) => warn!(%error, "the program that sets the resolver cannot be started"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, Instant},
    };

    use super::*;

    /// Waits until the stand-in for the program was called so.
    async fn called(log: &Path, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = fs::read_to_string(log).unwrap_or_default();
            if text == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{text:?} is not {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn the_resolver_follows_the_names_and_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let config = format!(
            "network = \"000102030405060708090a0b0c0d0e0f\"\nsigners = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4 admin\"]\ncontrollers = []\nsocket = \"{}\"\n",
            at("agent.sock").display()
        );
        fs::write(at("agent.toml"), config).unwrap();
        let script = format!("#!/bin/sh\necho $1 $2 $3 >> {}\n", at("log").display());
        fs::write(at("script"), script).unwrap();
        // By another process: a program that this one has open for writing, and so whatever another test
        // starts meanwhile, cannot be run.
        let installed = std::process::Command::new("install")
            .args(["-m", "755"])
            .args([at("script"), at("mesh")])
            .status();
        assert!(installed.unwrap().success());
        let options = Supervise {
            program: at("mesh"),
            config: at("agent.toml"),
            dir: at("supervisor"),
        };
        let following = tokio::spawn(follow(options.clone()));
        let once = "resolver apply --wait\n";
        called(&at("log"), once).await;
        fs::write(at(NAMES_FILE), "{}").unwrap();
        called(&at("log"), &once.repeat(2)).await;
        following.abort();
        undo(&options).await;
        called(
            &at("log"),
            &format!("{}resolver undo --config\n", once.repeat(2)),
        )
        .await;
    }
}
