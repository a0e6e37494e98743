//! What may not contradict between machines.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_types::MachineName;

use super::{Resolver, is_guest, roles::Roles};
use crate::{
    endpoint::{self, Host},
    host_key::ssh_host_key,
    inventory::Machine,
    labels,
    report::Problem,
    roster::{NetworkPart, Role, verify::check_route},
};

const CIPHERS: [&str; 2] = ["aes", "chacha"];

impl Resolver<'_> {
    /// Each half of an identity, and each guest's key, may occur once; compared as bytes.
    pub(super) fn check_keys(&mut self) {
        let mut owners = BTreeMap::new();
        for (name, machine) in &self.inventory.document.machines {
            let Some(key) = &machine.public_key else {
                continue;
            };
            let halves = [
                Some(*key.value.wireguard().as_bytes()),
                key.value.node_id().map(|id| *id.as_bytes()),
            ];
            let mut told = false;
            for half in halves.into_iter().flatten() {
                let Some((other, span)) = owners.insert(half, (name, key.span.clone())) else {
                    continue;
                };
                if std::mem::replace(&mut told, true) {
                    continue;
                }
                self.problems.push(
                    Problem::error(
                        key.span.clone(),
                        format!("machines `{other}` and `{name}` have one key"),
                    )
                    .note(span, format!("`{other}` has it here"))
                    .hint(
                        "an identity is one machine's; make another with `mesh keygen --out FILE`",
                    ),
                );
            }
        }
    }

    pub(super) fn check_aliases(&mut self) {
        let machines = &self.inventory.document.machines;
        let domain = self.domain();
        let mut owners: BTreeMap<&str, (&MachineName, std::ops::Range<usize>)> = BTreeMap::new();
        for (name, machine) in machines {
            for alias in &machine.mesh.aliases {
                let text = alias.value.as_str();
                if let Err(hint) = labels::check_alias(text) {
                    let message = format!(
                        "`{}` is not an alias: labels of `a`-`z`, `0`-`9` and `-`, joined by dots; a wildcard begins with `*.`",
                        text.escape_debug()
                    );
                    let problem = Problem::error(alias.span.clone(), message);
                    self.problems.push(match hint {
                        Some(hint) => problem.hint(format!("use `{hint}`")),
                        None => problem,
                    });
                } else if let Some(rest) = before_domain(text, domain) {
                    let message = format!(
                        "alias `{text}` of machine `{name}` ends in the domain, which is added to every alias: `{text}.{domain}`"
                    );
                    let is_free = labels::check_alias(rest).is_ok() && !machines.contains_key(rest);
                    self.problems
                        .push(
                            Problem::error(alias.span.clone(), message).hint(match is_free {
                                true => format!("use `{rest}`"),
                                false => "leave it out".to_owned(),
                            }),
                        );
                } else if let Some(other) = machines.get(text) {
                    self.problems.push(
                        Problem::error(
                            alias.span.clone(),
                            format!("alias `{text}` of machine `{name}` is the name of a machine"),
                        )
                        .note(other.span.clone(), "that machine")
                        .hint("take another alias"),
                    );
                } else if let Some((other, machine)) = below_another(machines, name, text) {
                    self.problems.push(
                        Problem::error(
                            alias.span.clone(),
                            format!("wildcard `{text}` of machine `{name}` is below the name of machine `{other}`"),
                        )
                        .note(machine.span.clone(), "that machine")
                        .hint(format!("give it to `{other}`, or put it below another name")),
                    );
                } else if let Some((other, span)) = owners.insert(text, (name, alias.span.clone()))
                    && other != name
                {
                    self.problems.push(
                        Problem::error(
                            alias.span.clone(),
                            format!("machines `{other}` and `{name}` have one alias, `{text}`"),
                        )
                        .note(span, format!("`{other}` has it here"))
                        .hint("take another alias for one of the two"),
                    );
                }
            }
        }
    }

    /// Each SSH host key must be one, and one machine's.
    pub(super) fn check_host_keys(&mut self) {
        let mut owners = BTreeMap::new();
        for (name, machine) in &self.inventory.document.machines {
            for key in &machine.ssh_host_keys {
                let Some(plain) = ssh_host_key(&key.value) else {
                    let message = format!("an SSH host key of machine `{name}` is none");
                    self.problems.push(
                        Problem::error(key.span.clone(), message).hint(
                            "take the content of `/etc/ssh/ssh_host_ed25519_key.pub`, or what `ssh-keyscan` prints after the name",
                        ),
                    );
                    continue;
                };
                if let Some((other, span)) = owners.insert(plain, (name, key.span.clone()))
                    && other != name
                {
                    self.problems.push(
                        Problem::error(
                            key.span.clone(),
                            format!("machines `{other}` and `{name}` have one SSH host key"),
                        )
                        .note(span, format!("`{other}` has it here"))
                        .hint("make another for one of the two: `ssh-keygen -A`, after the old one is gone"),
                    );
                }
            }
        }
    }

    pub(super) fn check_gateways(&mut self, roles: &Roles) {
        for (name, machine) in &self.inventory.document.machines {
            for gateway in &machine.mesh.gateways {
                let text = gateway.value.as_str();
                let is_moon = |roles: &BTreeMap<Role, _>| roles.contains_key(&Role::Moon);
                if !self.inventory.document.machines.contains_key(text) {
                    let whose = format!("`gateways` of machine `{name}`");
                    self.unknown_machine(text, gateway.span.clone(), &whose);
                } else if !roles.get(text).is_some_and(is_moon) {
                    let message = format!("gateway `{text}` of machine `{name}` is no moon");
                    self.problems.push(
                        Problem::error(gateway.span.clone(), message)
                            .hint(format!("give `{text}` the role `moon` in the mesh")),
                    );
                } else if !is_guest(machine) && machine.public_key.is_some() {
                    let message = format!("machine `{name}` runs the agent and needs no gateway");
                    self.problems.push(
                        Problem::error(gateway.span.clone(), message)
                            .hint("`gateways` are for guests with a `wireguard:` key"),
                    );
                }
            }
        }
    }

    pub(super) fn check_ciphers(&mut self, name: &MachineName, machine: &Machine) {
        let Some(listed) = &machine.mesh.ciphers else {
            return;
        };
        for cipher in &listed.value {
            if !CIPHERS.contains(&cipher.value.as_str()) {
                let message = format!("there is no cipher `{}`", cipher.value.escape_debug());
                self.problems.push(
                    Problem::error(cipher.span.clone(), message)
                        .hint("the ciphers are `aes` and `chacha`"),
                );
            }
        }
        let lists = |wanted: &str| listed.value.iter().any(|cipher| cipher.value == wanted);
        let message = if is_guest(machine) && lists("aes") {
            format!("guest `{name}` speaks WireGuard, whose cipher is `chacha` alone")
        } else if !lists("chacha") {
            format!("machine `{name}` must list `chacha`, which every machine speaks")
        } else {
            return;
        };
        self.problems.push(
            Problem::error(listed.span.clone(), message)
                .hint("leave `ciphers` out for the default"),
        );
    }

    pub(super) fn check_routes(&mut self, network: &NetworkPart) {
        for (name, machine) in &self.inventory.document.machines {
            for route in &machine.mesh.routes {
                let result = if route.value != route.value.trunc() {
                    Err(format!(
                        "route `{}` has bits beyond its length; write `{}`",
                        route.value,
                        route.value.trunc()
                    ))
                } else {
                    check_route(network.prefix, network.ipv4, route.value)
                };
                if let Err(reason) = result {
                    let message = format!("machine `{name}`: {reason}");
                    self.problems
                        .push(Problem::error(route.span.clone(), message));
                }
            }
        }
    }
}

/// What of `alias` is before the domain, where it ends in that.
fn before_domain<'a>(alias: &'a str, domain: &str) -> Option<&'a str> {
    alias.strip_suffix(domain)?.strip_suffix('.')
}

/// The other machine whose name the wildcard `alias` is below.
fn below_another<'a>(
    machines: &'a BTreeMap<MachineName, Machine>,
    name: &MachineName,
    alias: &str,
) -> Option<(&'a MachineName, &'a Machine)> {
    let last = alias.strip_prefix("*.")?.rsplit('.').next()?;
    machines
        .get_key_value(last)
        .filter(|(other, _)| *other != name)
}

/// The address of an endpoint that names none by a host name.
pub(super) fn host_address(endpoint: &str) -> Option<IpAddr> {
    match endpoint::parse(endpoint) {
        Ok((Host::Address(address), _)) => Some(address),
        Ok((Host::Name(_), _)) | Err(_) => None,
    }
}

/// Whether an address is the mesh's own.
pub(super) fn is_own(network: &NetworkPart, address: IpAddr) -> bool {
    match address {
        IpAddr::V6(address) => network.prefix.contains(&address),
        IpAddr::V4(address) => network.ipv4.is_some_and(|pool| pool.contains(&address)),
    }
}
