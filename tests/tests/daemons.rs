//! The daemons as processes: privileges, signals, what they leave behind.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    net::{Ipv6Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use mesh_lab::{Fleet, sandbox};
use mesh_os::link::Links;
use mesh_tests::{PATIENCE, assert_reaches, fleet, running};
use nix::sys::signal::Signal;

#[test]
fn sigterm_leaves_neither_device_nor_routes_nor_socket() {
    let Some(mut fleet) = running(&["cinnabar", "galena"]) else {
        return;
    };
    assert_reaches(&fleet, "galena", "cinnabar");
    let namespace_has = |fleet: &Fleet| {
        let namespace = fleet.namespace("galena").unwrap();
        namespace.run(|| Ok(Links::index_of("mesh0"))).unwrap()
    };
    assert!(namespace_has(&fleet).is_some());
    let status = fleet
        .agent_process("galena")
        .unwrap()
        .terminate(PATIENCE)
        .unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(namespace_has(&fleet), None);
    assert!(!fleet.files("galena").unwrap().agent_socket().exists());
    let routes = fleet.run_on(
        "galena",
        Command::new("cat").arg("/proc/thread-self/net/ipv6_route"),
    );
    let prefix = format!(
        "{:04x}{:04x}",
        fleet.address("galena").unwrap().segments()[0],
        fleet.address("galena").unwrap().segments()[1]
    );
    let routes = String::from_utf8(routes.unwrap().stdout).unwrap();
    assert!(!routes.contains(&prefix), "{routes}");

    let status = fleet
        .controller_process()
        .unwrap()
        .terminate(PATIENCE)
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(
        !fleet
            .files("cinnabar")
            .unwrap()
            .controller_socket()
            .exists()
    );
}

#[test]
fn a_killed_agents_remains_do_not_keep_the_next_one_from_starting() {
    let Some(mut fleet) = running(&["cinnabar", "galena"]) else {
        return;
    };
    fleet.agent_process("galena").unwrap().kill().unwrap();
    assert!(fleet.files("galena").unwrap().agent_socket().exists());
    fleet.start_agent("galena").unwrap();
    assert_reaches(&fleet, "galena", "cinnabar");
}

#[test]
fn a_taken_port_is_an_error_that_names_its_holder() {
    let Some(mut fleet) = fleet(&["cinnabar", "galena"]) else {
        return;
    };
    let namespace = fleet.namespace("galena").unwrap();
    let bind = || {
        Ok(UdpSocket::bind((
            Ipv6Addr::UNSPECIFIED,
            mesh_types::AGENT_PORT,
        ))?)
    };
    let _holder = namespace.run(bind).unwrap();
    let error = fleet.start_agent("galena").unwrap_err().to_string();
    let expected = format!("(process {})", std::process::id());
    assert!(
        error.contains("UDP port 4193") && error.contains(&expected),
        "{error}"
    );
}

#[test]
fn a_running_agent_has_net_admin_and_low_ports_and_nothing_else() {
    let Some(mut fleet) = running(&["cinnabar", "galena"]) else {
        return;
    };
    let pid = fleet.agent_process("galena").unwrap().id();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found.unwrap().trim().to_owned()
        };
        assert_eq!(line("CapEff:"), "0000000000001400");
        assert_eq!(line("CapPrm:"), "0000000000001400");
        for empty in ["CapInh:", "CapBnd:", "CapAmb:"] {
            assert_eq!(line(empty), "0000000000000000", "{empty}");
        }
        assert_eq!(line("NoNewPrivs:"), "1");
        if !sandbox::is_user_namespace() {
            assert!(
                !line("Uid:").split('\t').any(|uid| uid == "0"),
                "{}",
                line("Uid:")
            );
        }
    }
}

#[test]
fn packets_do_not_wait_behind_the_programs_that_send_them() {
    // Without the privilege an agent goes on as every program.
    if sandbox::is_user_namespace() {
        return;
    }
    let Some(mut fleet) = running(&["cinnabar", "galena"]) else {
        return;
    };
    let pid = fleet.agent_process("galena").unwrap().id();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        // The 19th field, counted from the end of the name, which is the second (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        assert_eq!(fields.split(' ').nth(16), Some("-10"), "{stat}");
    }
    // Kernels without numbers for sessions have no such file, and the session that the machine began with has none.
    let session = std::fs::read_to_string(format!("/proc/{pid}/autogroup")).unwrap_or_default();
    assert!(
        session.is_empty() || session.trim_end().ends_with("nice -10"),
        "{session}"
    );
}

#[test]
fn sighup_and_a_changed_file_reload_the_configuration() {
    let Some(mut fleet) = running(&["cinnabar", "galena"]) else {
        return;
    };
    let path = fleet.files("galena").unwrap().agent_config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    let has = |endpoint: &'static str| {
        move |status: &mesh_api::Status| {
            status
                .controllers
                .iter()
                .any(|controller| controller.endpoint == endpoint)
        }
    };
    let with = |endpoint: &str| {
        text.replace(
            "controllers = [",
            &format!("controllers = [\"{endpoint}\", "),
        )
    };
    write(&path, &with("192.0.2.9:1"));
    fleet
        .agent_process("galena")
        .unwrap()
        .signal(Signal::SIGHUP)
        .unwrap();
    fleet
        .wait_status("galena", PATIENCE, "was reloaded", has("192.0.2.9:1"))
        .unwrap();

    write(&path, &with("192.0.2.9:2"));
    fleet
        .wait_status("galena", PATIENCE, "noticed the file", has("192.0.2.9:2"))
        .unwrap();

    // A file with an error changes nothing.
    write(&path, "controllers = 7");
    fleet
        .agent_process("galena")
        .unwrap()
        .signal(Signal::SIGHUP)
        .unwrap();
    assert_reaches(&fleet, "galena", "cinnabar");
    assert!(has("192.0.2.9:2")(&fleet.status("galena").unwrap()));
}

#[test]
fn the_group_may_ask_and_others_are_told_how_to() {
    let Some(mut fleet) = fleet(&["cinnabar"]) else {
        return;
    };
    if sandbox::is_user_namespace() {
        println!("skipped: needs more users than a user namespace has");
        return;
    }
    let path = fleet.files("cinnabar").unwrap().agent_config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    write(&path, &format!("{text}group = \"daemon\"\n"));
    fleet.start().unwrap();
    // Where anyone may run it.
    let program = fleet.dir().join("mesh");
    std::fs::copy(fleet.program(), &program).unwrap();
    let socket = fleet.files("cinnabar").unwrap().agent_socket();
    let status_as = |groups: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "nobody", "--regid", "nogroup", groups]);
        command
            .arg(&program)
            .args(["status", "--socket"])
            .arg(&socket);
        fleet.run_on("cinnabar", &mut command).unwrap()
    };
    let member = status_as("--groups=daemon");
    assert!(member.status.success(), "{member:?}");
    let stranger = status_as("--clear-groups");
    assert_eq!(stranger.status.code(), Some(3), "{stranger:?}");
    let words = String::from_utf8_lossy(&stranger.stderr);
    assert!(
        words.contains("hint:") && words.contains("group"),
        "{words}"
    );
}

fn write(path: &std::path::Path, text: &str) {
    mesh_os::file::write_atomic(path, text.as_bytes(), 0o644).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
}
