//! The inventory as it was written: typed, every part with its place. `docs/inventory.md` describes it.

mod decode;
mod fields;
mod mesh_settings;
mod rules;
mod schema;

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};
use mesh_types::{MachineName, MemberKey, NetworkId};
use schemars::JsonSchema;

pub(crate) use self::rules::{RuleTestText, RulesText};
pub(crate) use self::{
    fields::suggestion,
    mesh_settings::{
        check_endpoint, check_settings, endpoints_of, relay, relay_only, relay_rate_limit,
    },
};
pub use self::{mesh_settings::parse_rate, schema::json_schema};
use crate::{
    report::{Problem, Report, Source},
    roster::{MachineClass, Role},
    syntax::{self, Datum, Node, Span, TEXT_BYTES_MAX},
};

/// An inventory that was read. What is wrong with it, apart from its syntax, is told by resolving it:
/// then everything can be told at once.
#[derive(Clone, Debug)]
pub struct Inventory {
    pub(crate) source: Source,
    pub(crate) document: Document,
    pub(crate) problems: Vec<Problem>,
}

/// Reads an inventory in its native form, in clan's serialised form (recognised by its `meta`), or as
/// `nix eval --json` gives either; JSON or TOML.
///
/// `file_name` is shown in messages; its extension says which syntax is meant, and without one the
/// first character does.
///
/// # Errors
///
/// [`Report`] if the syntax is broken. Whatever else is wrong is told by [`crate::resolve()`].
pub fn parse(file_name: &str, bytes: &[u8]) -> Result<Inventory, Report> {
    let source = |text: &str| Source {
        name: file_name.to_owned(),
        text: text.to_owned(),
    };
    let refused = |text: &str, problem| Err(Report::new(source(text), vec![problem]));
    if bytes.len() > TEXT_BYTES_MAX {
        let message = format!("larger than {TEXT_BYTES_MAX} bytes, the most an inventory may have");
        return refused("", Problem::error(0..0, message).without_place());
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let end = good.len();
            return refused(&good, Problem::error(end..end, "not UTF-8 from here on"));
        }
    };
    let mut problems = Vec::new();
    match syntax::parse(file_name, text, &mut problems) {
        Ok(root) if !matches!(root.datum, Datum::Map(_)) => {
            let message = format!("an inventory is an object, not {}", root.kind());
            refused(text, Problem::error(root.span, message))
        }
        Ok(root) if root.get("head").is_some() && root.get("signature").is_some() => {
            let start = root.span.start..root.span.start;
            let problem = Problem::error(start, "this is a roster, not an inventory").hint(
                "an inventory is what rosters are signed of; `show`, `diff` and `verify` take rosters",
            );
            refused(text, problem)
        }
        Ok(root) => Ok(Inventory {
            source: source(text),
            document: decode::document(&root, &mut problems),
            problems,
        }),
        Err(problem) => {
            problems.push(problem);
            Err(Report::new(source(text), problems))
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// The inventory of a mesh, version 1, in its native form.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(rename = "Inventory", deny_unknown_fields)]
pub(crate) struct Document {
    /// The version of this form.
    #[schemars(with = "Version")]
    #[expect(
        dead_code,
        reason = "read for its check alone, and described in the schema"
    )]
    pub(crate) version: (),
    /// The network itself.
    pub(crate) network: Network,
    /// The machines by name: 1 to 63 of `a`-`z`, `0`-`9` and hyphen, no hyphen at either end.
    #[schemars(default, with = "BTreeMap<String, Machine>")]
    pub(crate) machines: BTreeMap<MachineName, Machine>,
    /// Tags, each with machines that have it beside those that say so themselves.
    #[schemars(default, with = "BTreeMap<String, Vec<String>>")]
    pub(crate) tags: BTreeMap<String, Vec<Spanned<String>>>,
    /// Services and who has which role in them. The mesh itself is the one whose module is `mesh`.
    #[schemars(default)]
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Who may reach whom on what; null: everyone everyone.
    #[schemars(default)]
    pub(crate) rules: Option<RulesText>,
    /// Names under `machines` that are no names: others may still speak of them.
    #[schemars(skip)]
    pub(crate) misnamed: Vec<String>,
}

/// The version of the native form.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "described in the schema")]
enum Version {
    /// The first.
    #[schemars(rename = "mesh/v1")]
    V1,
}

/// The network itself.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Network {
    /// 32 lower-case hex digits, random once; `mesh inventory init` makes them. Every address derives
    /// from it.
    #[schemars(required, with = "String", regex(pattern = r"^[0-9a-f]{32}$"))]
    pub(crate) id: Option<Spanned<NetworkId>>,
    /// The network's name, for people.
    #[schemars(required, with = "String")]
    pub(crate) name: Option<Spanned<String>>,
    /// DNS domain of the fleet: machines answer to `<machine>.<domain>`.
    #[schemars(with = "Option<String>", extend("default" = "mesh"))]
    pub(crate) domain: Option<Spanned<String>>,
    /// SSH public keys or `mesh1` identities that may sign rosters.
    #[schemars(required, with = "Vec<String>")]
    pub(crate) signers: Option<Spanned<Vec<Spanned<String>>>>,
    /// IPv4 pool, such as `100.64.7.0/24`; null: the mesh has IPv6 alone.
    #[schemars(with = "Option<String>")]
    pub(crate) ipv4: Option<Spanned<Ipv4Net>>,
    /// Where the network is described, for problems with what is missing.
    #[schemars(skip)]
    pub(crate) span: Span,
}

/// A machine or guest.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Machine {
    /// Where its name stands.
    #[schemars(skip)]
    pub(crate) span: Span,
    /// What kind of machine it is.
    #[schemars(rename = "machineClass", with = "Option<Class>", extend("default" = "nixos"))]
    pub(crate) class: MachineClass,
    /// Labels; `all` and the class are added.
    #[schemars(default, with = "Vec<String>")]
    pub(crate) tags: Vec<Spanned<String>>,
    /// Its public identity, `mesh1…`, or for a guest `wireguard:` and its key in base64; null: declared,
    /// not yet keyed.
    #[schemars(with = "Option<String>")]
    pub(crate) public_key: Option<Spanned<MemberKey>>,
    /// False: known but switched off; its place is kept, it is not awaited and raises no alarm.
    #[schemars(with = "Option<bool>", extend("default" = true))]
    pub(crate) enabled: bool,
    /// Its part in the mesh, where that is not derived.
    #[schemars(default)]
    pub(crate) mesh: MachineMesh,
    /// Its SSH host keys, each as in `/etc/ssh/ssh_host_ed25519_key.pub`, for `mesh hosts --format ssh`.
    #[schemars(default, with = "Vec<String>")]
    pub(crate) ssh_host_keys: Vec<Spanned<String>>,
    /// How it is deployed.
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    #[expect(
        dead_code,
        reason = "read for its check alone, and described in the schema"
    )]
    pub(crate) deploy: (),
}

/// What kind of machine it is.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "described in the schema")]
enum Class {
    /// Runs NixOS.
    Nixos,
    /// A Mac.
    Darwin,
    /// Anything else, such as a phone.
    External,
}

/// A machine's part in the mesh, where that is not derived.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct MachineMesh {
    /// Pins its IPv6 address; inside the network's prefix.
    #[schemars(with = "Option<String>")]
    pub(crate) address: Option<Spanned<std::net::Ipv6Addr>>,
    /// Pins its IPv4 address; inside the pool.
    #[schemars(with = "Option<String>")]
    pub(crate) ipv4: Option<Spanned<std::net::Ipv4Addr>>,
    /// Where its agent can always be reached, each `host:port`; the agent's port is 4193.
    #[schemars(default, with = "Vec<String>")]
    pub(crate) endpoints: Vec<Spanned<String>>,
    /// Names of services that it answers to beside its own; `*.apps` stands for all names below `apps`.
    #[schemars(default, with = "Vec<String>")]
    pub(crate) aliases: Vec<Spanned<String>>,
    /// Subnets behind it.
    #[schemars(default, with = "Vec<String>")]
    pub(crate) routes: Vec<Spanned<IpNet>>,
    /// The moons through which a guest joins.
    #[schemars(default, with = "Vec<String>")]
    pub(crate) gateways: Vec<Spanned<String>>,
    /// Transport ciphers; by default `aes` and `chacha`, and always `chacha` alone for a guest.
    #[schemars(with = "Option<Vec<Cipher>>")]
    pub(crate) ciphers: Option<Spanned<Vec<Spanned<String>>>>,
}

/// A transport cipher.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "described in the schema")]
enum Cipher {
    /// AES-256-GCM.
    Aes,
    /// ChaCha20-Poly1305, as WireGuard.
    Chacha,
}

/// A service and who has which role in it.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Instance {
    /// Where its name stands.
    #[schemars(skip)]
    pub(crate) span: Span,
    /// Which service it is; by default the one with the instance's name.
    #[schemars(with = "Option<Module>")]
    pub(crate) module: String,
    /// Settings for everyone in it; the mesh has none.
    #[schemars(default, with = "BTreeMap<String, serde_json::Value>")]
    pub(crate) settings: Option<Node>,
    /// Roles by name; the mesh has `controller`, `moon` and `peer`.
    #[schemars(default, with = "BTreeMap<String, InstanceRole>")]
    pub(crate) roles: BTreeMap<String, InstanceRole>,
}

/// Which service an instance is.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "described in the schema")]
struct Module {
    /// The service's name.
    name: Option<String>,
    /// Where it comes from, such as an input of a flake.
    input: Option<String>,
}

/// Who has a role, with settings. They merge: instance, role, tags in the order of their names,
/// machine; null unsets.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Role", deny_unknown_fields)]
pub(crate) struct InstanceRole {
    /// Where its name stands.
    #[schemars(skip)]
    pub(crate) span: Span,
    /// Settings for everyone with the role.
    #[schemars(default, with = "BTreeMap<String, serde_json::Value>")]
    pub(crate) settings: Option<Node>,
    /// Tags whose machines have the role.
    #[schemars(default)]
    pub(crate) tags: BTreeMap<String, Assignment>,
    /// Machines that have the role.
    #[schemars(default)]
    pub(crate) machines: BTreeMap<String, Assignment>,
}

/// An assignment of a role.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Assignment {
    /// Where the tag or machine stands.
    #[schemars(skip)]
    pub(crate) span: Span,
    /// Settings for those who have the role by this.
    #[schemars(default, with = "BTreeMap<String, serde_json::Value>")]
    pub(crate) settings: Option<Node>,
}

impl Instance {
    /// The roles that the mesh has; others are problems that reading told of.
    pub(crate) fn mesh_roles(&self) -> impl Iterator<Item = (Role, &InstanceRole)> {
        self.roles
            .iter()
            .filter_map(|(name, role)| Some((Role::named(name)?, role)))
    }
}

impl Inventory {
    /// What reading alone found wrong; `None`: nothing. [`crate::resolve()`] tells this too, and more.
    pub fn malformed(&self) -> Option<Report> {
        let report = Report::new(self.source.clone(), self.problems.clone());
        (!report.is_empty()).then_some(report)
    }

    /// The instance that is the mesh; `None`: there is none, or several.
    pub(crate) fn mesh(&self) -> Option<&Instance> {
        let mut meshes = self
            .document
            .instances
            .values()
            .filter(|instance| instance.module == decode::MESH_MODULE);
        let mesh = meshes.next()?;
        meshes.next().is_none().then_some(mesh)
    }
}

/// The entries of a map; none for anything else.
fn entries(node: &Node) -> &[syntax::Entry] {
    match &node.datum {
        Datum::Map(entries) => entries,
        Datum::Null | Datum::Bool(_) | Datum::Number(_) | Datum::Text(_) | Datum::List(_) => &[],
    }
}
