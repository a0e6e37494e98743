//! Programs that are set up by `wg`.

use std::{fs, net::IpAddr, process::Command};

use anyhow::Context as _;
use mesh_lab::{Cage, Fleet, Process, wait_until};

use super::{PATIENCE, Place, output_of};

/// What `wg-quick` chooses on a link of 1500 bytes.
const MTU: u32 = 1420;

struct Keys {
    path: String,
    public: String,
}

pub(super) fn join(
    program: &str,
    fleet: &mut Fleet,
    cage: &Cage,
    place: Place<'_>,
) -> anyhow::Result<([Process; 2], IpAddr)> {
    let keys = [keys(fleet, place, 0)?, keys(fleet, place, 1)?];
    let first = bring_up(program, fleet, cage, place, 0, &keys)?;
    let second = bring_up(program, fleet, cage, place, 1, &keys)?;
    Ok(([first, second], place.address(1)))
}

fn keys(fleet: &Fleet, place: Place<'_>, side: usize) -> anyhow::Result<Keys> {
    let path = fleet
        .dir()
        .join(place.interface(side))
        .with_extension("key");
    fs::write(&path, output_of(Command::new("wg").arg("genkey"))?)?;
    let public = output_of(
        Command::new("wg")
            .arg("pubkey")
            .stdin(fs::File::open(&path)?),
    )?;
    Ok(Keys {
        path: path.to_str().context("a path that is no text")?.to_owned(),
        public: public.trim().to_owned(),
    })
}

fn bring_up(
    program: &str,
    fleet: &mut Fleet,
    cage: &Cage,
    place: Place<'_>,
    side: usize,
    keys: &[Keys; 2],
) -> anyhow::Result<Process> {
    let interface = place.interface(side);
    let log_path = fleet.dir().join(&interface).with_extension("log");
    let mut command = Command::new(program);
    command
        .args(["--foreground", &interface])
        .env("LOG_LEVEL", "error")
        // boringtun would become the user who logged in, and here is none.
        .env("WG_SUDO", "true");
    let namespace = fleet.namespace(place.machines[side])?;
    let process = cage.start(program, command, namespace, &log_path)?;

    let endpoint = place.endpoint(fleet, 1 - side)?;
    let mut set = Command::new("wg");
    set.args(["set", &interface])
        .args(["listen-port", &place.port().to_string()])
        .args(["private-key", &keys[side].path])
        .args(["peer", &keys[1 - side].public])
        .args(["endpoint", &endpoint])
        .args(["allowed-ips", &format!("{}/128", place.address(1 - side))]);
    // Its socket appears when it is ready.
    wait_until(PATIENCE, || output_of(&mut set))
        .with_context(|| format!("`{program}` does not come up: {}", process.log()))?;
    place.configure(fleet, side, Some(MTU))?;
    Ok(process)
}
