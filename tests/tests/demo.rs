//! The demo, as a newcomer runs it.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mesh_lab::{program_under_test, sandbox};
use mesh_tests::PATIENCE;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long the demo may take.
const BUDGET: Duration = Duration::from_secs(15);

#[test]
fn the_demo_shows_a_mesh_in_15_s_and_leaves_nothing_behind() {
    if !sandbox::enter_test() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let output = demo(dir.path(), &[]).wait_with_output().unwrap();
    let took = start.elapsed();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}\n{words}");
    for shown in [
        "mesh status, on galena:",
        "round trips through the mesh, in ms:",
        "rosegold was cut off by all 8 others within",
        "rosegold reaches everyone again",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert!(!text.contains("lost"), "{text}");
    assert_empty(dir.path());
    assert!(took < BUDGET, "{took:?}");
}

#[test]
fn ctrl_c_or_a_closed_terminal_ends_the_demo_wherever_it_is_and_leaves_nothing_behind() {
    if !sandbox::enter_test() {
        return;
    }
    // After the first line there are no processes yet; after the third, all of them.
    for (lines, signal) in [
        (1, Signal::SIGINT),
        (3, Signal::SIGINT),
        (3, Signal::SIGHUP),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = demo(dir.path(), &[]);
        let mut words = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        for _ in 0..lines {
            words.read_line(&mut line).unwrap();
        }
        send(&child, signal);
        let mut rest = String::new();
        words.read_to_string(&mut rest).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{line}{rest}");
        let after = rest.split_once("interrupted, cleaning up\n");
        // What the fleet's death looks like to the main thread is nobody's concern.
        assert!(
            after.is_some_and(|(_, after)| !after.contains("failed")),
            "{line}{rest}"
        );
        assert_empty(dir.path());
    }
}

#[test]
fn a_kept_demo_runs_until_ctrl_c_with_commands_that_work() {
    if !sandbox::enter_test() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = demo(dir.path(), &["--keep"]);
    let text = BufReader::new(child.stdout.take().unwrap());
    let deadline = Instant::now() + 3 * PATIENCE;
    let mut commands = Vec::new();
    for line in text.lines() {
        let line = line.unwrap();
        assert!(Instant::now() < deadline);
        if line.contains(" --socket ") || line.contains("nsenter") {
            commands.push(line.trim().to_owned());
        }
        if line.contains("editor ") {
            break;
        }
    }
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands
        .iter()
        .filter(|command| !command.contains("nsenter"))
    {
        let command = command.replace(" ping magnetite", " ping -c 1 magnetite");
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
    send(&child, Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_empty(dir.path());
}

fn demo(temporary: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(program_under_test().unwrap());
    command.arg("demo").args(arguments).env("TMPDIR", temporary);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    std::fs::set_permissions(
        temporary,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    command.spawn().unwrap()
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

/// No files, and with them none of the processes that had them open.
fn assert_empty(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let dir = dir.to_str().unwrap();
    let uses = |pid: std::fs::DirEntry| {
        let line = std::fs::read(pid.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(dir)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    assert_eq!(
        processes.filter_map(|pid| uses(pid).then_some(())).count(),
        0
    );
}
