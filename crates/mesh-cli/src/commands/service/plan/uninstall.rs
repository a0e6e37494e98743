//! What takes an installation back: exactly what is in its record.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{Facts, Found, Refusal, layout};
use crate::commands::service::{
    layout::{DROP_IN, Daemon, IDENTITY, Layout, Manager, Part, RUN_DIR},
    step::{Plan, Step, run},
};

/// Plans the removal of `daemon`'s installation; an empty plan if there is none. With `purge` its state and
/// configuration go too, and with the last daemon the identity and the accounts.
///
/// # Errors
///
/// [`Refusal`].
pub(in crate::commands::service) fn uninstall(
    facts: &Facts,
    daemon: Daemon,
    purge: bool,
) -> Result<Plan, Refusal> {
    let layout = layout(facts, daemon)?;
    let mut plan = Plan::default();
    let record = &facts.record;
    let installed = record.files(daemon);
    let others = record.files(daemon.other());
    let is_last = others.is_empty();

    if !installed.is_empty() {
        stop(facts, &layout, &mut plan);
    }
    for path in installed
        .difference(others)
        .filter(|path| facts.is_there(path))
    {
        plan.steps.push(Step::Remove { path: path.clone() });
    }
    if layout.daemon == Daemon::Agent {
        forget_upgrades(facts, &layout, &mut plan);
    }
    let started = facts.other_root.is_none();
    if layout.manager == Manager::Systemd && !installed.is_empty() && started {
        plan.steps.push(run(["systemctl", "daemon-reload"]));
    }
    if is_last && !installed.is_empty() && facts.is_there(RUN_DIR) {
        plan.steps.push(Step::RemoveDir {
            path: RUN_DIR.into(),
        });
    }
    if purge {
        purge_files(facts, &layout, is_last, &mut plan);
    } else {
        keep_note(facts, &layout, &mut plan);
    }
    forget(facts, &layout, purge, &mut plan);
    Ok(plan)
}

fn stop(facts: &Facts, layout: &Layout, plan: &mut Plan) {
    match layout.manager {
        // An installation that did not come as far as its unit has nothing to stop, and systemd would fail.
        Manager::Systemd if !has_unit(facts, layout) => {}
        Manager::Systemd => {
            let mut command = vec!["systemctl".to_owned()];
            match &facts.other_root {
                Some(root) => {
                    command.extend([format!("--root={}", root.display()), "disable".to_owned()])
                }
                None => command.extend(["disable", "--now"].map(str::to_owned)),
            }
            command.push(layout.service.to_owned());
            plan.steps.push(Step::Run { command });
        }
        Manager::Launchd if facts.is_running => {
            let target = format!("system/{}", layout.service);
            plan.steps.push(run(["launchctl", "bootout", &target]));
        }
        Manager::Launchd => {}
    }
}

fn has_unit(facts: &Facts, layout: &Layout) -> bool {
    let unit = |part: &&Part| {
        part.path
            .file_name()
            .is_some_and(|name| name == layout.service)
    };
    let unit = layout.parts.iter().find(unit);
    facts.is_running || unit.is_some_and(|unit| facts.is_there(&unit.path))
}

/// Removes what upgrades of the agent left to go back to.
fn forget_upgrades(facts: &Facts, layout: &Layout, plan: &mut Plan) {
    let kept = layout.kept_programs();
    plan.steps.extend(
        kept.into_iter()
            .filter(|path| facts.is_there(path))
            .map(|path| Step::RemoveTree { path }),
    );
    let drop_in = Path::new(DROP_IN);
    if facts.is_there(drop_in) {
        plan.steps.push(Step::Remove {
            path: drop_in.to_owned(),
        });
    }
    // Other files in there are somebody else's.
    if let Some(dir) = drop_in.parent().filter(|dir| facts.is_there(dir)) {
        plan.steps.push(Step::RemoveDir {
            path: dir.to_owned(),
        });
    }
}

fn purge_files(facts: &Facts, layout: &Layout, is_last: bool, plan: &mut Plan) {
    if facts.is_there(&layout.state_dir) {
        plan.steps.push(Step::RemoveTree {
            path: layout.state_dir.clone(),
        });
    }
    let mut files = vec![layout.config.clone()];
    if is_last {
        files.push(IDENTITY.into());
    }
    files.extend(layout.log_files());
    files.retain(|path| facts.is_there(path));
    plan.steps
        .extend(files.into_iter().map(|path| Step::Remove { path }));
    if !is_last {
        return;
    }
    // The group `mesh` goes with its user once nobody else is in it.
    let users = facts.record.users.iter().rev();
    for user in users.filter(|user| facts.users.contains(*user)) {
        match layout.manager {
            Manager::Systemd => {
                let prefix = facts.other_root.as_ref();
                let prefix = prefix.map(|root| format!("--prefix={}", root.display()));
                let command = std::iter::once("userdel".to_owned());
                let command = command.chain(prefix).chain([user.clone()]).collect();
                plan.steps.push(Step::Run { command });
            }
            Manager::Launchd => {
                for record in ["Users", "Groups"] {
                    let record = format!("/{record}/{user}");
                    plan.steps.push(run(["dscl", ".", "-delete", &record]));
                }
            }
        }
    }
}

/// Says what stays, and how it goes.
fn keep_note(facts: &Facts, layout: &Layout, plan: &mut Plan) {
    let kept: Vec<_> = [&layout.config, &IDENTITY.into(), &layout.state_dir]
        .into_iter()
        .filter(|path| facts.is_there(path))
        .map(|path| format!("`{}`", path.display()))
        .collect();
    if !kept.is_empty() && !plan.steps.is_empty() {
        plan.notes
            .push(format!("{} stay; `--purge` removes them", kept.join(", ")));
    }
}

/// Takes the daemon out of the record, and with the last the record and the directories that were made.
fn forget(facts: &Facts, layout: &Layout, purge: bool, plan: &mut Plan) {
    let Some(Found::Text(was)) = facts.found.get(&layout.record) else {
        return;
    };
    let mut record = facts.record.clone();
    record.files_mut(layout.daemon).clear();
    let is_last = record.files(layout.daemon.other()).is_empty();
    // What was kept can still be purged later, and the accounts were made by us all the same.
    if is_last && (purge || record.users.is_empty()) {
        plan.steps.push(Step::Remove {
            path: layout.record.clone(),
        });
        let mut dirs: BTreeSet<PathBuf> = record.dirs;
        if purge {
            let mut files = vec![layout.record.clone(), layout.config.clone()];
            files.extend(layout.log_files());
            let parents = files.iter().filter_map(|path| path.parent());
            dirs.extend(parents.map(ToOwned::to_owned));
        }
        // The inner ones first.
        for path in dirs.into_iter().rev().filter(|path| facts.is_there(path)) {
            plan.steps.push(Step::RemoveDir { path });
        }
    } else if record != facts.record {
        plan.steps.push(Step::Write {
            path: layout.record.clone(),
            text: record.to_text(),
            why: "what is left to purge".to_owned(),
            was: Some(was.clone()),
        });
    }
}
