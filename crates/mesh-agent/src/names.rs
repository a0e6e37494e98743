//! Names: this machine's programs ask its own agent, which answers from the roster in force.
//!
//! [`mesh_core::names`] decides what is answered. Here the roster becomes its table, port 53 of the mesh
//! address is held while there is one, and the names are written down for the step that sets the machine's
//! resolver.

mod file;
mod server;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_api::{DnsStatus, Host, Hosts, Names, VERSION};
use mesh_core::names::{NameTable, NamedHost, NamesConfig, NotADomain};
use mesh_inventory::{
    roster::{Member, Roster},
    ssh_host_key,
};
use tokio::time::sleep;
use tracing::{info, warn};

use self::{
    file::NamesFile,
    server::{Answers, Server},
};
use crate::{agent::Agent, chain};

/// The port of DNS.
pub(crate) const DNS_PORT: u16 = 53;

/// How often a port that could not be had is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// What answering depends on, as it is at one moment.
struct Scene {
    answers: Answers,
    /// This machine's addresses in the mesh.
    addresses: Vec<IpAddr>,
    names: Names,
}

/// The members as `mesh hosts` tells them.
pub fn hosts(roster: &Roster) -> Hosts {
    let host = |member: &Member| Host {
        name: member.name.clone(),
        address: member.address,
        ipv4: member.ipv4,
        enabled: member.enabled,
        aliases: member.aliases.clone(),
        ssh_host_keys: member
            .ssh_host_keys
            .iter()
            .filter_map(|key| ssh_host_key(key))
            .collect(),
    };
    Hosts {
        version: VERSION,
        serial: roster.head().serial,
        domain: roster.network().domain.clone(),
        hosts: roster.members().values().map(host).collect(),
    }
}

/// The status of an agent that does not answer.
pub(crate) fn silent(reason: &str, names: Option<&Names>) -> DnsStatus {
    DnsStatus {
        listening: None,
        reason: Some(reason.to_owned()),
        domain: names.map(|names| names.domain.clone()),
        names: names.map_or(0, count),
    }
}

/// Answers names and keeps the file of them, for ever; the file is removed when this is dropped.
pub(crate) async fn serve(agent: Arc<Agent>) {
    let mut roster = agent.roster.subscribe();
    let config = agent.config();
    let mut file = NamesFile::beside(&config.socket);
    let mut server: Option<Server> = None;
    loop {
        roster.mark_unchanged();
        let scene = Scene::of(&agent);
        let mut retry = false;
        let (status, names) = match scene {
            Err(reason) => {
                server = None;
                (silent(&reason, None), None)
            }
            Ok(Scene { mut names, .. }) if !config.dns => {
                names.answering = false;
                (
                    silent("switched off by `dns = false`", Some(&names)),
                    Some(names),
                )
            }
            Ok(Scene {
                answers,
                addresses,
                mut names,
            }) => {
                // The old table answers until the new one is there; other addresses are other sockets.
                if server
                    .as_ref()
                    .is_some_and(|server| server.addresses() != addresses)
                {
                    server = None;
                }
                let bound = match server.take() {
                    Some(server) => {
                        server.replace(answers);
                        Ok(server)
                    }
                    None => Server::bind(&addresses, DNS_PORT, &names.interface, answers),
                };
                match bound {
                    Ok(bound) => {
                        server = Some(bound);
                        (answering(&names), Some(names))
                    }
                    Err(error) => {
                        retry = true;
                        names.answering = false;
                        (silent(&chain(&error), Some(&names)), Some(names))
                    }
                }
            }
        };
        file.keep(names.as_ref());
        tell(&agent, status);
        tokio::select! {
            changed = roster.changed() => if changed.is_err() {
                return;
            },
            () = sleep(RETRY_EVERY), if retry => {}
        }
    }
}

impl Scene {
    /// `Err` says why there is nothing to answer.
    fn of(agent: &Agent) -> Result<Self, String> {
        let roster = agent.roster().ok_or("no roster yet")?;
        let member = roster
            .member_by_node_id(&agent.public().node_id())
            .ok_or("this machine is not in the roster")?;
        let device = agent.device.as_ref().ok_or("no interface")?;
        let interface = device.tun.name().to_owned();
        let (table, names) = told(&roster, member, interface).map_err(|error| error.to_string())?;
        if !table.passed_over().is_empty() {
            warn!(
                aliases = table.passed_over().join(", "),
                "aliases that are no names were passed over"
            );
        }
        let own = std::iter::once(IpAddr::V6(member.address));
        Ok(Self {
            addresses: own.chain(member.ipv4.map(IpAddr::V4)).collect(),
            answers: Answers::new(table, names.prefix, names.pool),
            names,
        })
    }
}

/// What `member` answers by `roster`.
fn told(
    roster: &Roster,
    member: &Member,
    interface: String,
) -> Result<(NameTable, Names), NotADomain> {
    let network = roster.network();
    let config = NamesConfig {
        domain: &network.domain,
        prefix: network.prefix,
        pool: network.ipv4,
        serial: roster.head().serial,
        server: &member.name,
    };
    let hosts = roster.members().values().map(|member| NamedHost {
        name: &member.name,
        addresses: std::iter::once(IpAddr::V6(member.address))
            .chain(member.ipv4.map(IpAddr::V4))
            .collect(),
        aliases: &member.aliases,
    });
    let table = NameTable::new(&config, hosts)?;
    let forward = table.forward().clone();
    let (wildcards, names) = forward
        .into_iter()
        .partition(|(name, _)| name.starts_with("*."));
    let names = Names {
        version: VERSION,
        network: network.id,
        serial: roster.head().serial,
        domain: table.domain().to_owned(),
        interface,
        address: member.address,
        ipv4: member.ipv4,
        prefix: network.prefix,
        pool: network.ipv4,
        answering: true,
        names,
        wildcards,
    };
    Ok((table, names))
}

fn answering(names: &Names) -> DnsStatus {
    DnsStatus {
        listening: Some(SocketAddr::from((names.address, DNS_PORT))),
        reason: None,
        domain: Some(names.domain.clone()),
        names: count(names),
    }
}

fn count(names: &Names) -> u64 {
    u64::try_from(names.names.len() + names.wildcards.len()).unwrap_or(u64::MAX)
}

/// Puts the status where `mesh status` finds it, and logs what is news.
fn tell(agent: &Agent, status: DnsStatus) {
    let before = agent.dns.send_replace(status.clone());
    if (&before.listening, &before.reason) == (&status.listening, &status.reason) {
        return;
    }
    match (&status.listening, &status.reason) {
        (Some(_), _) => info!(names = status.names, "answering names"),
        // Not for lack of anything that this machine was to have.
        (None, Some(reason)) if status.domain.is_some() && agent.config().dns => {
            warn!(reason, "names are not answered");
        }
        (None, reason) => info!(reason, "names are not answered"),
    }
}
