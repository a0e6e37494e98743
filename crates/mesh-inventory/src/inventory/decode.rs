//! From the tree to the typed document.

use std::collections::BTreeMap;

use mesh_types::{MachineName, ParseKeyError};

use super::{
    Assignment, Document, Instance, InstanceRole, Machine, MachineMesh, Network, Spanned, entries,
    fields::{Fields, Reader, quoted, suggestion},
    rules,
};
use crate::{
    labels,
    report::Problem,
    roster::MachineClass,
    syntax::{Datum, Entry, Node},
};

/// The module of the instance that is the mesh.
pub(crate) const MESH_MODULE: &str = "mesh";

const VERSION: &str = "mesh/v1";
pub(super) const DOCUMENT: [&str; 6] = [
    "version",
    "network",
    "machines",
    "tags",
    "instances",
    "rules",
];
pub(super) const NETWORK: [&str; 5] = ["id", "name", "domain", "signers", "ipv4"];
pub(super) const MACHINE: [&str; 7] = [
    "machineClass",
    "tags",
    "publicKey",
    "enabled",
    "mesh",
    "sshHostKeys",
    "deploy",
];
pub(super) const MACHINE_MESH: [&str; 7] = [
    "address",
    "ipv4",
    "endpoints",
    "aliases",
    "routes",
    "gateways",
    "ciphers",
];
pub(super) const INSTANCE: [&str; 3] = ["module", "settings", "roles"];
pub(super) const MODULE: [&str; 2] = ["name", "input"];
pub(super) const ROLE: [&str; 3] = ["settings", "tags", "machines"];
pub(super) const ASSIGNMENT: [&str; 1] = ["settings"];

/// What clan's own inventory has beside ours (clan-core, `modules/inventoryClass`); passed over.
const CLAN_DOCUMENT: [&str; 7] = [
    "meta",
    "modules",
    "services",
    "assertions",
    "options",
    "noInstanceOptions",
    "_inventoryFile",
];
const CLAN_MACHINE: [&str; 4] = ["name", "description", "icon", "installedAt"];
const CLAN_ROLE: [&str; 1] = ["extraModules"];

/// Longest tag, network name and the like, in bytes.
const LABEL_BYTES_MAX: usize = 253;

pub(super) fn document(root: &Node, problems: &mut Vec<Problem>) -> Document {
    let mut decoder = Decoder {
        is_clan: root.get("meta").is_some(),
        reader: Reader { problems },
    };
    decoder.document(root)
}

struct Decoder<'a> {
    is_clan: bool,
    reader: Reader<'a>,
}

impl Decoder<'_> {
    /// What clan's form has beside ours, if this is that.
    fn clans<'k>(&self, keys: &'k [&'k str]) -> &'k [&'k str] {
        if self.is_clan { keys } else { &[] }
    }

    fn document(&mut self, root: &Node) -> Document {
        let passed_over = self.clans(&CLAN_DOCUMENT);
        let fields = self
            .reader
            .fields(root, "the inventory", &DOCUMENT, passed_over);
        self.version(root, &fields);
        let mut document = Document {
            network: Network {
                span: root.span.start..root.span.start,
                ..Network::default()
            },
            ..Document::default()
        };
        for entry in fields.get("machines").map_or(&[][..], |node| {
            self.reader.object(node, "`machines` of the inventory")
        }) {
            self.machine(entry, &mut document);
        }
        for entry in fields.get("tags").map_or(&[][..], |node| {
            self.reader.object(node, "`tags` of the inventory")
        }) {
            check_label(&mut self.reader, &entry.key, entry, "tag");
            let what = format!("tag `{}`", entry.key.escape_debug());
            let machines = self.reader.texts(&entry.value, &what);
            document.tags.insert(entry.key.clone(), machines);
        }
        let instances = fields.get("instances").map_or(&[][..], |node| {
            self.reader.object(node, "`instances` of the inventory")
        });
        for entry in instances {
            let instance = self.instance(entry);
            document.instances.insert(entry.key.clone(), instance);
        }
        document.rules = fields
            .get("rules")
            .map(|node| rules::read(node, &mut self.reader));
        match fields.get("network") {
            Some(node) => self.network(node, "`network`", &mut document.network),
            None if self.is_clan => self.clans_network(root, instances, &mut document),
            None => {
                self.reader.problems.push(
                    Problem::error(root.span.start..root.span.start, "`network` is missing")
                        .hint("`mesh inventory init` makes one with a random id"),
                );
            }
        }
        document
    }

    fn version(&mut self, root: &Node, fields: &Fields<'_>) {
        match fields.get("version").map(|node| (node, &node.datum)) {
            Some((_, Datum::Text(version))) if version == VERSION => {}
            Some((node, _)) => self.reader.problems.push(
                Problem::error(
                    node.span.clone(),
                    "this version of the inventory is not known",
                )
                .hint(format!(
                    "this release of mesh knows `\"version\": \"{VERSION}\"`"
                )),
            ),
            None if self.is_clan => {}
            None => self.reader.problems.push(
                Problem::error(root.span.start..root.span.start, "`version` is missing")
                    .hint(format!("add `\"version\": \"{VERSION}\"`")),
            ),
        }
    }

    /// In clan's form the network is described by settings of the mesh instance: of the instance, or,
    /// as clan's own schema has no such settings, of its roles; under `network` or plainly.
    fn clans_network(&mut self, root: &Node, instances: &[Entry], document: &mut Document) {
        let meshes = instances.iter().filter(|entry| {
            let instance = document.instances.get(&entry.key);
            instance.is_some_and(|instance| instance.module == MESH_MODULE)
        });
        for entry in meshes {
            let of_instance = entry.value.get("settings");
            let of_roles = entry.value.get("roles").map_or(&[][..], entries);
            let of_roles = of_roles
                .iter()
                .filter_map(|role| role.value.get("settings"));
            for settings in of_instance.into_iter().chain(of_roles) {
                if let Some(node) = settings.get("rules")
                    && document.rules.is_none()
                    && !matches!(node.datum, Datum::Null)
                {
                    document.rules = Some(rules::read(node, &mut self.reader));
                }
                let described = settings.get("network").unwrap_or(settings);
                let ours = NETWORK.iter().any(|key| described.get(key).is_some());
                if ours {
                    let node = Node {
                        span: described.span.clone(),
                        datum: Datum::Map(
                            entries(described)
                                .iter()
                                .filter(|entry| {
                                    described.span != settings.span
                                        || NETWORK.contains(&entry.key.as_str())
                                })
                                .cloned()
                                .collect(),
                        ),
                    };
                    self.network(&node, "the network's settings", &mut document.network);
                }
            }
        }
        if document.network.name.is_none() {
            let name = root.get("meta").and_then(|meta| meta.get("name"));
            match name.filter(|name| !matches!(name.datum, Datum::Null)) {
                Some(name) => document.network.name = self.reader.text(name, "`name` of `meta`"),
                None => self.reader.problems.push(
                    Problem::error(
                        document.network.span.clone(),
                        "neither the settings of the mesh instance nor `meta` say the network's `name`",
                    )
                    .hint("give the clan a name: `meta.name`"),
                ),
            }
        }
        if document.network.id.is_none() {
            self.reader.problems.push(
                Problem::error(
                    document.network.span.clone(),
                    "the settings of the mesh instance do not say the network's `id`",
                )
                .hint("give the instance whose module is `mesh` the settings `network.id` and `network.signers`; `mesh inventory init` shows a random id"),
            );
        }
    }

    fn network(&mut self, node: &Node, whose: &str, network: &mut Network) {
        let fields = self.reader.fields(node, whose, &NETWORK, &[]);
        let reader = &mut self.reader;
        let mut missing = Vec::new();
        network.span = node.span.start..node.span.start + 1;
        match fields.get("id") {
            Some(node) => {
                network.id = reader.parsed(
                    node,
                    &fields.what("id"),
                    "a network id: 32 of `0`-`9` and `a`-`f`",
                )
            }
            None => missing.push("id"),
        }
        match fields.get("name") {
            Some(node) => network.name = reader.text(node, &fields.what("name")),
            None => missing.push("name"),
        }
        match fields.get("signers") {
            Some(node) => {
                network.signers = Some(Spanned {
                    value: reader.texts(node, &fields.what("signers")),
                    span: node.span.clone(),
                });
            }
            None => missing.push("signers"),
        }
        if let Some(node) = fields.get("domain") {
            network.domain = reader.text(node, &fields.what("domain"));
        }
        if let Some(node) = fields.get("ipv4") {
            network.ipv4 = reader.parsed(
                node,
                &fields.what("ipv4"),
                "an IPv4 pool such as `100.64.7.0/24`",
            );
        }
        if !self.is_clan {
            for key in missing {
                let hint = match key {
                    "id" => "`mesh inventory init` makes a random one",
                    "name" => "any name that people know the network by",
                    _ => "list the SSH public keys, or `mesh1` identities, that may sign rosters",
                };
                self.reader.problems.push(
                    Problem::error(network.span.clone(), format!("{whose} has no `{key}`"))
                        .hint(hint),
                );
            }
        }
        if let Some(name) = &network.name
            && (name.value.is_empty() || name.value.len() > LABEL_BYTES_MAX)
        {
            let message = format!("a network's name has 1 to {LABEL_BYTES_MAX} bytes");
            self.reader.error(name.span.clone(), message);
        }
        if let Some(domain) = &network.domain {
            self.domain(domain);
        }
    }

    fn domain(&mut self, domain: &Spanned<String>) {
        let Err(corrected) = labels::check(&domain.value) else {
            return;
        };
        let problem = Problem::error(
            domain.span.clone(),
            format!(
                "`{}` is not a domain: labels of `a`-`z`, `0`-`9` and `-`, joined by dots",
                domain.value.escape_debug()
            ),
        );
        self.reader.problems.push(match corrected {
            Some(corrected) => problem.hint(format!("use `{corrected}`")),
            None => problem,
        });
    }

    fn machine(&mut self, entry: &Entry, document: &mut Document) {
        let name = match entry.key.parse::<MachineName>() {
            Ok(name) => Some(name),
            Err(error) => {
                document.misnamed.push(entry.key.clone());
                let mut problem = Problem::error(
                    entry.key_span.clone(),
                    format!(
                        "`{}` is not a machine name: 1 to 63 of `a`-`z`, `0`-`9` and `-`, no `-` at either end",
                        entry.key.escape_debug()
                    ),
                );
                if let Some(name) = error.suggestion {
                    problem = problem.hint(format!("use `{name}`"));
                }
                self.reader.problems.push(problem);
                None
            }
        };
        let whose = format!("machine `{}`", entry.key.escape_debug());
        let passed_over = self.clans(&CLAN_MACHINE);
        let fields = self
            .reader
            .fields(&entry.value, whose, &MACHINE, passed_over);
        let reader = &mut self.reader;
        let tags = fields
            .get("tags")
            .map_or_else(Vec::new, |node| reader.texts(node, &fields.what("tags")));
        let public_key = fields.get("publicKey").and_then(|node| {
            let text = reader.text(node, &fields.what("publicKey"))?;
            match text.value.parse() {
                Ok(value) => Some(Spanned {
                    value,
                    span: text.span,
                }),
                Err(ParseKeyError::Secret) => {
                    reader.problems.push(
                        Problem::error(
                            text.span,
                            format!("{} is the secret seed", fields.what("publicKey")),
                        )
                        .hint("put the output of `mesh keygen --public FILE` here, and make a new identity if others saw this one"),
                    );
                    None
                }
                Err(error) => {
                    let message = format!("{}: {error}", fields.what("publicKey"));
                    reader.problems.push(
                        Problem::error(text.span, message)
                            .hint("`mesh keygen --public FILE` prints it"),
                    );
                    None
                }
            }
        });
        let enabled = fields
            .get("enabled")
            .and_then(|node| reader.truth(node, &fields.what("enabled")));
        let ssh_host_keys = fields.get("sshHostKeys").map_or_else(Vec::new, |node| {
            reader.texts(node, &fields.what("sshHostKeys"))
        });
        if let Some(node) = fields.get("deploy") {
            reader.object(node, &fields.what("deploy"));
        }
        for tag in &tags {
            self.tag(tag);
        }
        let machine = Machine {
            span: entry.key_span.clone(),
            class: self.class(&fields),
            tags,
            public_key,
            enabled: enabled.unwrap_or(true),
            mesh: fields
                .get("mesh")
                .map_or_else(MachineMesh::default, |node| {
                    self.machine_mesh(node, fields.what("mesh"))
                }),
            ssh_host_keys,
            deploy: (),
        };
        if let Some(name) = name {
            document.machines.insert(name, machine);
        }
    }

    fn class(&mut self, fields: &Fields<'_>) -> MachineClass {
        let Some(node) = fields.get("machineClass") else {
            return MachineClass::Nixos;
        };
        let Some(text) = self.reader.text(node, &fields.what("machineClass")) else {
            return MachineClass::Nixos;
        };
        match text.value.as_str() {
            "nixos" => MachineClass::Nixos,
            "darwin" => MachineClass::Darwin,
            "external" => MachineClass::External,
            other => {
                let known = ["nixos", "darwin", "external"];
                let hint = match suggestion(other, known.into_iter()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None if other.eq_ignore_ascii_case("macos") => "a Mac is `darwin`".to_owned(),
                    None => format!("the classes are {}", quoted(&known)),
                };
                let message = format!(
                    "{} is `{}`, which is no class",
                    fields.what("machineClass"),
                    other.escape_debug()
                );
                self.reader
                    .problems
                    .push(Problem::error(text.span, message).hint(hint));
                MachineClass::Nixos
            }
        }
    }

    fn machine_mesh(&mut self, node: &Node, whose: String) -> MachineMesh {
        let fields = self.reader.fields(node, whose, &MACHINE_MESH, &[]);
        let reader = &mut self.reader;
        let mut texts = |key: &str| {
            fields
                .get(key)
                .map_or_else(Vec::new, |node| reader.texts(node, &fields.what(key)))
        };
        let endpoints = texts("endpoints");
        let aliases = texts("aliases");
        let gateways = texts("gateways");
        let routes = texts("routes");
        let routes = routes
            .into_iter()
            .filter_map(|route| {
                reader.parse_text(
                    route,
                    &fields.what("routes"),
                    "a subnet such as `192.168.7.0/24`",
                )
            })
            .collect();
        MachineMesh {
            address: fields
                .get("address")
                .and_then(|node| reader.parsed(node, &fields.what("address"), "an IPv6 address")),
            ipv4: fields
                .get("ipv4")
                .and_then(|node| reader.parsed(node, &fields.what("ipv4"), "an IPv4 address")),
            endpoints,
            aliases,
            routes,
            gateways,
            ciphers: fields.get("ciphers").map(|node| Spanned {
                value: reader.texts(node, &fields.what("ciphers")),
                span: node.span.clone(),
            }),
        }
    }

    fn instance(&mut self, entry: &Entry) -> Instance {
        let whose = format!("instance `{}`", entry.key.escape_debug());
        let fields = self.reader.fields(&entry.value, whose, &INSTANCE, &[]);
        let module = fields.get("module").and_then(|node| {
            let fields = self
                .reader
                .fields(node, fields.what("module"), &MODULE, &[]);
            if let Some(node) = fields.get("input") {
                self.reader.text(node, &fields.what("input"));
            }
            let name = fields.get("name")?;
            self.reader.text(name, &fields.what("name"))
        });
        let roles = fields.get("roles").map_or(&[][..], |node| {
            self.reader.object(node, &fields.what("roles"))
        });
        Instance {
            span: entry.key_span.clone(),
            module: module.map_or_else(|| entry.key.clone(), |name| name.value),
            settings: self.settings(&fields),
            roles: roles
                .iter()
                .map(|role| (role.key.clone(), self.role(role, &entry.key)))
                .collect(),
        }
    }

    fn role(&mut self, entry: &Entry, instance: &str) -> InstanceRole {
        let whose = format!(
            "role `{}` of instance `{}`",
            entry.key.escape_debug(),
            instance.escape_debug()
        );
        let passed_over = self.clans(&CLAN_ROLE);
        let fields = self.reader.fields(&entry.value, whose, &ROLE, passed_over);
        InstanceRole {
            span: entry.key_span.clone(),
            settings: self.settings(&fields),
            tags: self.assignments(&fields, "tags"),
            machines: self.assignments(&fields, "machines"),
        }
    }

    /// An object of assignments; clan also takes a list of names.
    fn assignments(&mut self, fields: &Fields<'_>, key: &str) -> BTreeMap<String, Assignment> {
        let Some(node) = fields.get(key) else {
            return BTreeMap::new();
        };
        let what = fields.what(key);
        if self.is_clan && matches!(node.datum, Datum::List(_)) {
            let names = self.reader.texts(node, &what);
            let assignment = |span| Assignment {
                span,
                settings: None,
            };
            return names
                .into_iter()
                .map(|name| (name.value, assignment(name.span)))
                .collect();
        }
        let entries = self.reader.object(node, &what);
        let mut assignments = BTreeMap::new();
        for entry in entries {
            let whose = format!("`{}` in {what}", entry.key.escape_debug());
            let fields = self.reader.fields(&entry.value, whose, &ASSIGNMENT, &[]);
            let assignment = Assignment {
                span: entry.key_span.clone(),
                settings: self.settings(&fields),
            };
            assignments.insert(entry.key.clone(), assignment);
        }
        assignments
    }

    fn settings(&mut self, fields: &Fields<'_>) -> Option<Node> {
        let node = fields.get("settings")?;
        self.reader.object(node, &fields.what("settings"));
        Some(self.without_network(node))
    }

    /// In clan's form, settings without what describes the network and its rules.
    fn without_network(&self, node: &Node) -> Node {
        let mut node = node.clone();
        if self.is_clan
            && let Datum::Map(entries) = &mut node.datum
        {
            entries.retain(|entry| {
                let key = entry.key.as_str();
                !["network", "rules"].contains(&key) && !NETWORK.contains(&key)
            });
        }
        node
    }

    fn tag(&mut self, tag: &Spanned<String>) {
        if !is_label(&tag.value) {
            self.reader
                .error(tag.span.clone(), label_message(&tag.value, "tag"));
        }
    }
}

/// A key that people choose must be short and can be shown.
pub(super) fn check_label(reader: &mut Reader<'_>, text: &str, entry: &Entry, what: &str) {
    if !is_label(text) {
        reader.error(entry.key_span.clone(), label_message(text, what));
    }
}

fn is_label(text: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn label_message(text: &str, what: &str) -> String {
    format!(
        "`{}` is not a {what}: 1 to {LABEL_BYTES_MAX} bytes without control characters",
        text.escape_debug()
    )
}
