//! `mesh completions`.

use clap::Command;
use clap_complete::Shell;

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Print what makes a shell complete `mesh` commands
///
/// For bash: `source <(mesh completions bash)` in `~/.bashrc`. For zsh: the same with `zsh`, after `compinit`. For fish: `mesh
/// completions fish | source`. Debian's package does this for all users.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut command: Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "mesh", &mut script);
    output::answer(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
