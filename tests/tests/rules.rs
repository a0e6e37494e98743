//! Rules of the inventory, in force between real machines.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use mesh_api::{RuleTest, Rules};
use mesh_lab::{Fleet, wait_until};
use mesh_tests::{PATIENCE, SHORT, assert_does_not_reach, assert_reaches, running};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["cinnabar", "galena", "pyrite"];

/// Pyrite administers galena and galena's name is asked by all; echoes go everywhere.
fn rules() -> Value {
    json!({
        "default": "deny",
        "accept": {
            "administer": { "from": ["pyrite"], "to": ["galena"], "protocol": "tcp", "ports": [22] },
            "ask": { "from": ["*"], "to": ["galena"], "protocol": "udp", "ports": ["53-54"] },
            "ping": { "from": ["*"], "to": ["*"], "protocol": "icmp" },
        },
        "tests": [
            { "from": "pyrite", "to": "galena", "port": 22, "expect": "allow" },
            { "from": "galena", "to": "pyrite", "port": 22, "expect": "deny" },
        ],
    })
}

/// Writes rules into the inventory, and waits until every machine goes by them.
fn set(fleet: &mut Fleet, rules: Option<Value>) {
    let before = fleet.status("galena").unwrap().roster.unwrap().serial;
    fleet
        .edit_inventory(|inventory| match rules {
            Some(rules) => inventory["rules"] = rules,
            None => {
                inventory.as_object_mut().unwrap().remove("rules");
            }
        })
        .unwrap();
    for name in NAMES {
        fleet
            .wait_status(name, PATIENCE, "has the new roster", |status| {
                let roster = status.roster.as_ref();
                roster.is_some_and(|roster| roster.serial > before)
            })
            .unwrap();
    }
}

/// Listens on a machine's mesh address, for as long as what is returned lives.
fn listen(fleet: &Fleet, name: &str, port: u16) -> TcpListener {
    let at = SocketAddr::from((fleet.address(name).unwrap(), port));
    let namespace = fleet.namespace(name).unwrap();
    namespace.run(|| Ok(TcpListener::bind(at)?)).unwrap()
}

/// Connects from one machine to another.
fn connect(fleet: &Fleet, from: &str, to: &str, port: u16) -> io::Result<TcpStream> {
    let at = SocketAddr::from((fleet.address(to).unwrap(), port));
    let namespace = fleet.namespace(from).unwrap();
    namespace
        .run(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)))
        .unwrap()
}

/// What a command says as JSON.
fn json_of(fleet: &Fleet, on: &str, arguments: &[&str]) -> Vec<u8> {
    let socket = fleet.files(on).unwrap().agent_socket();
    let socket = ["--json", "--socket", socket.to_str().unwrap()];
    let arguments = [arguments, &socket].concat();
    let output = fleet.mesh(on, &arguments).unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    output.stdout
}

fn test(fleet: &Fleet, from: &str, to: &str, port: &str) -> RuleTest {
    let answer = json_of(fleet, "galena", &["rule", "test", from, to, port]);
    serde_json::from_slice(&answer).unwrap()
}

#[test]
fn what_no_rule_accepts_is_refused_at_once_and_answers_pass() {
    let Some(mut fleet) = running(&NAMES) else {
        return;
    };
    set(&mut fleet, Some(rules()));
    let _listeners = [
        listen(&fleet, "galena", 22),
        listen(&fleet, "galena", 80),
        listen(&fleet, "pyrite", 22),
    ];
    connect(&fleet, "pyrite", "galena", 22).unwrap();
    let start = Instant::now();
    for (from, to, port) in [
        ("pyrite", "galena", 80),
        ("galena", "pyrite", 22),
        ("cinnabar", "galena", 22),
    ] {
        let refused = connect(&fleet, from, to, port).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "it is told at once"
    );
    for from in NAMES {
        for to in NAMES.into_iter().filter(|to| *to != from) {
            assert_reaches(&fleet, from, to);
        }
    }

    let by = test(&fleet, "pyrite", "galena", "22").rule;
    assert_eq!(by.as_deref(), Some("administer"));
    assert!(!test(&fleet, "galena", "pyrite", "22").allowed);
    let here = json_of(&fleet, "galena", &["rule", "list"]);
    let here: Rules = serde_json::from_slice(&here).unwrap();
    let packets = |name: &str| {
        here.rules
            .iter()
            .find(|rule| rule.name == name)
            .unwrap()
            .packets
    };
    assert!(packets("administer") >= 3, "{here:?}");
    assert_eq!(packets("ask"), 0);
    assert!(here.denied_packets >= 2);
    let denied: Vec<_> = here
        .denied
        .iter()
        .map(|one| (one.name.as_ref().unwrap().as_str(), one.port))
        .collect();
    assert!(
        denied.contains(&("pyrite", Some(80))) && denied.contains(&("cinnabar", Some(22))),
        "{denied:?}"
    );
}

#[test]
fn a_rule_that_goes_ends_what_it_let_in_within_two_seconds() {
    let Some(mut fleet) = running(&NAMES) else {
        return;
    };
    set(&mut fleet, Some(rules()));
    let listener = listen(&fleet, "galena", 22);
    let mut stream = connect(&fleet, "pyrite", "galena", 22).unwrap();
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let echo = thread::spawn(move || {
        let (mut served, _) = listener.accept().unwrap();
        let mut bytes = [0; 1];
        while let Ok(1) = served.read(&mut bytes) {
            served.write_all(&bytes).unwrap();
        }
    });
    let echoes = |stream: &mut TcpStream| {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0; 1]).is_ok()
    };
    assert!(echoes(&mut stream));
    let mut fewer = rules();
    fewer["accept"]
        .as_object_mut()
        .unwrap()
        .remove("administer");
    fewer["tests"] = json!([]);
    set(&mut fleet, Some(fewer));
    assert!(!echoes(&mut stream), "the connection goes on");
    // With the rule it goes on where it was.
    set(&mut fleet, Some(rules()));
    wait_until(PATIENCE, || match stream.read_exact(&mut [0; 1]) {
        Ok(()) => Ok(()),
        Err(error) => Err(Box::new(error)),
    })
    .unwrap();
    drop(stream);
    echo.join().unwrap();
}

#[test]
fn a_machine_that_may_reach_nobody_is_answered_by_whom_it_is_asked() {
    let Some(mut fleet) = running(&NAMES) else {
        return;
    };
    let mut only = rules();
    only["accept"].as_object_mut().unwrap().remove("ping");
    only["tests"] = json!([]);
    set(&mut fleet, Some(only));
    assert_does_not_reach(&fleet, "pyrite", "galena");
    let socket = |name: &str, port: u16| {
        let at = SocketAddr::from((fleet.address(name).unwrap(), port));
        let socket = fleet
            .namespace(name)
            .unwrap()
            .run(|| Ok(UdpSocket::bind(at)?))
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (asks, answers) = (socket("cinnabar", 4000), socket("galena", 54));
    let mut bytes = [0; 16];
    for _ in 0..3 {
        asks.send_to(b"question", answers.local_addr().unwrap())
            .unwrap();
        let (_, from) = answers.recv_from(&mut bytes).unwrap();
        answers.send_to(b"answer", from).unwrap();
        let (length, _) = asks.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"answer");
    }
    // Galena answers cinnabar and may not begin with it.
    let begins = socket("galena", 55);
    let heard = socket("cinnabar", 56);
    heard.set_read_timeout(Some(SHORT)).unwrap();
    begins.send_to(b"x", heard.local_addr().unwrap()).unwrap();
    assert!(heard.recv_from(&mut bytes).is_err());

    set(&mut fleet, None);
    assert_reaches(&fleet, "pyrite", "galena");
}
