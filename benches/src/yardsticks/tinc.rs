//! tinc 1.0.

use std::{fs, net::IpAddr, path::PathBuf, process::Command};

use mesh_lab::{Cage, Fleet, Process};

use super::{Place, output_of};

const NAMES: [&str; 2] = ["first", "second"];

pub(super) fn join(
    fleet: &mut Fleet,
    cage: &Cage,
    place: Place<'_>,
) -> anyhow::Result<([Process; 2], IpAddr)> {
    let dirs = [configure(fleet, place, 0)?, configure(fleet, place, 1)?];
    // Each has to know the other's public key.
    for (own, other) in [(0, 1), (1, 0)] {
        let host = format!("hosts/{}", NAMES[other]);
        fs::copy(dirs[other].join(&host), dirs[own].join(&host))?;
    }
    let first = bring_up(fleet, cage, place, 0, &dirs)?;
    let second = bring_up(fleet, cage, place, 1, &dirs)?;
    Ok(([first, second], place.address(1)))
}

/// Writes what an end is, and makes its key.
fn configure(fleet: &mut Fleet, place: Place<'_>, side: usize) -> anyhow::Result<PathBuf> {
    let dir = fleet.dir().join(format!("tinc-{}", place.interface(side)));
    fs::create_dir_all(dir.join("hosts"))?;
    fs::write(
        dir.join("tinc.conf"),
        format!(
            "Name = {}\nConnectTo = {}\nInterface = {}\n",
            NAMES[side],
            NAMES[1 - side],
            place.interface(side)
        ),
    )?;
    fs::write(
        dir.join("hosts").join(NAMES[side]),
        format!(
            "Address = {}\nPort = {}\nSubnet = {}/128\n",
            fleet.lab().address(place.machines[side])?,
            place.port(),
            place.address(side)
        ),
    )?;
    output_of(
        Command::new("tincd")
            .arg("--config")
            .arg(&dir)
            .arg("-K2048"),
    )?;
    Ok(dir)
}

fn bring_up(
    fleet: &Fleet,
    cage: &Cage,
    place: Place<'_>,
    side: usize,
    dirs: &[PathBuf; 2],
) -> anyhow::Result<Process> {
    let mut command = Command::new("tincd");
    command.arg("--config").arg(&dirs[side]);
    command.arg("--no-detach");
    command.arg("--pidfile").arg(dirs[side].join("pid"));
    let namespace = fleet.namespace(place.machines[side])?;
    let process = cage.start("tincd", command, namespace, &dirs[side].join("log"))?;
    place.configure(fleet, side, None)?;
    Ok(process)
}
