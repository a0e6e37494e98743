//! The units in a booted systemd.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, and its helpers"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use mesh_lab::program_under_test;

/// What packages install, and what the tests share, and where.
const FILES: [(&str, &str); 5] = [
    ("tests/boot/common.sh", "/boot-common.sh"),
    ("tests/boot/stop-thread.py", "/boot-stop-thread.py"),
    ("tests/boot/stream.py", "/boot-stream.py"),
    (
        "systemd/mesh.sysusers.conf",
        "/usr/lib/sysusers.d/mesh.conf",
    ),
    (
        "systemd/mesh.tmpfiles.conf",
        "/usr/lib/tmpfiles.d/mesh.conf",
    ),
];

const UNITS: [&str; 3] = [
    "mesh-agent.service",
    "mesh-controller.service",
    "mesh-online.target",
];

#[test]
fn the_units_hold_what_they_promise_over_a_reboot() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        println!("skipped: booting a system needs root and /dev/net/tun");
        return;
    }
    boot(
        &["-n", "2"],
        &["tests/boot/web.service"],
        "tests/boot/units.sh",
    );
}

#[test]
fn an_upgrade_under_systemd_loses_at_most_one_packet_and_goes_back_by_itself() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        println!("skipped: booting a system needs root and /dev/net/tun");
        return;
    }
    boot(&[], &[], "tests/boot/upgrade.sh");
}

/// Boots a system with the program, our units and `more`, and runs `test` there.
fn boot(options: &[&str], more: &[&str], test: &str) {
    let dir = tempfile::tempdir().unwrap();
    // Without what only a debugger reads, as packages have it.
    let program = dir.path().join("mesh");
    let mut strip = Command::new("strip");
    strip
        .arg(program_under_test().unwrap())
        .arg("-o")
        .arg(&program);
    assert!(strip.status().unwrap().success());

    let mut boot = script("boot-units.sh");
    boot.args(options).arg("-b");
    boot.arg(format!("{}=/usr/bin/mesh", program.display()));
    for (file, destination) in FILES {
        let file = workspace().join(file);
        boot.arg("-b")
            .arg(format!("{}={destination}", file.display()));
    }
    boot.args(UNITS.map(|unit| workspace().join("systemd").join(unit)));
    boot.args(more.iter().map(|unit| workspace().join(unit)));
    boot.arg("--").arg(workspace().join(test));
    let output = boot.output().unwrap();
    assert_success(&output);
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_newer_systemd_has_no_word_against_the_units_and_finds_them_little_exposed() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: a newer systemd-analyze is installed as root only");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let resolver = [
        "mesh-resolver.service",
        "mesh-resolver-refresh.service",
        "mesh-resolver.path",
    ];
    let all = UNITS.into_iter().chain(resolver);
    let units = all.map(|unit| {
        let text = std::fs::read_to_string(workspace().join("systemd").join(unit)).unwrap();
        // It wants to see the program, which only packages install.
        let path = dir.path().join(unit);
        std::fs::write(&path, text.replace("/usr/bin/mesh", "/usr/bin/true")).unwrap();
        path
    });
    let units: Vec<_> = units.collect();
    let mut verify = script("verify-units.sh");
    verify.args(["-t", "2.0"]).args(&units);
    assert_success(&verify.output().unwrap());

    // It does find what is wrong.
    let agent = std::fs::read_to_string(&units[0]).unwrap();
    for (what, by) in [
        ("Restart=", "Retart="),
        ("NoNewPrivileges=yes", "PrivateNetwork=maybe"),
    ] {
        std::fs::write(&units[0], agent.replace(what, by)).unwrap();
        let found = script("verify-units.sh").arg(&units[0]).output().unwrap();
        assert!(!found.status.success(), "{by}");
    }
}

fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(workspace().join("tests/setup").join(name));
    command
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[track_caller]
fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
