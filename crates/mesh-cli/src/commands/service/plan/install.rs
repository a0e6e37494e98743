//! What is missing of an installation.

use std::path::{Path, PathBuf};

use super::{Facts, Found, Refusal, layout};
use crate::commands::service::{
    config::Given,
    layout::{DROP_IN, Daemon, IDENTITY, Layout, Manager, RUN_DIR},
    record::{Record, VERSION},
    step::{Plan, Step, run},
};

/// The ids that this gives to accounts on macOS: below 500 they are hidden, and Apple's own end below 400.
const MACOS_IDS: std::ops::Range<u32> = 440..500;

/// What systemd-sysusers and systemd-tmpfiles look for in their folders.
const CONF: &str = "mesh.conf";

/// What comes of the service once everything is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands::service) enum Start {
    /// It runs then.
    Runs,
    /// It is not started, as the configuration does not say these.
    Lacks(Vec<&'static str>),
    /// It is not started, as this is not the running system.
    OtherRoot,
}

/// Plans the installation of `daemon`, or what an existing one lacks, or its change to this release.
///
/// # Errors
///
/// [`Refusal`].
pub(in crate::commands::service) fn install(
    facts: &Facts,
    daemon: Daemon,
    given: &Given,
) -> Result<(Layout, Plan, Start), Refusal> {
    let layout = layout(facts, daemon)?;
    if let Some(dir) = &facts.loose_dir {
        return Err(Refusal::Loose(dir.clone()));
    }
    let start = start(facts, &layout, given)?;
    let mut planner = Planner {
        facts,
        layout: &layout,
        record: facts.record.clone(),
        plan: Plan::default(),
    };
    planner.record.version = VERSION;
    let program_changes = planner.program()?;
    let units_change = planner.parts()?;
    planner.accounts();
    planner.identity_and_config(given);
    planner.service(&start, program_changes, units_change);
    let Planner { record, plan, .. } = planner;
    let plan = with_record(facts, &layout, &record, plan);
    Ok((layout, plan, start))
}

fn start(facts: &Facts, layout: &Layout, given: &Given) -> Result<Start, Refusal> {
    if let Some(Err(reason)) = &facts.config {
        return Err(Refusal::Config {
            path: layout.config.clone(),
            reason: reason.clone(),
        });
    }
    if facts.config.is_some() && given.is_anything() {
        return Err(Refusal::ConfigExists(layout.config.clone()));
    }
    if facts.other_root.is_some() {
        return Ok(Start::OtherRoot);
    }
    let missing = given.missing(layout.daemon);
    match facts.config.is_some() || missing.is_empty() {
        true => Ok(Start::Runs),
        false => Ok(Start::Lacks(missing)),
    }
}

/// Puts the record in front, so that whatever happens after it can be taken back.
fn with_record(facts: &Facts, layout: &Layout, record: &Record, mut plan: Plan) -> Plan {
    if *record != facts.record {
        let was = match facts.found.get(&layout.record) {
            Some(Found::Text(text)) => Some(text.clone()),
            Some(Found::Link(_) | Found::Dir | Found::Other) | None => None,
        };
        let write = Step::Write {
            path: layout.record.clone(),
            text: record.to_text(),
            why: "what was installed, for `mesh service uninstall`".to_owned(),
            was,
        };
        plan.steps.insert(0, write);
    }
    plan
}

struct Planner<'a> {
    facts: &'a Facts,
    layout: &'a Layout,
    record: Record,
    plan: Plan,
}

impl Planner<'_> {
    fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    /// Notes that this installation writes `path`, which must not be somebody else's.
    fn own(&mut self, path: &Path) -> Result<(), Refusal> {
        if self.facts.is_there(path) && !self.facts.record.has(path) {
            return Err(Refusal::Foreign(path.to_owned()));
        }
        let daemon = self.layout.daemon;
        self.record.files_mut(daemon).insert(path.to_owned());
        Ok(())
    }

    fn dir(&mut self, path: &Path, why: &str) {
        let is_planned =
            |step: &Step| matches!(step, Step::MakeDir { path: other, .. } if other == path);
        if !self.facts.is_there(path) && !self.plan.steps.iter().any(is_planned) {
            self.record.dirs.insert(path.to_owned());
            self.step(Step::MakeDir {
                path: path.to_owned(),
                why: why.to_owned(),
            });
        }
    }

    /// Says whether the program changes.
    fn program(&mut self) -> Result<bool, Refusal> {
        let program = self.layout.program.clone();
        // Whoever put this very program there, by hand or by an earlier installation, has done the step.
        if !self.facts.program_is_same {
            self.own(&program)?;
            if let Some(dir) = program.parent() {
                self.dir(dir, "the program's constant place");
            }
            self.note_earlier();
            self.step(Step::CopyProgram {
                path: program.clone(),
                why: format!("the program, release {}", self.facts.release),
                replaces: self.facts.is_there(&program),
            });
        } else if self.facts.record.has(&program) {
            let daemon = self.layout.daemon;
            self.record.files_mut(daemon).insert(program.clone());
        }
        if let Some(link) = self.layout.link.clone()
            && self.facts.found.get(&link) != Some(&Found::Link(program.clone()))
        {
            self.own(&link)?;
            if let Some(dir) = link.parent() {
                self.dir(dir, "where shells look for programs");
            }
            self.step(Step::Link {
                path: link,
                target: program,
            });
        } else if let Some(link) = self
            .layout
            .link
            .clone()
            .filter(|link| self.facts.record.has(link))
        {
            let daemon = self.layout.daemon;
            self.record.files_mut(daemon).insert(link);
        }
        Ok(!self.facts.program_is_same)
    }

    /// Says that this goes back, where it does: what a later release stored an earlier one may not read.
    fn note_earlier(&mut self) {
        let there = self.facts.release_there.as_deref().unwrap_or_default();
        let is_earlier = numbers(there)
            .zip(numbers(self.facts.release))
            .is_some_and(|(there, ours)| ours < there);
        if is_earlier {
            self.plan.notes.push(format!(
                "release {there} is there, which is later than this one"
            ));
        }
    }

    /// Says whether the service manager has to read its files again.
    fn parts(&mut self) -> Result<bool, Refusal> {
        let mut units_change = false;
        for part in self.layout.parts.clone() {
            let was = match self.facts.found.get(&part.path) {
                Some(Found::Text(text)) => Some(text.clone()),
                Some(Found::Link(_) | Found::Dir | Found::Other) | None => None,
            };
            self.own(&part.path)?;
            if was.as_ref() == Some(&part.text) {
                continue;
            }
            if let Some(dir) = part.path.parent() {
                self.dir(dir, "for what follows");
            }
            units_change |= part.is_unit;
            self.step(Step::Write {
                path: part.path,
                text: part.text,
                why: part.why,
                was,
            });
        }
        Ok(units_change)
    }

    fn accounts(&mut self) {
        let missing: Vec<_> = self
            .layout
            .users
            .into_iter()
            .filter(|user| !self.facts.users.contains(*user))
            .collect();
        self.record
            .users
            .extend(missing.iter().map(|user| (*user).to_owned()));
        match self.layout.manager {
            Manager::Launchd => self.accounts_on_macos(&missing),
            Manager::Systemd => self.accounts_on_linux(&missing),
        }
    }

    fn accounts_on_linux(&mut self, missing: &[&'static str]) {
        let root = self.facts.other_root.as_ref();
        let root = root.map(|root| format!("--root={}", root.display()));
        let step = |words: &[&str]| Step::Run {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        if !missing.is_empty() && self.facts.has_sysusers {
            let mut words = vec!["systemd-sysusers"];
            words.extend(root.as_deref());
            words.push(CONF);
            self.step(step(&words));
        } else {
            for user in missing {
                let mut words = vec!["useradd"];
                let prefix = self.facts.other_root.as_ref();
                let prefix = prefix.map(|root| format!("--prefix={}", root.display()));
                words.extend(prefix.as_deref());
                words.extend([
                    "--system",
                    "--user-group",
                    "--no-create-home",
                    "--home-dir=/",
                    "--shell=/usr/sbin/nologin",
                ]);
                if *user != "mesh" {
                    words.push("--groups=mesh");
                }
                words.push(user);
                self.step(step(&words));
            }
        }
        // The next boot makes the directory by itself; the first start is before that.
        if self.facts.other_root.is_none() && !self.facts.is_there(RUN_DIR) {
            self.step(run(["systemd-tmpfiles", "--create", CONF]));
        }
    }

    /// macOS has no list of accounts to make; `dscl` is what its own installers call.
    fn accounts_on_macos(&mut self, missing: &[&'static str]) {
        let mut ids = MACOS_IDS.filter(|id| !self.facts.taken_ids.contains(id));
        for user in missing {
            let Some(id) = ids.next() else {
                self.plan.notes.push(format!(
                    "there is no free id from {} to {} for the account `{user}`: it is not made",
                    MACOS_IDS.start,
                    MACOS_IDS.end - 1
                ));
                continue;
            };
            let id = id.to_string();
            let group = format!("/Groups/{user}");
            let record = format!("/Users/{user}");
            let name = match *user {
                "mesh" => "Mesh agent",
                _ => "Mesh controller",
            };
            for words in [
                [group.as_str(), "PrimaryGroupID", &id],
                [&group, "RealName", name],
                [&record, "UniqueID", &id],
                [&record, "PrimaryGroupID", &id],
                [&record, "UserShell", "/usr/bin/false"],
                [&record, "NFSHomeDirectory", "/var/empty"],
                [&record, "RealName", name],
                [&record, "IsHidden", "1"],
            ] {
                let [entry, key, value] = words;
                self.step(run(["dscl", ".", "-create", entry, key, value]));
            }
        }
    }

    fn identity_and_config(&mut self, given: &Given) {
        if let Some(dir) = self.layout.config.parent() {
            self.dir(dir, "identity and configuration");
        }
        if !self.facts.is_there(IDENTITY) {
            self.step(Step::MakeIdentity {
                path: IDENTITY.into(),
            });
        }
        if self.facts.config.is_none() {
            let missing = given.missing(self.layout.daemon);
            let why = match missing.is_empty() {
                true => "the configuration".to_owned(),
                false => format!("the configuration, to be filled in: {}", missing.join(", ")),
            };
            self.step(Step::Write {
                path: self.layout.config.clone(),
                text: given.render(self.layout.daemon),
                why,
                was: None,
            });
        }
    }

    fn service(&mut self, start: &Start, program_changes: bool, units_change: bool) {
        match self.layout.manager {
            Manager::Systemd => self.systemd(start, program_changes, units_change),
            Manager::Launchd => self.launchd(start, program_changes, units_change),
        }
    }

    fn systemd(&mut self, start: &Start, program_changes: bool, units_change: bool) {
        let mut enable = vec!["systemctl".to_owned()];
        if let Some(root) = &self.facts.other_root {
            enable.push(format!("--root={}", root.display()));
        } else if units_change {
            self.step(run(["systemctl", "daemon-reload"]));
        }
        if !self.facts.is_enabled {
            enable.extend(["enable", self.layout.service].map(str::to_owned));
            self.step(Step::Run { command: enable });
        }
        if *start != Start::Runs {
            return;
        }
        if !self.facts.is_running {
            self.step(run(["systemctl", "start", self.layout.service]));
        } else if program_changes || units_change || self.facts.runs_other {
            self.take_over(run(["systemctl", "restart", self.layout.service]));
        }
    }

    fn launchd(&mut self, start: &Start, program_changes: bool, units_change: bool) {
        if *start != Start::Runs {
            return;
        }
        let target = format!("system/{}", self.layout.service);
        let plist = self.layout.parts[0].path.display().to_string();
        if self.facts.is_running && units_change {
            self.step(run(["launchctl", "bootout", &target]));
        }
        if !self.facts.is_running || units_change {
            self.step(run(["launchctl", "enable", &target]));
            self.step(run(["launchctl", "bootstrap", "system", &plist]));
        } else if program_changes || self.facts.runs_other {
            self.take_over(run(["launchctl", "kickstart", "-k", &target]));
        }
    }

    /// The agent hands its sessions to the program that is there now; the controller has none.
    fn take_over(&mut self, restart: Step) {
        let program = self.layout.program.display().to_string();
        match self.layout.daemon {
            Daemon::Agent => self.step(run([&program, "agent", "upgrade"])),
            Daemon::Controller => self.step(restart),
        }
    }
}

/// The numbers of a release; `None`: it has other parts.
fn numbers(release: &str) -> Option<Vec<u64>> {
    release.split('.').map(|part| part.parse().ok()).collect()
}

/// The paths whose state a plan for `layout` depends on.
pub(in crate::commands::service) fn paths_of_interest(layout: &Layout) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = vec![IDENTITY.into(), RUN_DIR.into()];
    let files = [
        &layout.program,
        &layout.config,
        &layout.record,
        &layout.state_dir,
    ];
    paths.extend(files.into_iter().cloned());
    paths.extend(layout.link.clone());
    paths.extend(layout.log_files());
    paths.extend(layout.kept_programs());
    paths.push(DROP_IN.into());
    paths.extend(layout.parts.iter().map(|part| part.path.clone()));
    let parents: Vec<_> = paths
        .iter()
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect();
    paths.extend(parents);
    paths
}
