//! A machine behind a random NAT is reached through the port that its router maps to it: a real router
//! (miniupnpd on nftables), by PCP, NAT-PMP and UPnP.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, and its helpers"
)]

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use mesh_api::{MappingProtocol, PathKind, PortMappingStatus, Status};
use mesh_lab::{Cage, Fleet, Namespace, Process, Router, wait_until};
use mesh_tests::{PATIENCE, assert_reaches, fleet, start};

/// Long enough for all that is tried to make a pair straight, so that one still relayed stays so.
const BURST: Duration = Duration::from_secs(3);

/// How long a router runs before it is asked, so that its clock has gone back by more than a second when it starts anew:
/// by less, and it is taken for the same (RFC 6887 section 8.5).
const ROUTER_RUNS: Duration = Duration::from_secs(3);

/// The router's address outside, which others have a route to. miniupnpd maps nothing for addresses that are
/// not the internet's, those for documentation included; this one stays in the test's namespaces.
const OUTSIDE: &str = "11.0.0.2";

/// What miniupnpd fills, and the way for what it maps.
const TABLE: &str = "
table inet miniupnpd {
  chain forward { type filter hook forward priority filter; jump miniupnpd; }
  chain miniupnpd { }
  chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
  chain prerouting_miniupnpd { }
  chain postrouting { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
  chain postrouting_miniupnpd { }
}
add rule inet router pass ct status dnat accept
";

/// Questions that do not arrive: by their first byte, the version.
const NO_PCP: &str = "table ip deaf { chain in { type filter hook input priority filter - 1; udp dport 5351 @th,64,8 2 drop; }; }";
const NO_NAT_PMP: &str = "table ip deaf { chain in { type filter hook input priority filter - 1; udp dport 5351 @th,64,8 0 drop; }; }";

/// galena behind a router that maps ports, pyrite behind one that does not, and cinnabar, which relays.
struct Scene {
    fleet: Fleet,
    cage: Cage,
    router: Option<Process>,
    protocol: MappingProtocol,
}

impl Scene {
    fn new(protocol: MappingProtocol) -> Option<Self> {
        if Command::new("miniupnpd").arg("--version").output().is_err() {
            println!(
                "skipped: `miniupnpd` is not installed (Debian's package `miniupnpd-nftables`)"
            );
            return None;
        }
        let mut fleet = fleet(&["cinnabar", "galena", "pyrite"])?;
        fleet
            .lab()
            .put_behind("galena", Router::MasqueradeRandom)
            .unwrap();
        fleet
            .lab()
            .put_behind("pyrite", Router::MasqueradeRandom)
            .unwrap();
        let mut scene = Self {
            fleet,
            cage: Cage::new().unwrap(),
            router: None,
            protocol,
        };
        let filter = match protocol {
            MappingProtocol::Pcp => NO_NAT_PMP,
            MappingProtocol::NatPmp => NO_PCP,
            MappingProtocol::Upnp => "",
        };
        let outside = format!("ip address add {OUTSIDE}/32 dev eth0");
        run(scene.namespace("galena"), "sh", &["-c", &outside], "");
        run(scene.namespace("galena"), "nft", &["-f", "-"], TABLE);
        run(scene.namespace("galena"), "nft", &["-f", "-"], filter);
        let way = format!("ip route add {OUTSIDE}/32 dev eth0");
        run(scene.namespace("pyrite"), "sh", &["-c", &way], "");
        let cinnabar = scene.fleet.namespace("cinnabar").unwrap();
        run(cinnabar, "sh", &["-c", &way], "");
        scene.start_router();
        Some(scene)
    }

    /// The router in front of a machine.
    fn namespace(&mut self, name: &str) -> &Namespace {
        let lab = self.fleet.lab();
        let site = lab.site_of(name).unwrap();
        lab.gateway(site)
    }

    fn start_router(&mut self) {
        let (natpmp, upnp) = match self.protocol {
            MappingProtocol::Pcp | MappingProtocol::NatPmp => ("yes", "no"),
            MappingProtocol::Upnp => ("no", "yes"),
        };
        let config = format!(
            "ext_ifname=eth0\next_ip={OUTSIDE}\nlistening_ip=lan0\nhttp_port=5000\n\
             enable_natpmp={natpmp}\nenable_upnp={upnp}\nsecure_mode=yes\nsystem_uptime=no\n\
             uuid=00000000-0000-0000-0000-000000000001\n\
             upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\n\
             upnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\n\
             upnp_nat_postrouting_chain=postrouting_miniupnpd\n\
             allow 1024-65535 10.0.0.0/8 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
        );
        let file = |name: &str| self.fleet.dir().join(name);
        let (config_path, pid_path, log_path) = (
            file("miniupnpd.conf"),
            file("miniupnpd.pid"),
            self.log_path(),
        );
        std::fs::write(&config_path, config).unwrap();
        let mut command = Command::new("miniupnpd");
        command.arg("-d").arg("-f").arg(config_path);
        command.arg("-P").arg(pid_path);
        let site = self.fleet.lab().site_of("galena").unwrap();
        let namespace = self.fleet.lab().gateway(site);
        let process = self.cage.start("miniupnpd", command, namespace, &log_path);
        self.router = Some(process.unwrap());
    }

    /// As after a loss of power: the mappings are gone.
    fn restart_router(&mut self) {
        self.router.take().unwrap().kill().unwrap();
        let flush = "flush chain inet miniupnpd miniupnpd\nflush chain inet miniupnpd prerouting_miniupnpd\n";
        run(self.namespace("galena"), "nft", &["-f", "-"], flush);
        assert!(!self.maps());
        self.start_router();
    }

    fn log_path(&self) -> PathBuf {
        self.fleet.dir().join("miniupnpd.log")
    }

    /// Whether the kernel sends something on to galena.
    fn maps(&mut self) -> bool {
        let rules = self.namespace("galena").run(|| {
            let mut list = Command::new("nft");
            list.args(["list", "chain", "inet", "miniupnpd", "prerouting_miniupnpd"]);
            Ok(String::from_utf8(list.output()?.stdout)?)
        });
        rules.unwrap().contains("dnat")
    }

    fn mapping(&self) -> PortMappingStatus {
        let status: Status = self.fleet.status("galena").unwrap();
        status.port_mapping.unwrap()
    }

    fn wait_mapped(&self) {
        wait_until(PATIENCE, || {
            let mapping = self.mapping();
            match mapping.external {
                Some(_) => Ok(()),
                None => Err(Box::new(mapping)),
            }
        })
        .unwrap();
    }

    fn wait_kernel_maps(&mut self) {
        let log_path = self.log_path();
        wait_until(PATIENCE, || {
            if self.maps() {
                return Ok(());
            }
            let log = std::fs::read_to_string(&log_path).unwrap();
            Err(Box::new(log))
        })
        .unwrap();
    }

    fn path(&self) -> Option<PathKind> {
        let status = self.fleet.status("pyrite").unwrap();
        let galena = status
            .peers
            .iter()
            .find(|peer| peer.name.as_str() == "galena");
        galena.unwrap().path
    }

    fn becomes_straight(&self) {
        wait_until(PATIENCE, || {
            assert_reaches(&self.fleet, "pyrite", "galena");
            match self.path() {
                Some(PathKind::Direct) => Ok(()),
                path => Err(Box::new(path)),
            }
        })
        .unwrap();
    }
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str], input: &str) {
    let ran = namespace.run(|| {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(child.wait()?)
    });
    assert!(ran.unwrap().success(), "{program} {arguments:?}\n{input}");
}

/// Two random NATs: relayed, were it not for the router's port.
fn a_mapped_port_makes_the_pair_straight(protocol: MappingProtocol) {
    let Some(mut scene) = Scene::new(protocol) else {
        return;
    };
    start(&mut scene.fleet);
    scene.wait_mapped();
    let mapping = scene.mapping();
    assert_eq!(mapping.protocol, Some(protocol), "{mapping:?}");
    let external = mapping.external.unwrap();
    assert_eq!(external.ip().to_string(), OUTSIDE);
    let lease = mapping.lease_seconds.unwrap();
    assert!((1700..=1800).contains(&lease), "{mapping:?}");
    assert!(scene.maps());
    scene.becomes_straight();
    // The port is the mapped one: the router's NAT gives random ones. The address may be its other one, of which
    // the controller tells, as miniupnpd maps the port at all addresses.
    let status = scene.fleet.status("pyrite").unwrap();
    let galena = status
        .peers
        .iter()
        .find(|peer| peer.name.as_str() == "galena");
    let endpoint = galena.unwrap().endpoint.unwrap();
    assert_eq!(endpoint.port(), external.port(), "{endpoint}");
    let agent = scene.fleet.agent_process("galena").unwrap();
    agent.terminate(PATIENCE).unwrap();
    assert!(!scene.maps(), "a stopped agent gives the port back");
}

#[test]
fn a_port_mapped_by_pcp_makes_a_pair_straight_and_goes_with_the_agent() {
    a_mapped_port_makes_the_pair_straight(MappingProtocol::Pcp);
}

#[test]
fn a_port_mapped_by_nat_pmp_makes_a_pair_straight_and_goes_with_the_agent() {
    a_mapped_port_makes_the_pair_straight(MappingProtocol::NatPmp);
}

#[test]
fn a_port_mapped_by_upnp_makes_a_pair_straight_and_goes_with_the_agent() {
    a_mapped_port_makes_the_pair_straight(MappingProtocol::Upnp);
}

#[test]
fn a_router_that_starts_anew_is_asked_again() {
    let Some(mut scene) = Scene::new(MappingProtocol::Pcp) else {
        return;
    };
    thread::sleep(ROUTER_RUNS);
    start(&mut scene.fleet);
    scene.wait_mapped();
    scene.restart_router();
    scene.wait_kernel_maps();
    scene.becomes_straight();
}

#[test]
fn switched_off_no_port_is_asked_for_and_the_pair_stays_relayed() {
    let Some(mut scene) = Scene::new(MappingProtocol::Pcp) else {
        return;
    };
    let path = scene.fleet.files("galena").unwrap().agent_config_path();
    let mut config = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    config.write_all(b"port_mapping = false\n").unwrap();
    start(&mut scene.fleet);
    assert_reaches(&scene.fleet, "pyrite", "galena");
    let end = std::time::Instant::now() + BURST;
    while std::time::Instant::now() < end {
        assert_reaches(&scene.fleet, "pyrite", "galena");
        assert_eq!(scene.path(), Some(PathKind::Relayed));
    }
    assert!(!scene.maps());
    let reason = scene.mapping().reason.unwrap();
    assert!(reason.contains("port_mapping = false"), "{reason}");
}
