//! Where the processor's time goes while one machine sends TCP to another: for each cipher and direction a flame graph,
//! and what a gigabyte costs by what is done.
//!
//! ```text
//! MESH_BIN=target/release/mesh cargo run --release --package mesh-benches -- profile --page docs/profile.md
//! ```
//!
//! Samples are taken by Linux' `perf`, of the clock: a machine without counters of its own has that, too.

mod flame;
mod kinds;
mod page;
mod stacks;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use mesh_lab::{Cage, Fleet};

use self::stacks::Stacks;
use crate::{
    processor,
    traffic::{self, MACHINES, Talk},
};

/// TCP runs for so long; samples are taken of its middle.
const SECONDS: u32 = 8;
const BEFORE: Duration = Duration::from_secs(2);
const SAMPLED_SECONDS: &str = "4";

/// Samples a second. No divisor of what the system itself does by the clock.
const FREQUENCY: &str = "997";

/// Of each stack, in bytes: programs have no frame pointers.
const STACK: &str = "dwarf,8192";

const CIPHERS: [Cipher; 2] = [
    Cipher {
        talk: Talk::Usual,
        short: "aes",
        name: "AES-256-GCM",
    },
    Cipher {
        talk: Talk::Chacha,
        short: "chacha",
        name: "ChaCha20-Poly1305",
    },
];

/// A cipher, and how two talk with it.
#[derive(Clone, Copy)]
struct Cipher {
    talk: Talk,
    /// In names of files.
    short: &'static str,
    name: &'static str,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The page that is written, with its flame graphs in a folder of the same name
    #[arg(long)]
    page: PathBuf,
}

/// What was seen of one machine.
struct Side {
    /// `send` or `receive`.
    direction: &'static str,
    /// Seconds of the agent for a gigabyte.
    cpu: f64,
    stacks: Stacks,
}

/// What was seen with one cipher.
struct Profile {
    cipher: Cipher,
    gigabits: f64,
    sides: [Side; 2],
}

pub(crate) fn run(program: &Path, args: &Args) -> anyhow::Result<()> {
    let profiles = CIPHERS
        .into_iter()
        .map(|cipher| measure(program, cipher))
        .collect::<anyhow::Result<Vec<_>>>()?;
    page::write(&args.page, &profiles)
}

#[expect(clippy::print_stderr, reason = "it takes a minute")]
fn measure(program: &Path, cipher: Cipher) -> anyhow::Result<Profile> {
    eprintln!("{}", cipher.name);
    let mut fleet = traffic::join(program, cipher.talk)?;
    let cage = Cage::new()?;
    let _server = traffic::serve(&fleet, &cage)?;
    let to = fleet.address(MACHINES[1])?.into();
    let agents = [fleet.agent_id(MACHINES[0])?, fleet.agent_id(MACHINES[1])?];
    // What it costs, without being looked at.
    let before = [
        processor::seconds(agents[0])?,
        processor::seconds(agents[1])?,
    ];
    let (bits, bytes) = traffic::load(&fleet, to, 1, SECONDS)?;
    let cpu = |i: usize| anyhow::Ok((processor::seconds(agents[i])? - before[i]) / (bytes / 1e9));
    let cpu = [cpu(0)?, cpu(1)?];
    let [sending, receiving] = sample(&fleet, to, agents)?;
    fleet.stop()?;
    let side = |direction, cpu, stacks| Side {
        direction,
        cpu,
        stacks,
    };
    Ok(Profile {
        cipher,
        gigabits: bits / 1e9,
        sides: [
            side("send", cpu[0], sending),
            side("receive", cpu[1], receiving),
        ],
    })
}

/// Samples both agents under load.
fn sample(fleet: &Fleet, to: IpAddr, agents: [u32; 2]) -> anyhow::Result<[Stacks; 2]> {
    let paths = MACHINES.map(|name| fleet.dir().join(name).with_extension("perf"));
    thread::scope(|scope| {
        let load = scope.spawn(|| traffic::load(fleet, to, 1, SECONDS));
        thread::sleep(BEFORE);
        let mut recording = Vec::new();
        for (pid, path) in agents.into_iter().zip(&paths) {
            recording.push(record(pid, path)?);
        }
        for mut perf in recording {
            let status = perf.wait()?;
            anyhow::ensure!(status.success(), "`perf record` ended with {status}");
        }
        let load = load.join();
        load.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        anyhow::Ok(())
    })?;
    let [sending, receiving] = &paths;
    Ok([Stacks::read(sending)?, Stacks::read(receiving)?])
}

fn record(pid: u32, path: &Path) -> anyhow::Result<Child> {
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--event", "cpu-clock"]);
    perf.args(["--freq", FREQUENCY, "--call-graph", STACK]);
    perf.args(["--pid", &pid.to_string(), "--output"]).arg(path);
    perf.args(["--", "sleep", SAMPLED_SECONDS]);
    perf.stdout(Stdio::null()).stderr(Stdio::null());
    perf.spawn()
        .context("cannot run `perf`; it is in Debian's package linux-perf")
}
