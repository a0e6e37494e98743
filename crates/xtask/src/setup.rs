//! What the tests need beside Rust and a C compiler: installed from Debian's packages where that is
//! allowed, named otherwise.

use std::{env, fs, path::Path, process::Command};

use crate::process::{is_installed, root, run};

/// A program that some tests need.
struct Tool {
    program: &'static str,
    /// How it gets here.
    source: Source,
    /// The tests that are skipped without it.
    tests: &'static str,
}

enum Source {
    /// A package of Debian 12.
    Debian(&'static str),
    /// A script of ours, relative to the workspace.
    Script(&'static str),
}

const TOOLS: &[Tool] = &[
    Tool {
        program: "ip",
        source: Source::Debian("iproute2"),
        tests: "what a stopped agent leaves behind",
    },
    Tool {
        program: "nft",
        source: Source::Debian("nftables"),
        tests: "machines behind the kernel's NATs",
    },
    Tool {
        program: "miniupnpd",
        // Without recommended packages: no service of the distribution's is set up or started.
        source: Source::Debian("miniupnpd-nftables"),
        tests: "a router that maps ports",
    },
    Tool {
        program: "ssh-keygen",
        source: Source::Debian("openssh-client"),
        tests: "rosters signed and verified by OpenSSH",
    },
    Tool {
        program: "ssh-agent",
        source: Source::Debian("openssh-client"),
        tests: "rosters signed through ssh-agent",
    },
    Tool {
        program: "jq",
        source: Source::Debian("jq"),
        tests: "rosters read by other programs",
    },
    Tool {
        program: "wireguard-go",
        source: Source::Debian("wireguard-go"),
        tests: "the engine against wireguard-go",
    },
    Tool {
        program: "wg",
        source: Source::Debian("wireguard-tools"),
        tests: "the engine against wireguard-go",
    },
    Tool {
        program: "ping",
        source: Source::Debian("iputils-ping"),
        tests: "the engine against wireguard-go",
    },
    Tool {
        program: "dig",
        source: Source::Debian("bind9-dnsutils"),
        tests: "names as a judge of DNS reads them",
    },
    Tool {
        program: "iperf3",
        source: Source::Debian("iperf3"),
        tests: "throughput beside wireguard-go",
    },
    Tool {
        program: "promtool",
        // Without recommended packages; its service is not started by an installation in a container.
        source: Source::Debian("prometheus"),
        tests: "metrics, and alarms on them, as Prometheus reads them",
    },
    Tool {
        program: "valgrind",
        source: Source::Debian("valgrind"),
        tests: "instructions of the inner loops",
    },
    Tool {
        program: "mount",
        source: Source::Debian("mount"),
        tests: "full disks",
    },
    Tool {
        program: "dpkg-shlibdeps",
        source: Source::Debian("dpkg-dev"),
        tests: "the Debian package",
    },
    Tool {
        program: "systemd-nspawn",
        source: Source::Debian("systemd-container"),
        tests: "units in a booted system",
    },
    Tool {
        program: "nix-instantiate",
        source: Source::Script("tests/setup/install-nix.sh"),
        tests: "addresses and inventories in Nix, the Nix modules",
    },
    Tool {
        program: "/opt/mesh-resolvers/with-unbound",
        source: Source::Script("tests/setup/resolver/packages.sh"),
        tests: "split DNS with real resolvers",
    },
];

/// Installs what is missing, as root on Debian; else says what is, and which tests are skipped for it.
pub(crate) fn run_setup() -> anyhow::Result<()> {
    let missing = || TOOLS.iter().filter(|tool| !is_installed(tool.program));
    if missing().next().is_some() && may_install() {
        let mut packages: Vec<&str> = missing()
            .filter_map(|tool| match tool.source {
                Source::Debian(package) => Some(package),
                Source::Script(_) => None,
            })
            .collect();
        packages.dedup();
        if !packages.is_empty() {
            run(apt().args(["update", "-qq"]))?;
            run(apt()
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(packages))?;
        }
        for tool in missing() {
            if let Source::Script(script) = tool.source {
                run(Command::new("bash").arg(root().join(script)))?;
            }
        }
    }
    for tool in missing() {
        println!(
            "missing: `{}` ({}); skipped: {}",
            tool.program,
            tool.hint(),
            tool.tests
        );
    }
    Ok(())
}

impl Tool {
    fn hint(&self) -> String {
        match self.source {
            Source::Debian(package) => format!("Debian's package `{package}`"),
            Source::Script(script) => format!("`{script}` installs it, as root"),
        }
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Root on Debian. `MESH_NO_SETUP` keeps the machine as it is.
fn may_install() -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    });
    is_root && Path::new("/etc/debian_version").exists() && env::var_os("MESH_NO_SETUP").is_none()
}
