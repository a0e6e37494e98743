//! The workspace's own commands: what the justfile and CI call is decided here.

#![expect(
    clippy::print_stdout,
    reason = "a build tool talks to the person who runs it"
)]

mod bench;
mod cfg;
mod darwin;
mod deps;
#[cfg(test)]
mod docs;
mod instructions;
mod nix;
mod package;
mod process;
mod recovery;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::cargo;

/// Builds, tests and checks mesh
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all the tests, after setting up what they need where that is allowed
    Test(test::Args),
    /// Check format, lints, licences and the direction of dependencies
    Lint,
    /// Make a Debian package or an archive of the program
    Package(package::Args),
    /// Check the program for macOS, from Linux: types and lints, and with `--link` that it links
    Darwin(darwin::Args),
    /// Check the direction of dependencies between the crates
    Deps,
    /// Write the reference of the Nix modules' options, `docs/nix-options.md`
    NixOptions,
    /// Count the instructions of the inner loops, and fail if one grew
    Instructions(instructions::Args),
    /// Measure the mesh beside others
    Bench(bench::Args),
    /// Measure how fast a pair recovers from what may happen to it, into `docs/recovery.md`
    Recovery(recovery::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Lint => lint(),
        Command::Package(args) => package::run(&args),
        Command::Darwin(args) => darwin::run(&args),
        Command::Deps => deps::run(),
        Command::NixOptions => nix::write_options(),
        Command::Instructions(args) => instructions::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Recovery(args) => recovery::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn lint() -> anyhow::Result<()> {
    cargo(["fmt", "--all", "--", "--check"])?;
    cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ])?;
    cargo([
        "deny",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ])?;
    nix::lint()?;
    cfg::run()?;
    deps::run()
}
