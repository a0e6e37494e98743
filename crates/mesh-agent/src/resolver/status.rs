//! Which way is in force, why no other, and whether programs find a name.

use std::{net::IpAddr, time::Duration};

use mesh_os::resolver::{Backend, Choice, Decision, Machine, decide, lookup};
use serde::Serialize;

use super::{names_path, read_names};
use crate::config::Config;

/// How long libc may take. By default it asks a server that does not answer for ten seconds.
const LOOKUP_LIMIT: Duration = Duration::from_secs(12);

/// What `mesh resolver status --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The format, 1.
    pub version: u32,
    /// `resolver` of the configuration.
    pub choice: Choice,
    /// The ways in which something is set: one, or none.
    pub in_force: Vec<Backend>,
    /// The ways that this machine has, the best first.
    pub usable: Vec<Backend>,
    /// The others.
    pub not_taken: Vec<NotTaken>,
    /// The domain that the agent answers for; `None`: it has no names.
    pub domain: Option<String>,
    /// Where it answers.
    pub server: Option<IpAddr>,
    /// Number of wildcard names, which a hosts file cannot say.
    pub wildcards: usize,
    /// What became of asking for this machine's own name; `None`: it has none.
    pub lookup: Option<Lookup>,
    /// What to do; `None`: names are found.
    pub next: Option<String>,
}

/// A way that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    /// The way.
    pub backend: Backend,
    /// Why not.
    pub reason: String,
}

/// A question as programs ask it, through libc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// What was found.
    pub addresses: Vec<IpAddr>,
    /// Whether that holds the name's address in the mesh.
    pub right: bool,
    /// What libc said instead.
    pub error: Option<String>,
}

/// Looks at `machine`. Needs no privileges, and believes the agent's names as they are.
pub fn status(config: &Config, machine: &Machine) -> Status {
    let names = read_names(&names_path(config)).ok().flatten();
    let answering = names.as_ref().is_some_and(|names| names.answering);
    let Decision { usable, passed } = decide(config.resolver, answering, &machine.facts());
    let own = names.as_ref().and_then(|names| {
        let address = IpAddr::V6(names.address);
        let mut named = names.names.iter();
        let found = named.find(|(_, addresses)| addresses.contains(&address));
        found.map(|(name, _)| (name.clone(), address))
    });
    let mut status = Status {
        version: 1,
        choice: config.resolver,
        in_force: machine.in_force(),
        usable,
        not_taken: passed
            .into_iter()
            .map(|passed| NotTaken {
                backend: passed.backend,
                reason: passed.reason,
            })
            .collect(),
        domain: names.as_ref().map(|names| names.domain.clone()),
        server: names.as_ref().map(|names| names.address.into()),
        wildcards: names.as_ref().map_or(0, |names| names.wildcards.len()),
        lookup: own.map(|(name, address)| ask(name, address)),
        next: None,
    };
    status.next = next(&status);
    status
}

fn ask(name: String, address: IpAddr) -> Lookup {
    let (addresses, error) = match lookup(&name, LOOKUP_LIMIT) {
        Ok(addresses) => (addresses, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    Lookup {
        right: addresses.contains(&address),
        name,
        addresses,
        error,
    }
}

/// The next step for who wants names to be found.
fn next(status: &Status) -> Option<String> {
    let Some(lookup) = &status.lookup else {
        return Some("the agent has no names: `mesh status` says why".to_owned());
    };
    if lookup.right {
        return None;
    }
    let server = status
        .server
        .map_or_else(String::new, |server| server.to_string());
    let domain = status.domain.as_deref().unwrap_or_default();
    let step = match (status.choice, status.in_force.first()) {
        (Choice::None, _) => format!(
            "the configuration leaves the resolver to you: make it ask {server} for `{domain}`, or remove `resolver = \"none\"`"
        ),
        (_, None) if status.usable.is_empty() => format!(
            "this machine has no way to ask for one domain alone; use systemd-resolved, or make your resolver ask {server} for `{domain}`"
        ),
        (_, None) => "`mesh resolver apply`, as root, sets it; the units `mesh-resolver.service` and `mesh-resolver.path` do so whenever the agent starts".to_owned(),
        (_, Some(Backend::Resolved)) => format!(
            "`resolvectl query {name}` and `resolvectl status` show what systemd-resolved does",
            name = lookup.name
        ),
        (_, Some(Backend::Resolvconf)) => format!(
            "`resolvconf -l` shows the entry; see that the local server reads what openresolv writes, and lets the private address {server} through"
        ),
        (_, Some(Backend::EtcResolver)) => {
            format!("`scutil --dns` shows whether `{domain}` is asked of {server}")
        }
        (_, Some(Backend::Hosts)) => format!(
            "`getent hosts {name}` asks as programs do; see the lines between the marks in `/etc/hosts`",
            name = lookup.name
        ),
    };
    Some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unanswered(choice: Choice, in_force: &[Backend], usable: &[Backend]) -> Status {
        Status {
            version: 1,
            choice,
            in_force: in_force.to_vec(),
            usable: usable.to_vec(),
            not_taken: Vec::new(),
            domain: Some("mesh".to_owned()),
            server: Some("fdc3::1".parse().unwrap()),
            wildcards: 0,
            lookup: Some(Lookup {
                name: "cinnabar.mesh".to_owned(),
                addresses: Vec::new(),
                right: false,
                error: None,
            }),
            next: None,
        }
    }

    #[test]
    fn whatever_fails_there_is_a_next_step() {
        let step = |status: &Status| next(status).unwrap();
        let none = unanswered(Choice::None, &[], &[]);
        assert!(step(&none).contains("ask fdc3::1 for `mesh`"));
        let no_way = unanswered(Choice::Auto, &[], &[]);
        assert!(step(&no_way).contains("no way"));
        let unset = unanswered(Choice::Auto, &[], &[Backend::Hosts]);
        assert!(step(&unset).contains("`mesh resolver apply`"));
        let set = unanswered(Choice::Auto, &[Backend::Resolved], &[Backend::Resolved]);
        assert!(step(&set).contains("resolvectl query cinnabar.mesh"));
        let mut silent = set.clone();
        silent.lookup = None;
        assert!(step(&silent).contains("`mesh status`"));
    }

    #[test]
    fn where_names_are_found_nothing_is_to_be_done() {
        let mut status = unanswered(Choice::Auto, &[Backend::Hosts], &[Backend::Hosts]);
        let lookup = status.lookup.as_mut().unwrap();
        lookup.right = true;
        assert_eq!(next(&status), None);
    }
}
