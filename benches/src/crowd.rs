//! Many peers of one agent: how soon all have a session when they want one at once, how soon again after the agent was
//! killed, how much it carries to all of them, and what it has in memory by then.
//!
//! The agent is the real program. Its peers are engines in this process, each with an address of its own.

mod members;

use std::{
    net::{Ipv6Addr, UdpSocket},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mesh_lab::Fleet;
use mesh_types::IdentitySeed;
use rand::RngCore as _;

use self::members::Crowd;
use crate::{memory, processor};

/// The machine with the agent, and that of all its peers.
const MACHINES: [&str; 2] = ["galena", "crowd"];

const PEERS: [u16; 4] = [1, 8, 100, 1000];

/// How long all may take to be answered.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two questions of a peer that has no answer.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How long the agent is given packets for all of them, and of what size.
const LOAD: Duration = Duration::from_secs(3);
const LOAD_BYTES: usize = 1200;

/// The discard port (RFC 863).
const DISCARD: u16 = 9;

pub(crate) fn run(program: &Path) -> anyhow::Result<()> {
    println!(
        "| peers | all answered after, ms (agent's CPU, ms) | and after it was killed and started, ms (CPU, ms) | \
         packets of {LOAD_BYTES} bytes to all, per second (Mbit/s) | agent's memory, MB (its own) |"
    );
    println!("|---:|---:|---:|---:|---:|");
    for peers in PEERS {
        measure(program, peers).with_context(|| format!("with {peers} peers"))?;
    }
    Ok(())
}

fn measure(program: &Path, peers: u16) -> anyhow::Result<()> {
    let [agent, elsewhere] = MACHINES;
    let mut fleet = Fleet::of(program, &MACHINES)?;
    fleet.set_static_endpoints()?;
    let seeds: Vec<_> = (0..peers).map(|_| seed()).collect();
    fleet.edit_inventory(|inventory| {
        for (number, seed) in (0..).zip(&seeds) {
            inventory["machines"][members::name(number)] = serde_json::json!({
                "publicKey": seed.public().to_string(),
                "mesh": { "endpoints": [members::endpoint(number).to_string()] },
            });
        }
    })?;
    fleet.store_rosters(1)?;
    members::route_to(&mut fleet, agent, elsewhere)?;
    fleet.start_agent(agent)?;
    let mut crowd = Crowd::new(&mut fleet, agent, elsewhere, &seeds)?;

    let joined = until_all_answer(&fleet, &mut crowd)?;
    let delivered = load(&fleet, &mut crowd)?;
    let pid = fleet.agent_id(agent)?;
    let [resident, own] = ["VmRSS:", "RssAnon:"].map(|line| memory::megabytes(pid, line));
    fleet.agent_process(agent)?.kill()?;
    fleet.start_agent(agent)?;
    let again = until_all_answer(&fleet, &mut crowd)?;
    println!(
        "| {peers} | {joined} | {again} | {:.0} ({:.0}) | {:.1} ({:.1}) |",
        delivered,
        delivered * f64::from(u32::try_from(LOAD_BYTES)?) * 8.0 / 1e6,
        resident?,
        own?,
    );
    fleet.stop()
}

fn seed() -> IdentitySeed {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    IdentitySeed::from_bytes(bytes)
}

/// All of the crowd ask the agent's machine for an echo at once, and again every [`ASK_EVERY`]. Returns how long it took, and what
/// of the processor.
fn until_all_answer(fleet: &Fleet, crowd: &mut Crowd) -> anyhow::Result<String> {
    let pid = fleet.agent_id(MACHINES[0])?;
    let before = processor::seconds(pid)?;
    let begin = Instant::now();
    crowd.forget_answers();
    let mut asked = None;
    while crowd.unanswered() > 0 {
        anyhow::ensure!(
            begin.elapsed() < PATIENCE,
            "{} are not answered within {PATIENCE:?}",
            crowd.unanswered()
        );
        if asked.is_none_or(|at: Instant| at.elapsed() >= ASK_EVERY) {
            asked = Some(Instant::now());
            crowd.ask()?;
        }
        crowd.step()?;
    }
    Ok(format!(
        "{} ({:.0})",
        begin.elapsed().as_millis(),
        (processor::seconds(pid)? - before) * 1000.0
    ))
}

/// A program on the agent's machine sends to all of the crowd in turns; returns how many packets a second arrive.
fn load(fleet: &Fleet, crowd: &mut Crowd) -> anyhow::Result<f64> {
    let socket = fleet
        .namespace(MACHINES[0])?
        .run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).context("cannot open a socket"))?;
    let targets = crowd.addresses();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let payload = [0; LOAD_BYTES - 48];
            for to in targets.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                // A full queue drops it, as it would a program's.
                let _ = socket.send_to(&payload, (*to, DISCARD));
            }
        });
        let begin = Instant::now();
        let before = crowd.delivered();
        let mut stepped = Ok(());
        while stepped.is_ok() && begin.elapsed() < LOAD {
            stepped = crowd.step();
        }
        is_over.store(true, Ordering::Relaxed);
        stepped?;
        let delivered = u32::try_from(crowd.delivered() - before)?;
        Ok(f64::from(delivered) / begin.elapsed().as_secs_f64())
    })
}
