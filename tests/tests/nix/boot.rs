//! What NixOS' module makes, in a booted system that is thrown away afterwards.

use std::{fs, path::Path, process::Command};

use crate::evaluate::{Nix, workspace};

/// A server that is the fleet's controller and signs its inventory.
const SERVER: &str = "(nixos [ machine { services.mesh = { controller.enable = true; signers = [ identity ]; }; } ])";

/// The seed of `cinnabar` in the documentation: the bytes 0 to 31.
const SEED: &str = "mesh1-seed-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";

#[test]
fn the_units_of_nixos_bring_a_machine_into_its_mesh() {
    let Some(nix) = Nix::new() else { return };
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        println!("skipped: booting a system needs root and /dev/net/tun");
        return;
    }
    let units = nix.build(&format!("{SERVER}.units"));
    // Users are made from the repository's own file, as the container has no activation; the rule for
    // `/run/mesh` is the module's.
    let rule = nix.json(&format!(
        r#"let rule = {SERVER}.config.systemd.tmpfiles.settings."10-mesh"."/run/mesh".d; in
           "d /run/mesh ${{rule.mode}} ${{rule.user}} ${{rule.group}} -\n""#
    ));
    let mut files = vec![
        (nix.file("identity", SEED), "/etc/mesh/identity".to_owned()),
        (
            nix.file("tmpfiles.conf", rule.as_str().unwrap()),
            "/etc/tmpfiles.d/mesh.conf".to_owned(),
        ),
        (
            workspace().join("systemd/mesh.sysusers.conf"),
            "/usr/lib/sysusers.d/mesh.conf".to_owned(),
        ),
    ];
    for name in ["agent.toml", "controller.toml", "inventory.json"] {
        let file = nix.build(&format!(
            "{SERVER}.config.environment.etc.\"mesh/{name}\".source"
        ));
        files.push((file, format!("/etc/mesh/{name}")));
    }

    let mut boot = Command::new("bash");
    boot.arg(workspace().join("tests/setup/boot-units.sh"));
    for (file, to) in files {
        boot.arg("-b").arg(format!("{}={to}", file.display()));
    }
    for name in [
        "mesh-agent.service",
        "mesh-controller.service",
        "mesh-online.target",
    ] {
        assert!(fs::exists(units.join(name)).unwrap(), "{name}");
        boot.arg(units.join(name));
    }
    let booted = boot
        .arg("--")
        .arg(workspace().join("tests/tests/nix/boot.sh"))
        .output()
        .unwrap();
    assert!(booted.status.success(), "{booted:?}");
}
