//! `mesh man`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Command;

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Write the manual pages, one a command: `mesh.1`, `mesh-status.1` and so on
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where they go, such as `/usr/local/share/man/man1`
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, command: Command) -> Result<Exit, Failure> {
    let dir = args.out.display();
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make `{dir}`"))?;
    clap_mangen::generate_to(command, &args.out)
        .with_context(|| format!("cannot write the manual pages into `{dir}`"))?;
    output::answer(&format!("wrote the manual pages into `{dir}`\n"))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Cli;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("man1");
        run(&Args { out: out.clone() }, Cli::command()).unwrap();
        let page = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        for command in Cli::command().get_subcommands() {
            assert!(page(&format!("mesh-{}.1", command.get_name())).starts_with(".ie"));
        }
        assert!(page("mesh-rule-test.1").contains("protocol"));
    }
}
