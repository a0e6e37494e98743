//! One process of the agent after the other, and what of it is to be noticed: nothing.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use mesh_lab::{
    Fleet, bulk,
    stream::{Counted, Stream},
};
use mesh_os::{link::Links, notify::Notifier};
use mesh_tests::{PATIENCE, assert_reaches, fleet};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Echoes a second, each way.
const RATE: u32 = 1_000;

/// A fleet of two, of which galena's agent has a supervisor and a program of its own.
struct Supervised {
    fleet: Fleet,
    program: PathBuf,
    dir: PathBuf,
}

impl Supervised {
    fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// With more in the configuration of galena's agent.
    fn start_with(config: &str) -> Option<Self> {
        let mut fleet = fleet(&["cinnabar", "galena"])?;
        let path = fleet.files("galena").unwrap().agent_config_path();
        let usual = fs::read_to_string(&path).unwrap();
        fs::write(&path, usual + config).unwrap();
        let program = fleet.dir().join("installed");
        let dir = fleet.dir().join("supervise");
        install(&program, &fs::read(fleet.program()).unwrap());
        fleet.start_controller().unwrap();
        fleet.start_agent("cinnabar").unwrap();
        fleet.supervise_agent("galena", &program, &dir).unwrap();
        fleet.wait_admitted(PATIENCE).unwrap();
        assert_reaches(&fleet, "galena", "cinnabar");
        assert_reaches(&fleet, "cinnabar", "galena");
        let supervised = Self {
            fleet,
            program,
            dir,
        };
        // Once the program has proven itself there is one to go back to.
        supervised.wait("a copy of the program", || {
            supervised.dir.join("previous").exists()
        });
        Some(supervised)
    }

    /// Runs `mesh agent upgrade` on galena.
    fn upgrade(&self) -> Output {
        let dir = self.dir.to_str().unwrap();
        self.fleet
            .mesh("galena", &["agent", "upgrade", "--dir", dir, "--json"])
            .unwrap()
    }

    /// The process of galena's agent.
    fn agent(&self) -> Option<i32> {
        children(self.fleet.agent_id("galena").unwrap())
            .into_iter()
            .next()
    }

    fn wait(&self, what: &str, so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so() {
            assert!(
                Instant::now() < deadline,
                "{what}: not within {PATIENCE:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn streams(&self) -> [Stream; 2] {
        [("galena", "cinnabar"), ("cinnabar", "galena")].map(|(from, to)| {
            let namespace = self.fleet.namespace(from).unwrap();
            Stream::start(namespace, self.fleet.address(to).unwrap(), RATE).unwrap()
        })
    }

    /// How long ago galena last shook hands with cinnabar.
    fn handshake_age_seconds(&self) -> u64 {
        let status = self.fleet.status("galena").unwrap();
        status.peers[0].last_handshake_seconds.unwrap()
    }

    fn interface(&self) -> Option<u32> {
        let namespace = self.fleet.namespace("galena").unwrap();
        namespace.run(|| Ok(Links::index_of("mesh0"))).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.fleet.files("galena").unwrap().log_path("agent")).unwrap()
    }
}

#[test]
fn an_upgrade_loses_at_most_one_packet_of_a_thousand_a_second() {
    let Some(galena) = Supervised::start() else {
        return;
    };
    let bytes = fs::read(galena.fleet.program()).unwrap();
    let mut settled = None;
    let mut gaps = Vec::new();
    for round in 1..=5u8 {
        let before = galena.agent().unwrap();
        let streams = galena.streams();
        galena.wait("the streams flow", || {
            streams.iter().all(|stream| stream.answered() > 300)
        });
        // Both sides may have asked for the first session; by now one of them is in use.
        let settled = *settled.get_or_insert_with(Instant::now);
        // Another program, which does the same.
        install(&galena.program, &[bytes.as_slice(), &[round]].concat());
        let output = galena.upgrade();
        assert!(output.status.success(), "{output:?}\n{}", galena.log());
        assert_ne!(galena.agent(), Some(before), "it is another process");
        let counted = streams.map(|stream| stream.stop(PATIENCE));
        for Counted {
            sent,
            lost,
            longest,
        } in counted
        {
            println!("round {round}: {lost} of {sent} lost, held up for {longest:?}");
            assert!(
                sent > 1_000 && lost <= 1,
                "{lost} of {sent}\n{}",
                galena.log()
            );
            gaps.push(longest);
        }
        // In whole seconds, by two clocks.
        let age = Duration::from_secs(galena.handshake_age_seconds() + 2);
        assert!(age >= settled.elapsed(), "the session went on: {age:?}");
    }
    gaps.sort();
    println!(
        "held up: median {:?}, longest {:?}",
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1]
    );

    let same = galena.upgrade();
    assert!(same.status.success());
    let words = String::from_utf8_lossy(&same.stdout);
    assert!(words.contains("\"same\""), "{words}");
}

#[test]
fn every_byte_arrives_as_it_was_sent_whatever_happens_on_the_way() {
    // What four connections carry together; `BYTES` says otherwise.
    let bytes = std::env::var("BYTES").map_or(10_000_000_000, |bytes| bytes.parse().unwrap());
    // Several queues of the device and of the port, which are handed on as well.
    let Some(mut galena) = Supervised::start_with("queues = 3\n") else {
        return;
    };
    for name in ["cinnabar", "galena"] {
        galena.fleet.lab().spoil(name, 5_000).unwrap();
    }
    let ends = ["cinnabar", "galena"].map(|name| {
        let namespace = galena.fleet.namespace(name).unwrap().clone();
        (namespace, galena.fleet.address(name).unwrap())
    });
    let begin = Instant::now();
    let program = fs::read(galena.fleet.program()).unwrap();
    let mut upgrades = 0;
    std::thread::scope(|scope| {
        let streams: Vec<_> = (0..4u64)
            .map(|number| {
                let [from, to] = match number % 2 {
                    0 => [&ends[0], &ends[1]],
                    _ => [&ends[1], &ends[0]],
                };
                scope.spawn(move || bulk::carry(&from.0, &to.0, to.1.into(), bytes / 4, number))
            })
            .collect();
        while streams.iter().any(|stream| !stream.is_finished()) {
            if upgrades == 1 {
                galena.fleet.lab().renumber("galena").unwrap();
            }
            upgrades += 1u32;
            let number = upgrades.to_be_bytes();
            install(&galena.program, &[program.as_slice(), &number].concat());
            let output = galena.upgrade();
            assert!(output.status.success(), "{output:?}\n{}", galena.log());
        }
        for stream in streams {
            stream.join().unwrap().unwrap();
        }
    });
    let took = begin.elapsed();
    let spoiled = ends_spoiled(&mut galena.fleet);
    println!("{bytes} bytes in {took:?}, {upgrades} upgrades, lost and changed: {spoiled:?}");
    assert!(upgrades > 1 && spoiled.iter().all(|count| *count > 0));
}

/// How many datagrams were lost and changed on their way to both machines.
fn ends_spoiled(fleet: &mut Fleet) -> [u64; 2] {
    let [a, b] = ["cinnabar", "galena"].map(|name| fleet.lab().spoiled(name).unwrap());
    [a[0] + b[0], a[1] + b[1]]
}

#[test]
fn a_new_program_that_fails_its_self_check_is_not_started() {
    let Some(galena) = Supervised::start() else {
        return;
    };
    let before = galena.agent();
    let streams = galena.streams();
    galena.wait("the streams flow", || {
        streams.iter().all(|stream| stream.answered() > 100)
    });
    install(
        &galena.program,
        b"#!/bin/sh\necho 'no such processor' >&2\nexit 1\n",
    );
    let output = galena.upgrade();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(
        words.contains("\"unfit\"") && words.contains("no such processor"),
        "{words}"
    );
    assert_eq!(galena.agent(), before, "the old one runs on");
    for stream in streams {
        assert_eq!(stream.stop(PATIENCE).lost, 0);
    }
}

#[test]
fn a_new_program_that_ends_after_its_start_gives_way_to_the_old_one() {
    let Some(galena) = Supervised::start() else {
        return;
    };
    let device = galena.interface();
    let streams = galena.streams();
    galena.wait("the streams flow", || {
        streams.iter().all(|stream| stream.answered() > 100)
    });
    install(
        &galena.program,
        b"#!/bin/sh\n[ \"$2\" = self-check ] && exit 0\nexit 7\n",
    );
    let output = galena.upgrade();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(words.contains("\"went_back\""), "{words}");
    assert_reaches(&galena.fleet, "galena", "cinnabar");
    assert_reaches(&galena.fleet, "cinnabar", "galena");
    assert_eq!(galena.interface(), device, "with the same device");
    for stream in streams {
        let Counted {
            sent,
            lost,
            longest,
        } = stream.stop(PATIENCE);
        println!("{lost} of {sent} lost, held up for {longest:?}");
        // The program that ended never took the sessions, so the old one went on with them.
        assert!(lost <= 1, "{lost} of {sent}\n{}", galena.log());
    }
    // And the good program can be upgraded to afterwards.
    install(
        &galena.program,
        &[fs::read(galena.fleet.program()).unwrap().as_slice(), b"x"].concat(),
    );
    let output = galena.upgrade();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_killed_agent_leaves_its_device_to_the_next_one_and_no_sessions() {
    let Some(galena) = Supervised::start() else {
        return;
    };
    let (device, before) = (galena.interface(), galena.agent().unwrap());
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
    galena.wait("another process", || {
        galena.agent().is_some_and(|agent| agent != before)
    });
    assert_reaches(&galena.fleet, "galena", "cinnabar");
    assert_reaches(&galena.fleet, "cinnabar", "galena");
    assert_eq!(galena.interface(), device, "address and routes never went");
    assert!(
        !galena
            .log()
            .contains("went on with the last process's sessions")
    );
}

#[test]
fn what_does_not_belong_into_the_supervisors_hands_stays_without_effect() {
    let Some(galena) = Supervised::start() else {
        return;
    };
    let socket = fs::read_dir(&galena.dir).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?;
        name.starts_with("notify-").then_some(path)
    });
    // As an agent that turned bad: what looks like sessions, what nobody asks for, names that no list of names
    // can hold, and more descriptors than anybody needs.
    let agent = Notifier::connect(socket.unwrap().as_os_str()).unwrap();
    let (junk, _writer) = io::pipe().unwrap();
    for (name, count) in [("sessions", 1), ("other", 4), ("a\0b", 1), ("many", 253)] {
        let descriptors = vec![junk.as_fd(); count];
        agent
            .hand_over(&format!("FDSTORE=1\nFDNAME={name}"), &descriptors)
            .unwrap();
    }
    for round in 1..=2u8 {
        let bytes = fs::read(galena.fleet.program()).unwrap();
        install(&galena.program, &[bytes.as_slice(), &[round]].concat());
        let output = galena.upgrade();
        assert!(output.status.success(), "{output:?}\n{}", galena.log());
        assert_reaches(&galena.fleet, "galena", "cinnabar");
        assert_reaches(&galena.fleet, "cinnabar", "galena");
    }
    // The first may have begun anew. By the second there is room and order again.
    let log = galena.log();
    assert!(
        log.contains("went on with the last process's sessions"),
        "{log}"
    );
}

#[test]
fn an_agent_goes_with_its_supervisor_and_makes_room_for_the_next() {
    let Some(mut galena) = Supervised::start() else {
        return;
    };
    let supervisor = i32::try_from(galena.fleet.agent_id("galena").unwrap()).unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    galena.wait("the end of the agent and its device", || {
        galena.interface().is_none()
    });
    let (program, dir) = (galena.program.clone(), galena.dir.clone());
    let fleet = &mut galena.fleet;
    fleet.supervise_agent("galena", &program, &dir).unwrap();
    assert_reaches(&galena.fleet, "galena", "cinnabar");
    assert_reaches(&galena.fleet, "cinnabar", "galena");
}

#[test]
fn the_end_of_the_supervisor_leaves_nothing_behind() {
    let Some(mut galena) = Supervised::start() else {
        return;
    };
    let agent = galena.agent().unwrap();
    let process = galena.fleet.agent_process("galena").unwrap();
    let status = process.terminate(PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(galena.interface(), None);
    assert!(!Path::new(&format!("/proc/{agent}")).exists());
    assert!(
        !galena
            .fleet
            .files("galena")
            .unwrap()
            .agent_socket()
            .exists()
    );
    let left = fs::read_dir(&galena.dir).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["previous"]);
    let output = galena.upgrade();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"not_running\""));
}

/// Puts a program at `path` as a package does: the old one stays whole for who runs it.
fn install(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("beside");
    let mut file = fs::File::create(&beside).unwrap();
    file.write_all(bytes).unwrap();
    fs::set_permissions(&beside, Permissions::from_mode(0o755)).unwrap();
    drop(file);
    fs::rename(&beside, path).unwrap();
}

fn children(pid: u32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}
