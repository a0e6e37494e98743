//! From the start of an agent, which was a member before, to the first reply from a peer.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use mesh_lab::{Fleet, fleet::DAEMON_PATIENCE};

use crate::samples::Samples;

const ROUNDS: usize = 50;

/// Short, so that the first echo that can be answered is sent soon after that is so.
const ECHO: Duration = Duration::from_millis(10);

pub(crate) fn run(program: &Path) -> anyhow::Result<()> {
    let mut fleet = Fleet::of(program, &["cinnabar", "galena", "pyrite"])?;
    fleet.start()?;
    fleet.wait_admitted(DAEMON_PATIENCE)?;
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        fleet.agent_process("galena")?.terminate(DAEMON_PATIENCE)?;
        let start = Instant::now();
        fleet.spawn_agent("galena")?;
        while fleet.ping_once("galena", "pyrite", ECHO)?.is_none() {
            anyhow::ensure!(start.elapsed() < DAEMON_PATIENCE, "no reply");
        }
        samples.push(start.elapsed());
    }
    println!("start of an agent to the first reply from a peer: {samples}");
    fleet.stop()
}
