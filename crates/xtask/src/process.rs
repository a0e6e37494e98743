//! Running other programs.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use cargo_metadata::{Metadata, MetadataCommand};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo says where it runs this from. Where it was built is another checkout's, if two have one target folder.
    let package = env::var("CARGO_MANIFEST_DIR");
    Path::new(package.as_deref().unwrap_or(env!("CARGO_MANIFEST_DIR")))
        .ancestors()
        .nth(2)
        .expect("this package lies two folders below the workspace's root")
        .to_owned()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The packages of the workspace, without what they depend on.
pub(crate) fn workspace() -> anyhow::Result<Metadata> {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cannot read the workspace's metadata")
}

/// The cargo that runs us, in the folder of the workspace.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// How a program comes among others that want the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// As any other.
    Usual,
    /// After all others, where the system can do that.
    Lowest,
}

/// A program to be run so.
pub(crate) fn program(name: &str, priority: Priority) -> Command {
    if priority == Priority::Usual || !is_installed("chrt") {
        return Command::new(name);
    }
    let mut command = Command::new("chrt");
    command.args(["--idle", "0", name]);
    command
}

/// Runs cargo to its end.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> anyhow::Result<()> {
    run(cargo_command().args(args))
}

/// Runs a command to its end, and fails unless it ends with 0.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("$ {}", shown(command));
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Whether a program is in `PATH` or in one of the folders that only root's has.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from))
        .any(|folder| folder.join(program).is_file())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
