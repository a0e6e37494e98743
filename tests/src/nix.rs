//! Evaluating the project's own Nix expressions.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The workspace's root.
///
/// # Panics
///
/// If the tests have been moved elsewhere.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests are in the workspace")
        .to_owned()
}

/// Evaluates an expression to JSON. `None`: there is no Nix, which is said on stderr.
///
/// # Panics
///
/// If the evaluation fails, with what Nix says of it.
pub fn evaluate(expression: &str) -> Option<Value> {
    let answer = try_evaluate(expression)?;
    Some(answer.unwrap_or_else(|errors| panic!("{errors}")))
}

/// As [`evaluate`], with what Nix says of an evaluation that fails.
///
/// # Panics
///
/// If Nix cannot be started, or answers with something else than JSON.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
pub fn try_evaluate(expression: &str) -> Option<Result<Value, String>> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(expression.as_bytes())
        .expect("a file that can be written");
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--json", "--strict", "--read-write-mode"])
        .arg(file.path())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no nix-instantiate");
        return None;
    };
    if !output.status.success() {
        return Some(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Some(Ok(serde_json::from_slice(&output.stdout).expect("JSON")))
}

/// Builds a derivation, and gives its path in the store. `None`: there is no Nix, which is said on stderr.
///
/// # Panics
///
/// If the build fails, with what Nix says of it.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
pub fn build(expression: &str) -> Option<PathBuf> {
    let output = Command::new("nix-build")
        .args(["--no-out-link", "--expr", expression])
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no nix-build");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let path = String::from_utf8(output.stdout).expect("a path");
    Some(path.trim().into())
}
