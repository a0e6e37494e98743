//! `cargo xtask darwin`: the program for macOS, from Linux.
//!
//! `tests/setup/check-darwin.sh` brings the compiler and knows how to call it. Clippy type-checks all that
//! `cargo check` does; linking compiles the C of the dependencies, too, and finds calls of functions that
//! macOS does not have.

use std::{
    fs::File,
    io::Read as _,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::process::{Priority, program, root, shown};

/// The script, relative to the workspace.
const SCRIPT: &str = "tests/setup/check-darwin.sh";

/// How a program is built that nobody runs: fast. What strips debugging symbols is not at hand.
const UNOPTIMISED: [&str; 3] = [
    "profile.dev.package.\"*\".opt-level=0",
    "profile.dev.debug=0",
    "profile.dev.strip=\"none\"",
];

/// The most of a program that is looked at: its header.
const HEADER_BYTES: usize = 32;

/// What every Mach-O file for 64 bits begins with (`MH_MAGIC_64` of `mach-o/loader.h`).
const MACH_O_MAGIC: [u8; 4] = 0xfeed_facf_u32.to_le_bytes();

/// What `cargo xtask darwin` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Link the program, too
    #[arg(long)]
    link: bool,
    /// For this processor; for both where none is named
    #[arg(long, value_enum)]
    target: Vec<Target>,
}

/// The processors of Macs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Apple's own.
    Aarch64,
    /// Intel's.
    #[value(name = "x86_64")]
    X86_64,
}

/// What became of the check.
pub(crate) enum Outcome {
    /// Everything compiled, and was linked where that was asked for.
    Passed,
    /// There is no compiler for macOS here, for this reason. Nothing was checked.
    Unavailable(String),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let targets = if args.target.is_empty() {
        Target::value_variants()
    } else {
        &args.target
    };
    match check(targets, args.link, Priority::Usual)? {
        Outcome::Passed => Ok(()),
        Outcome::Unavailable(reason) => bail!("nothing was checked for macOS: {reason}"),
    }
}

/// Checks the program for `targets`, and links it if `link` says so.
pub(crate) fn check(targets: &[Target], link: bool, priority: Priority) -> anyhow::Result<Outcome> {
    let verb = if link { "setup-build" } else { "setup" };
    let setup = script(verb, None, priority).stdout(Stdio::null()).output();
    let setup = setup.context("cannot run bash")?;
    if !setup.status.success() {
        let said = String::from_utf8_lossy(&setup.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        return Ok(Outcome::Unavailable(last.unwrap_or("no reason").to_owned()));
    }
    for target in targets {
        step(*target, "clippy", &[], priority)?;
    }
    for target in targets.iter().filter(|_| link) {
        step(*target, "build", &UNOPTIMISED, priority)?;
        is_program(*target)?;
    }
    Ok(Outcome::Passed)
}

fn step(target: Target, verb: &str, settings: &[&str], priority: Priority) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut command = script(verb, Some(target), priority);
    command.args(["--quiet", "--package", "mesh-cli"]);
    command.args(settings.iter().flat_map(|setting| ["--config", setting]));
    println!("$ {} ({})", shown(&command), target.triple());
    let status = command.status().context("cannot run bash")?;
    if !status.success() {
        bail!("`{verb}` for {} ended with {status}", target.triple());
    }
    println!(
        "{} {verb} in {} s",
        target.triple(),
        start.elapsed().as_secs()
    );
    Ok(())
}

fn script(verb: &str, target: Option<Target>, priority: Priority) -> Command {
    let mut command = program("bash", priority);
    command.arg(root().join(SCRIPT)).arg(verb);
    command.current_dir(root());
    // Cargo tells the programs that it runs where it builds; that is for Linux.
    command.env_remove("CARGO_TARGET_DIR");
    if let Some(target) = target {
        command.env("DARWIN_TARGET", target.triple());
    }
    command
}

/// Fails unless the linked program is one for this processor.
fn is_program(target: Target) -> anyhow::Result<()> {
    let path = root()
        .join("target/darwin")
        .join(target.triple())
        .join("debug/mesh");
    let read = || {
        let mut header = [0; HEADER_BYTES];
        File::open(&path)?.read_exact(&mut header)?;
        std::io::Result::Ok(header)
    };
    let header = read().with_context(|| format!("no program `{}`", path.display()))?;
    if !is_mach_o(&header, target) {
        bail!("`{}` is no program for {}", path.display(), target.triple());
    }
    Ok(())
}

/// The header of a 64-bit Mach-O file: magic, processor, its variant, kind (2: a program).
fn is_mach_o(bytes: &[u8], target: Target) -> bool {
    let word = |at: usize| bytes.get(at..at + 4);
    word(0) == Some(&MACH_O_MAGIC)
        && word(4) == Some(&target.processor().to_le_bytes())
        && word(12) == Some(&2_u32.to_le_bytes())
}

impl Target {
    fn triple(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-apple-darwin",
            Self::X86_64 => "x86_64-apple-darwin",
        }
    }

    /// `CPU_TYPE_ARM64` and `CPU_TYPE_X86_64` of `mach/machine.h`.
    fn processor(self) -> u32 {
        match self {
            Self::Aarch64 => 0x0100_000c,
            Self::X86_64 => 0x0100_0007,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_macos_is_told_from_others() {
        let mut arm = [0_u8; 32];
        arm[..8].copy_from_slice(&[0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 0x01]);
        arm[12] = 2;
        assert!(is_mach_o(&arm, Target::Aarch64));
        assert!(!is_mach_o(&arm, Target::X86_64));
        assert!(!is_mach_o(b"\x7fELF\x02\x01\x01", Target::Aarch64));
        arm[12] = 6;
        assert!(!is_mach_o(&arm, Target::Aarch64), "a library");
    }
}
