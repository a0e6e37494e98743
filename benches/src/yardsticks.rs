//! Other overlays between two machines of a lab, each as it is after its installation: what the mesh is compared with.

mod nebula;
mod tinc;
mod wireguard;

use std::{fmt, net::IpAddr, process::Command, time::Duration};

use anyhow::Context as _;
use ipnet::IpNet;
use mesh_lab::{Cage, Fleet, Process, ping::Pinger, wait_until};
use mesh_os::link::Links;

/// How long it takes at most until something is there.
const PATIENCE: Duration = Duration::from_secs(20);

/// An overlay that may be installed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yardstick {
    WireguardGo,
    Boringtun,
    Nebula,
    Tinc,
}

/// A tunnel of a yardstick; it goes when dropped.
pub(crate) struct Tunnel {
    ends: [Process; 2],
    /// The address of the second machine in it.
    pub(crate) to: IpAddr,
    _cage: Cage,
}

/// Which machines a tunnel joins, and what tells it from other tunnels between them.
#[derive(Clone, Copy)]
struct Place<'a> {
    machines: [&'a str; 2],
    number: u8,
}

impl Yardstick {
    pub(crate) const ALL: [Self; 4] =
        [Self::WireguardGo, Self::Boringtun, Self::Nebula, Self::Tinc];

    const fn program(self) -> &'static str {
        match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
            Self::Nebula => "nebula",
            Self::Tinc => "tincd",
        }
    }

    /// What its program says of itself; `None` if there is none.
    pub(crate) fn version(self) -> Option<String> {
        let argument = match self {
            Self::Nebula => "-version",
            Self::WireguardGo | Self::Boringtun | Self::Tinc => "--version",
        };
        let output = Command::new(self.program()).arg(argument).output().ok()?;
        let words = String::from_utf8(output.stdout).ok()?;
        let mut words = words.split([' ', '\n']);
        // The first word that begins as a number does, a `v` before it or not.
        let version = words.find(|word| {
            let number = word.strip_prefix('v').unwrap_or(word);
            number.starts_with(|first: char| first.is_ascii_digit())
        })?;
        Some(version.trim_start_matches('v').to_owned())
    }

    /// Joins two machines; `number` tells its interfaces and addresses from those of other tunnels.
    pub(crate) fn join(
        self,
        fleet: &mut Fleet,
        machines: [&str; 2],
        number: u8,
    ) -> anyhow::Result<Tunnel> {
        let cage = Cage::new()?;
        let place = Place { machines, number };
        let (ends, to) = match self {
            Self::WireguardGo | Self::Boringtun => {
                wireguard::join(self.program(), fleet, &cage, place)?
            }
            Self::Nebula => nebula::join(fleet, &cage, place)?,
            Self::Tinc => tinc::join(fleet, &cage, place)?,
        };
        let tunnel = Tunnel {
            ends,
            to,
            _cage: cage,
        };
        let pinger = Pinger::new(fleet.namespace(machines[0])?)?;
        let reply = pinger.ping(to, PATIENCE)?;
        reply.with_context(|| {
            let [first, second] = &tunnel.ends;
            format!("`{self}` does not come up: {}{}", first.log(), second.log())
        })?;
        Ok(tunnel)
    }
}

impl fmt::Display for Yardstick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Nebula => "Nebula",
            Self::Tinc => "tinc",
        })
    }
}

impl Tunnel {
    /// The processes at its ends.
    pub(crate) fn daemons(&self) -> [u32; 2] {
        [self.ends[0].id(), self.ends[1].id()]
    }
}

impl Place<'_> {
    /// The name of an end's interface. Sockets are named after it, and these are one for all namespaces.
    fn interface(self, side: usize) -> String {
        format!("bench{}s{}", self.number, side + 1)
    }

    /// The UDP port at both ends.
    fn port(self) -> u16 {
        51_820 + u16::from(self.number)
    }

    /// The endpoint of a machine.
    fn endpoint(self, fleet: &mut Fleet, side: usize) -> anyhow::Result<String> {
        let address = fleet.lab().address(self.machines[side])?;
        Ok(format!("{address}:{}", self.port()))
    }

    /// The addresses of the ends, where these are IPv6.
    fn address(self, side: usize) -> IpAddr {
        let side = if side == 0 { 1 } else { 2 };
        [0xfd00, 0xbe, self.number.into(), 0, 0, 0, 0, side].into()
    }

    /// Gives an end's interface its address and the route to the other end, once it is there.
    fn configure(self, fleet: &Fleet, side: usize, mtu: Option<u32>) -> anyhow::Result<()> {
        let interface = self.interface(side);
        fleet.namespace(self.machines[side])?.run(|| {
            let mut links = Links::open()?;
            let index = wait_until(PATIENCE, || {
                Links::index_of(&interface).with_context(|| format!("no interface `{interface}`"))
            })?;
            if let Some(mtu) = mtu {
                links.set_mtu(index, mtu)?;
            }
            links.set_up(index, true)?;
            links.add_address(index, IpNet::new(self.address(side), 128)?)?;
            links.add_route(index, IpNet::new(self.address(1 - side), 128)?, None, None)?;
            Ok(())
        })
    }
}

/// Runs a tool of a yardstick to its end, and returns what it prints.
fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run `{name}`"))?;
    anyhow::ensure!(
        output.status.success(),
        "`{name}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
