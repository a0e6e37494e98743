//! Does what a plan says, one step after the other.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use mesh_os::file;

use super::{
    facts::{below, own_program},
    step::{Plan, Step},
};
use crate::commands::keygen;

/// A step that failed; those before it are done.
#[derive(Debug, thiserror::Error)]
#[error("step {number} of {of} failed: `{line}`")]
pub(super) struct StepFailed {
    number: usize,
    of: usize,
    line: String,
    source: anyhow::Error,
}

/// Does the steps, files below `root`; `tell` hears of each before it is done.
///
/// # Errors
///
/// [`StepFailed`]; what was done stays, and doing it again changes nothing.
pub(super) fn execute(
    plan: &Plan,
    root: Option<&Path>,
    mut tell: impl FnMut(&Step),
) -> Result<(), StepFailed> {
    for (index, step) in plan.steps.iter().enumerate() {
        tell(step);
        apply(step, root).map_err(|source| StepFailed {
            number: index + 1,
            of: plan.steps.len(),
            line: step
                .line()
                .trim_start_matches(['+', '~', '-', '$', ' '])
                .to_owned(),
            source,
        })?;
    }
    Ok(())
}

fn apply(step: &Step, root: Option<&Path>) -> anyhow::Result<()> {
    let at = |path: &PathBuf| below(root, path);
    match step {
        Step::MakeDir { path, .. } => file::create_dirs(&at(path))?,
        Step::CopyProgram { path, .. } => {
            let program = own_program()?;
            let bytes = fs::read(&program)
                .with_context(|| format!("cannot read `{}`", program.display()))?;
            write(&at(path), &bytes, 0o755)?;
        }
        Step::Link { path, target } => link(&at(path), target)?,
        Step::Write { path, text, .. } => write(&at(path), text.as_bytes(), 0o644)?,
        Step::MakeIdentity { path } => {
            keygen::generate(&at(path)).map_err(crate::failure::Failure::into_error)?;
        }
        Step::Run { command } => run(command)?,
        Step::Remove { path } => gone(fs::remove_file(at(path)))?,
        Step::RemoveDir { path } => match fs::remove_dir(at(path)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => gone(removed)?,
        },
        Step::RemoveTree { path } => gone(fs::remove_dir_all(at(path)))?,
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        file::create_dirs(dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    }
    Ok(file::write_atomic(path, bytes, mode)?)
}

/// Makes a link under another name first, so that there is one at every moment.
fn link(path: &Path, target: &Path) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        file::create_dirs(dir)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".mesh-new");
    gone(fs::remove_file(&beside))?;
    symlink(target, &beside)?;
    fs::rename(&beside, path)?;
    Ok(())
}

fn run(command: &[String]) -> anyhow::Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("an empty command");
    };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("it ended with {}: {}", output.status, words.trim());
    }
    Ok(())
}

/// What is not there is removed already.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn plan(steps: Vec<Step>) -> Plan {
        Plan {
            steps,
            notes: Vec::new(),
        }
    }

    #[test]
    fn every_step_can_be_done_twice() {
        let dir = tempfile::tempdir().unwrap();
        let root = Some(dir.path());
        let steps = plan(vec![
            Step::MakeDir {
                path: "/etc/mesh".into(),
                why: String::new(),
            },
            Step::CopyProgram {
                path: "/usr/local/bin/mesh".into(),
                why: String::new(),
                replaces: false,
            },
            Step::Link {
                path: "/bin/mesh".into(),
                target: "/usr/local/bin/mesh".into(),
            },
            Step::Write {
                path: "/etc/mesh/agent.toml".into(),
                text: "x".to_owned(),
                why: String::new(),
                was: None,
            },
        ]);
        for _ in 0..2 {
            execute(&steps, root, |_| {}).unwrap();
        }
        let program = dir.path().join("usr/local/bin/mesh");
        assert_eq!(
            program.metadata().unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(
            fs::read(&program).unwrap(),
            fs::read(own_program().unwrap()).unwrap()
        );
        let target = fs::read_link(dir.path().join("bin/mesh")).unwrap();
        assert_eq!(target, Path::new("/usr/local/bin/mesh"));

        let steps = plan(vec![
            Step::RemoveDir {
                path: "/etc/mesh".into(),
            },
            Step::Remove {
                path: "/bin/mesh".into(),
            },
            Step::RemoveTree {
                path: "/usr".into(),
            },
        ]);
        for _ in 0..2 {
            execute(&steps, root, |_| {}).unwrap();
        }
        assert!(
            dir.path().join("etc/mesh/agent.toml").exists(),
            "it was not empty"
        );
        assert!(!dir.path().join("usr").exists());
    }

    #[test]
    fn an_identity_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let steps = plan(vec![Step::MakeIdentity {
            path: "/identity".into(),
        }]);
        execute(&steps, Some(dir.path()), |_| {}).unwrap();
        let made = fs::read(dir.path().join("identity")).unwrap();
        assert!(execute(&steps, Some(dir.path()), |_| {}).is_err());
        assert_eq!(fs::read(dir.path().join("identity")).unwrap(), made);
    }

    #[test]
    fn a_failure_says_which_step_it_was_and_the_later_ones_are_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let steps = plan(vec![
            Step::MakeDir {
                path: "/a".into(),
                why: String::new(),
            },
            super::super::step::run(["false"]),
            Step::MakeDir {
                path: "/b".into(),
                why: String::new(),
            },
        ]);
        let error = execute(&steps, Some(dir.path()), |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "step 2 of 3 failed: `false`");
        assert!(dir.path().join("a").exists());
        assert!(!dir.path().join("b").exists());
    }
}
