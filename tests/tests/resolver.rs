//! The machine's resolver asks the agent for the mesh and nobody else, with real resolvers in a booted
//! system; the scripts are in `setup/resolver/`.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]
#![expect(clippy::print_stdout, reason = "a skipped test says so, and why")]

use std::{
    fs,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use mesh_api::Names;
use mesh_types::{MachineName, NetworkId};

const NETWORK: &str = "000102030405060708090a0b0c0d0e0f";

/// A booted system may fill a gibibyte of memory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn systemd_resolved_asks_the_agent_for_the_mesh_alone() {
    boot("resolved.sh", Agent::StandIn);
}

#[test]
fn openresolv_is_used_where_it_can_split_and_the_hosts_file_elsewhere() {
    boot("openresolv.sh", Agent::StandIn);
}

#[test]
fn unbound_asks_the_agent_by_what_openresolv_writes() {
    boot("unbound.sh", Agent::StandIn);
}

#[test]
fn the_units_set_and_undo_the_resolver_with_the_agent() {
    boot("units.sh", Agent::StandIn);
}

#[test]
fn programs_find_the_names_of_a_running_agent() {
    boot("agent.sh", Agent::Real);
}

/// What `mesh-agent.service` starts.
#[derive(PartialEq)]
enum Agent {
    /// The agent.
    Real,
    /// A script that writes the names as the agent does, beside a DNS server that writes down what it is
    /// asked.
    StandIn,
}

fn setup() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("setup")
}

/// Boots a system with the program, a signed roster and the names of an agent on cinnabar, and runs `script`
/// in it.
fn boot(script: &str, agent: Agent) {
    if let Some(reason) = unavailable() {
        println!("skipped: {reason}");
        return;
    }
    let _one = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let scripts = setup().join("resolver");
    let program = mesh_lab::program_under_test().unwrap();
    let dir = tempfile::tempdir().unwrap();
    write_fleet(&program, dir.path());

    let systemd = setup().join("../../systemd");
    let mut unit_of_agent = fs::read_to_string(systemd.join("mesh-agent.service")).unwrap();
    if agent == Agent::StandIn {
        let (relations, _) = unit_of_agent.split_once("[Service]").unwrap();
        unit_of_agent = format!(
            "{relations}[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/bash /stand-in.sh\nRestart=always\nRestartSec=1s\n"
        );
    }
    fs::write(dir.path().join("mesh-agent.service"), unit_of_agent).unwrap();

    let mut command = Command::new("bash");
    command.arg(setup().join("boot-units.sh"));
    let mut copy = |from: PathBuf, to: &str| {
        command.arg("-b").arg(format!("{}={to}", from.display()));
    };
    copy(program, "/usr/bin/mesh");
    copy(dir.path().join("names.json"), "/names.json");
    copy(dir.path().join("agent.toml"), "/etc/mesh/agent.toml");
    copy(dir.path().join("identity"), "/etc/mesh/identity");
    copy(
        dir.path().join("roster.json"),
        "/var/lib/mesh/agent/roster.json",
    );
    for name in ["answer.py", "common.sh", "stand-in.sh"] {
        copy(scripts.join(name), &format!("/{name}"));
    }
    let unit = |name: &str| format!("/etc/systemd/system/{name}");
    copy(
        dir.path().join("mesh-agent.service"),
        &unit("mesh-agent.service"),
    );
    copy(
        systemd.join("mesh.sysusers.conf"),
        "/usr/lib/sysusers.d/mesh.conf",
    );
    copy(
        systemd.join("mesh.tmpfiles.conf"),
        "/usr/lib/tmpfiles.d/mesh.conf",
    );
    for name in [
        "mesh-online.target",
        "mesh-resolver.path",
        "mesh-resolver.service",
        "mesh-resolver-refresh.service",
    ] {
        copy(systemd.join(name), &unit(name));
    }
    command.arg("--").arg(scripts.join(script));
    run(&mut command);
}

/// An admin's key, a signed roster of cinnabar and galena, and what an agent on cinnabar would write.
fn write_fleet(program: &Path, dir: &Path) {
    let network: NetworkId = NETWORK.parse().unwrap();
    run(Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(dir.join("admin")));
    let admin = fs::read_to_string(dir.join("admin.pub")).unwrap();
    let identity = dir.join("identity");
    run(Command::new(program)
        .args(["keygen", "--machine", "cinnabar", "--out"])
        .arg(&identity));
    let public = Command::new(program)
        .args(["keygen", "--public"])
        .arg(&identity)
        .output()
        .unwrap();
    let inventory = serde_json::json!({
        "version": "mesh/v1",
        "network": {
            "id": network, "name": "test", "domain": "mesh", "signers": [admin.trim()]
        },
        "machines": {
            "cinnabar": { "publicKey": String::from_utf8(public.stdout).unwrap().trim() },
            "galena": {}
        },
        "instances": { "mesh": { "roles": {
            "controller": { "machines": { "cinnabar": {} } },
            "peer": { "tags": { "all": {} } }
        } } }
    });
    fs::write(dir.join("inventory.json"), inventory.to_string()).unwrap();
    run(Command::new(program)
        .args(["inventory", "sign", "--serial", "1", "--key"])
        .arg(dir.join("admin"))
        .arg("--out")
        .arg(dir.join("roster.json"))
        .arg(dir.join("inventory.json")));
    let config = format!(
        "network = \"{network}\"\nsigners = [\"{}\"]\ncontrollers = []\n",
        admin.trim()
    );
    fs::write(dir.join("agent.toml"), config).unwrap();

    let address = |name: &str| -> Ipv6Addr {
        let name: MachineName = name.parse().unwrap();
        network.address_of(&name).unwrap()
    };
    let names = Names {
        version: mesh_api::VERSION,
        network,
        serial: 1.try_into().unwrap(),
        domain: "mesh".to_owned(),
        interface: "mesh0".to_owned(),
        address: address("cinnabar"),
        ipv4: None,
        prefix: network.prefix().net(),
        pool: None,
        answering: true,
        names: ["cinnabar", "galena"]
            .map(|name| (format!("{name}.mesh"), vec![address(name).into()]))
            .into(),
        wildcards: [].into(),
    };
    fs::write(
        dir.join("names.json"),
        serde_json::to_string(&names).unwrap(),
    )
    .unwrap();
}

/// Why a Debian system with systemd cannot be booted here.
fn unavailable() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() || mesh_lab::sandbox::is_user_namespace() {
        return Some("booting systemd needs root");
    }
    if !Path::new("/etc/debian_version").exists() {
        return Some("the resolvers come as Debian's packages");
    }
    if !Path::new("/opt/mesh-resolvers/with-unbound").exists() {
        return Some("needs `/opt/mesh-resolvers`, which `cargo xtask setup` makes");
    }
    None
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
