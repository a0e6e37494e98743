//! A dead controller never splits the mesh.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use mesh_tests::{assert_reaches, fleet, reference};

#[test]
fn agents_start_and_serve_from_stored_rosters_alone() {
    let Some(mut fleet) = fleet(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    fleet.set_static_endpoints().unwrap();
    fleet.store_rosters(7).unwrap();
    for name in fleet.names() {
        fleet.start_agent(&name).unwrap();
    }
    for (from, to) in [
        ("galena", "pyrite"),
        ("pyrite", "cinnabar"),
        ("cinnabar", "galena"),
    ] {
        assert_reaches(&fleet, from, to);
    }
    let status = fleet.status("galena").unwrap();
    assert!(status.node.admitted);
    assert_eq!(status.roster.unwrap().serial.get(), 7);
    assert!(
        status
            .controllers
            .iter()
            .all(|controller| !controller.connected)
    );
}

#[test]
fn every_pair_still_talks_after_the_controller_stopped_and_every_agent_restarted() {
    let Some(mut fleet) = reference() else {
        return;
    };
    let names = fleet.names();
    fleet.ping_all(&names, mesh_tests::PATIENCE).unwrap();
    fleet.controller_process().unwrap().kill().unwrap();
    for name in &names {
        fleet
            .agent_process(name)
            .unwrap()
            .terminate(mesh_tests::PATIENCE)
            .unwrap();
        fleet.start_agent(name).unwrap();
        // The others were told by nobody but this one's handshake.
        let other = names.iter().find(|other| *other != name).unwrap();
        assert_reaches(&fleet, name, other);
    }
    let pings = fleet.ping_all(&names, mesh_tests::PATIENCE).unwrap();
    let lost: Vec<_> = pings.iter().filter(|(_, rtt)| rtt.is_none()).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn agents_come_back_to_a_controller_that_was_killed_and_restarted() {
    let Some(mut fleet) = mesh_tests::running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_reaches(&fleet, "galena", "pyrite");
    fleet.controller_process().unwrap().kill().unwrap();
    for name in fleet.names() {
        fleet
            .wait_status(
                &name,
                mesh_tests::PATIENCE,
                "misses the controller",
                |status| {
                    status
                        .controllers
                        .iter()
                        .all(|controller| !controller.connected)
                },
            )
            .unwrap();
    }
    assert_reaches(&fleet, "galena", "pyrite");
    fleet.start_controller().unwrap();
    fleet.wait_admitted(mesh_tests::PATIENCE).unwrap();
    assert_takes_changes(&mut fleet);
}

#[test]
fn a_controller_reinstalled_with_empty_state_serves_on() {
    let Some(mut fleet) = mesh_tests::running(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    assert_takes_changes(&mut fleet);
    fleet
        .controller_process()
        .unwrap()
        .terminate(mesh_tests::PATIENCE)
        .unwrap();
    let state_dir = fleet.files("cinnabar").unwrap().controller_state_dir();
    std::fs::remove_dir_all(&state_dir).unwrap();
    fleet.start_controller().unwrap();
    fleet.wait_admitted(mesh_tests::PATIENCE).unwrap();
    assert_reaches(&fleet, "galena", "pyrite");
}

/// A change of the inventory reaches every agent.
fn assert_takes_changes(fleet: &mut mesh_lab::Fleet) {
    let before = fleet.status("galena").unwrap().roster.unwrap().serial;
    let tags = vec![format!("after-{before}")];
    fleet
        .edit_inventory(|inventory| inventory["machines"]["galena"]["tags"] = tags.into())
        .unwrap();
    for name in fleet.names() {
        let newer = fleet.wait_status(
            &name,
            mesh_tests::PATIENCE,
            "has the next roster",
            |status| {
                status
                    .roster
                    .as_ref()
                    .is_some_and(|roster| roster.serial > before)
            },
        );
        if let Err(error) = newer {
            let agent = fleet.agent_process(&name).unwrap().log();
            let controller = fleet.controller_process().unwrap().log();
            panic!("{error:#}\n--- agent\n{agent}\n--- controller\n{controller}");
        }
    }
}
