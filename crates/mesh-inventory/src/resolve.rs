//! From the inventory as written to the members with their addresses.

mod checks;
mod ipv4;
mod roles;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use mesh_types::{MachineName, MemberKey, NetworkId};
use serde_json::{Value, json};

use crate::{
    diff::Parts,
    host_key::ssh_host_key,
    inventory::{
        Inventory, Machine, check_endpoint, endpoints_of, relay, relay_only, relay_rate_limit,
        suggestion,
    },
    report::{Problem, Report, Severity},
    roster::{
        HeadFields, MachineClass, Member, NetworkPart, Role, Roster, RosterError, Signer, Unsigned,
    },
};

/// The domain of a network that names none.
const DOMAIN: &str = "mesh";

/// The most machines that one message names.
const NAMED_MAX: usize = 12;

/// An inventory, resolved: what a roster says, without its head.
#[derive(Clone, Debug)]
pub struct Resolution {
    network: NetworkPart,
    members: BTreeMap<MachineName, Member>,
    signers: Vec<Signer>,
    warnings: Report,
}

/// Resolves an inventory: tags, roles, settings, addresses.
///
/// `previous` is the roster in force, from which IPv4 addresses are kept; `None`: there is none, or it is
/// not known, and the ones given are provisional.
///
/// The same inventory gives the same resolution, whatever the order it is written in.
///
/// # Errors
///
/// [`Report`] with everything that is wrong.
pub fn resolve(inventory: &Inventory, previous: Option<&Roster>) -> Result<Resolution, Report> {
    let mut resolver = Resolver {
        inventory,
        problems: inventory.problems.clone(),
    };
    let resolved = resolver.run(previous);
    let report = Report::new(inventory.source.clone(), resolver.problems);
    match resolved {
        Some((network, members, signers)) if report.errors() == 0 => Ok(Resolution {
            network,
            members,
            signers,
            warnings: report,
        }),
        // Until those are mended, warnings would only be in the way.
        _ => Err(report.without_warnings()),
    }
}

impl Resolution {
    /// The network part.
    pub const fn network(&self) -> &NetworkPart {
        &self.network
    }

    /// The members by name.
    pub const fn members(&self) -> &BTreeMap<MachineName, Member> {
        &self.members
    }

    /// Who may sign rosters.
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// What is perhaps not as meant.
    pub const fn warnings(&self) -> &Report {
        &self.warnings
    }

    /// Puts a head on it.
    ///
    /// # Errors
    ///
    /// [`RosterError`] if the fields are ones that no head may have.
    pub fn unsigned(&self, fields: HeadFields) -> Result<Unsigned, RosterError> {
        Unsigned::new(&self.network, &self.members, fields)
    }

    /// Network and members, for comparing.
    pub const fn parts(&self) -> Parts<'_> {
        Parts {
            network: &self.network,
            members: &self.members,
        }
    }

    /// What `mesh inventory resolve --json` prints: `version`, `network`, `members`.
    pub fn to_json(&self) -> Value {
        json!({ "version": 1, "network": self.network, "members": self.members })
    }
}

struct Resolver<'a> {
    inventory: &'a Inventory,
    problems: Vec<Problem>,
}

type Resolved = (NetworkPart, BTreeMap<MachineName, Member>, Vec<Signer>);

impl<'a> Resolver<'a> {
    fn run(&mut self, previous: Option<&Roster>) -> Option<Resolved> {
        let tags = self.tags();
        self.check_assignments(&tags);
        let roles = self.roles(&tags);
        let signers = self.signers();
        self.check_keys();
        self.check_aliases();
        self.check_host_keys();
        self.check_gateways(&roles);
        let machines = &self.inventory.document.machines;
        for (name, machine) in machines {
            self.check_ciphers(name, machine);
        }
        self.check_controller(&roles);
        let mut network = self.network_part(&signers)?;
        let addresses = self.addresses(&network.id);
        let ipv4 = self.ipv4(&network, previous);
        self.check_routes(&network);
        let mut members = BTreeMap::new();
        for (name, machine) in machines {
            let assigned = roles.get(name).cloned().unwrap_or_default();
            let endpoints = self.endpoints(machine, &assigned, &network);
            // A machine without an address has its error already.
            let Some(address) = addresses.get(name) else {
                continue;
            };
            members.insert(
                name.clone(),
                Member {
                    name: name.clone(),
                    class: machine.class,
                    public_key: machine.public_key.as_ref().map(|key| key.value),
                    address: *address,
                    ipv4: ipv4.get(name).copied(),
                    enabled: machine.enabled,
                    tags: tags.get(name).into_iter().flatten().cloned().collect(),
                    roles: assigned.keys().copied().collect(),
                    endpoints,
                    aliases: sorted(machine.mesh.aliases.iter().map(|alias| &alias.value)),
                    routes: machine
                        .mesh
                        .routes
                        .iter()
                        .map(|route| route.value)
                        .collect(),
                    gateways: machine
                        .mesh
                        .gateways
                        .iter()
                        .filter_map(|gateway| gateway.value.parse().ok())
                        .collect(),
                    ciphers: ciphers(machine),
                    ssh_host_keys: machine
                        .ssh_host_keys
                        .iter()
                        .filter_map(|key| ssh_host_key(&key.value))
                        .collect(),
                    relay: relay(&assigned),
                    relay_rate_limit: relay_rate_limit(&assigned),
                    relay_only: relay_only(&assigned),
                    unknown: BTreeMap::new(),
                },
            );
        }
        network.rules = self.rules(&tags, &members);
        self.warn_of_missing_keys();
        Some((network, members, signers))
    }

    /// Every machine's tags: its own, those that list it, its class, and `all`.
    fn tags(&mut self) -> BTreeMap<MachineName, BTreeSet<String>> {
        let document = &self.inventory.document;
        let mut tags: BTreeMap<MachineName, BTreeSet<String>> = document
            .machines
            .iter()
            .map(|(name, machine)| {
                let own = machine.tags.iter().map(|tag| tag.value.clone());
                let added = ["all", class_tag(machine.class)].map(str::to_owned);
                (name.clone(), own.chain(added).collect())
            })
            .collect();
        for (tag, machines) in &document.tags {
            for machine in machines {
                match tags.get_mut(machine.value.as_str()) {
                    Some(tags) => {
                        tags.insert(tag.clone());
                    }
                    None => self.unknown_machine(
                        &machine.value,
                        machine.span.clone(),
                        &format!("tag `{}`", tag.escape_debug()),
                    ),
                }
            }
        }
        tags
    }

    /// Tags and machines that instances speak of must exist.
    fn check_assignments(&mut self, tags: &BTreeMap<MachineName, BTreeSet<String>>) {
        let document = &self.inventory.document;
        for (instance_name, instance) in &document.instances {
            for (role_name, role) in &instance.roles {
                let whose = format!(
                    "role `{}` of instance `{}`",
                    role_name.escape_debug(),
                    instance_name.escape_debug()
                );
                for (tag, assignment) in &role.tags {
                    self.check_tag(tag, assignment.span.clone(), &whose, tags);
                }
                for (machine, assignment) in &role.machines {
                    if !tags.contains_key(machine.as_str()) {
                        self.unknown_machine(machine, assignment.span.clone(), &whose);
                    }
                }
            }
        }
    }

    /// A tag that is spoken of must be some machine's, or declared.
    fn check_tag(
        &mut self,
        tag: &str,
        span: std::ops::Range<usize>,
        whose: &str,
        tags: &BTreeMap<MachineName, BTreeSet<String>>,
    ) {
        // These are there before any machine is.
        const ALWAYS: [&str; 4] = ["all", "nixos", "darwin", "external"];
        let declared = &self.inventory.document.tags;
        if ALWAYS.contains(&tag)
            || declared.contains_key(tag)
            || tags.values().any(|tags| tags.contains(tag))
        {
            return;
        }
        let known: BTreeSet<&str> = tags
            .values()
            .flatten()
            .chain(declared.keys())
            .map(String::as_str)
            .chain(ALWAYS)
            .collect();
        let message = format!("no machine has the tag `{}` of {whose}", tag.escape_debug());
        let hint = match suggestion(tag, known.into_iter()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!(
                "give it to a machine, or declare it empty under `tags`: `\"{}\": []`",
                tag.escape_debug()
            ),
        };
        self.problems.push(Problem::error(span, message).hint(hint));
    }

    fn unknown_machine(&mut self, name: &str, span: std::ops::Range<usize>, whose: &str) {
        let document = &self.inventory.document;
        // Its own wrong name was told already.
        if document.misnamed.iter().any(|misnamed| misnamed == name) {
            return;
        }
        let message = format!("there is no machine `{}` for {whose}", name.escape_debug());
        let known = document.machines.keys().map(MachineName::as_str);
        let hint = match suggestion(name, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "declare it under `machines`, or take it out here".to_owned(),
        };
        self.problems.push(Problem::error(span, message).hint(hint));
    }

    fn signers(&mut self) -> Vec<Signer> {
        let Some(listed) = &self.inventory.document.network.signers else {
            return Vec::new();
        };
        let mut signers: Vec<Signer> = Vec::new();
        for text in &listed.value {
            match text.value.parse::<Signer>() {
                Ok(signer) if signers.contains(&signer) => self.problems.push(
                    Problem::warning(text.span.clone(), "this signer is listed twice")
                        .hint("leave one of the two out"),
                ),
                Ok(signer) => signers.push(signer),
                Err(error) => {
                    let mut problem = Problem::error(text.span.clone(), error.to_string());
                    if text.value.contains("PRIVATE KEY") {
                        problem =
                            problem.hint("take the public half, the file that ends in `.pub`");
                    }
                    self.problems.push(problem);
                }
            }
        }
        if listed.value.is_empty() {
            self.problems.push(
                Problem::warning(
                    listed.span.clone(),
                    "`signers` is empty: no node can be told whose rosters to trust",
                )
                .hint("list your SSH public key, `cat ~/.ssh/id_ed25519.pub`, or a controller's `mesh1…` identity"),
            );
        }
        signers
    }

    fn domain(&self) -> &'a str {
        let domain = self.inventory.document.network.domain.as_ref();
        domain.map_or(DOMAIN, |domain| &domain.value)
    }

    fn network_part(&mut self, signers: &[Signer]) -> Option<NetworkPart> {
        let network = &self.inventory.document.network;
        let id = network.id.as_ref()?.value;
        Some(NetworkPart {
            id,
            name: network.name.as_ref()?.value.clone(),
            domain: self.domain().to_owned(),
            prefix: id.prefix().net(),
            ipv4: network.ipv4.as_ref().map(|pool| pool.value.trunc()),
            signers: signers.iter().map(ToString::to_string).collect(),
            // When there are members to speak of.
            rules: None,
            unknown: BTreeMap::new(),
        })
    }

    /// Every machine's address, pinned or derived; none for one whose address is an error.
    fn addresses(&mut self, id: &NetworkId) -> BTreeMap<MachineName, std::net::Ipv6Addr> {
        let machines = &self.inventory.document.machines;
        let mut addresses = BTreeMap::new();
        let mut owners: BTreeMap<_, (&MachineName, &Machine)> = BTreeMap::new();
        for (name, machine) in machines {
            let pin = machine.mesh.address.as_ref();
            let span = pin.map_or_else(|| machine.span.clone(), |pin| pin.span.clone());
            let address = match pin {
                Some(pin) => id.prefix().check(pin.value).map(|()| pin.value),
                None => id.address_of(name),
            };
            let address = match address {
                Ok(address) => address,
                Err(error) => {
                    let hint = match pin {
                        Some(_) => format!(
                            "pin one inside `{}`, or leave the pin out: `{name}` then has {}",
                            id.prefix(),
                            id.address_of(name)
                                .map_or_else(|_| "none".to_owned(), |own| format!("`{own}`"))
                        ),
                        None => format!("pin another: `machines.{name}.mesh.address`"),
                    };
                    let message = format!("the address of machine `{name}`: {error}");
                    self.problems.push(Problem::error(span, message).hint(hint));
                    continue;
                }
            };
            if let Some((other, other_machine)) = owners.insert(address, (name, machine)) {
                let first = other_machine.mesh.address.as_ref();
                self.problems.push(
                    Problem::error(
                        span,
                        format!("machines `{other}` and `{name}` have one address, `{address}`"),
                    )
                    .note(
                        first.map_or_else(|| other_machine.span.clone(), |pin| pin.span.clone()),
                        format!("`{other}` is here"),
                    )
                    .hint(format!(
                        "pin another for one of the two: `machines.{name}.mesh.address`"
                    )),
                );
            }
            addresses.insert(name.clone(), address);
        }
        addresses
    }

    /// A machine's static endpoints: its own, then those that its roles' settings name.
    fn endpoints(
        &mut self,
        machine: &Machine,
        roles: &BTreeMap<Role, Value>,
        network: &NetworkPart,
    ) -> Vec<String> {
        let mut endpoints: Vec<String> = Vec::new();
        for endpoint in &machine.mesh.endpoints {
            check_endpoint(endpoint, &mut self.problems);
            let inside = checks::host_address(&endpoint.value)
                .is_some_and(|address| checks::is_own(network, address));
            if inside {
                let message = format!(
                    "endpoint `{}` is inside the mesh itself",
                    endpoint.value.escape_debug()
                );
                self.problems.push(
                    Problem::error(endpoint.span.clone(), message)
                        .hint("name an address that the machine has without the mesh"),
                );
            }
            endpoints.push(endpoint.value.clone());
        }
        for settings in roles.values() {
            endpoints.extend(endpoints_of(settings).map(str::to_owned));
        }
        let mut seen = BTreeSet::new();
        endpoints.retain(|endpoint| seen.insert(endpoint.clone()));
        endpoints
    }

    fn warn_of_missing_keys(&mut self) {
        let document = &self.inventory.document;
        let unkeyed: Vec<_> = document
            .machines
            .iter()
            .filter(|(_, machine)| machine.public_key.is_none() && machine.enabled)
            .collect();
        let Some((_, first)) = unkeyed.first() else {
            return;
        };
        let more = unkeyed.len().saturating_sub(NAMED_MAX);
        let mut names: Vec<_> = unkeyed
            .iter()
            .take(NAMED_MAX)
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let message = format!(
            "no `publicKey` yet, so nobody can talk to: {}",
            names.join(", ")
        );
        self.problems
            .push(Problem::warning(first.span.clone(), message).hint(
                "run `mesh keygen --machine NAME --out FILE` on each, and put what it prints here",
            ));
    }
}

const fn class_tag(class: MachineClass) -> &'static str {
    match class {
        MachineClass::Nixos => "nixos",
        MachineClass::Darwin => "darwin",
        MachineClass::External => "external",
    }
}

fn is_guest(machine: &Machine) -> bool {
    let key = machine.public_key.as_ref().map(|key| &key.value);
    matches!(key, Some(MemberKey::Wireguard(_)))
}

fn ciphers(machine: &Machine) -> Vec<String> {
    if is_guest(machine) {
        return vec!["chacha".to_owned()];
    }
    match &machine.mesh.ciphers {
        Some(ciphers) => sorted(ciphers.value.iter().map(|cipher| &cipher.value)),
        None => vec!["aes".to_owned(), "chacha".to_owned()],
    }
}

fn sorted<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<String> {
    let texts: BTreeSet<&String> = texts.collect();
    texts.into_iter().cloned().collect()
}

impl Report {
    /// Whether anything in it is only a warning.
    pub fn has_warnings(&self) -> bool {
        self.problems()
            .iter()
            .any(|problem| problem.severity() == Severity::Warning)
    }
}
