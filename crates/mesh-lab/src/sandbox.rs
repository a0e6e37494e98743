//! The right to make namespaces.

use std::{fs, io, path::Path, process::Command, thread};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

/// Why no namespaces can be had here.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Neither root nor user namespaces.
    #[error(
        "network namespaces need root, or user namespaces, which this system does not allow: {0}"
    )]
    Namespaces(io::Error),
    /// No TUN.
    #[error("`/dev/net/tun` cannot be opened: {0}")]
    Tun(io::Error),
}

/// Makes this process able to make namespaces: does nothing as root, and enters a user namespace else.
/// Call it before any thread is started.
///
/// # Errors
///
/// [`Unavailable`] says what is missing.
pub fn enter() -> Result<(), Unavailable> {
    if !can_make_namespaces() {
        enter_user_namespace().map_err(Unavailable::Namespaces)?;
    }
    check_tun()
}

/// As [`enter`], for a test, whose process has threads already. Returns whether the test is to go on
/// here: where a user namespace is needed, the test runs once more, as a process of its own inside of
/// one, and its outcome is this one's. Where nothing helps, says so and the test is skipped.
///
/// # Panics
///
/// If the inner run of the test fails.
#[expect(clippy::print_stdout, reason = "a skipped test says so, and why")]
pub fn enter_test() -> bool {
    if can_make_namespaces() {
        return match check_tun() {
            Ok(()) => true,
            Err(reason) => {
                println!("skipped: {reason}");
                false
            }
        };
    }
    let thread = thread::current();
    let test = thread.name().expect("a test's thread has its name");
    let program = std::env::current_exe().expect("a program knows its own path");
    let allowed = |mut command: Command| command.status().is_ok_and(|status| status.success());
    let mut probe = Command::new("unshare");
    probe.args(["-Urn", "true"]);
    if !allowed(probe) {
        println!("skipped: neither root nor user namespaces");
        return false;
    }
    let mut inner = Command::new("unshare");
    inner.arg("-Ur").arg(program);
    inner.args(["--exact", test, "--nocapture"]);
    assert!(allowed(inner), "{test} failed inside its user namespace");
    false
}

/// Whether this process is in a user namespace that does not map all users.
pub fn is_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        let numbers: Vec<_> = map.split_ascii_whitespace().collect();
        numbers != ["0", "0", "4294967295"]
    })
}

fn can_make_namespaces() -> bool {
    // In a thread of its own: what it leaves is not this one's namespace.
    thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok())
        .join()
        .unwrap_or(false)
}

fn check_tun() -> Result<(), Unavailable> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map(drop)
        .map_err(Unavailable::Tun)
}

fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // Without this, the kernel does not let an ordinary user write the map of groups.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    // Some systems allow user namespaces and give no rights in them.
    unshare(CloneFlags::CLONE_NEWNET)?;
    Path::new("/proc/self/ns/net").metadata().map(drop)
}
