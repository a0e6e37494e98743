//! `mesh controller run` and `mesh pending` as processes.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

const NETWORK: &str = "000102030405060708090a0b0c0d0e0f";

fn mesh(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command.current_dir(dir);
    command
}

fn output(dir: &Path, args: &[&str]) -> Output {
    mesh(dir).args(args).output().unwrap()
}

/// An identity file and its public identity.
fn identity(dir: &Path) -> String {
    assert!(
        output(dir, &["keygen", "--out", "identity"])
            .status
            .success()
    );
    let public = output(dir, &["keygen", "--public", "identity"]).stdout;
    String::from_utf8(public).unwrap().trim().to_owned()
}

fn configure(dir: &Path, more: &str) {
    let signer = if dir.join("identity").exists() {
        let public = output(dir, &["keygen", "--public", "identity"]).stdout;
        String::from_utf8(public).unwrap().trim().to_owned()
    } else {
        identity(dir)
    };
    let text = format!(
        "network = '{NETWORK}'\nsigners = ['{signer}']\nidentity_file = 'identity'\nlisten = '127.0.0.1:0'\nstate_dir = 'state'\nsocket = 'socket'\n{more}\n"
    );
    fs::write(dir.join("controller.toml"), text).unwrap();
}

/// A controller that is ended with its test, if not before.
struct Controller(Child);

impl Controller {
    /// Starts one and waits until it says that it is ready, as a service manager does.
    fn start(dir: &Path) -> Self {
        let notify = dir.join("notify");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).unwrap();
        ready
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let child = mesh(dir)
            .args(["controller", "run", "--config", "controller.toml"])
            .env("NOTIFY_SOCKET", &notify)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let controller = Self(child);
        let mut word = [0; 64];
        let length = ready.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1\n");
        controller
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.0.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_controller_serves_until_it_is_told_to_stop_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "");
    let mut controller = Controller::start(dir.path());
    let pending = output(dir.path(), &["pending", "--socket", "socket", "--json"]);
    assert!(pending.status.success());
    let answer: serde_json::Value = serde_json::from_slice(&pending.stdout).unwrap();
    assert_eq!(answer, serde_json::json!({"version": 1, "pending": []}));
    let pending = output(dir.path(), &["pending", "--socket", "socket"]);
    assert_eq!(pending.stdout, b"no key is pending\n");

    // Reading the configuration again is no reason to end, even if it is broken.
    fs::write(dir.path().join("controller.toml"), "broken").unwrap();
    controller.signal("HUP");
    let pending = output(dir.path(), &["pending", "--socket", "socket"]);
    assert!(pending.status.success());

    controller.signal("TERM");
    assert!(controller.0.wait().unwrap().success());
    assert!(!dir.path().join("socket").exists());
}

#[test]
fn a_controller_that_was_killed_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "");
    let mut controller = Controller::start(dir.path());
    controller.0.kill().unwrap();
    controller.0.wait().unwrap();
    assert!(dir.path().join("socket").exists(), "it had no time for it");
    let again = Controller::start(dir.path());
    let pending = output(dir.path(), &["pending", "--socket", "socket"]);
    assert!(pending.status.success());
    drop(again);
}

#[test]
fn a_wrong_configuration_is_told_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "invetory = 'x'");
    let run = ["controller", "run", "--config", "controller.toml"];
    let refused = output(dir.path(), &run);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(
        error,
        "error: the configuration `controller.toml` is refused\n  caused by: unknown key `invetory`; did you mean `inventory`?\nhint: `docs/controller.md` lists the keys with an example\n"
    );
}

#[test]
fn without_a_controller_pending_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let refused = output(dir.path(), &["pending", "--socket", "nowhere"]);
    assert_eq!(refused.status.code(), Some(3));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("cannot reach the mesh controller at `nowhere`"));
    assert!(error.contains("hint: start it with"));
}
