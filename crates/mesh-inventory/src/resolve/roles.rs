//! Who has which role in the mesh, with which settings.

use std::collections::{BTreeMap, BTreeSet};

use mesh_types::MachineName;
use serde_json::{Value, json};

use super::Resolver;
use crate::{
    inventory::{Instance, InstanceRole, check_settings},
    report::Problem,
    roster::Role,
    settings::{leaves, merge},
    syntax::Node,
};

/// The roles of each machine that has any, with the merged settings of each.
pub(super) type Roles = BTreeMap<MachineName, BTreeMap<Role, Value>>;

impl Resolver<'_> {
    pub(super) fn roles(&mut self, tags: &BTreeMap<MachineName, BTreeSet<String>>) -> Roles {
        self.check_single_mesh();
        let Some(mesh) = self.inventory.mesh() else {
            return Roles::new();
        };
        check_settings(mesh, &mut self.problems);
        let mut roles = Roles::new();
        let mut told = BTreeSet::new();
        for (role, assigned) in mesh.mesh_roles() {
            for (name, tags) in tags {
                let by_tag = tags.iter().any(|tag| assigned.tags.contains_key(tag));
                if !by_tag && !assigned.machines.contains_key(name.as_str()) {
                    continue;
                }
                self.check_conflicts(name, tags, assigned, &mut told);
                let settings = merged(mesh, assigned, name, tags);
                roles
                    .entry(name.clone())
                    .or_default()
                    .insert(role, settings);
            }
        }
        self.warn_of_idle_machines(&roles);
        roles
    }

    fn check_single_mesh(&mut self) {
        let meshes: Vec<_> = self
            .inventory
            .document
            .instances
            .iter()
            .filter(|(_, instance)| instance.module == "mesh")
            .collect();
        if let [(first, one), (second, two), ..] = meshes.as_slice() {
            self.problems.push(
                Problem::error(
                    two.span.clone(),
                    format!("instances `{first}` and `{second}` are both of module `mesh`"),
                )
                .note(one.span.clone(), "the other one")
                .hint("an inventory describes one mesh; join the two"),
            );
        }
    }

    /// Two tags of one machine that set one thing differently; told once for each pair of places.
    fn check_conflicts(
        &mut self,
        name: &MachineName,
        tags: &BTreeSet<String>,
        role: &InstanceRole,
        told: &mut BTreeSet<(usize, usize)>,
    ) {
        let mut set = Vec::new();
        for tag in tags {
            let settings = role.tags.get(tag).and_then(|tag| tag.settings.as_ref());
            for leaf in settings.map(leaves).unwrap_or_default() {
                for (other_tag, other) in &set {
                    let conflict = *other_tag != tag && leaf.contradicts(other);
                    if !conflict || !told.insert((other.span.start, leaf.span.start)) {
                        continue;
                    }
                    self.problems.push(
                        Problem::error(
                            leaf.span.clone(),
                            format!(
                                "tags `{other_tag}` and `{tag}` set `{}` differently, and machine `{name}` has both",
                                leaf.path.join(".")
                            ),
                        )
                        .note(other.span.clone(), format!("tag `{other_tag}` sets it here"))
                        .hint("set it by one tag, or by machine"),
                    );
                }
                set.push((tag, leaf));
            }
        }
    }

    pub(super) fn check_controller(&mut self, roles: &Roles) {
        let Some(mesh) = self.inventory.mesh() else {
            if self
                .inventory
                .document
                .instances
                .values()
                .any(|i| i.module == "mesh")
            {
                return;
            }
            let network = self.inventory.document.network.span.clone();
            self.problems.push(
                Problem::error(network, "no instance is the mesh, so there is no controller")
                    .hint("add under `instances`: `\"mesh\": { \"roles\": { \"controller\": { \"machines\": { \"NAME\": {} } }, \"peer\": { \"tags\": { \"all\": {} } } } }`"),
            );
            return;
        };
        let document = &self.inventory.document;
        let controllers: Vec<_> = document
            .machines
            .iter()
            .filter(|(name, _)| {
                let roles = roles.get(*name);
                roles.is_some_and(|roles| roles.contains_key(&Role::Controller))
            })
            .collect();
        for (name, machine) in &controllers {
            if super::is_guest(machine) {
                let message = format!("controller `{name}` is a guest, which cannot run one");
                self.problems.push(
                    Problem::error(machine.span.clone(), message)
                        .hint("give it a `mesh1` identity: `mesh keygen --out FILE`"),
                );
            }
        }
        if controllers.iter().any(|(_, machine)| machine.enabled) {
            return;
        }
        let (message, hint) = match controllers.first() {
            Some((name, _)) => (
                format!("the only controller, `{name}`, is switched off"),
                "switch it on, or give another machine the role `controller`".to_owned(),
            ),
            None => (
                "no machine has the role `controller` in the mesh".to_owned(),
                "give an always-on machine the role: `\"controller\": { \"machines\": { \"NAME\": {} } }`".to_owned(),
            ),
        };
        let place = mesh
            .roles
            .get("controller")
            .map_or(&mesh.span, |role| &role.span);
        self.problems
            .push(Problem::error(place.clone(), message).hint(hint));
    }

    fn warn_of_idle_machines(&mut self, roles: &Roles) {
        for (name, machine) in &self.inventory.document.machines {
            if !roles.contains_key(name) {
                self.problems.push(
                    Problem::warning(
                        machine.span.clone(),
                        format!("machine `{name}` has no role in the mesh"),
                    )
                    .hint("give every machine the role `peer`: `\"peer\": { \"tags\": { \"all\": {} } }`"),
                );
            }
        }
    }
}

fn merged(
    mesh: &Instance,
    role: &InstanceRole,
    name: &MachineName,
    tags: &BTreeSet<String>,
) -> Value {
    let by_tag = tags.iter().filter_map(|tag| role.tags.get(tag));
    let by_machine = role.machines.get(name.as_str());
    let assigned = by_tag
        .chain(by_machine)
        .filter_map(|assignment| assignment.settings.as_ref());
    let mut settings = json!({});
    let general = mesh.settings.iter().chain(&role.settings);
    for layer in general.chain(assigned).map(Node::to_value) {
        merge(&mut settings, &layer);
    }
    settings
}
