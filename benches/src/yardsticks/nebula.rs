//! Nebula, which has IPv4 inside.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
};

use mesh_lab::{Cage, Fleet, Process};

use super::{Place, output_of};

pub(super) fn join(
    fleet: &mut Fleet,
    cage: &Cage,
    place: Place<'_>,
) -> anyhow::Result<([Process; 2], IpAddr)> {
    let dir = fleet.dir().join(format!("nebula{}", place.number));
    fs::create_dir(&dir)?;
    certificate(&dir, "ca", &["-name", "bench"], "ca")?;
    let first = bring_up(fleet, cage, place, 0, &dir)?;
    let second = bring_up(fleet, cage, place, 1, &dir)?;
    Ok(([first, second], address(place, 1).into()))
}

fn bring_up(
    fleet: &mut Fleet,
    cage: &Cage,
    place: Place<'_>,
    side: usize,
    dir: &Path,
) -> anyhow::Result<Process> {
    let interface = place.interface(side);
    let ip = format!("{}/24", address(place, side));
    let [ca, key] = ["ca.crt", "ca.key"].map(|file| dir.join(file).display().to_string());
    let sign = [
        "-name", &interface, "-ip", &ip, "-ca-crt", &ca, "-ca-key", &key,
    ];
    certificate(dir, "sign", &sign, &interface)?;
    let config = serde_json::json!({
        "pki": {
            "ca": ca,
            "cert": dir.join(format!("{interface}.crt")),
            "key": dir.join(format!("{interface}.key")),
        },
        "static_host_map": { address(place, 1 - side).to_string(): [place.endpoint(fleet, 1 - side)?] },
        "lighthouse": { "am_lighthouse": false },
        "listen": { "host": "0.0.0.0", "port": place.port() },
        "tun": { "dev": interface },
        "logging": { "level": "error", "format": "text" },
        "firewall": {
            "outbound": [{ "port": "any", "proto": "any", "host": "any" }],
            "inbound": [{ "port": "any", "proto": "any", "host": "any" }],
        },
    });
    // JSON is YAML.
    let config_path = dir.join(format!("{interface}.yml"));
    fs::write(&config_path, config.to_string())?;
    let mut command = Command::new("nebula");
    command.arg("-config").arg(&config_path);
    let namespace = fleet.namespace(place.machines[side])?;
    cage.start(
        "nebula",
        command,
        namespace,
        &dir.join(interface).with_extension("log"),
    )
}

/// Makes a certificate and its key in files of a name.
fn certificate(dir: &Path, what: &str, arguments: &[&str], name: &str) -> anyhow::Result<()> {
    let mut command = Command::new("nebula-cert");
    command.arg(what).args(arguments);
    command.arg("-out-crt").arg(dir.join(format!("{name}.crt")));
    command.arg("-out-key").arg(dir.join(format!("{name}.key")));
    output_of(&mut command)?;
    Ok(())
}

fn address(place: Place<'_>, side: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, place.number, if side == 0 { 1 } else { 2 })
}
