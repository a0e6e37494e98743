//! `cargo xtask test`: every test of the workspace, in one order that two cores can bear.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    darwin::{self, Outcome, Target},
    instructions::{self, Outcome as Counted},
    process::{Priority, cargo_command, run as run_to_end, shown, target, workspace},
    setup,
};

/// The test that mostly waits, and so runs beside others.
const WIREGUARD_GO: &str = "wireguard_go";

/// What the simulator goes through for every change: about two minutes on two cores.
const TRANSITIONS: &str = "300000";

/// And with `--all`: about seven.
const TRANSITIONS_ALL: &str = "1000000";

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the tests that take too long for every change, too
    #[arg(long)]
    all: bool,
}

/// What one `cargo test` said.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The tests that failed, by their names.
    failures: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let start = Instant::now();
    setup::run_setup()?;
    // One after the other: each uses both cores by itself.
    build_release(&["mesh", instructions::PROGRAM])?;
    run_to_end(unit_tests().args(["--quiet", "--no-run"]))?;

    // It compiles in what the tests, which mostly wait, leave of the processor.
    let all = args.all;
    let macos = thread::spawn(move || check_macos(all));
    // wireguard-go rekeys after two minutes of real time, most of them spent waiting.
    let mut wireguard_go = system_tests(|test| test == WIREGUARD_GO)?;
    let wireguard_go = thread::spawn(move || count("wireguard-go", &mut wireguard_go));
    let ignored: &[&str] = if args.all {
        &["--", "--include-ignored"]
    } else {
        &[]
    };
    let units = count("unit", unit_tests().args(ignored));
    let wireguard = wireguard_go
        .join()
        .expect("the thread that counts does not panic");
    let histories = count("histories", &mut histories(args.all));
    let instructions = instructions::check();
    // By themselves, but for what has the lowest priority: they assert times.
    let systems = count(
        "system",
        system_tests(|test| test != WIREGUARD_GO)?.args(ignored),
    );

    let macos = macos.join().expect("the check for macOS does not panic")?;

    let mut sum = Counts::default();
    println!();
    for (kind, result) in [
        ("unit", units),
        ("wireguard-go", wireguard),
        ("histories", histories),
        ("system", systems),
    ] {
        let counts = result?;
        println!(
            "{kind}: {} passed, {} failed, {} ignored",
            counts.passed, counts.failed, counts.ignored
        );
        sum.passed += counts.passed;
        sum.failed += counts.failed;
        sum.ignored += counts.ignored;
        let failures = counts.failures.into_iter();
        sum.failures
            .extend(failures.map(|test| format!("{kind}: {test}")));
    }
    println!("macOS: {macos}");
    match &instructions {
        Ok(Counted::Passed(loops)) => println!("instructions: {loops} loops, none grew"),
        Ok(Counted::Unavailable(reason)) => println!("instructions: not counted: {reason}"),
        Err(error) => println!("instructions: {error:#}"),
    }
    println!("in {} s", start.elapsed().as_secs());
    println!(
        "{} passed, {} failed, {} skipped",
        sum.passed, sum.failed, sum.ignored
    );
    for failure in &sum.failures {
        println!("failed: {failure}");
    }
    if sum.failed > 0 || sum.passed == 0 {
        bail!("not every test passed");
    }
    instructions.map(|_| ())
}

/// The program for macOS: types and lints for one processor, or everything. Returns what became of it.
fn check_macos(all: bool) -> anyhow::Result<String> {
    let targets: &[Target] = if all {
        &[Target::Aarch64, Target::X86_64]
    } else {
        &[Target::Aarch64]
    };
    Ok(match darwin::check(targets, all, Priority::Lowest)? {
        Outcome::Passed if all => "checked and linked for both processors".to_owned(),
        Outcome::Passed => {
            "checked for aarch64; `cargo xtask darwin --link` does the rest".to_owned()
        }
        Outcome::Unavailable(reason) => format!("not checked: {reason}"),
    })
}

fn unit_tests() -> Command {
    let mut command = cargo_command();
    command.args([
        "test",
        "--workspace",
        "--exclude",
        "mesh-tests",
        "--no-fail-fast",
    ]);
    command
}

/// The simulator's long run: the same build as that of the unit tests, where it is short.
fn histories(all: bool) -> Command {
    let mut command = unit_tests();
    command.args(["--test", "histories", "--", "--nocapture"]);
    command.arg("whatever_happens_every_pair_finds_its_way");
    command.env(
        "TRANSITIONS",
        if all { TRANSITIONS_ALL } else { TRANSITIONS },
    );
    command
}

/// The programs and the whole-system tests belong to one selection: with other packages libraries have other features,
/// and would be built once more.
const RELEASE: [&str; 7] = [
    "--release",
    "--package",
    "mesh-cli",
    "--package",
    "mesh-benches",
    "--package",
    "mesh-tests",
];

/// Builds programs of ours, and the whole-system tests: these belong to the selection, too.
pub(crate) fn build_release(programs: &[&str]) -> anyhow::Result<()> {
    let mut command = cargo_command();
    command.arg("build").args(RELEASE).arg("--quiet");
    for program in programs {
        command.args(["--bin", program]);
    }
    command.args(tests_named(|_| true)?);
    run_to_end(&mut command)
}

/// The whole-system tests whose names `wanted` takes.
fn system_tests(wanted: impl Fn(&str) -> bool) -> anyhow::Result<Command> {
    let mut command = cargo_command();
    command.arg("test").args(RELEASE).arg("--no-fail-fast");
    command.args(tests_named(wanted)?);
    command.env("MESH_BIN", mesh_program());
    Ok(command)
}

/// Whole-system tests, as cargo's arguments. Without a name, cargo would take them all.
fn tests_named(wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<String>> {
    let metadata = workspace()?;
    let tests = metadata
        .packages
        .iter()
        .filter(|package| package.name.as_str() == "mesh-tests")
        .flat_map(|package| &package.targets)
        .filter(|target| target.is_test() && wanted(&target.name));
    let arguments: Vec<String> = tests
        .flat_map(|test| ["--test".to_owned(), test.name.clone()])
        .collect();
    ensure!(
        !arguments.is_empty(),
        "`mesh-tests` has not the tests that were asked for"
    );
    Ok(arguments)
}

/// The program under test.
pub(crate) fn mesh_program() -> PathBuf {
    program("mesh")
}

/// A program of ours that [`build_release`] made.
pub(crate) fn program(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// Runs a `cargo test`, passes its output on, and adds up what its runners say.
fn count(kind: &str, command: &mut Command) -> anyhow::Result<Counts> {
    println!("$ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("[{kind}] {line}");
        if let Some(result) = line.strip_prefix("test result:") {
            counts.passed += number_before(result, " passed");
            counts.failed += number_before(result, " failed");
            counts.ignored += number_before(result, " ignored");
        }
        counts
            .failures
            .extend(failed_test(&line).map(str::to_owned));
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(counts)
}

/// The name in `test NAME ... FAILED`. What a test prints itself may stand in between, where nothing captures it.
fn failed_test(line: &str) -> Option<&str> {
    let (name, _) = line
        .strip_prefix("test ")?
        .strip_suffix("FAILED")?
        .split_once(" ... ")?;
    Some(name)
}

/// The number that stands before `word`: 12 in `ok. 12 passed; 0 failed`.
fn number_before(text: &str, word: &str) -> u64 {
    let Some((before, _)) = text.split_once(word) else {
        return 0;
    };
    before
        .rsplit([' ', ';'])
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_test_run_are_read() {
        let line = " FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(number_before(line, " passed"), 12);
        assert_eq!(number_before(line, " failed"), 3);
        assert_eq!(number_before(line, " ignored"), 1);
        assert_eq!(number_before(line, " absent"), 0);
        assert_eq!(failed_test("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failed_test("test a::b ... ok"), None);
    }
}
