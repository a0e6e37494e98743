//! Signatures, both ways against OpenSSH.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::workplace::{Workplace, errors};

#[test]
fn openssh_accepts_our_signatures_of_every_kind_of_key() {
    let place = Workplace::new();
    place.fleet();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        if !place.ssh_key(kind, kind, "") {
            return;
        }
        place.write(
            "allowed",
            &format!("admin {}", place.read(&format!("{kind}.pub"))),
        );
        place.good(&format!("inventory sign inventory.json --key {kind} --serial 7 --revision r1 --out {kind}.roster"));
        let verified = place.json(&format!(
            "inventory verify {kind}.roster --allowed allowed --json"
        ));
        assert_eq!(verified["head"]["serial"], 7);
        assert_eq!(verified["principals"], "admin");
        if place
            .openssh_verifies(&format!("{kind}.roster"), "allowed")
            .is_none()
        {
            return;
        }
        assert_eq!(
            place.openssh_verifies(&format!("{kind}.roster"), "allowed"),
            Some(true),
            "{kind}"
        );
    }
    // An identity's Ed25519 half is an SSH key like any other.
    place.write(
        "allowed",
        &format!("admin {}", place.good("keygen --public cinnabar.id --ssh")),
    );
    place.good("inventory sign inventory.json --key cinnabar.id --serial 7 --out own.roster");
    assert_eq!(place.openssh_verifies("own.roster", "allowed"), Some(true));
    assert_eq!(place.openssh_verifies("rsa.roster", "allowed"), Some(false));
}

#[test]
fn we_accept_the_signatures_of_openssh() {
    let place = Workplace::new();
    place.fleet();
    place.good("inventory sign inventory.json --key cinnabar.id --serial 7 --out roster");
    let mut roster: Value = serde_json::from_str(&place.read("roster")).unwrap();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        if !place.ssh_key(kind, kind, "") {
            return;
        }
        let Ok(head) = place
            .command("jq")
            .args(["-jcS", ".head", "roster"])
            .output()
        else {
            eprintln!("skipped: jq is missing");
            return;
        };
        fs::write(place.path("head"), &head.stdout).unwrap();
        let signed = place
            .command("ssh-keygen")
            .args(["-q", "-Y", "sign", "-f", kind, "-n", "mesh-roster", "head"])
            .output()
            .unwrap();
        assert!(signed.status.success(), "{}", errors(&signed));
        roster["signature"] = place.read("head.sig").into();
        fs::remove_file(place.path("head.sig")).unwrap();
        place.write("signed", &roster.to_string());
        place.write(
            "allowed",
            &format!(
                "admin namespaces=\"mesh-*\" {}",
                place.read(&format!("{kind}.pub"))
            ),
        );
        assert!(
            place
                .good("inventory verify signed --allowed allowed")
                .contains("by admin")
        );
        place.write(
            "allowed",
            &format!(
                "admin namespaces=\"git\" {}",
                place.read(&format!("{kind}.pub"))
            ),
        );
        place.bad("inventory verify signed --allowed allowed", 1);
    }
}

#[test]
fn a_locked_or_foreign_key_says_what_to_do() {
    let place = Workplace::new();
    place.fleet();
    let sign = |key: &str, code| {
        place.bad(
            &format!("inventory sign inventory.json --key {key} --serial 1 --out roster"),
            code,
        )
    };
    assert!(sign("inventory.json", 2).contains("neither an SSH key nor an identity"));
    if !place.ssh_key("locked", "ed25519", "secret phrase") {
        return;
    }
    assert!(sign("locked", 1).contains("ssh-add locked"));
    assert!(sign("locked.pub", 1).contains("SSH_AUTH_SOCK"));
    fs::set_permissions(place.path("locked"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(sign("locked", 2).contains("chmod 600 locked"));
    assert!(!place.path("roster").exists());
}

/// A real ssh-agent, ended with the test.
struct SshAgent(Child);

impl SshAgent {
    fn start(place: &Workplace) -> Option<Self> {
        let agent = place
            .command("ssh-agent")
            .args(["-D", "-a", "agent.sock"])
            .stdout(Stdio::null())
            .spawn();
        let Ok(agent) = agent else {
            eprintln!("skipped: OpenSSH is missing");
            return None;
        };
        let agent = Self(agent);
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(place.path("agent.sock")).is_err() {
            assert!(Instant::now() < deadline, "the ssh-agent does not listen");
            std::thread::yield_now();
        }
        Some(agent)
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_ssh_agent_signs_with_every_kind_of_key() {
    let place = Workplace::new();
    place.fleet();
    let Some(_agent) = SshAgent::start(&place) else {
        return;
    };
    let with_agent = |program: &str| {
        let mut command = place.command(program);
        command.env("SSH_AUTH_SOCK", place.path("agent.sock"));
        command
    };
    for kind in ["ed25519", "ecdsa", "rsa"] {
        if !place.ssh_key(kind, kind, "") {
            return;
        }
        let sign = |key: &str| {
            with_agent(env!("CARGO_BIN_EXE_mesh"))
                .args([
                    "inventory",
                    "sign",
                    "inventory.json",
                    "--serial",
                    "1",
                    "--out",
                    "roster",
                ])
                .args(["--key", key])
                .output()
                .unwrap()
        };
        let public = format!("{kind}.pub");
        let refused = sign(&public);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            errors(&refused).contains("ssh-add -l"),
            "{}",
            errors(&refused)
        );

        let added = with_agent("ssh-add").args(["-q", kind]).status().unwrap();
        assert!(added.success());
        // From here on only the agent has the private half in a form that can be used.
        let locked = place
            .command("ssh-keygen")
            .args(["-q", "-p", "-P", "", "-N", "secret phrase", "-f", kind])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(locked.success());
        place.write("allowed", &format!("admin {}", place.read(&public)));
        for key in [public.as_str(), kind] {
            let signed = sign(key);
            assert!(signed.status.success(), "{key}: {}", errors(&signed));
            place.good("inventory verify roster --allowed allowed");
            fs::remove_file(place.path("roster")).unwrap();
        }
    }
    // `init` finds a key there when there is no file.
    let init = with_agent(env!("CARGO_BIN_EXE_mesh"))
        .args(["inventory", "init", "--out", "fresh.json"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(init.success());
    assert!(place.read("fresh.json").contains("ssh-ed25519 AAAA"));
}
