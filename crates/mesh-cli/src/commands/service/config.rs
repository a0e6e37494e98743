//! The first configuration of a daemon, for a person to go on from.

use std::fmt::Write as _;

use mesh_agent::HostPort;
use mesh_inventory::Signer;
use mesh_types::NetworkId;

use super::layout::Daemon;

/// What a configuration cannot do without, as far as it was given.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// The network's id.
    pub(super) network: Option<NetworkId>,
    /// Who may sign rosters.
    pub(super) signers: Vec<Signer>,
    /// Where an agent finds controllers.
    pub(super) controllers: Vec<HostPort>,
}

impl Given {
    /// Whether anything was given.
    pub(super) fn is_anything(&self) -> bool {
        self.network.is_some() || !self.signers.is_empty() || !self.controllers.is_empty()
    }

    /// The options that were not given, without which `daemon` cannot start.
    pub(super) fn missing(&self, daemon: Daemon) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.network.is_none() {
            missing.push("--network");
        }
        if self.signers.is_empty() {
            missing.push("--signer");
        }
        if daemon == Daemon::Agent && self.controllers.is_empty() {
            missing.push("--controller");
        }
        missing
    }

    /// The text of the file; a key that was not given is a comment with an example.
    pub(super) fn render(&self, daemon: Daemon) -> String {
        let mut text =
            format!("# The mesh {daemon}'s configuration. `docs/{daemon}.md` lists all keys.\n\n");
        let mut key = |comment: &str, name: &str, value: Option<String>, example: &str| {
            let line = match value {
                Some(value) => format!("{name} = {value}"),
                None => format!("# {name} = {example}"),
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "# {comment}\n{line}\n");
        };
        key(
            "The network's id, as `mesh inventory show` tells it.",
            "network",
            self.network.map(|id| format!("\"{id}\"")),
            "\"32 hex digits\"",
        );
        key(
            "Who may sign rosters: SSH public keys or `mesh1` identities. Nothing else is trusted.",
            "signers",
            list(&self.signers),
            "[\"ssh-ed25519 AAAA… admin\"]",
        );
        match daemon {
            Daemon::Agent => {
                key(
                    "Where rosters and endpoints come from.",
                    "controllers",
                    list(&self.controllers),
                    "[\"mesh.example.org:4194\"]",
                );
                key(
                    "The name to claim before the first roster. Left out: the first part of the host's.",
                    "name",
                    None,
                    "\"galena\"",
                );
            }
            Daemon::Controller => {
                key(
                    "An inventory to watch and sign, where this machine's identity is among the signers.",
                    "inventory",
                    None,
                    "\"/etc/mesh/inventory.json\"",
                );
                key(
                    "Or a signed roster to watch. Without either, rosters come by `mesh inventory push`.",
                    "roster",
                    None,
                    "\"/etc/mesh/roster.json\"",
                );
            }
        }
        text.pop();
        text
    }
}

/// A TOML list of strings; `None`: nothing to list.
fn list(values: &[impl ToString]) -> Option<String> {
    let quoted: Vec<_> = values
        .iter()
        .map(|value| toml::Value::from(value.to_string()).to_string())
        .collect();
    (!quoted.is_empty()).then(|| format!("[{}]", quoted.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn given() -> Given {
        Given {
            network: Some("000102030405060708090a0b0c0d0e0f".parse().unwrap()),
            signers: vec![
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4 admin"
                    .parse()
                    .unwrap(),
            ],
            controllers: vec!["mesh.example.org:4194".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_written_is_what_the_daemons_read() {
        let text = given().render(Daemon::Agent);
        let config = mesh_agent::Config::parse(&text, Path::new("agent.toml")).unwrap();
        assert_eq!(config.network, given().network.unwrap());
        assert_eq!(config.controllers, given().controllers);
        let text = given().render(Daemon::Controller);
        let config = mesh_controller::Config::parse(&text).unwrap();
        assert_eq!(config.signers, given().signers);
        insta::assert_snapshot!(given().render(Daemon::Agent));
    }

    #[test]
    fn every_example_can_be_taken_out_of_its_comment() {
        for daemon in [Daemon::Agent, Daemon::Controller] {
            let text = Given::default().render(daemon);
            let keys: String = text
                .lines()
                .filter_map(|line| line.strip_prefix("# "))
                .filter(|line| line.contains(" = "))
                .map(|line| format!("{line}\n"))
                .collect();
            let table: toml::Table = toml::from_str(&keys).unwrap();
            assert!(table.len() >= 4, "{table:?}");
        }
    }
}
