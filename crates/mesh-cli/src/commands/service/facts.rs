//! Looks at the machine; decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use mesh_os::paths::IS_MACOS;

use super::{
    layout::{Daemon, Layout, Manager},
    manager,
    plan::{Facts, Found, System, paths_of_interest},
    record::{Record, VERSION},
    state::{Running, ask_release, release_of},
};

/// The longest file whose text is looked at, in bytes; ours are far below.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// Where a package of a Linux distribution has the program.
const PACKAGED_PROGRAM: &str = "/usr/bin/mesh";

/// What kind of machine this is; another root than `/` is taken for one with systemd.
pub(super) fn system(root: Option<&Path>) -> System {
    let exists = |path: &str| below(root, Path::new(path)).exists();
    if IS_MACOS {
        return match exists("/run/current-system/darwin-version") || exists("/etc/static") {
            true => System::NixDarwin,
            false => System::Own(Manager::Launchd),
        };
    }
    if exists("/etc/NIXOS") {
        System::NixOs
    } else if root.is_some() || exists("/run/systemd/system") {
        System::Own(Manager::Systemd)
    } else {
        System::Other
    }
}

/// `path` as it is reached where `root` is the root.
pub(super) fn below(root: Option<&Path>, path: &Path) -> PathBuf {
    match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

/// Checks that links in the image at `root` lead nowhere else: they are made for a system whose root it is.
fn stays_below(root: &Path, path: &Path) -> anyhow::Result<()> {
    let path = below(Some(root), path);
    let dirs = path.ancestors().skip(1);
    let Some(dir) = dirs.into_iter().find(|dir| dir.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    let real = dir
        .canonicalize()
        .with_context(|| format!("cannot tell where `{}` leads", dir.display()))?;
    ensure!(
        real.starts_with(root),
        "`{}` leads to `{}`, out of `{}`",
        dir.display(),
        real.display(),
        root.display()
    );
    Ok(())
}

/// The program of a distribution's package.
pub(super) fn packaged(root: Option<&Path>) -> Option<PathBuf> {
    let path = Path::new(PACKAGED_PROGRAM);
    (!IS_MACOS && below(root, path).exists()).then(|| path.to_owned())
}

/// What `install` left, if it did.
///
/// # Errors
///
/// The record is there and cannot be read.
pub(super) fn record(layout: &Layout, root: Option<&Path>) -> anyhow::Result<Record> {
    let path = below(root, &layout.record);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Record::default()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", path.display()));
        }
    };
    let record: Record = serde_json::from_str(&text).with_context(|| {
        format!(
            "`{}`, which says what was installed, is damaged",
            path.display()
        )
    })?;
    // Its other parts would be lost with the first change.
    ensure!(
        record.version <= VERSION,
        "`{}` is of form {}, and this release knows {VERSION}: use the release that installed the service, or a later one",
        path.display(),
        record.version
    );
    Ok(record)
}

/// Gathers what a plan for `daemon` depends on.
///
/// # Errors
///
/// What cannot be read, with its path.
pub(super) fn gather(daemon: Daemon, root: Option<&Path>) -> anyhow::Result<Facts> {
    let system = system(root);
    let manager = match system {
        System::Own(manager) => manager,
        // Refused later; what is looked at until then does not matter.
        System::NixOs | System::Other => Manager::Systemd,
        System::NixDarwin => Manager::Launchd,
    };
    let layout = Layout::of(manager, daemon);
    let record = record(&layout, root)?;
    let mut paths = paths_of_interest(&layout);
    paths.extend(record.files(daemon).iter().chain(&record.dirs).cloned());
    if let Some(root) = root {
        for path in &paths {
            stays_below(root, path)?;
        }
    }
    let found = paths
        .into_iter()
        .filter_map(|path| Some((path.clone(), found(&below(root, &path))?)))
        .collect();
    let state = match root {
        None => manager::look(&layout),
        Some(_) => manager::State::default(),
    };
    let (users, taken_ids) = accounts(manager, root);
    let program_is_same = program_is_same(&below(root, &layout.program))?;
    // A program of an image may be for another machine, and is not ours to run.
    let can_ask = root.is_none() && !program_is_same;
    Ok(Facts {
        system,
        packaged: packaged(root),
        release: env!("CARGO_PKG_VERSION"),
        release_there: can_ask.then(|| release_of(&layout.program)).flatten(),
        program_is_same,
        loose_dir: root.is_none().then(|| loose_dir(&layout.program)).flatten(),
        found,
        users,
        taken_ids,
        has_sysusers: ["/usr/bin", "/bin"]
            .iter()
            .any(|dir| Path::new(dir).join("systemd-sysusers").exists()),
        is_running: state.is_running,
        runs_other: runs_other(&layout, &state),
        is_enabled: state.is_enabled,
        config: config(&below(root, &layout.config), daemon),
        record,
        other_root: root.map(Path::to_owned),
    })
}

fn found(path: &Path) -> Option<Found> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if metadata.is_symlink() {
        return fs::read_link(path).ok().map(Found::Link);
    }
    if metadata.is_dir() {
        return Some(Found::Dir);
    }
    let is_small = metadata.is_file() && metadata.len() <= TEXT_BYTES_MAX;
    let text = is_small.then(|| fs::read_to_string(path).ok()).flatten();
    Some(text.map_or(Found::Other, Found::Text))
}

/// Whether the file at `path` has the bytes of the program that runs.
fn program_is_same(path: &Path) -> anyhow::Result<bool> {
    let own = own_program()?;
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(false);
    };
    let own_metadata =
        fs::metadata(&own).with_context(|| format!("cannot read `{}`", own.display()))?;
    if (metadata.dev(), metadata.ino()) == (own_metadata.dev(), own_metadata.ino()) {
        return Ok(true);
    }
    if metadata.len() != own_metadata.len() {
        return Ok(false);
    }
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        fs::File::open(path)?.read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    Ok(read(path)? == read(&own)?)
}

/// Whether the running service has another program in memory: its file was replaced since, or it says so.
fn runs_other(layout: &Layout, state: &manager::State) -> bool {
    let is_replaced = state
        .pid
        .and_then(Running::of)
        .is_some_and(|running| running.is_replaced);
    let says_other =
        || ask_release(layout).is_some_and(|release| release != env!("CARGO_PKG_VERSION"));
    state.is_running && (is_replaced || says_other())
}

/// The program that runs this.
///
/// # Errors
///
/// The system does not say.
pub(super) fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot tell which program this is")
}

/// A directory above `program` that others than root may change.
fn loose_dir(program: &Path) -> Option<PathBuf> {
    let is_loose = |dir: &&Path| {
        fs::metadata(dir).is_ok_and(|metadata| metadata.uid() != 0 || metadata.mode() & 0o002 != 0)
    };
    program
        .ancestors()
        .skip(1)
        .find(is_loose)
        .map(Path::to_owned)
}

fn config(path: &Path, daemon: Daemon) -> Option<Result<(), String>> {
    // A link that leads nowhere, as to a disk that is not there yet, is a configuration that cannot be read.
    if path.symlink_metadata().is_err() {
        return None;
    }
    let loaded = match daemon {
        Daemon::Agent => mesh_agent::Config::load(path)
            .map(drop)
            .map_err(anyhow::Error::new),
        Daemon::Controller => mesh_controller::Config::load(path)
            .map(drop)
            .map_err(anyhow::Error::new),
    };
    Some(loaded.map_err(|error| format!("{error:#}")))
}

/// The accounts that there are, and on macOS the ids that are taken.
fn accounts(manager: Manager, root: Option<&Path>) -> (BTreeSet<String>, BTreeSet<u32>) {
    match manager {
        Manager::Systemd => {
            let text = fs::read_to_string(below(root, Path::new("/etc/passwd")));
            let names = text.unwrap_or_default();
            let names = names.lines().filter_map(|line| line.split(':').next());
            (names.map(str::to_owned).collect(), BTreeSet::new())
        }
        Manager::Launchd => {
            let list = |what: [&str; 2]| {
                let output = output(Command::new("dscl").args([".", "-list"]).args(what));
                output.map(|text| dscl_list(&text)).unwrap_or_default()
            };
            let users = list(["/Users", "UniqueID"]);
            let groups = list(["/Groups", "PrimaryGroupID"]);
            let ids = users.values().chain(groups.values()).copied().collect();
            (users.into_keys().collect(), ids)
        }
    }
}

/// Reads `dscl . -list /Users UniqueID`: a name and its number a line.
fn dscl_list(text: &str) -> BTreeMap<String, u32> {
    text.lines()
        .filter_map(|line| {
            let (name, id) = line.trim_end().rsplit_once(char::is_whitespace)?;
            Some((name.trim_end().to_owned(), id.parse().ok()?))
        })
        .collect()
}

/// What a command prints; `None`: it cannot be run, or fails.
pub(super) fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_accounts_on_macos_is_read() {
        let text = "_www                    70\nnobody                  -2\nroot                    0\nmesh                    450\n";
        let list = dscl_list(text);
        assert_eq!(list["mesh"], 450);
        assert_eq!(list["_www"], 70);
        assert!(
            !list.contains_key("nobody"),
            "a negative id is not one that could be taken"
        );
    }

    #[test]
    fn an_image_whose_links_lead_out_of_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let image = root.join("image");
        fs::create_dir_all(image.join("usr/local")).unwrap();
        std::os::unix::fs::symlink("usr/local", image.join("inner")).unwrap();
        for within in ["/usr/local/bin/mesh", "/inner/bin/mesh", "/none/at/all"] {
            stays_below(&image, Path::new(within)).unwrap();
        }
        std::os::unix::fs::symlink("/etc", image.join("etc")).unwrap();
        std::os::unix::fs::symlink("../", image.join("var")).unwrap();
        std::os::unix::fs::symlink("/nowhere", image.join("run")).unwrap();
        for (out, word) in [
            ("/etc/mesh/agent.toml", "leads to `/etc`"),
            ("/var/lib/mesh/service.json", "out of"),
            ("/run/mesh", "cannot tell where"),
        ] {
            let error = stays_below(&image, Path::new(out)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_record_of_a_later_form_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::of(Manager::Systemd, Daemon::Agent);
        let path = below(Some(dir.path()), &layout.record);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, r#"{ "version": 2, "agents": {} }"#).unwrap();
        let error = record(&layout, Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("of form 2"), "{error}");
        fs::write(&path, r#"{ "version": 1, "agent": [] }"#).unwrap();
        assert_eq!(record(&layout, Some(dir.path())).unwrap().version, 1);
    }

    #[test]
    fn a_configuration_that_leads_nowhere_is_no_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        assert_eq!(config(&path, Daemon::Agent), None);
        std::os::unix::fs::symlink("/nowhere/agent.toml", &path).unwrap();
        assert!(matches!(config(&path, Daemon::Agent), Some(Err(_))));
    }

    #[test]
    fn what_others_may_change_is_found() {
        assert_eq!(loose_dir(Path::new("/tmp/mesh")), Some("/tmp".into()));
        assert_eq!(loose_dir(Path::new("/usr/bin/mesh")), None);
    }
}
