//! Plans for machines that are only described.

use super::*;
use crate::commands::service::{
    config::Given,
    step::{Plan, Step},
};

/// A machine on which nothing of mesh is.
fn fresh(manager: Manager) -> Facts {
    let dirs = [
        "/etc",
        "/etc/systemd/system",
        "/etc/sysusers.d",
        "/etc/tmpfiles.d",
        "/usr/local/bin",
        "/Library/LaunchDaemons",
    ];
    Facts {
        system: System::Own(manager),
        packaged: None,
        release: "9.9.9",
        release_there: None,
        program_is_same: false,
        loose_dir: None,
        found: dirs.map(|dir| (dir.into(), Found::Dir)).into(),
        users: ["root".to_owned()].into(),
        taken_ids: [440, 442].into(),
        has_sysusers: true,
        is_running: false,
        runs_other: false,
        is_enabled: false,
        config: None,
        record: Record::default(),
        other_root: None,
    }
}

fn given() -> Given {
    Given {
        network: Some("000102030405060708090a0b0c0d0e0f".parse().unwrap()),
        signers: vec!["mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA".parse().unwrap()],
        controllers: vec!["mesh.example.org:4194".parse().unwrap()],
    }
}

/// What the machine is after `plan`, as far as the planner looks.
fn after(mut facts: Facts, daemon: Daemon, plan: &Plan) -> Facts {
    for step in &plan.steps {
        let mut put = |path: &Path, found: Found| {
            for dir in path.ancestors().skip(1) {
                facts.found.entry(dir.to_owned()).or_insert(Found::Dir);
            }
            facts.found.insert(path.to_owned(), found);
        };
        match step {
            Step::MakeDir { path, .. } => put(path, Found::Dir),
            Step::CopyProgram { path, .. } => put(path, Found::Other),
            Step::Link { path, target } => put(path, Found::Link(target.clone())),
            Step::Write { path, text, .. } => put(path, Found::Text(text.clone())),
            Step::MakeIdentity { path } => put(path, Found::Text(String::new())),
            Step::Remove { path } => {
                facts.found.remove(path);
            }
            Step::RemoveDir { path } => {
                let mut inner = facts.found.keys();
                if !inner.any(|inner| inner != path && inner.starts_with(path)) {
                    facts.found.remove(path);
                }
            }
            Step::RemoveTree { path } => facts.found.retain(|inner, _| !inner.starts_with(path)),
            Step::Run { command } if command[0] == "systemd-tmpfiles" => {
                put(Path::new("/run/mesh"), Found::Dir);
            }
            Step::Run { .. } => {}
        }
    }
    let layout = layout(&facts, daemon).unwrap();
    facts.record = match facts.found.get(&layout.record) {
        Some(Found::Text(text)) => serde_json::from_str(text).unwrap(),
        _ => Record::default(),
    };
    let is_installed = facts.found.contains_key(&layout.program);
    facts.program_is_same = is_installed;
    facts.is_running = is_installed;
    facts.is_enabled = is_installed;
    facts.config = facts.found.get(&layout.config).map(|_| Ok(()));
    facts.users.extend(layout.users.map(str::to_owned));
    facts
}

/// The plan as it is shown, without the units beside the daemon's own: which there are is decided in `systemd/`.
fn install_text(facts: &Facts, daemon: Daemon, given: &Given) -> String {
    let (layout, plan, start) = install(facts, daemon, given).unwrap();
    let is_beside =
        |line: &&str| line.contains("/etc/systemd/system/") && !line.contains(layout.service);
    let plan = plan.render();
    let lines: Vec<_> = plan.lines().filter(|line| !is_beside(line)).collect();
    format!("{}\n{start:?}", lines.join("\n"))
}

const BOTH: [Manager; 2] = [Manager::Systemd, Manager::Launchd];

#[test]
fn a_fresh_linux_machine_gets_what_a_package_brings() {
    let facts = fresh(Manager::Systemd);
    insta::assert_snapshot!("linux_agent", install_text(&facts, Daemon::Agent, &given()));
    insta::assert_snapshot!(
        "linux_controller",
        install_text(&facts, Daemon::Controller, &Given::default())
    );
    let without_sysusers = Facts {
        has_sysusers: false,
        other_root: Some("/mnt/image".into()),
        ..facts
    };
    insta::assert_snapshot!(
        "linux_image",
        install_text(&without_sysusers, Daemon::Agent, &given())
    );
}

#[test]
fn a_fresh_mac_gets_what_a_package_would_bring() {
    let facts = fresh(Manager::Launchd);
    insta::assert_snapshot!("macos_agent", install_text(&facts, Daemon::Agent, &given()));
    insta::assert_snapshot!(
        "macos_controller",
        install_text(&facts, Daemon::Controller, &given())
    );
}

#[test]
fn a_second_installation_has_nothing_left_to_do() {
    for manager in BOTH {
        for daemon in [Daemon::Agent, Daemon::Controller] {
            let facts = fresh(manager);
            let (_, plan, _) = install(&facts, daemon, &given()).unwrap();
            let facts = after(facts, daemon, &plan);
            let (_, again, start) = install(&facts, daemon, &Given::default()).unwrap();
            assert_eq!(again, Plan::default(), "{manager:?} {daemon}");
            assert_eq!(start, Start::Runs);
        }
    }
}

#[test]
fn a_new_release_replaces_the_program_and_takes_over() {
    for (manager, daemon, command) in [
        (
            Manager::Systemd,
            Daemon::Agent,
            "/usr/local/bin/mesh agent upgrade",
        ),
        (
            Manager::Systemd,
            Daemon::Controller,
            "systemctl restart mesh-controller.service",
        ),
        (
            Manager::Launchd,
            Daemon::Agent,
            "/usr/local/libexec/mesh agent upgrade",
        ),
        (
            Manager::Launchd,
            Daemon::Controller,
            "launchctl kickstart -k system/org.mesh.controller",
        ),
    ] {
        let facts = fresh(manager);
        let (_, plan, _) = install(&facts, daemon, &given()).unwrap();
        let facts = Facts {
            program_is_same: false,
            ..after(facts, daemon, &plan)
        };
        // The other daemon's installation has put the program there already.
        let by_other = Facts {
            program_is_same: true,
            runs_other: true,
            ..facts.clone()
        };
        let (layout, plan, _) = install(&facts, daemon, &Given::default()).unwrap();
        let copy = Step::CopyProgram {
            path: layout.program,
            why: "the program, release 9.9.9".to_owned(),
            replaces: true,
        };
        let command = command.split(' ').map(str::to_owned).collect();
        let take_over = Step::Run { command };
        assert_eq!(plan.steps, [copy, take_over.clone()]);
        let (_, plan, _) = install(&by_other, daemon, &Given::default()).unwrap();
        assert_eq!(plan.steps, [take_over]);
    }
}

#[test]
fn going_back_to_an_earlier_release_is_said() {
    let facts = fresh(Manager::Systemd);
    let (_, plan, _) = install(&facts, Daemon::Agent, &given()).unwrap();
    let installed = after(facts, Daemon::Agent, &plan);
    for (there, is_said) in [
        ("9.10.0", true),
        ("9.9.8", false),
        ("9.9.9", false),
        ("odd", false),
    ] {
        let facts = Facts {
            program_is_same: false,
            release_there: Some(there.to_owned()),
            ..installed.clone()
        };
        let (_, plan, _) = install(&facts, Daemon::Agent, &Given::default()).unwrap();
        let said = plan
            .render()
            .contains("release 9.10.0 is there, which is later");
        assert_eq!(said, is_said, "{there}");
    }
}

#[test]
fn an_installation_that_broke_off_can_be_taken_back() {
    for manager in BOTH {
        let before = fresh(manager);
        let (_, plan, _) = install(&before, Daemon::Agent, &given()).unwrap();
        for done in 1..plan.steps.len() {
            let part = Plan {
                steps: plan.steps[..done].to_vec(),
                ..Plan::default()
            };
            let mut broken = after(before.clone(), Daemon::Agent, &part);
            let has = |broken: &Facts, end: &str| {
                broken
                    .found
                    .keys()
                    .any(|path| path.to_string_lossy().ends_with(end))
            };
            let (has_unit, has_users) = (
                has(&broken, "mesh-agent.service"),
                done > plan.steps.len() / 2,
            );
            (broken.is_running, broken.is_enabled) = (false, false);
            if !has_users {
                broken.users = before.users.clone();
            }
            let back = uninstall(&broken, Daemon::Agent, true).unwrap();
            let runs = |program: &str| {
                back.steps.iter().any(|step| {
                    matches!(step, Step::Run { command } if command[0] == program && command[1] != "daemon-reload")
                })
            };
            assert_eq!(runs("systemctl"), has_unit, "{manager:?} {done}: {back:?}");
            assert!(!runs("launchctl"));
            assert_eq!(
                runs("userdel") || runs("dscl"),
                has_users,
                "{manager:?} {done}"
            );
            let left = after(broken, Daemon::Agent, &back);
            assert!(
                !left
                    .found
                    .values()
                    .any(|found| matches!(found, Found::Text(_) | Found::Other))
            );
        }
    }
}

#[test]
fn a_changed_unit_is_shown_with_its_difference() {
    let facts = fresh(Manager::Systemd);
    let (_, plan, _) = install(&facts, Daemon::Controller, &given()).unwrap();
    let mut facts = after(facts, Daemon::Controller, &plan);
    let unit = Path::new("/etc/systemd/system/mesh-controller.service");
    let Some(Found::Text(text)) = facts.found.get_mut(unit) else {
        panic!("no unit");
    };
    *text = text.replace("RestartSec=2s", "RestartSec=9s");
    insta::assert_snapshot!(install_text(&facts, Daemon::Controller, &Given::default()));
}

#[test]
fn uninstalling_leaves_what_is_the_users_and_purging_leaves_nothing() {
    for manager in BOTH {
        for daemon in [Daemon::Agent, Daemon::Controller] {
            let before = fresh(manager);
            let (layout, plan, _) = install(&before, daemon, &given()).unwrap();
            let mut installed = after(before.clone(), daemon, &plan);
            // What it wrote since.
            let kept_program = layout.kept_programs().map(|dir| dir.join("program"));
            for path in layout
                .log_files()
                .into_iter()
                .chain([layout.state_dir.join("file")])
                .chain(kept_program)
            {
                for dir in path.ancestors().skip(1) {
                    installed.found.entry(dir.to_owned()).or_insert(Found::Dir);
                }
                installed.found.insert(path, Found::Other);
            }
            let plan = uninstall(&installed, daemon, false).unwrap();
            let left = after(installed.clone(), daemon, &plan).found;
            let files: Vec<_> = left
                .iter()
                .filter(|(_, found)| **found != Found::Dir)
                .map(|(path, _)| path.clone())
                .collect();
            let mut kept = vec!["/etc/mesh/identity".into(), layout.state_dir.join("file")];
            kept.extend(layout.log_files());
            kept.extend([layout.config, layout.record]);
            kept.sort();
            assert_eq!(files, kept);

            let removed = after(installed.clone(), daemon, &plan);
            for from in [installed, removed] {
                let plan = uninstall(&from, daemon, true).unwrap();
                let mut left = after(from, daemon, &plan).found;
                left.retain(|path, _| !before.found.contains_key(path));
                // Directories above the ones that were made, which the description lacks.
                left.retain(|path, found| {
                    *found != Found::Dir || path.components().any(|part| part.as_os_str() == "mesh")
                });
                assert!(left.is_empty(), "{left:?}");
            }
        }
    }
}

#[test]
fn uninstalling_one_of_two_leaves_the_other_whole() {
    for manager in BOTH {
        let facts = fresh(manager);
        let (_, plan, _) = install(&facts, Daemon::Agent, &given()).unwrap();
        let facts = after(facts, Daemon::Agent, &plan);
        let (layout, plan, _) = install(
            &Facts {
                is_running: false,
                config: None,
                ..facts.clone()
            },
            Daemon::Controller,
            &given(),
        )
        .unwrap();
        let both = after(facts, Daemon::Controller, &plan);
        let plan = uninstall(&both, Daemon::Agent, true).unwrap();
        let left = after(both, Daemon::Controller, &plan);
        assert!(left.found.contains_key(&layout.program));
        assert!(left.found.contains_key(Path::new("/etc/mesh/identity")));
        assert!(!left.found.contains_key(Path::new("/etc/mesh/agent.toml")));
        for part in &layout.parts {
            assert!(left.found.contains_key(&part.path), "{:?}", part.path);
        }
        let (_, again, _) = install(&left, Daemon::Controller, &Given::default()).unwrap();
        assert_eq!(again, Plan::default());
    }
}

#[test]
fn uninstalling_what_was_never_installed_does_nothing() {
    for manager in BOTH {
        let facts = fresh(manager);
        assert_eq!(
            uninstall(&facts, Daemon::Agent, true).unwrap(),
            Plan::default()
        );
    }
}

#[test]
fn what_others_look_after_is_refused_with_the_next_step() {
    let linux = fresh(Manager::Systemd);
    let with = |system| Facts {
        system,
        ..linux.clone()
    };
    let mut foreign = linux.clone();
    foreign
        .found
        .insert("/usr/local/bin/mesh".into(), Found::Other);
    let cases = [
        (with(System::NixOs), "nixosModules"),
        (with(System::NixDarwin), "darwinModules"),
        (with(System::Other), "mesh agent supervise"),
        (
            Facts {
                packaged: Some("/usr/bin/mesh".into()),
                ..linux.clone()
            },
            "systemctl enable --now mesh-agent.service",
        ),
        (
            Facts {
                loose_dir: Some("/usr/local".into()),
                ..linux.clone()
            },
            "chown root /usr/local",
        ),
        (
            Facts {
                config: Some(Err("unknown key `x`".to_owned())),
                ..linux.clone()
            },
            "mend it",
        ),
        (
            Facts {
                config: Some(Ok(())),
                ..linux.clone()
            },
            "leave out",
        ),
        (foreign, "move it away"),
    ];
    for (facts, hint) in cases {
        let refusal = install(&facts, Daemon::Agent, &given()).unwrap_err();
        assert!(
            refusal.hint().contains(hint),
            "{refusal}: {}",
            refusal.hint()
        );
    }
}

#[test]
fn a_program_that_somebody_put_there_by_hand_is_used_and_stays() {
    let mut facts = fresh(Manager::Systemd);
    facts
        .found
        .insert("/usr/local/bin/mesh".into(), Found::Other);
    facts.program_is_same = true;
    let (layout, plan, _) = install(&facts, Daemon::Agent, &given()).unwrap();
    let facts = after(facts, Daemon::Agent, &plan);
    let plan = uninstall(&facts, Daemon::Agent, true).unwrap();
    assert!(!plan.steps.contains(&Step::Remove {
        path: layout.program
    }));
}
