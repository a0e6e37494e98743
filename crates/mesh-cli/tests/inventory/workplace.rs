//! Where commands run, and what they need there.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// An empty directory in which commands run, which is also the user's home.
pub(crate) struct Workplace(TempDir);

impl Workplace {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// How many files and directories there are.
    pub(crate) fn count(&self) -> usize {
        fs::read_dir(self.0.path()).unwrap().count()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn mesh(&self, line: &str) -> Output {
        self.command(env!("CARGO_BIN_EXE_mesh"))
            .args(line.split_whitespace())
            .output()
            .unwrap()
    }

    /// Runs `mesh`, which must succeed, and gives what it printed.
    pub(crate) fn good(&self, line: &str) -> String {
        let output = self.mesh(line);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `mesh`, which must end with `code`, and gives what it complained about.
    pub(crate) fn bad(&self, line: &str, code: i32) -> String {
        let output = self.mesh(line);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{line}: {}",
            errors(&output)
        );
        errors(&output)
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        let value: Value = serde_json::from_str(&self.good(line)).unwrap();
        assert_eq!(value["version"], 1, "{line}");
        value
    }

    /// A good inventory of three machines, all with keys.
    pub(crate) fn fleet(&self) {
        self.good("inventory init --out inventory.json --name fleet --controller cinnabar");
        let mut inventory: Value = serde_json::from_str(&self.read("inventory.json")).unwrap();
        for name in ["cinnabar", "galena", "stibnite"] {
            let key = self.good(&format!("keygen --out {name}.id"));
            inventory["machines"][name]["publicKey"] = key.trim().into();
        }
        self.write("inventory.json", &inventory.to_string());
    }

    /// An SSH key `NAME` of the given type, or `false` where OpenSSH is missing.
    pub(crate) fn ssh_key(&self, name: &str, kind: &str, passphrase: &str) -> bool {
        let made = self
            .command("ssh-keygen")
            .args([
                "-q", "-t", kind, "-C", "admin", "-f", name, "-N", passphrase,
            ])
            .status();
        let there = made.is_ok_and(|status| status.success());
        if !there {
            eprintln!("skipped: OpenSSH is missing");
        }
        there
    }

    /// Lets `ssh-keygen -Y verify` judge a roster: its head by `jq`, its signature from the file.
    pub(crate) fn openssh_verifies(&self, roster: &str, allowed: &str) -> Option<bool> {
        let jq = |arguments: [&str; 3]| self.command("jq").args(arguments).output();
        // As docs/formats.md has it.
        let (Ok(head), Ok(signature)) = (
            jq(["-jcS", ".head", roster]),
            jq(["-r", ".signature", roster]),
        ) else {
            eprintln!("skipped: jq is missing");
            return None;
        };
        fs::write(self.path("openssh.sig"), signature.stdout).unwrap();
        let mut verify = self
            .command("ssh-keygen")
            .args(["-Y", "verify", "-f", allowed, "-I", "admin"])
            .args(["-n", "mesh-roster", "-s", "openssh.sig"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        verify
            .stdin
            .take()
            .unwrap()
            .write_all(&head.stdout)
            .unwrap();
        Some(verify.wait().unwrap().success())
    }
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
