//! The resident memory of an idle agent and controller of the reference fleet, every pair of which has a
//! session.

use std::path::Path;

use anyhow::Context as _;
use mesh_lab::{Fleet, fleet::DAEMON_PATIENCE};

use crate::samples::median;

const RESIDENT: &str = "VmRSS:";

pub(crate) fn run(program: &Path) -> anyhow::Result<()> {
    let mut fleet = Fleet::reference(program)?;
    fleet.start()?;
    fleet.wait_admitted(DAEMON_PATIENCE)?;
    let names = fleet.names();
    fleet.ping_all(&names, DAEMON_PATIENCE)?;
    let agents = names
        .iter()
        .map(|name| megabytes(fleet.agent_process(name)?.id(), RESIDENT))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let controller = megabytes(fleet.controller_process()?.id(), RESIDENT)?;
    println!(
        "resident memory: agent {:.1} MB (median of {}), controller {controller:.1} MB",
        median(&agents),
        names.len()
    );
    fleet.stop()
}

/// What a line of `/proc/PID/status` says.
pub(crate) fn megabytes(pid: u32, line: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|it| it.strip_prefix(line));
    let kilobytes = found.and_then(|it| it.trim().strip_suffix(" kB"));
    let kilobytes: f64 = kilobytes
        .with_context(|| format!("a process without {line}"))?
        .trim()
        .parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
