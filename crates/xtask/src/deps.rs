//! The direction of dependencies: arrows point inwards, and this fails on one that does not.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use cargo_metadata::{DependencyKind, Metadata};

use crate::process::workspace;

/// For each crate, the crates of ours that it may use, and why it uses no other.
const ALLOWED: [(&str, &[&str], &str); 13] = [
    ("mesh-types", &[], "the words that all others use"),
    ("mesh-aead", &[], "a cipher knows no peers"),
    (
        "mesh-wire",
        &["mesh-types"],
        "bytes and values, nothing that acts",
    ),
    (
        "mesh-inventory",
        &["mesh-types"],
        "pure: nodes, controllers and programs verify alike",
    ),
    (
        "mesh-api",
        &["mesh-types"],
        "pure: what programs may rely on",
    ),
    (
        "mesh-core",
        &["mesh-types", "mesh-wire", "mesh-aead"],
        "sans-I/O: effects are values",
    ),
    ("mesh-os", &["mesh-types"], "moves data and decides nothing"),
    (
        "mesh-store",
        &["mesh-types", "mesh-os"],
        "keeps what it is given",
    ),
    (
        "mesh-control",
        &["mesh-types", "mesh-wire", "mesh-os"],
        "a channel, whoever is at its ends",
    ),
    (
        "mesh-controller",
        &[
            "mesh-types",
            "mesh-wire",
            "mesh-inventory",
            "mesh-api",
            "mesh-os",
            "mesh-store",
            "mesh-control",
        ],
        "never a session: a controller carries no traffic",
    ),
    (
        "mesh-agent",
        &[
            "mesh-types",
            "mesh-wire",
            "mesh-inventory",
            "mesh-api",
            "mesh-os",
            "mesh-core",
            "mesh-control",
        ],
        "never a store: an agent keeps files",
    ),
    (
        "mesh-lab",
        &["mesh-types", "mesh-inventory", "mesh-api", "mesh-os"],
        "runs the program as a user does, by its commands and sockets",
    ),
    (
        "mesh-testkit",
        &[
            "mesh-types",
            "mesh-wire",
            "mesh-core",
            "mesh-inventory",
            "mesh-controller",
        ],
        "a simulated network for pure code; of the controller that is its core",
    ),
];

/// What the sans-I/O crates must not reach, directly: sockets, files, clocks, runtimes.
const EFFECTS: [&str; 9] = [
    "tokio",
    "quinn",
    "quinn-udp",
    "socket2",
    "nix",
    "libc",
    "axum",
    "redb",
    "rtnetlink",
];

/// The crates without effects.
const PURE: [&str; 6] = [
    "mesh-types",
    "mesh-aead",
    "mesh-wire",
    "mesh-inventory",
    "mesh-api",
    "mesh-core",
];

pub(crate) fn run() -> anyhow::Result<()> {
    let metadata = workspace()?;
    let wrong = wrong_edges(&edges(&metadata));
    if !wrong.is_empty() {
        bail!(
            "dependencies that point the wrong way:\n  {}",
            wrong.join("\n  ")
        );
    }
    println!("dependencies point inwards");
    Ok(())
}

/// What each package of the workspace uses, and whether only in its tests.
fn edges(metadata: &Metadata) -> BTreeMap<String, BTreeSet<(String, bool)>> {
    metadata
        .packages
        .iter()
        .map(|package| {
            let uses = package
                .dependencies
                .iter()
                .map(|used| (used.name.clone(), used.kind == DependencyKind::Development))
                .collect();
            (package.name.to_string(), uses)
        })
        .collect()
}

fn wrong_edges(edges: &BTreeMap<String, BTreeSet<(String, bool)>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (package, uses) in edges {
        let rule = ALLOWED.iter().find(|(name, _, _)| name == package);
        for (used, only_in_tests) in uses {
            if used == "mesh-testkit" && !only_in_tests && package != "mesh-testkit" {
                wrong.push(format!(
                    "{package} -> {used}: it is only ever a dev-dependency"
                ));
            }
            if *only_in_tests {
                continue;
            }
            if PURE.contains(&package.as_str()) && EFFECTS.contains(&used.as_str()) {
                wrong.push(format!("{package} -> {used}: {package} has no effects"));
            }
            let Some((_, allowed, why)) = rule else {
                continue;
            };
            if edges.contains_key(used) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{package} -> {used}: {why}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str, bool)]) -> BTreeMap<String, BTreeSet<(String, bool)>> {
        let mut graph: BTreeMap<String, BTreeSet<(String, bool)>> = BTreeMap::new();
        for (package, used, only_in_tests) in edges {
            if used.starts_with("mesh-") {
                graph.entry((*used).to_owned()).or_default();
            }
            let uses = graph.entry((*package).to_owned()).or_default();
            uses.insert(((*used).to_owned(), *only_in_tests));
        }
        graph
    }

    #[test]
    fn the_workspace_points_inwards() {
        run().unwrap();
    }

    #[test]
    fn an_arrow_outwards_is_found() {
        assert_eq!(
            wrong_edges(&graph(&[("mesh-core", "mesh-agent", false)])).len(),
            1
        );
        assert_eq!(
            wrong_edges(&graph(&[("mesh-core", "tokio", false)])).len(),
            1
        );
        assert_eq!(
            wrong_edges(&graph(&[("mesh-cli", "mesh-testkit", false)])).len(),
            1
        );
        assert!(wrong_edges(&graph(&[("mesh-core", "mesh-testkit", true)])).is_empty());
        assert!(wrong_edges(&graph(&[("mesh-core", "mesh-types", false)])).is_empty());
    }
}
