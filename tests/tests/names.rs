//! Names, as `dig` sees them: another reader of what an agent answers.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, and its helpers"
)]

use std::{
    net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use mesh_api::Names;
use mesh_lab::Fleet;
use mesh_tests::{PATIENCE, SHORT, fleet};
use serde_json::json;

/// Two machines and their names; the controller is cinnabar. `None`: this system cannot run it.
fn named() -> Option<Fleet> {
    let mut fleet = fleet(&["cinnabar", "galena"])?;
    if Command::new("dig").arg("-v").output().is_err() {
        println!("skipped: there is no `dig`");
        return None;
    }
    fleet
        .edit_inventory(|inventory| {
            inventory["network"]["domain"] = "zt".into();
            inventory["network"]["ipv4"] = "100.64.7.0/24".into();
            let machines = &mut inventory["machines"];
            machines["cinnabar"]["mesh"] =
                json!({ "aliases": ["kanban", "*.apps"], "ipv4": "100.64.7.1" });
            machines["galena"]["mesh"] = json!({ "ipv4": "100.64.7.2" });
            machines["scheelite"] = json!({ "enabled": false });
        })
        .unwrap();
    Some(fleet)
}

fn started() -> Option<Fleet> {
    let mut fleet = named()?;
    fleet.start().unwrap();
    fleet.wait_admitted(PATIENCE).unwrap();
    Some(fleet)
}

/// What `dig` prints on `on` when it asks the agent there.
fn dig(fleet: &Fleet, on: &str, question: &str) -> String {
    let server = format!("@{}", fleet.address(on).unwrap());
    dig_at(fleet, on, &server, question)
}

fn dig_at(fleet: &Fleet, on: &str, server: &str, question: &str) -> String {
    let mut command = Command::new("dig");
    command
        .args([server, "+tries=2", "+time=3", "+norecurse"])
        .args(question.split(' '));
    let output = fleet.run_on(on, &mut command).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The data of the answer alone.
fn short(fleet: &Fleet, on: &str, question: &str) -> Vec<String> {
    let printed = dig(fleet, on, &format!("+short {question}"));
    printed.lines().map(str::to_owned).collect()
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(!text.contains("WARNING"), "{text}");
}

/// Waits until galena's agent answers what `wanted` takes.
fn wait_for(fleet: &Fleet, question: &str, wanted: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = short(fleet, "galena", question);
        if wanted(&told) {
            return;
        }
        assert!(Instant::now() < deadline, "{question}: {told:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn dig_understands_every_kind_of_answer_over_udp_and_tcp() {
    let Some(fleet) = started() else {
        return;
    };
    let cinnabar = fleet.address("cinnabar").unwrap().to_string();
    for transport in ["+notcp", "+tcp", "+notcp +noedns"] {
        let told = |question: &str| short(&fleet, "galena", &format!("{transport} {question}"));
        assert_eq!(told("cinnabar.zt AAAA"), [cinnabar.as_str()], "{transport}");
        assert_eq!(told("CINNABAR.zt A"), ["100.64.7.1"]);
        assert_eq!(told("kanban.zt AAAA"), [cinnabar.as_str()]);
        assert_eq!(told("a.b.apps.zt AAAA"), [cinnabar.as_str()]);
        assert_eq!(told(&format!("-x {cinnabar}")), ["cinnabar.zt."]);
        assert_eq!(told("-x 100.64.7.2"), ["galena.zt."]);
        assert_eq!(told("zt NS"), ["galena.zt."]);
        assert_eq!(told("scheelite.zt AAAA").len(), 1);
        assert_eq!(told("cinnabar.zt ANY"), [cinnabar.as_str()]);
        assert!(told("zt SOA")[0].starts_with("galena.zt. hostmaster.zt. "));

        let full = |question: &str| dig(&fleet, "galena", &format!("{transport} {question}"));
        has(
            &full("nobody.zt AAAA"),
            &["status: NXDOMAIN", "flags: qr aa;", "hostmaster.zt."],
        );
        has(
            &full("apps.zt AAAA"),
            &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"],
        );
        has(
            &full("example.org A"),
            &["status: REFUSED", "flags: qr;", "ANSWER: 0"],
        );
        has(&full("zt AXFR +nocmd"), &["Transfer failed"]);
        has(&full("+qr version.bind TXT CH"), &["status: REFUSED"]);
    }
    let edns = |more: &str| dig(&fleet, "galena", &format!("{more} cinnabar.zt AAAA"));
    has(&edns("+bufsize=4096"), &["EDNS: version: 0", "udp: 1232"]);
    has(
        &edns("+edns=1 +noednsnegotiation"),
        &["status: BADVERS", "EDNS: version: 0"],
    );
    has(&edns("+opcode=NOTIFY"), &["status: NOTIMP"]);
    has(
        &edns("+cookie +nsid +subnet=192.0.2.0/24"),
        &["status: NOERROR"],
    );
    // The IPv4 address answers as well, and so does another machine's agent through the tunnel.
    let other = dig_at(&fleet, "galena", "@100.64.7.2", "+short kanban.zt A");
    assert_eq!(other.trim(), "100.64.7.1");
    let other = format!("@{cinnabar}");
    for transport in ["+notcp", "+tcp"] {
        let question = format!("+short {transport} galena.zt A");
        let told = dig_at(&fleet, "galena", &other, &question);
        assert_eq!(told.trim(), "100.64.7.2");
    }
}

#[test]
fn names_follow_the_roster_and_need_no_controller() {
    let Some(mut fleet) = started() else {
        return;
    };
    let galena = fleet.address("galena").unwrap().to_string();
    wait_for(&fleet, "scheelite.zt AAAA", |told| told.len() == 1);
    fleet
        .edit_inventory(|inventory| {
            inventory["machines"]
                .as_object_mut()
                .unwrap()
                .remove("scheelite");
            inventory["machines"]["galena"]["mesh"]["aliases"] = json!(["wiki"]);
        })
        .unwrap();
    wait_for(&fleet, "wiki.zt AAAA", |told| told == [galena.as_str()]);
    assert!(short(&fleet, "galena", "scheelite.zt AAAA").is_empty());

    fleet.controller_process().unwrap().kill().unwrap();
    let agent = fleet.agent_process("galena").unwrap();
    agent.terminate(PATIENCE).unwrap();
    fleet.start_agent("galena").unwrap();
    wait_for(&fleet, "wiki.zt AAAA", |told| told == [galena.as_str()]);
}

#[test]
fn another_address_is_answered_at_and_the_old_one_is_not() {
    let Some(mut fleet) = started() else {
        return;
    };
    let pinned: Ipv6Addr = "fdc3:582e:db61::77".parse().unwrap();
    let network = fleet.inventory()["network"]["id"].clone();
    let network: mesh_types::NetworkId = serde_json::from_value(network).unwrap();
    let mut segments = network.prefix().net().network().segments();
    segments[7] = pinned.segments()[7];
    let pinned = Ipv6Addr::from(segments);
    fleet
        .edit_inventory(|inventory| {
            inventory["machines"]["galena"]["mesh"]["address"] = pinned.to_string().into();
        })
        .unwrap();
    let listening = |status: &mesh_api::Status| {
        let at = status.dns.as_ref().and_then(|dns| dns.listening);
        at == Some(SocketAddr::from((pinned, 53)))
    };
    fleet
        .wait_status("galena", PATIENCE, "answers at its pin", listening)
        .unwrap();
    let server = format!("@{pinned}");
    let told = dig_at(&fleet, "galena", &server, "+short galena.zt AAAA");
    assert_eq!(told.trim(), pinned.to_string());
}

#[test]
fn a_neighbour_outside_the_mesh_is_not_answered() {
    let Some(mut fleet) = started() else {
        return;
    };
    // Beside galena on the same network, and sending to its mesh address through no tunnel.
    fleet.lab().add("stranger").unwrap();
    let galena = fleet.address("galena").unwrap();
    let near = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    let on_stranger = |arguments: &[&str]| {
        let mut command = Command::new("ip");
        command.args(arguments);
        let output = fleet.run_on("stranger", &mut command).unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    on_stranger(&[
        "-6",
        "route",
        "add",
        &format!("{galena}/128"),
        "via",
        &near.to_string(),
    ]);
    let namespace = fleet.namespace("stranger").unwrap();
    let at = SocketAddr::from((galena, 53));
    namespace
        .run(|| {
            let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x02zt\0\0\x06\0\x01";
            let socket = UdpSocket::bind("[::]:0")?;
            socket.set_read_timeout(Some(SHORT))?;
            // Refused by the system itself, or silence; never an answer.
            socket.connect(at)?;
            let mut reply = [0; 512];
            let heard = socket.send(question).and_then(|_| socket.recv(&mut reply));
            assert!(heard.is_err(), "{heard:?}");
            let connected = TcpStream::connect_timeout(&at, SHORT);
            assert!(connected.is_err(), "{connected:?}");
            Ok(())
        })
        .unwrap();
    // What was sent did arrive: the system itself answers at that address.
    let mut ping = Command::new("ping");
    ping.args(["-c", "1", "-W", "3", &galena.to_string()]);
    let output = fleet.run_on("stranger", &mut ping).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_taken_port_is_named_and_had_as_soon_as_it_is_free() {
    let Some(mut fleet) = named() else {
        return;
    };
    let namespace = fleet.namespace("galena").unwrap();
    let holder = namespace.run(|| Ok(UdpSocket::bind("[::]:53")?)).unwrap();
    fleet.start().unwrap();
    let taken = |status: &mesh_api::Status| {
        let reason = status.dns.as_ref().and_then(|dns| dns.reason.clone());
        // Which process it is, a confined agent may not see.
        reason.is_some_and(|reason| reason.contains("UDP port 53 is in use by another"))
    };
    fleet
        .wait_status("galena", PATIENCE, "names who has the port", taken)
        .unwrap();
    let path = fleet.files("galena").unwrap().agent_socket();
    let path = path.with_file_name("names.json");
    let names = || -> Names { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
    assert!(!names().answering);
    drop(holder);
    fleet
        .wait_status("galena", PATIENCE, "answers names", |status| {
            status
                .dns
                .as_ref()
                .is_some_and(|dns| dns.listening.is_some())
        })
        .unwrap();
    let names = names();
    assert!(names.answering && names.names.contains_key("kanban.zt"));
    assert!(names.wildcards.contains_key("*.apps.zt"));
    let agent = fleet.agent_process("galena").unwrap();
    agent.terminate(PATIENCE).unwrap();
    assert!(!path.exists());
}

#[test]
fn hosts_are_told_by_the_agent_and_by_a_roster_alike() {
    let Some(mut fleet) = fleet(&["cinnabar", "galena"]) else {
        return;
    };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDVM0wBmSKsgpf16fE10MiWgVzS2cPsnkUVCCb5S4wk";
    fleet
        .edit_inventory(|inventory| {
            inventory["machines"]["galena"]["sshHostKeys"] = json!([format!("{key} root@galena")]);
        })
        .unwrap();
    fleet.store_rosters(1).unwrap();
    fleet.start_agent("galena").unwrap();
    let socket = fleet.files("galena").unwrap().agent_socket();
    let roster = fleet.dir().join("roster.json");
    let galena = fleet.address("galena").unwrap();
    for format in ["hosts", "ssh", "json", "nix"] {
        let hosts = |option: &str, path: &std::path::Path| {
            let path = path.to_str().unwrap();
            let output = fleet
                .mesh("galena", &["hosts", "--format", format, option, path])
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let told = hosts("--socket", &socket);
        assert_eq!(told, hosts("--roster", &roster));
        assert!(told.contains(&galena.to_string()), "{told}");
        if format != "hosts" {
            assert!(told.contains(key), "{told}");
        }
    }
    if Command::new("ssh-keygen").arg("-?").output().is_ok() {
        let path = fleet.dir().join("known_hosts");
        let output = fleet
            .mesh(
                "galena",
                &[
                    "hosts",
                    "--format",
                    "ssh",
                    "--socket",
                    socket.to_str().unwrap(),
                ],
            )
            .unwrap();
        std::fs::write(&path, output.stdout).unwrap();
        let mut find = Command::new("ssh-keygen");
        find.arg("-F").arg(galena.to_string()).arg("-f").arg(&path);
        let found = fleet.run_on("galena", &mut find).unwrap();
        assert!(found.status.success(), "{found:?}");
    }
}
