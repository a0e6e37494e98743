//! Members exchange data, whatever happens below.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use mesh_api::PeerState;
use mesh_lab::Fleet;
use mesh_tests::{PATIENCE, assert_does_not_reach, assert_reaches, reference, running};

/// What each pair exchanges, in bytes: many full packets and a bit.
const DATA_BYTES: usize = 100_001;

/// How long a peer may be dead before that is noticed (issue: 15 s of unanswered traffic), and a moment
/// for the one who looks.
const DEAD_PEER: Duration = Duration::from_millis(15_500);

#[test]
fn every_enabled_pair_exchanges_data() {
    let Some(fleet) = reference() else {
        return;
    };
    let names = fleet.names();
    assert_eq!(names.len(), 9);
    let listeners: Vec<_> = names.iter().map(|name| listen(&fleet, name)).collect();
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| echo(listener, names.len() - 1));
        }
        for from in &names {
            let (fleet, names, listeners) = (&fleet, &names, &listeners);
            scope.spawn(move || {
                let others = names.iter().zip(listeners).filter(|(to, _)| *to != from);
                for (to, listener) in others {
                    exchange(fleet, from, to, listener);
                }
            });
        }
    });
    let status = fleet.status(&names[0]).unwrap();
    let talking = |name: &str| {
        let peer = status
            .peers
            .iter()
            .find(|peer| peer.name.as_str() == name)
            .unwrap();
        (peer.state, peer.reason.clone())
    };
    for name in &names[1..] {
        assert_eq!(talking(name).0, PeerState::Connected, "{name}");
    }
    assert_eq!(
        talking("scheelite"),
        (PeerState::Unavailable, Some("switched off".to_owned()))
    );
    assert_eq!(
        talking("pixel"),
        (PeerState::Unavailable, Some("no key in roster".to_owned()))
    );
}

#[test]
fn a_killed_agent_is_back_after_its_restart() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_reaches(&fleet, "pyrite", "galena");
    fleet.agent_process("galena").unwrap().kill().unwrap();
    assert_does_not_reach(&fleet, "pyrite", "galena");
    fleet.start_agent("galena").unwrap();
    // Whoever speaks first.
    assert_reaches(&fleet, "galena", "cinnabar");
    assert_reaches(&fleet, "pyrite", "galena");
}

#[test]
fn a_machine_that_changes_its_underlay_address_is_found_again() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_reaches(&fleet, "pyrite", "galena");
    fleet.lab().renumber("galena").unwrap();
    assert_reaches(&fleet, "pyrite", "galena");
    assert_reaches(&fleet, "galena", "cinnabar");
}

#[test]
fn a_dead_peer_is_noticed_within_15_s_and_found_again_once_its_link_is_back() {
    let Some(mut fleet) = running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_reaches(&fleet, "pyrite", "galena");
    fleet.lab().cut("galena").unwrap();
    let cut = Instant::now();
    thread::scope(|scope| {
        // Traffic, without which nobody expects an answer.
        scope.spawn(|| fleet.ping("pyrite", "galena", DEAD_PEER).unwrap());
        let noticed = |status: &mesh_api::Status| {
            status
                .peers
                .iter()
                .any(|peer| peer.name.as_str() == "galena" && peer.state == PeerState::Unreachable)
        };
        let status = fleet
            .wait_status("pyrite", DEAD_PEER, "notices the dead peer", noticed)
            .unwrap();
        let peer = status
            .peers
            .iter()
            .find(|peer| peer.name.as_str() == "galena")
            .unwrap();
        assert!(peer.reason.is_some(), "{peer:?}");
        println!(
            "noticed after {:?}: {}",
            cut.elapsed(),
            peer.reason.clone().unwrap()
        );
    });
    fleet.lab().restore("galena").unwrap();
    assert_reaches(&fleet, "pyrite", "galena");
    fleet.wait_admitted(PATIENCE).unwrap();
}

fn listen(fleet: &Fleet, name: &str) -> TcpListener {
    let address = fleet.address(name).unwrap();
    let namespace = fleet.namespace(name).unwrap();
    namespace
        .run(|| Ok(TcpListener::bind((address, 0))?))
        .unwrap()
}

/// Sends back what `connections` send.
fn echo(listener: &TcpListener, connections: usize) {
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut data = Vec::new();
        stream.read_to_end(&mut data).unwrap();
        stream.write_all(&data).unwrap();
    }
}

fn exchange(fleet: &Fleet, from: &str, to: &str, listener: &TcpListener) {
    let address = listener.local_addr().unwrap();
    let namespace = fleet.namespace(from).unwrap();
    let stream = namespace.run(|| Ok(TcpStream::connect_timeout(&address, PATIENCE)?));
    let mut stream = stream.unwrap_or_else(|error| panic!("{from} to {to}: {error:#}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let data: Vec<u8> = (0..DATA_BYTES).map(|i| (i % 251) as u8).collect();
    stream.write_all(&data).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(
        back == data,
        "{from} to {to}: {} bytes came back",
        back.len()
    );
}
