//! The package, whose build sees only the files that it names.

use std::{fs, process::Command};

use crate::evaluate::{self, Nix, workspace};

#[test]
fn the_package_has_every_file_that_the_program_is_built_from() {
    let Some(nix) = Nix::new() else { return };
    let source = nix.json("mesh.packages.x86_64-linux.mesh.src.outPath");
    let source = std::path::Path::new(source.as_str().unwrap());
    // Cargo's own list, beside the program: what it read, embedded files among them.
    let listed = fs::read_to_string(evaluate::program().with_extension("d")).unwrap();
    let (_, read) = listed.split_once(": ").unwrap();
    let root = workspace();
    let mut compared = 0;
    for path in read.split_whitespace() {
        let Ok(path) = fs::canonicalize(path) else {
            continue;
        };
        let Ok(below) = path.strip_prefix(&root) else {
            continue;
        };
        if !below.starts_with("target") {
            assert!(source.join(below).exists(), "{}", below.display());
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}: {listed}");

    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version=1"])
        .arg("--manifest-path")
        .arg(source.join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{metadata:?}");
}
