//! TCP through the mesh, beside `wireguard-go` between the same namespaces, in turns.

use std::{net::Ipv6Addr, path::Path, process::Command};

use anyhow::Context as _;
use mesh_lab::{Cage, Fleet, Process, fleet::DAEMON_PATIENCE, wait_until};

use crate::{samples::median, wireguard_go};

const ROUNDS: usize = 5;
const SECONDS: &str = "3";
const MACHINES: [&str; 2] = ["galena", "pyrite"];

/// The mesh's own MTU, and `wireguard-go`'s default.
const MTUS: [u32; 2] = [1280, 1420];

pub(crate) fn run(program: &Path) -> anyhow::Result<()> {
    let mut fleet = Fleet::of(program, &MACHINES)?;
    fleet.set_static_endpoints()?;
    fleet.store_rosters(1)?;
    for name in MACHINES {
        fleet.start_agent(name)?;
    }
    let reply = fleet.ping(MACHINES[0], MACHINES[1], DAEMON_PATIENCE)?;
    anyhow::ensure!(reply.is_some(), "the mesh does not come up");

    let mut tunnels = vec![("mesh".to_owned(), fleet.address(MACHINES[1])?)];
    let mut yardsticks = Vec::new();
    for (number, mtu) in (0..).zip(MTUS) {
        let (tunnel, addresses) = wireguard_go::join(&mut fleet, MACHINES, number, mtu)?;
        yardsticks.push(tunnel);
        tunnels.push((format!("wireguard-go, MTU {mtu}"), addresses[1]));
    }
    let cage = Cage::new()?;
    let _server = serve(&fleet, &cage)?;
    let mut results = vec![Vec::new(); tunnels.len()];
    for _ in 0..ROUNDS {
        for ((_, address), results) in tunnels.iter().zip(&mut results) {
            results.push(measure(&fleet, *address)?);
        }
    }
    let medians: Vec<_> = results.into_iter().map(median).collect();
    println!("TCP, one stream, median of {ROUNDS} rounds of {SECONDS} s in turns:");
    for ((name, _), median) in tunnels.iter().zip(&medians) {
        println!(
            "  {name}: {:.0} Mbit/s, mesh is {:.2} of it",
            median / 1e6,
            medians[0] / median
        );
    }
    fleet.stop()
}

fn serve(fleet: &Fleet, cage: &Cage) -> anyhow::Result<Process> {
    let mut command = Command::new("iperf3");
    command.arg("--server");
    let log_path = fleet.dir().join("iperf3.log");
    cage.start("iperf3", command, fleet.namespace(MACHINES[1])?, &log_path)
}

/// Bits per second that arrive.
fn measure(fleet: &Fleet, to: Ipv6Addr) -> anyhow::Result<f64> {
    // The server may be starting, or still be with the last one.
    wait_until(DAEMON_PATIENCE, || {
        let mut command = Command::new("iperf3");
        command.args(["--client", &to.to_string(), "--time", SECONDS, "--json"]);
        let output = fleet.run_on(MACHINES[0], &mut command)?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let bits = answer["end"]["sum_received"]["bits_per_second"].as_f64();
        bits.with_context(|| format!("iperf3: {}", answer["error"]))
    })
}
