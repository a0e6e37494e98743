//! What is generated from the Nix files, and how they are checked.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};

use crate::process::{is_installed, root, run, shown};

/// The reference, relative to the workspace.
const REFERENCE: &str = "docs/nix-options.md";

/// Gives the reference as a text.
const EXPRESSION: &str =
    "(import ./nix-modules/reference.nix { lib = import ./tests/nix-stub/lib.nix; }).text";

/// The files that are formatted and linted: what a user evaluates.
const FILES: [&str; 3] = ["docs/examples", "flake.nix", "nix-modules"];

/// Writes the reference of the modules' options.
pub(crate) fn write_options() -> anyhow::Result<()> {
    let mut command = Command::new("nix-instantiate");
    command
        .current_dir(root())
        .args(["--eval", "--strict", "--json", "--expr", EXPRESSION]);
    let output = command
        .output()
        .context("cannot run `nix-instantiate`; `tests/setup/install-nix.sh` installs Nix")?;
    ensure!(
        output.status.success(),
        "`{}` failed:\n{}",
        shown(&command),
        String::from_utf8_lossy(&output.stderr)
    );
    let text: String = serde_json::from_slice(&output.stdout).context("no text came out")?;
    fs::write(root().join(REFERENCE), text).with_context(|| format!("cannot write `{REFERENCE}`"))
}

/// Checks that the Nix files are formatted and that nothing in them is unused.
///
/// Where a tool is not installed this says so; CI installs both.
pub(crate) fn lint() -> anyhow::Result<()> {
    for (program, package, args) in [
        ("nixfmt", "nixfmt_rs", ["--check"]),
        ("deadnix", "deadnix", ["--fail"]),
    ] {
        if is_installed(program) {
            run(Command::new(program)
                .current_dir(root())
                .args(args)
                .args(files()?))?;
        } else {
            println!("missing: `{program}` (`cargo install {package}`); Nix files are not checked");
        }
    }
    Ok(())
}

/// The Nix files, relative to the workspace.
fn files() -> anyhow::Result<Vec<String>> {
    let listed = Command::new("git")
        .current_dir(root())
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "--",
        ])
        .args(FILES)
        .output()
        .context("cannot run `git`")?;
    Ok(String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|path| path.ends_with(".nix"))
        .map(str::to_owned)
        .collect())
}
