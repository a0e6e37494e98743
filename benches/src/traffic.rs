//! Two machines that have found each other, and what a program of one sends to the other.

use std::{fs, net::IpAddr, path::Path, process::Command};

use anyhow::Context as _;
use mesh_lab::{Cage, Fleet, Process, fleet::DAEMON_PATIENCE, wait_until};
use serde_json::{Value, json};

/// The one that sends, and the one that receives.
pub(crate) const MACHINES: [&str; 2] = ["galena", "pyrite"];

/// Relays no slower than the machine can.
const NO_LIMIT: &str = "512GiB";

/// How the two talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    /// As they do by themselves: straight, with the best cipher.
    Usual,
    /// With the cipher of guests and stock WireGuard.
    Chacha,
    /// Through a moon.
    Relayed,
}

impl Talk {
    pub(crate) const ALL: [Self; 3] = [Self::Usual, Self::Chacha, Self::Relayed];
}

/// A fleet of the two, and of a moon where they need one.
pub(crate) fn join(program: &Path, talk: Talk) -> anyhow::Result<Fleet> {
    let [from, to] = MACHINES;
    let names: &[&str] = match talk {
        Talk::Usual | Talk::Chacha => &MACHINES,
        Talk::Relayed => &["cinnabar", from, to],
    };
    let mut fleet = Fleet::of(program, names)?;
    fleet.set_static_endpoints()?;
    match talk {
        Talk::Usual => {}
        Talk::Chacha => fleet.edit_inventory(|inventory| {
            for name in MACHINES {
                inventory["machines"][name]["mesh"]["ciphers"] = json!(["chacha"]);
            }
        })?,
        Talk::Relayed => {
            fleet.edit_inventory(|inventory| {
                let roles = &mut inventory["instances"]["mesh"]["roles"];
                let limit = json!({ "settings": { "relayRateLimit": NO_LIMIT } });
                roles["controller"]["machines"]["cinnabar"] = limit;
                for name in MACHINES {
                    let only = json!({ "settings": { "relayOnly": true } });
                    roles["peer"]["machines"][name] = only;
                }
            })?;
            let path = fleet.files("cinnabar")?.agent_config_path();
            let config = fs::read_to_string(&path)?;
            fs::write(&path, format!("{config}relay_rate = \"{NO_LIMIT}\"\n"))?;
        }
    }
    fleet.store_rosters(1)?;
    for name in names {
        fleet.start_agent(name)?;
    }
    let reply = fleet.ping(from, to, DAEMON_PATIENCE)?;
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
