//! `mesh controller run` and `mesh pending` as processes.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
    process::{Child, Command, Output},
    time::Duration,
};

const NETWORK: &str = "000102030405060708090a0b0c0d0e0f";

/// A directory that a controller can enter after it changed its user.
fn room() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

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
        "network = '{NETWORK}'\nsigners = ['{signer}']\nidentity_file = 'identity'\nlisten = '127.0.0.1:0'\nstate_dir = 'state'\nsocket = 'mesh/socket'\n{more}\n"
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
        fs::set_permissions(&notify, fs::Permissions::from_mode(0o777)).unwrap();
        ready
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let child = mesh(dir)
            .args(["controller", "run", "--config", "controller.toml"])
            .env("NOTIFY_SOCKET", &notify)
            .stderr(fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let controller = Self(child);
        let mut word = [0; 64];
        let length = ready.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1");
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
    let dir = room();
    configure(dir.path(), "");
    let mut controller = Controller::start(dir.path());
    let pending = output(
        dir.path(),
        &["pending", "--socket", "mesh/socket", "--json"],
    );
    assert!(pending.status.success());
    let answer: serde_json::Value = serde_json::from_slice(&pending.stdout).unwrap();
    assert_eq!(answer, serde_json::json!({"version": 1, "pending": []}));
    let pending = output(dir.path(), &["pending", "--socket", "mesh/socket"]);
    assert_eq!(pending.stdout, b"no key is pending\n");

    let accept = ["controller", "accept-shrink", "--socket", "mesh/socket"];
    let refused = output(dir.path(), &accept);
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("watches no inventory"), "{error}");

    // Reading the configuration again is no reason to end, even if it is broken.
    fs::write(dir.path().join("controller.toml"), "broken").unwrap();
    controller.signal("HUP");
    let pending = output(dir.path(), &["pending", "--socket", "mesh/socket"]);
    assert!(pending.status.success());

    controller.signal("TERM");
    assert!(controller.0.wait().unwrap().success());
    assert!(!dir.path().join("mesh/socket").exists());
}

#[test]
fn a_controller_that_was_killed_starts_again() {
    let dir = room();
    configure(dir.path(), "");
    let mut controller = Controller::start(dir.path());
    controller.0.kill().unwrap();
    controller.0.wait().unwrap();
    assert!(
        dir.path().join("mesh/socket").exists(),
        "it had no time for it"
    );
    let again = Controller::start(dir.path());
    let pending = output(dir.path(), &["pending", "--socket", "mesh/socket"]);
    assert!(pending.status.success());
    drop(again);
}

#[test]
fn a_running_controller_has_no_privilege_left() {
    let dir = room();
    configure(dir.path(), "");
    let controller = Controller::start(dir.path());
    let pid = controller.0.id();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found.unwrap().trim().to_owned()
        };
        for empty in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(line(empty), "0000000000000000", "{empty}");
        }
        assert_eq!(line("NoNewPrivs:"), "1");
        if changes_user() {
            assert_eq!(line("CapBnd:"), "0000000000000000");
            assert!(!line("Uid:").split('\t').any(|uid| uid == "0"), "{status}");
            assert_eq!(line("Groups:"), "");
        }
    }
    let state = dir.path().join("state");
    assert_eq!(
        state.metadata().unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn the_state_of_a_controller_that_ran_as_root_is_taken_over() {
    if !changes_user() {
        println!("skipped: needs root");
        return;
    }
    let dir = room();
    configure(dir.path(), "user = 'root'");
    drop(Controller::start(dir.path()));
    configure(dir.path(), "");
    let _controller = Controller::start(dir.path());
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!log.contains("cannot open the store"), "{log}");
}

#[test]
fn a_file_that_the_later_user_may_not_read_is_named_at_the_start() {
    if !changes_user() {
        println!("skipped: needs root");
        return;
    }
    let dir = room();
    configure(dir.path(), "inventory = 'inventory.json'");
    let inventory = dir.path().join("inventory.json");
    fs::write(&inventory, "{}").unwrap();
    fs::set_permissions(&inventory, fs::Permissions::from_mode(0o600)).unwrap();
    let _controller = Controller::start(dir.path());
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(
        log.contains("who may not read it") && log.contains("inventory.json"),
        "{log}"
    );
}

/// Whether a daemon that this process starts becomes somebody else.
fn changes_user() -> bool {
    mesh_os::privilege::user_after_drop(Some("nobody"), mesh_os::privilege::Keep::Nothing).is_ok()
}

#[test]
fn what_the_configuration_names_and_cannot_be_used_is_wrong_configuration() {
    let dir = room();
    let run = ["controller", "run", "--config", "controller.toml"];
    let refused = |words: &str| {
        let refused = output(dir.path(), &run);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{error}");
        assert!(error.contains(words), "{error}");
    };
    configure(dir.path(), "user = 'no-such-user-here'");
    refused("there is no user `no-such-user-here`");
    configure(dir.path(), "group = 'no-such-group-here'");
    refused("there is no group `no-such-group-here`");
    configure(dir.path(), "inventory = 'inventory.json'");
    fs::remove_file(dir.path().join("identity")).unwrap();
    refused("there is no identity at `identity`");
    identity(dir.path());
    refused("is not among `signers`");
}

#[test]
fn a_wrong_configuration_is_told_with_the_next_step() {
    let dir = room();
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
    let dir = room();
    let refused = output(dir.path(), &["pending", "--socket", "nowhere"]);
    assert_eq!(refused.status.code(), Some(3));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("cannot reach the mesh controller at `nowhere`"));
    assert!(error.contains("hint: start it with"));
}
