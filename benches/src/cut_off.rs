//! From `mesh inventory push` of a roster without a machine to the moment when every node has cut it off.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use mesh_lab::{Fleet, fleet::DAEMON_PATIENCE};

use crate::samples::Samples;

const ROUNDS: u64 = 50;
const REMOVED: &str = "rosegold";

pub(crate) fn run(program: &Path) -> anyhow::Result<()> {
    let mut fleet = Fleet::reference(program)?;
    let key_path = fleet.sign_as_admin()?;
    fleet.start()?;
    fleet.wait_admitted(DAEMON_PATIENCE)?;
    let names = fleet.names();
    let others: Vec<_> = names.iter().filter(|name| *name != REMOVED).collect();
    let entry = fleet.inventory()["machines"][REMOVED].clone();
    let mut samples = Samples::default();
    for round in 0..ROUNDS {
        fleet.ping_all(&names, DAEMON_PATIENCE)?;
        fleet.edit_inventory(|inventory| {
            if let Some(machines) = inventory["machines"].as_object_mut() {
                machines.remove(REMOVED);
            }
        })?;
        let without = sign(&fleet, &key_path, 2 * round)?;
        let start = Instant::now();
        push(&fleet, &without)?;
        for name in &others {
            fleet.wait_status(name, DAEMON_PATIENCE, "cut it off", |status| {
                status
                    .peers
                    .iter()
                    .all(|peer| peer.name.as_str() != REMOVED)
            })?;
        }
        samples.push(start.elapsed());
        fleet.edit_inventory(|inventory| inventory["machines"][REMOVED] = entry.clone())?;
        let with = sign(&fleet, &key_path, 2 * round + 1)?;
        push(&fleet, &with)?;
        for name in &names {
            fleet.wait_status(name, DAEMON_PATIENCE, "knows all", |status| {
                let knows = status
                    .peers
                    .iter()
                    .any(|peer| peer.name.as_str() == REMOVED);
                status.node.admitted && (knows || name == REMOVED)
            })?;
        }
    }
    println!(
        "push to cut-off on all {} other nodes: {samples}",
        others.len()
    );
    fleet.stop()
}

/// Signs the inventory after the roster of the step before.
fn sign(fleet: &Fleet, key_path: &Path, step: u64) -> anyhow::Result<PathBuf> {
    let at = |step: u64| fleet.dir().join(format!("roster-{step}.json"));
    let previous = match step {
        0 => fleet.dir().join("roster.json"),
        step => at(step - 1),
    };
    let out = at(step);
    fleet.sign_next(key_path, &previous, &out)?;
    Ok(out)
}

fn push(fleet: &Fleet, roster: &Path) -> anyhow::Result<()> {
    let output = fleet.push(fleet.controller_name(), roster)?;
    let words = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "`mesh inventory push` failed: {words}"
    );
    Ok(())
}
