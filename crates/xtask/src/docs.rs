//! What the documentation promises of tests: each that it names exists.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::process::root;

/// The folder of a package of ours.
fn folder(package: &str) -> PathBuf {
    match package {
        "mesh-tests" => root().join("tests"),
        package => root().join("crates").join(package),
    }
}

/// All Rust sources below `folder`, as one text.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

/// Whether `source` has a test of this name: a function whose attributes or macro say so.
fn has_test(source: &str, name: &str) -> bool {
    let Some(at) = source.find(&format!("fn {name}(")) else {
        return false;
    };
    let before = &source[..at];
    // Up to the end of the item before it.
    let own = before.rsplit("}\n").next().unwrap_or(before);
    own.contains("test")
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let mut named = 0;
    for word in page.split('`').skip(1).step_by(2) {
        let Some((package, name)) = word.split_once("::").filter(|(_, name)| *name != "name")
        else {
            continue;
        };
        named += 1;
        let found = has_test(&sources(&folder(package)), name);
        assert!(found, "there is no test `{name}` in `{package}`");
    }
    assert!(named > 30, "only {named} tests are named");
}
