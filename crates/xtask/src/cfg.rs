//! Where code for one system may be: in mesh-os, and the few places that are named here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::process::root;

/// The home of what differs between systems.
const HOME: &str = "crates/mesh-os/src/";

/// Others, and why.
const ALLOWED: [(&str, &str); 2] = [
    (
        "crates/mesh-lab/src/lib.rs",
        "namespaces are Linux's; the whole crate is empty elsewhere",
    ),
    (
        "crates/mesh-cli/src/commands/demo.rs",
        "the demo is made of the lab, and says so elsewhere",
    ),
];

/// Fails on `cfg(target_os)` outside the places where it may be.
pub(crate) fn run() -> anyhow::Result<()> {
    let crates = root().join("crates");
    let mut files = Vec::new();
    collect(&crates, &mut files).context("cannot read the crates")?;
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path)?;
        let relative = path.strip_prefix(root()).unwrap_or(&path);
        if is_wrong(relative, &text) {
            wrong.push(relative.display().to_string());
        }
    }
    if !wrong.is_empty() {
        bail!(
            "`cfg` of an operating system outside mesh-os, which is the place for it:\n  {}",
            wrong.join("\n  ")
        );
    }
    println!("only mesh-os tells systems apart");
    Ok(())
}

fn is_wrong(path: &Path, text: &str) -> bool {
    let is_test = path.components().any(|part| part.as_os_str() == "tests");
    let may = path.starts_with(HOME)
        || is_test
        || path.starts_with("crates/xtask")
        || ALLOWED
            .iter()
            .any(|(allowed, _)| path == Path::new(allowed));
    !may && text.lines().any(names_a_system)
}

fn names_a_system(line: &str) -> bool {
    let line = line.trim_start();
    !line.starts_with("//") && (line.contains("target_os") || line.contains("target_vendor"))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mesh_os_tells_systems_apart() {
        run().unwrap();
        let code = "    #[cfg(target_os = \"macos\")]\n    {}\n";
        let wrong = |path: &str, text: &str| is_wrong(Path::new(path), text);
        assert!(wrong("crates/mesh-agent/src/daemon.rs", code));
        assert!(!wrong("crates/mesh-os/src/tun.rs", code));
        assert!(!wrong("crates/mesh-cli/tests/controller.rs", code));
        assert!(!wrong("crates/mesh-cli/src/commands/demo.rs", code));
        assert!(!wrong(
            "crates/mesh-agent/src/daemon.rs",
            "// not cfg(target_os)\n"
        ));
    }
}
