//! The resident memory of an idle agent and controller of the reference fleet, every pair of which has a
//! session.

use std::path::Path;

use anyhow::Context as _;
use mesh_lab::{Fleet, fleet::DAEMON_PATIENCE};

use crate::samples::median;

pub(crate) fn run(program: &Path) -> anyhow::Result<()> {
    let mut fleet = Fleet::reference(program)?;
    fleet.start()?;
    fleet.wait_admitted(DAEMON_PATIENCE)?;
    let names = fleet.names();
    fleet.ping_all(&names, DAEMON_PATIENCE)?;
    let agents = names
        .iter()
        .map(|name| resident_megabytes(fleet.agent_process(name)?.id()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let controller = resident_megabytes(fleet.controller_process()?.id())?;
    println!(
        "resident memory: agent {:.1} MB (median of {}), controller {controller:.1} MB",
        median(agents),
        names.len()
    );
    fleet.stop()
}

fn resident_megabytes(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: f64 = kilobytes
        .context("a process without VmRSS")?
        .trim()
        .parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
