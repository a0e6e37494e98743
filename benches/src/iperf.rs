//! TCP through the mesh: how much, what it costs, and what it does to the round trip of others. Beside it, in
//! turns, `wireguard-go` between the same namespaces, or other builds of the program in namespaces of their own.
//!
//! ```text
//! MESH_BIN=target/release/mesh cargo run --release --package mesh-benches -- iperf [PROGRAM...]
//! ```

use std::{
    fs,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use mesh_lab::{Cage, Fleet, Process, fleet::DAEMON_PATIENCE, ping::Pinger, wait_until};

use crate::{
    memory,
    samples::{Samples, median},
    wireguard_go,
};

const ROUNDS: usize = 5;
const SECONDS: &str = "3";
const MACHINES: [&str; 2] = ["galena", "pyrite"];
const STREAMS: [usize; 2] = [1, 4];

/// Of a packet that a program hands over by itself, as calls and games do.
const SMALL_BYTES: &str = "64";

/// The mesh's own MTU until it has measured, and `wireguard-go`'s default.
const MTUS: [u32; 2] = [1280, 1420];

/// Between two echoes, and how long one is waited for.
const PING_INTERVAL: Duration = Duration::from_millis(10);
const PING_PATIENCE: Duration = Duration::from_secs(1);

/// What is measured.
struct Tunnel {
    name: String,
    /// Which of the fleets has its ends.
    fleet: usize,
    to: Ipv6Addr,
    /// The processes at both ends.
    daemons: [u32; 2],
}

/// What one tunnel did with so many streams.
#[derive(Default)]
struct Figures {
    megabits: Vec<f64>,
    cpu: Vec<f64>,
    round_trips: Samples,
}

pub(crate) fn run(program: &Path, others: &[PathBuf]) -> anyhow::Result<()> {
    let mut tunnels = Vec::new();
    let mut fleets = Vec::new();
    for program in [program]
        .into_iter()
        .chain(others.iter().map(AsRef::as_ref))
    {
        let fleet = join(program)?;
        tunnels.push(Tunnel {
            name: program.display().to_string(),
            fleet: fleets.len(),
            to: fleet.address(MACHINES[1])?,
            daemons: [fleet.agent_id(MACHINES[0])?, fleet.agent_id(MACHINES[1])?],
        });
        fleets.push(fleet);
    }
    let mut yardsticks = Vec::new();
    for (number, mtu) in (0..).zip(MTUS).filter(|_| others.is_empty()) {
        let (tunnel, addresses) = wireguard_go::join(&mut fleets[0], MACHINES, number, mtu)?;
        tunnels.push(Tunnel {
            name: format!("wireguard-go, MTU {mtu}"),
            fleet: 0,
            to: addresses[1],
            daemons: tunnel.daemons(),
        });
        yardsticks.push(tunnel);
    }
    let cage = Cage::new()?;
    let _servers: Vec<_> = fleets
        .iter()
        .map(|fleet| serve(fleet, &cage))
        .collect::<anyhow::Result<_>>()?;
    for streams in STREAMS {
        report_tcp(&fleets, &tunnels, streams)?;
    }
    report_small_packets(&fleets, &tunnels)?;
    drop(yardsticks);
    fleets.iter_mut().try_for_each(Fleet::stop)
}

/// TCP by so many streams, and what it costs others.
fn report_tcp(fleets: &[Fleet], tunnels: &[Tunnel], streams: usize) -> anyhow::Result<()> {
    let mut all: Vec<Figures> = tunnels.iter().map(|_| Figures::default()).collect();
    for _ in 0..ROUNDS {
        for (tunnel, figures) in tunnels.iter().zip(&mut all) {
            measure(&fleets[tunnel.fleet], tunnel, streams, figures)?;
        }
    }
    println!("TCP, streams: {streams}; medians of {ROUNDS} rounds of {SECONDS} s in turns:");
    for (tunnel, figures) in tunnels.iter().zip(all) {
        println!(
            "  {}: {:.0} Mbit/s, daemons {:.2} CPU s/GB, ping under load {}",
            tunnel.name,
            median(figures.megabits),
            median(figures.cpu),
            figures.round_trips,
        );
    }
    Ok(())
}

/// Packets of a program that are sent one by one, and what the daemons have in memory by then.
fn report_small_packets(fleets: &[Fleet], tunnels: &[Tunnel]) -> anyhow::Result<()> {
    let mut rates: Vec<Vec<f64>> = tunnels.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (tunnel, rates) in tunnels.iter().zip(&mut rates) {
            rates.push(small_packets(&fleets[tunnel.fleet], tunnel.to)?);
        }
    }
    println!(
        "UDP, {SMALL_BYTES} bytes each, as many as one program sends; and memory after all this:"
    );
    for (tunnel, rates) in tunnels.iter().zip(rates) {
        println!(
            "  {}: {:.0} packets/s arrive; both daemons have {:.1} MB, {:.1} of them their own",
            tunnel.name,
            median(rates),
            megabytes(tunnel, "VmRSS:")?,
            megabytes(tunnel, "RssAnon:")?,
        );
    }
    Ok(())
}

/// Two machines that have found each other.
fn join(program: &Path) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet::of(program, &MACHINES)?;
    fleet.set_static_endpoints()?;
    fleet.store_rosters(1)?;
    for name in MACHINES {
        fleet.start_agent(name)?;
    }
    let reply = fleet.ping(MACHINES[0], MACHINES[1], DAEMON_PATIENCE)?;
    anyhow::ensure!(reply.is_some(), "the mesh does not come up");
    Ok(fleet)
}

fn serve(fleet: &Fleet, cage: &Cage) -> anyhow::Result<Process> {
    let mut command = Command::new("iperf3");
    command.arg("--server");
    let log_path = fleet.dir().join("iperf3.log");
    cage.start("iperf3", command, fleet.namespace(MACHINES[1])?, &log_path)
}

/// One round.
fn measure(
    fleet: &Fleet,
    tunnel: &Tunnel,
    streams: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let is_over = AtomicBool::new(false);
    let pinger = Pinger::new(fleet.namespace(MACHINES[0])?)?;
    thread::scope(|scope| {
        let pinging = scope.spawn(|| ping(&pinger, tunnel.to, &is_over));
        let before = cpu_seconds(tunnel)?;
        let received = load(fleet, tunnel.to, streams);
        is_over.store(true, Ordering::Relaxed);
        let cpu = cpu_seconds(tunnel)? - before;
        let pinged = pinging.join();
        let round_trips = pinged.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let (bits, bytes) = received?;
        figures.megabits.push(bits / 1e6);
        figures.cpu.push(cpu / (bytes / 1e9));
        round_trips
            .into_iter()
            .for_each(|rtt| figures.round_trips.push(rtt));
        Ok(())
    })
}

/// Round trips until it is over; one that takes too long counts as long as it was waited for.
fn ping(pinger: &Pinger, to: Ipv6Addr, is_over: &AtomicBool) -> anyhow::Result<Vec<Duration>> {
    let mut round_trips = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let rtt = pinger.once(to, PING_PATIENCE)?.unwrap_or(PING_PATIENCE);
        round_trips.push(rtt);
        thread::sleep(PING_INTERVAL.saturating_sub(rtt));
    }
    Ok(round_trips)
}

/// Bits per second and bytes that arrive.
fn load(fleet: &Fleet, to: Ipv6Addr, streams: usize) -> anyhow::Result<(f64, f64)> {
    let answer = iperf3(fleet, to, &["--parallel", &streams.to_string()])?;
    let figure = |name| figure(&answer["sum_received"], name);
    Ok((figure("bits_per_second")?, figure("bytes")?))
}

/// Packets of a program that arrive in a second.
fn small_packets(fleet: &Fleet, to: Ipv6Addr) -> anyhow::Result<f64> {
    // 0: as fast as it can.
    let udp = ["--udp", "--bitrate", "0", "--length", SMALL_BYTES];
    let answer = iperf3(fleet, to, &udp)?;
    let figure = |name| figure(&answer["sum"], name);
    Ok((figure("packets")? - figure("lost_packets")?) / figure("seconds")?)
}

/// What iperf3 says at the end.
fn iperf3(fleet: &Fleet, to: Ipv6Addr, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
    // The server may be starting, or still be with the last one.
    wait_until(DAEMON_PATIENCE, || {
        let mut command = Command::new("iperf3");
        command.args(["--client", &to.to_string(), "--time", SECONDS, "--json"]);
        command.args(arguments);
        let output = fleet.run_on(MACHINES[0], &mut command)?;
        let mut answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let error = answer["error"].take();
        anyhow::ensure!(error.is_null(), "iperf3: {error}");
        Ok(answer["end"].take())
    })
}

fn figure(sum: &serde_json::Value, name: &str) -> anyhow::Result<f64> {
    let figure = sum[name].as_f64();
    figure.with_context(|| format!("iperf3 says nothing of `{name}`"))
}

/// What both daemons have in memory, by a line of `/proc/PID/status`.
fn megabytes(tunnel: &Tunnel, line: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in tunnel.daemons {
        sum += memory::megabytes(pid, line)?;
    }
    Ok(sum)
}

/// What both daemons have used, the kernel's work for them among it.
fn cpu_seconds(tunnel: &Tunnel) -> anyhow::Result<f64> {
    // Of `/proc/PID/stat`, counted from the end of the name: time for itself and for the system (proc_pid_stat(5)).
    const TIMES: std::ops::Range<usize> = 11..13;
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut ticks = 0.0;
    for pid in tunnel.daemons {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(") ").context("half a `/proc/PID/stat`")?;
        let fields: Vec<_> = fields.split(' ').collect();
        for field in fields.get(TIMES).context("half a `/proc/PID/stat`")? {
            ticks += field.parse::<f64>()?;
        }
    }
    Ok(ticks / TICKS_PER_SECOND)
}
