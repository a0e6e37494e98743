//! What nix-darwin's activation does, run with the paths of a Mac below a folder of its own.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::evaluate::Nix;

/// A Mac's folders.
struct Mac(TempDir);

impl Mac {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn below(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    /// Runs the parts of an activation that are the mesh's, as nix-darwin does: the end of one command is the
    /// end of all.
    fn activate(&self, activation: &Value) -> Output {
        let script = ["extraActivation", "postActivation"]
            .map(|name| activation[name].as_str().unwrap())
            .join("\n");
        let script = ["/usr/local", "/var/log"]
            .iter()
            .fold(script, |text, path| {
                text.replace(path, self.below(path).to_str().unwrap())
            });
        Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c"])
            .arg(format!("{script}\necho 'The activation went on.'"))
            .output()
            .unwrap()
    }
}

#[test]
fn the_activation_of_nix_darwin_installs_the_program_once() {
    let Some(nix) = Nix::new() else { return };
    nix.build("program");
    let activation = nix.json("(darwin [ mac ]).json.activation");
    let mac = Mac::new();
    // Twice: an activation that changes nothing neither copies nor restarts.
    for _ in 0..2 {
        let done = mac.activate(&activation);
        assert!(done.status.success(), "{done:?}");
    }
    let program = mac.below("/usr/local/libexec/mesh");
    assert!(program.symlink_metadata().unwrap().is_file());
    assert_eq!(
        fs::read_link(mac.below("/usr/local/bin/mesh")).unwrap(),
        program
    );
    let after = activation["postActivation"].as_str().unwrap();
    assert!(
        after.contains("/usr/local/libexec/mesh agent upgrade"),
        "{after}"
    );
}

/// Otherwise the new configuration would not become the current one.
#[test]
fn an_upgrade_that_fails_is_said_and_does_not_end_the_activation() {
    let Some(nix) = Nix::new() else { return };
    let with = |program: &str| {
        let package = format!(
            r#"derivation {{
                 name = "mesh-{program}"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
                 args = [ "-c" "mkdir -p $out/bin && printf '#!/bin/sh\n{program}\n' > $out/bin/mesh && chmod +x $out/bin/mesh" ];
               }}"#
        );
        nix.build(&package);
        nix.json(&format!(
            "(darwin [ mac {{ services.mesh.package = lib.mkForce ({package}); services.mesh.controller.enable = true; }} ]).json.activation"
        ))
    };
    let (old, new) = (with("true"), with("false"));
    let mac = Mac::new();
    let first = mac.activate(&old);
    assert!(first.status.success(), "{first:?}");

    let done = mac.activate(&new);
    assert!(done.status.success(), "{done:?}");
    let (out, said) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(out.contains("The activation went on."), "{done:?}");
    assert!(said.contains("mesh agent upgrade` failed"), "{said}");
    assert!(said.contains("the controller was not restarted"), "{said}");
    let installed = fs::read_to_string(mac.below("/usr/local/libexec/mesh")).unwrap();
    assert!(installed.contains("false"), "{installed}");
}

/// The order is nix-darwin's own, so this needs its sources.
#[test]
fn the_program_is_there_before_launchd_starts_it_and_upgraded_after() {
    let Some(nix) = Nix::new() else { return };
    if !nix.has("nix-darwin") {
        return;
    }
    let activation = nix.json("(darwin [ mac ]).json.activation");
    let whole = activation["script"].as_str().unwrap();
    let places: Vec<_> = [
        "/bin/mesh /usr/local/libexec/mesh\n",
        "dscl . -create /Groups/mesh ",
        "launchctl load -w '/Library/LaunchDaemons/org.mesh.agent.plist'",
        "/usr/local/libexec/mesh agent upgrade",
        "/run/current-system\n",
    ]
    .iter()
    .map(|part| whole.find(part).ok_or(part))
    .collect();
    assert!(
        places.iter().all(Result::is_ok) && places.is_sorted(),
        "{places:?}: {whole}"
    );
}
