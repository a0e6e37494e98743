//! Measurements that write a page.

use std::{path::PathBuf, process::Command};

use clap::Subcommand;

use crate::{
    process::{root, run as run_to_end},
    test::{build_release, mesh_program, program},
};

/// The program that measures.
pub(crate) const BENCHES: &str = "mesh-benches";

/// Relative to the workspace.
const PEERS_PAGE: &str = "docs/peers.md";
const PROFILE_PAGE: &str = "docs/profile.md";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure the mesh beside the overlays that are installed here, into `docs/peers.md`
    ///
    /// These are `wireguard-go`, `boringtun-cli`, `nebula` and `tincd`; what is not in PATH is left out.
    Peers {
        /// How often everything is measured, in turns
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Other builds of `mesh`, which are measured in place of the overlays; the table is printed then
        programs: Vec<PathBuf>,
    },
    /// Draw where the processor's time goes, into `docs/profile.md`
    Profile,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    build_release(&["mesh", BENCHES])?;
    let mut measure = Command::new(program(BENCHES));
    measure.env("MESH_BIN", mesh_program());
    match &args.what {
        What::Peers { rounds, programs } => {
            measure.args(["peers", "--rounds", &rounds.to_string()]);
            measure.args(programs);
            if programs.is_empty() {
                measure.arg("--page").arg(root().join(PEERS_PAGE));
            }
        }
        What::Profile => {
            measure.args(["profile", "--page"]);
            measure.arg(root().join(PROFILE_PAGE));
        }
    }
    run_to_end(&mut measure)
}
