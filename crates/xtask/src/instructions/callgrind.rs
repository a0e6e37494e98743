//! Runs the loops under callgrind and reads what it counted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{PROGRAM, committed::Counts};
use crate::{process::shown, test::program};

/// The function that does a round, as callgrind names it. All else is not counted.
const ROUND: &str = "mesh_benches::loops::counted_round";

/// Counts the instructions of a call of each loop.
pub(super) fn count() -> anyhow::Result<Counts> {
    let dir = tempfile::tempdir().context("cannot make a folder")?;
    let dumps = dir.path().join("dump");
    let program = program(PROGRAM);
    let folder = program.parent().context("a program lies in a folder")?;
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg("--quiet")
        .arg(format!("--callgrind-out-file={}", dumps.display()))
        .arg(format!("--toggle-collect={ROUND}"))
        // A file for each round.
        .arg(format!("--dump-after={ROUND}"))
        // Arguments and environment lie on the stack, and move what lies behind them.
        .arg(Path::new(".").join(PROGRAM))
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    println!("$ {}", shown(&command));
    let output = command.output().context("cannot run `valgrind`")?;
    ensure!(
        output.status.success(),
        "`{PROGRAM}` ended with {} under valgrind: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let report = String::from_utf8(output.stdout).context("a report that is no text")?;
    report
        .lines()
        .zip(1..)
        .map(|(line, number)| {
            let (name, calls) = parse_report(line)?;
            let total = read_total(&numbered(&dumps, number))?;
            Ok((name.to_owned(), total / calls))
        })
        .collect()
}

/// The dump of the round of this number.
fn numbered(dumps: &Path, number: u32) -> PathBuf {
    let mut path = dumps.as_os_str().to_owned();
    path.push(format!(".{number}"));
    path.into()
}

fn read_total(path: &Path) -> anyhow::Result<u64> {
    let dump = fs::read_to_string(path)
        .with_context(|| format!("callgrind did not see a call of `{ROUND}`"))?;
    parse_total(&dump).context("callgrind's dump")
}

/// The loop and the number of its calls in a line of `mesh-loops`.
fn parse_report(line: &str) -> anyhow::Result<(&str, u64)> {
    let (name, calls) = line
        .rsplit_once(' ')
        .with_context(|| format!("`{line}` reports no loop"))?;
    let calls = calls.parse().ok().filter(|calls| *calls > 0);
    Ok((
        name,
        calls.with_context(|| format!("`{line}` has no calls"))?,
    ))
}

/// The instructions in a dump: the sum of its only event.
fn parse_total(dump: &str) -> anyhow::Result<u64> {
    let value = |key: &str| {
        let mut lines = dump.lines();
        lines.find_map(|line| line.strip_prefix(key)).map(str::trim)
    };
    ensure!(
        value("events:") == Some("Ir"),
        "it counts something else than instructions"
    );
    let total = value("totals:").context("it has no total")?;
    let total = total
        .parse()
        .with_context(|| format!("total of `{total}`"))?;
    ensure!(total > 0, "nothing was counted");
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "version: 1\ncreator: callgrind-3.19.0\npid: 7\ncmd:  ./mesh-loops\npart: 1\n\n\n\
        desc: Trigger: --dump-after=round\n\npositions: line\nevents: Ir\nsummary: 12800\n\n\n\
        fl=(1) a.rs\nfn=(1) round\n7 12800\n\ntotals: 12800\n";

    #[test]
    fn the_total_of_a_dump_is_read() {
        assert_eq!(parse_total(DUMP).unwrap(), 12_800);
    }

    #[test]
    fn a_dump_that_counts_nothing_or_something_else_is_refused() {
        for (from, to) in [
            ("totals: 12800\n", ""),
            ("totals: 12800", "totals: 0"),
            ("totals: 12800", "totals: 128 00"),
            ("events: Ir", "events: Ir Dr"),
        ] {
            assert!(parse_total(&DUMP.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_report_names_the_loop_and_its_calls() {
        assert_eq!(parse_report("seal/a/64 32").unwrap(), ("seal/a/64", 32));
        for line in ["seal", "seal x", "seal 0", ""] {
            assert!(parse_report(line).is_err(), "{line}");
        }
    }
}
