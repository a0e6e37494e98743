//! The property lists are what launchd takes, and stay as they are.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn lint(files: &[PathBuf]) -> std::process::Output {
    Command::new("python3")
        .arg(workspace().join("tests/setup/lint-launchd.py"))
        .args(files)
        .output()
        .unwrap()
}

#[test]
fn the_property_lists_are_what_launchd_takes() {
    let files = ["agent", "controller"]
        .map(|name| workspace().join(format!("launchd/org.mesh.{name}.plist")));
    let found = lint(&files);
    assert!(found.status.success(), "{found:?}");

    // The linter does find what is wrong.
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.plist");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    std::fs::write(&broken, text.replace("KeepAlive", "KeepAlife")).unwrap();
    assert!(!lint(&[broken]).status.success());
}

/// A changed text has launchd stop the daemon, and cut the session over which it was deployed. Whoever
/// changes one on purpose says so in the changelog, and changes the number here.
#[test]
fn the_property_lists_are_the_same_in_every_release() {
    let digest = |name: &str| {
        let bytes = std::fs::read(workspace().join(format!("launchd/org.mesh.{name}.plist")));
        // FNV-1a: not against an attacker, but against a change that nobody meant.
        bytes
            .unwrap()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            })
    };
    assert_eq!(digest("agent"), 0x5448_8e96_c620_49a8);
    assert_eq!(digest("controller"), 0x689c_8465_d8ed_6136);
}
