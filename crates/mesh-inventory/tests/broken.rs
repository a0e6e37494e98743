//! What is said about broken inventories, each in `tests/broken`.
#![expect(clippy::unwrap_used, reason = "a failing unwrap fails the test")]

use std::{fs, path::PathBuf};

use mesh_inventory::{Report, inventory, resolve};

fn report(path: &PathBuf) -> Report {
    let name = path.file_name().unwrap().to_str().unwrap();
    let resolved = inventory::parse(name, &fs::read(path).unwrap())
        .and_then(|inventory| resolve(&inventory, None));
    resolved.expect_err(name)
}

#[test]
fn every_broken_inventory_is_explained() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broken");
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() > 30);
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let report = report(&path);
        assert!(report.errors() > 0, "{name}");
        insta::assert_snapshot!(name.replace('.', "-"), report.to_string());
    }
}
