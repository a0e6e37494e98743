//! `cargo xtask package`: what releases are handed out as, the same bytes for the same program.

mod deb;
mod program;
mod tarball;

use std::{
    env,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use self::program::Target;
use crate::process::{cargo_command, root, run as run_to_end, shown, target, workspace};

/// What `cargo xtask package` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// A package for Debian and its kin, on the architecture of the program
    Deb(Input),
    /// An archive with the program and its licences, for the system that the program is for
    Tarball(Input),
}

#[derive(clap::Args)]
struct Input {
    /// The program; left out, it is built for this machine as releases are
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Its version; left out, the workspace's
    #[arg(long)]
    version: Option<String>,
    /// How much the package is compressed, from 0 to 9
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(0..=9))]
    level: u8,
    /// Where the package goes
    #[arg(long, value_name = "DIR", default_value = "target/package")]
    out: PathBuf,
}

/// What both kinds of package are made of.
struct Source {
    program: PathBuf,
    target: Target,
    version: String,
    /// The time of everything in the package, in seconds since 1970.
    epoch: u64,
    /// From 0 to 9.
    level: u8,
    out_dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (input, make): (_, fn(&Source) -> anyhow::Result<PathBuf>) = match &args.kind {
        Kind::Deb(input) => (input, deb::make),
        Kind::Tarball(input) => (input, tarball::make),
    };
    let made = make(&input.source()?)?;
    println!("{}", made.display());
    Ok(())
}

impl Input {
    fn source(&self) -> anyhow::Result<Source> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => build()?,
        };
        let bytes =
            fs::read(&program).with_context(|| format!("cannot read `{}`", program.display()))?;
        let target = Target::of(&bytes)
            .with_context(|| format!("`{}` cannot be packaged", program.display()))?;
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make `{}`", self.out.display()))?;
        Ok(Source {
            program,
            target,
            version: match &self.version {
                Some(version) => version.clone(),
                None => version()?,
            },
            epoch: epoch()?,
            level: self.level,
            out_dir: self.out.clone(),
        })
    }
}

fn build() -> anyhow::Result<PathBuf> {
    run_to_end(cargo_command().args(["build", "--profile", "dist", "--package", "mesh-cli"]))?;
    Ok(target().join("dist/mesh"))
}

fn version() -> anyhow::Result<String> {
    let metadata = workspace()?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "mesh-cli")
        .context("the workspace has no `mesh-cli`")?;
    Ok(package.version.to_string())
}

/// `SOURCE_DATE_EPOCH`, else the time of the last commit.
fn epoch() -> anyhow::Result<u64> {
    if let Ok(text) = env::var("SOURCE_DATE_EPOCH") {
        return text.parse().context("SOURCE_DATE_EPOCH is no number");
    }
    let text = output(
        Command::new("git")
            .args(["log", "-1", "--format=%ct"])
            .current_dir(root()),
    )
    .context("no time for the package's files: set SOURCE_DATE_EPOCH")?;
    Ok(text.trim().parse()?)
}

/// What a command prints.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", shown(command), words.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A text file of the workspace.
fn text_of(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read `{path}`"))
}

/// Writes a file and the directories above it, whatever the umask.
fn put(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let dir = path.parent().context("a file without a directory")?;
    fs::create_dir_all(dir)?;
    fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Puts the program there, without what only a debugger reads.
fn put_program(source: &Source, path: &Path) -> anyhow::Result<()> {
    put(path, &fs::read(&source.program)?, 0o755)?;
    // A Mach-O file is left as its linker signed it.
    if source.target.is_elf() {
        output(
            Command::new("strip")
                .args(["--strip-unneeded", "--remove-section=.comment"])
                .arg(path),
        )?;
    }
    Ok(())
}

/// Gives everything below `dir`, and itself, one time and directories one mode.
fn settle(dir: &Path, epoch: u64) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            settle(&entry.path(), epoch)?;
        } else {
            set_time(&entry.path(), epoch)?;
        }
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    set_time(dir, epoch)
}

fn set_time(path: &Path, epoch: u64) -> anyhow::Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch);
    Ok(File::open(path)?.set_modified(time)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packages of a small program.
    fn make(make: fn(&Source) -> anyhow::Result<PathBuf>) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let program = PathBuf::from("/bin/true");
        let source = Source {
            target: Target::of(&fs::read(&program).unwrap()).unwrap(),
            program,
            version: "1.2.3".to_owned(),
            epoch: 1_700_000_000,
            level: 6,
            out_dir: dir.path().to_owned(),
        };
        let made = make(&source).unwrap();
        (dir, made)
    }

    #[test]
    fn packages_made_twice_are_the_same_bytes() {
        for kind in [deb::make, tarball::make] {
            let (first, second) = (make(kind), make(kind));
            assert_eq!(first.1.file_name(), second.1.file_name());
            assert_eq!(fs::read(first.1).unwrap(), fs::read(second.1).unwrap());
        }
    }

    #[test]
    fn the_debian_package_brings_every_unit_and_no_configuration() {
        let (_dir, package) = make(deb::make);
        let files = output(Command::new("dpkg-deb").arg("--contents").arg(&package)).unwrap();
        for unit in fs::read_dir(root().join("systemd")).unwrap() {
            let name = unit.unwrap().file_name().into_string().unwrap();
            let name = name.replace(".sysusers", "").replace(".tmpfiles", "");
            assert!(files.contains(&name), "{name} is not in:\n{files}");
        }
        let mut plain_files = files.lines().filter(|line| line.starts_with('-'));
        assert!(
            !plain_files.any(|line| line.contains("./etc/")),
            "configuration is the user's:\n{files}"
        );
        let control = output(Command::new("dpkg-deb").arg("--field").arg(&package)).unwrap();
        assert!(control.contains("Version: 1.2.3\n"), "{control}");
        assert!(control.contains("Depends: libc6"), "{control}");
        assert!(
            !control.contains('@') || control.matches('@').count() == 1,
            "{control}"
        );
    }

    #[test]
    fn the_archive_holds_the_program_and_its_licences() {
        let (_dir, archive) = make(tarball::make);
        let name = format!("mesh-1.2.3-linux-{}", env::consts::ARCH);
        assert_eq!(
            archive.file_name().unwrap().to_str().unwrap(),
            format!("{name}.tar.gz")
        );
        let files = output(Command::new("tar").args(["--list", "--file"]).arg(&archive)).unwrap();
        let files: Vec<_> = files
            .lines()
            .filter_map(|file| file.strip_prefix(&name))
            .collect();
        assert_eq!(
            files,
            ["/", "/LICENSE-APACHE", "/LICENSE-MIT", "/README", "/mesh"]
        );
    }
}
