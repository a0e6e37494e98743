//! What every command has in common.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

use std::process::{Command, Output, Stdio};

fn mesh(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command
        .args(line.split_whitespace())
        .env_remove("MESH_LOG")
        .stdin(Stdio::null());
    command.output().unwrap()
}

/// The commands below `command`, with it.
fn commands(command: &str) -> Vec<String> {
    let output = mesh(&format!("{command} --help"));
    assert!(output.status.success(), "{command}");
    let help = String::from_utf8(output.stdout).unwrap();
    let mut all = vec![command.to_owned()];
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        // A name is indented by two; the lines that go on with its words by more.
        let Some(name) = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '))
        else {
            continue;
        };
        let name = name.split_whitespace().next().unwrap();
        if name != "help" {
            all.extend(commands(&format!("{command} {name}")));
        }
    }
    all
}

#[test]
fn every_help_begins_with_what_the_command_does() {
    let all = commands("");
    assert!(all.contains(&" inventory sign".to_owned()), "{all:?}");
    assert!(all.contains(&" controller run".to_owned()), "{all:?}");
    for command in all {
        let help = String::from_utf8(mesh(&format!("{command} --help")).stdout).unwrap();
        let first = help.lines().next().unwrap();
        assert!(first.starts_with(char::is_uppercase), "{command}: {first}");
        assert!(!first.ends_with('.'), "{command}: {first}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_answers_nothing() {
    for line in [
        "",
        "nonsense",
        "status --nonsense",
        "ping Not_A_Name",
        "keygen",
        "--log )( version",
        "inventory init --out - --json",
        "inventory sign inventory.json --key k --out roster.json",
    ] {
        let output = mesh(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
        assert!(!output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn the_version_is_told_in_each_form() {
    let release = env!("CARGO_PKG_VERSION");
    for line in ["version", "--version"] {
        assert_eq!(mesh(line).stdout, format!("mesh {release}\n").into_bytes());
    }
    let json: serde_json::Value = serde_json::from_slice(&mesh("version --json").stdout).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "version": 1, "release": release })
    );
}

#[test]
fn colour_is_added_on_request_and_says_nothing_by_itself() {
    let told = |color: &str| {
        let line = format!("{color} status --socket nowhere");
        String::from_utf8(mesh(&line).stderr).unwrap()
    };
    let plain = told("--color never");
    assert_eq!(told(""), plain, "stderr is no terminal");
    let colored = told("--color always");
    assert!(
        colored.starts_with("\u{1b}[31merror:\u{1b}[0m "),
        "{colored}"
    );
    let stripped = ["[31m", "[36m", "[0m"].iter().fold(colored, |text, code| {
        text.replace(&format!("\u{1b}{code}"), "")
    });
    assert_eq!(stripped, plain);
}

#[test]
fn a_daemon_without_an_identity_says_how_to_make_one_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let identity = dir.path().join("identity");
    let config = dir.path().join("config.toml");
    let common = format!(
        "network = \"000102030405060708090a0b0c0d0e0f\"
signers = [\"mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA\"]
identity_file = \"{}\"
",
        identity.display()
    );
    for (daemon, more) in [("controller", ""), ("agent", "controllers = []\n")] {
        std::fs::write(&config, format!("{common}{more}")).unwrap();
        let output = mesh(&format!("{daemon} run --config {}", config.display()));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{daemon}: {error}");
        let make = format!("`mesh keygen --out {}` makes one", identity.display());
        assert!(error.contains(&make), "{daemon}: {error}");
    }
}
