//! `wireguard-go` between two machines of a lab, as the yardstick.

use std::{
    fs,
    net::Ipv6Addr,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use ipnet::IpNet;
use mesh_lab::{Cage, Fleet, Process, wait_until};
use mesh_os::link::Links;

const PORT: u16 = 51820;
const PATIENCE: Duration = Duration::from_secs(10);

/// A tunnel; it goes when dropped.
pub(crate) struct Tunnel {
    ends: [Process; 2],
    _cage: Cage,
}

impl Tunnel {
    /// The processes at its ends.
    pub(crate) fn daemons(&self) -> [u32; 2] {
        [self.ends[0].id(), self.ends[1].id()]
    }
}

/// One machine's end.
struct End<'a> {
    machine: &'a str,
    interface: String,
    address: Ipv6Addr,
    private: String,
    public: String,
}

/// Joins two machines by `wireguard-go` with an MTU of `mtu`; returns the tunnel and the addresses at its
/// ends. `number` tells its interfaces from those of other tunnels.
pub(crate) fn join(
    fleet: &mut Fleet,
    machines: [&str; 2],
    number: u16,
    mtu: u32,
) -> anyhow::Result<(Tunnel, [Ipv6Addr; 2])> {
    let ends = [end(machines[0], number, 1)?, end(machines[1], number, 2)?];
    let cage = Cage::new()?;
    let first = bring_up(fleet, &cage, &ends[0], &ends[1], number, mtu)?;
    let second = bring_up(fleet, &cage, &ends[1], &ends[0], number, mtu)?;
    let tunnel = Tunnel {
        ends: [first, second],
        _cage: cage,
    };
    Ok((tunnel, [ends[0].address, ends[1].address]))
}

fn end(machine: &str, number: u16, side: u16) -> anyhow::Result<End<'_>> {
    let private = wg(&["genkey"], "")?;
    Ok(End {
        machine,
        // Its socket's name, which is one for all namespaces.
        interface: format!("bench{number}s{side}"),
        address: Ipv6Addr::new(0xfd00, 0xbe, number, 0, 0, 0, 0, side),
        public: wg(&["pubkey"], &private)?,
        private,
    })
}

fn bring_up(
    fleet: &mut Fleet,
    cage: &Cage,
    own: &End<'_>,
    other: &End<'_>,
    number: u16,
    mtu: u32,
) -> anyhow::Result<Process> {
    let namespace = fleet.namespace(own.machine)?;
    let log_path = fleet.dir().join(&own.interface).with_extension("log");
    let mut command = Command::new("wireguard-go");
    command
        .args(["--foreground", &own.interface])
        .env("LOG_LEVEL", "error");
    let process = cage.start("wireguard-go", command, namespace, &log_path)?;

    let key_path = fleet.dir().join(&own.interface).with_extension("key");
    fs::write(&key_path, &own.private)?;
    let port = (PORT + number).to_string();
    let endpoint = format!("{}:{port}", fleet.lab().address(other.machine)?);
    let allowed = format!("{}/128", other.address);
    let key = key_path.to_str().context("a path that is no text")?;
    let set = [
        "set",
        &own.interface,
        "listen-port",
        &port,
        "private-key",
        key,
        "peer",
        &other.public,
        "endpoint",
        &endpoint,
        "allowed-ips",
        &allowed,
    ];
    // Its socket appears when it is ready.
    wait_until(PATIENCE, || wg(&set, "")).context("`wireguard-go` does not come up")?;
    fleet.namespace(own.machine)?.run(|| {
        let mut links = Links::open()?;
        let index = Links::index_of(&own.interface).context("no interface")?;
        links.set_mtu(index, mtu)?;
        links.set_up(index, true)?;
        links.add_address(index, IpNet::new(own.address.into(), 128)?)?;
        links.add_route(index, IpNet::new(other.address.into(), 128)?, None, None)?;
        Ok(())
    })?;
    Ok(process)
}

fn wg(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    use std::io::Write as _;
    let mut child = Command::new("wg")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `wg`")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "`wg {}` failed: {words}",
        arguments[0]
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
