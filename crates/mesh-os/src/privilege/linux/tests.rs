use std::{os::unix::fs::MetadataExt, path::Path, process::Command};

use nix::unistd::geteuid;

use super::*;
use crate::privilege::{drop_privileges, hand_over, user_after_drop};

#[test]
fn maps_of_user_namespaces_are_read() {
    let whole = "         0          0 4294967295\n";
    assert!(is_mapped(whole, 0) && is_mapped(whole, 65534));
    let only_root = "         0       1000          1\n";
    assert!(is_mapped(only_root, 0) && !is_mapped(only_root, 65534));
    assert!(!is_mapped("", 0) && !is_mapped("x y z", 0));
}

/// The marker that makes a child process run [`a_child_drops_and_reports`].
const CHILD: &str = "MESH_TEST_DROP_PRIVILEGES";

#[test]
fn after_the_drop_only_net_admin_is_left_and_secrets_of_others_are_closed() {
    assert_left(Keep::NetAdmin, 1 << CAP_NET_ADMIN);
    let with_ports = 1 << CAP_NET_ADMIN | 1 << CAP_NET_BIND_SERVICE;
    assert_left(Keep::NetAdminAndPorts, with_ports);
}

#[test]
fn after_the_drop_of_everything_no_capability_is_left() {
    assert_left(Keep::Nothing, 0);
}

fn assert_left(keep: Keep, capabilities: u64) {
    if !geteuid().is_root() || fs::read("/etc/shadow").is_err() {
        println!("skipped: needs root");
        return;
    }
    // The test runner has threads, and changes what they share: a process of its own drops.
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "privilege::linux::tests::a_child_drops_and_reports",
            "--nocapture",
        ])
        .env(CHILD, format!("{keep:?}"))
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    let line = |name: &str| {
        let found = report.lines().find_map(|line| line.strip_prefix(name));
        found
            .unwrap_or_else(|| panic!("no {name} in {report}"))
            .trim()
            .to_owned()
    };
    let left = format!("{capabilities:016x}");
    assert_eq!(line("CapEff:"), left);
    assert_eq!(line("CapPrm:"), left);
    for empty in ["CapInh:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(empty), "0000000000000000", "{empty}");
    }
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Groups:"), "");
    assert_eq!(line("shadow:"), "PermissionDenied");
    assert!(!line("Uid:").contains("0\t"), "{report}");
}

#[test]
fn a_child_drops_and_reports() {
    let Some(keep) = std::env::var_os(CHILD) else {
        return;
    };
    let keep = [Keep::Nothing, Keep::NetAdmin, Keep::NetAdminAndPorts]
        .into_iter()
        .find(|each| *keep == *format!("{each:?}"))
        .unwrap();
    // This process has the test runner's threads; a fork has one.
    // SAFETY: the child only makes calls that are safe after a fork of a quiet process, and leaves with
    // `_exit`.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
        nix::unistd::ForkResult::Child => {
            let code = match report(keep) {
                Ok(()) => 0,
                Err(error) => {
                    println!("{error}");
                    1
                }
            };
            // SAFETY: ends this process at once, which is what is wanted.
            unsafe { libc::_exit(code) }
        }
    }
}

fn report(keep: Keep) -> Result<(), Box<dyn std::error::Error>> {
    let change = drop_privileges(Some("nobody"), keep)?;
    assert!(matches!(change, UserChange::Changed { .. }), "{change:?}");
    let shadow = fs::read("/etc/shadow").map_err(|error| error.kind());
    let shadow = shadow
        .err()
        .map_or("open".to_owned(), |kind| format!("{kind:?}"));
    println!(
        "\n{}shadow: {shadow}",
        fs::read_to_string("/proc/self/status")?
    );
    Ok(())
}

#[test]
fn with_other_threads_running_nothing_is_dropped() {
    // The test runner's own thread is one more than this one.
    assert!(matches!(
        drop_privileges(None, Keep::Nothing),
        Err(DropError::Threads(2..))
    ));
}

#[test]
fn a_directory_is_handed_over_with_its_files_and_nothing_that_they_point_to() {
    if !geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let Ok(nobody) = user_after_drop(Some("nobody"), Keep::Nothing) else {
        println!("skipped: needs more users than a user namespace has");
        return;
    };
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name);
    let owner = |path: &Path| path.metadata().unwrap().uid();
    fs::create_dir(at("state")).unwrap();
    for name in ["state/store", "linked", "named-twice"] {
        fs::write(at(name), "").unwrap();
    }
    std::os::unix::fs::symlink(at("linked"), at("state/link")).unwrap();
    fs::hard_link(at("named-twice"), at("state/twice")).unwrap();
    hand_over(&at("state"), &nobody).unwrap();
    let uid = nobody.uid.as_raw();
    assert_eq!(owner(&at("state")), uid);
    assert_eq!(owner(&at("state/store")), uid);
    assert_eq!(owner(&at("linked")), 0);
    assert_eq!(owner(&at("named-twice")), 0);
    // What the user puts there afterwards is its own business.
    fs::write(at("state/later"), "").unwrap();
    hand_over(&at("state"), &nobody).unwrap();
    assert_eq!(owner(&at("state/later")), 0);
}
