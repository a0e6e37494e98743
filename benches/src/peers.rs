//! The mesh beside other overlays, between the same two machines and in turns: how much TCP they carry, what it costs,
//! and what it does to the round trip of others.
//!
//! ```text
//! MESH_BIN=target/release/mesh cargo run --release --package mesh-benches -- peers [--page FILE] [PROGRAM...]
//! ```

mod chart;
mod page;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use mesh_lab::{Cage, Fleet, ping::Pinger};

use crate::{
    memory, processor,
    samples::Samples,
    traffic::{self, MACHINES, Talk, figure},
    yardsticks::{self, Yardstick},
};

const SECONDS: u32 = 3;
const STREAMS: [usize; 2] = [1, 4];

/// Of a packet that a program hands over by itself, as calls and games do.
const SMALL_BYTES: &str = "64";

/// Between two echoes, and how long one is waited for.
const PING_INTERVAL: Duration = Duration::from_millis(10);
const PING_PATIENCE: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured, in turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The page that is written, with its charts in a folder of the same name; without it, the table is printed
    #[arg(long)]
    page: Option<PathBuf>,
    /// Other builds of `mesh`, which are measured in place of the other overlays
    programs: Vec<PathBuf>,
}

/// What is measured.
struct Tunnel {
    name: String,
    /// Which of the fleets has its ends.
    fleet: usize,
    to: IpAddr,
    /// The processes at both ends, and between them.
    daemons: Vec<u32>,
    figures: Figures,
}

/// What a tunnel did, round by round.
#[derive(Default)]
struct Figures {
    /// With each of [`STREAMS`].
    tcp: [Tcp; 2],
    /// Packets of [`SMALL_BYTES`] that arrived in a second.
    small_packets: Vec<f64>,
    /// What the daemons have in memory after all this, and what of it is their own and not the program's file.
    resident: f64,
    own: f64,
}

/// What one tunnel did with so many streams.
#[derive(Default)]
struct Tcp {
    megabits: Vec<f64>,
    /// Seconds of the daemons for a gigabyte.
    cpu: Vec<f64>,
    round_trips: Samples,
}

pub(crate) fn run(program: &Path, args: &Args) -> anyhow::Result<()> {
    let talks: &[Talk] = match args.programs.is_empty() {
        true => &Talk::ALL,
        false => &[Talk::Usual],
    };
    let mut tunnels = Vec::new();
    let mut fleets = Vec::new();
    let programs = args.programs.iter().map(AsRef::as_ref);
    for program in [program].into_iter().chain(programs) {
        for talk in talks {
            let fleet = traffic::join(program, *talk)?;
            let agents = fleet.names().into_iter().map(|name| fleet.agent_id(&name));
            tunnels.push(Tunnel {
                name: match args.programs.is_empty() {
                    true => name_of(*talk).to_owned(),
                    false => program.display().to_string(),
                },
                fleet: fleets.len(),
                to: fleet.address(MACHINES[1])?.into(),
                daemons: agents.collect::<anyhow::Result<_>>()?,
                figures: Figures::default(),
            });
            fleets.push(fleet);
        }
    }
    let others = match args.programs.is_empty() {
        true => join_others(&mut fleets[0])?,
        false => Vec::new(),
    };
    for (yardstick, version, tunnel) in &others {
        tunnels.push(Tunnel {
            name: format!("{yardstick} {version}"),
            fleet: 0,
            to: tunnel.to,
            daemons: tunnel.daemons().to_vec(),
            figures: Figures::default(),
        });
    }
    let cage = Cage::new()?;
    let _servers: Vec<_> = fleets
        .iter()
        .map(|fleet| traffic::serve(fleet, &cage))
        .collect::<anyhow::Result<_>>()?;
    for round in 1..=args.rounds {
        progress(round, args.rounds);
        measure_all(&fleets, &mut tunnels)?;
    }
    for tunnel in &mut tunnels {
        tunnel.figures.resident = megabytes(tunnel, "VmRSS:")?;
        tunnel.figures.own = megabytes(tunnel, "RssAnon:")?;
    }
    drop(others);
    fleets.iter_mut().try_for_each(Fleet::stop)?;
    match &args.page {
        Some(path) => page::write(path, &tunnels, args.rounds),
        None => {
            print!("{}", page::table(&tunnels));
            Ok(())
        }
    }
}

#[expect(clippy::print_stderr, reason = "it takes minutes")]
fn progress(round: usize, rounds: usize) {
    eprintln!("round {round} of {rounds}");
}

/// The other overlays that are installed here, between the same machines.
#[expect(clippy::print_stderr, reason = "what is missing is told")]
fn join_others(fleet: &mut Fleet) -> anyhow::Result<Vec<(Yardstick, String, yardsticks::Tunnel)>> {
    let mut tunnels = Vec::new();
    for (number, yardstick) in (0..).zip(Yardstick::ALL) {
        match yardstick.version() {
            Some(version) => {
                let tunnel = yardstick.join(fleet, MACHINES, number)?;
                tunnels.push((yardstick, version, tunnel));
            }
            None => eprintln!("{yardstick} is not installed, and not measured"),
        }
    }
    Ok(tunnels)
}

/// One round of everything.
fn measure_all(fleets: &[Fleet], tunnels: &mut [Tunnel]) -> anyhow::Result<()> {
    for (i, streams) in STREAMS.into_iter().enumerate() {
        for tunnel in &mut *tunnels {
            measure_tcp(&fleets[tunnel.fleet], tunnel, i, streams)?;
        }
    }
    for tunnel in tunnels {
        let arrived = small_packets(&fleets[tunnel.fleet], tunnel.to)?;
        tunnel.figures.small_packets.push(arrived);
    }
    Ok(())
}

/// One round of TCP.
fn measure_tcp(fleet: &Fleet, tunnel: &mut Tunnel, i: usize, streams: usize) -> anyhow::Result<()> {
    let is_over = AtomicBool::new(false);
    let pinger = Pinger::new(fleet.namespace(MACHINES[0])?)?;
    let to = tunnel.to;
    thread::scope(|scope| {
        let pinging = scope.spawn(|| ping(&pinger, to, &is_over));
        let before = cpu_seconds(tunnel)?;
        let received = traffic::load(fleet, to, streams, SECONDS);
        is_over.store(true, Ordering::Relaxed);
        let cpu = cpu_seconds(tunnel)? - before;
        let pinged = pinging.join();
        let round_trips = pinged.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let (bits, bytes) = received?;
        let tcp = &mut tunnel.figures.tcp[i];
        tcp.megabits.push(bits / 1e6);
        tcp.cpu.push(cpu / (bytes / 1e9));
        round_trips
            .into_iter()
            .for_each(|rtt| tcp.round_trips.push(rtt));
        Ok(())
    })
}

/// Round trips until it is over; one that takes too long counts as long as it was waited for.
fn ping(pinger: &Pinger, to: IpAddr, is_over: &AtomicBool) -> anyhow::Result<Vec<Duration>> {
    let mut round_trips = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let rtt = pinger.once(to, PING_PATIENCE)?.unwrap_or(PING_PATIENCE);
        round_trips.push(rtt);
        thread::sleep(PING_INTERVAL.saturating_sub(rtt));
    }
    Ok(round_trips)
}

/// Packets of a program that arrive in a second.
fn small_packets(fleet: &Fleet, to: IpAddr) -> anyhow::Result<f64> {
    // 0: as fast as it can.
    let udp = ["--udp", "--bitrate", "0", "--length", SMALL_BYTES];
    let answer = traffic::iperf3(fleet, to, SECONDS, &udp)?;
    let figure = |name| figure(&answer["sum"], name);
    Ok((figure("packets")? - figure("lost_packets")?) / figure("seconds")?)
}

/// What the daemons have in memory, by a line of `/proc/PID/status`.
fn megabytes(tunnel: &Tunnel, line: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in &tunnel.daemons {
        sum += memory::megabytes(*pid, line)?;
    }
    Ok(sum)
}

/// What the daemons have used.
fn cpu_seconds(tunnel: &Tunnel) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in &tunnel.daemons {
        sum += processor::seconds(*pid)?;
    }
    Ok(sum)
}

const fn name_of(talk: Talk) -> &'static str {
    match talk {
        Talk::Usual => "mesh",
        Talk::Chacha => "mesh, ChaCha20-Poly1305",
        Talk::Relayed => "mesh, through a moon",
    }
}
