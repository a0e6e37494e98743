//! Two machines that have found each other, and what a program of one sends to the other.

use std::{net::IpAddr, path::Path, process::Command};

use anyhow::Context as _;
use mesh_lab::{Cage, Fleet, Process, fleet::DAEMON_PATIENCE, wait_until};
use serde_json::Value;

/// The one that sends, and the one that receives.
pub(crate) const MACHINES: [&str; 2] = ["galena", "pyrite"];

/// A fleet of two, with the ciphers that they take; all, if none is named.
pub(crate) fn join(program: &Path, ciphers: &[&str]) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet::of(program, &MACHINES)?;
    fleet.set_static_endpoints()?;
    if !ciphers.is_empty() {
        fleet.edit_inventory(|inventory| {
            for name in MACHINES {
                inventory["machines"][name]["mesh"]["ciphers"] = Value::from(ciphers);
            }
        })?;
    }
    fleet.store_rosters(1)?;
    for name in MACHINES {
        fleet.start_agent(name)?;
    }
    let reply = fleet.ping(MACHINES[0], MACHINES[1], DAEMON_PATIENCE)?;
    anyhow::ensure!(reply.is_some(), "the mesh does not come up");
    Ok(fleet)
}

/// Starts what takes the traffic.
pub(crate) fn serve(fleet: &Fleet, cage: &Cage) -> anyhow::Result<Process> {
    let mut command = Command::new("iperf3");
    command.arg("--server");
    let log_path = fleet.dir().join("iperf3.log");
    cage.start("iperf3", command, fleet.namespace(MACHINES[1])?, &log_path)
}

/// TCP for so many seconds: bits per second and bytes that arrive.
pub(crate) fn load(
    fleet: &Fleet,
    to: IpAddr,
    streams: usize,
    seconds: u32,
) -> anyhow::Result<(f64, f64)> {
    let answer = iperf3(fleet, to, seconds, &["--parallel", &streams.to_string()])?;
    let figure = |name| figure(&answer["sum_received"], name);
    Ok((figure("bits_per_second")?, figure("bytes")?))
}

/// What iperf3 says at the end.
pub(crate) fn iperf3(
    fleet: &Fleet,
    to: IpAddr,
    seconds: u32,
    arguments: &[&str],
) -> anyhow::Result<Value> {
    // The server may be starting, or still be with the last one.
    wait_until(DAEMON_PATIENCE, || {
        let mut command = Command::new("iperf3");
        command.args(["--client", &to.to_string(), "--json"]);
        command.args(["--time", &seconds.to_string()]);
        command.args(arguments);
        let output = fleet.run_on(MACHINES[0], &mut command)?;
        let mut answer: Value = serde_json::from_slice(&output.stdout)?;
        let error = answer["error"].take();
        anyhow::ensure!(error.is_null(), "iperf3: {error}");
        Ok(answer["end"].take())
    })
}

/// One of its figures.
pub(crate) fn figure(sum: &Value, name: &str) -> anyhow::Result<f64> {
    let figure = sum[name].as_f64();
    figure.with_context(|| format!("iperf3 says nothing of `{name}`"))
}
