//! A daemon that takes from itself what it does not need any more.
//!
//! Whoever finds a hole in a parser gets the process, and with it what the process may do. So a daemon
//! calls [`confine`] once everything is open and its privileges are dropped, before its first thread:
//! threads inherit it, and nothing takes it back. Then, whatever runs in the process, and whatever user it
//! is: it reads its configuration and what name resolution needs, writes its state and its socket's
//! directory, and starts no program. Landlock judges files, TCP ports, signals and sockets by name; seccomp
//! judges system calls. What a kernel does not have is named and does not keep the daemon from starting.
//!
//! Sockets by name (`AF_UNIX`) cannot be opened afterwards: see [`crate::notify`] for the one that is needed.

#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod seccomp;

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// What a daemon needs after its start, beside network sockets and what name resolution reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files that are read, and directories of which every file may be.
    pub read: Vec<PathBuf>,
    /// Directories in which files are read, written, made, renamed and removed.
    pub write: Vec<PathBuf>,
    /// TCP ports that are listened on later; what listens already goes on.
    pub tcp_listen: Vec<u16>,
    /// TCP ports that are connected to.
    pub tcp_connect: Vec<u16>,
}

/// What holds a process back, and what this system cannot do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// What is in force, such as `files`.
    pub in_force: Vec<String>,
    /// What is not, each with its reason.
    pub missing: Vec<String>,
}

impl Needs {
    /// The least: to write into `dirs` and to read the files of `configs` again, also after they were
    /// replaced by a rename or a symbolic link to them was turned.
    ///
    /// A link may be turned to any file in the directory that it leads to at the start, and in the whole Nix
    /// store if it leads there.
    pub fn new<'a>(
        configs: impl IntoIterator<Item = &'a Path>,
        dirs: impl IntoIterator<Item = &'a Path>,
    ) -> Self {
        const NIX_STORE: &str = "/nix/store";
        let mut read = Vec::new();
        for config in configs {
            read.push(directory_of(config));
            if let Ok(target) = config.canonicalize() {
                let in_store = target.starts_with(NIX_STORE);
                read.push(if in_store {
                    PathBuf::from(NIX_STORE)
                } else {
                    directory_of(&target)
                });
            }
        }
        Self {
            read,
            write: dirs.into_iter().map(Path::to_owned).collect(),
            ..Self::default()
        }
    }
}

impl Confinement {
    /// That of a process that was told not to confine itself.
    pub fn switched_off() -> Self {
        Self {
            in_force: Vec::new(),
            missing: vec!["all of it: `confine = false`".to_owned()],
        }
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: &[String]| match items {
            [] => "nothing".to_owned(),
            items => items.join(", "),
        };
        write!(f, "{}", list(&self.in_force))?;
        if !self.missing.is_empty() {
            write!(f, "; not: {}", list(&self.missing))?;
        }
        Ok(())
    }
}

/// Confines the calling thread and those that it starts, for good, to what `needs` names.
///
/// A path that does not exist is passed over. Never fails: what could not be had is in the result.
pub fn confine(needs: &Needs) -> Confinement {
    let mut confinement = Confinement::default();
    #[cfg(target_os = "linux")]
    {
        count_threads(&mut confinement);
        hide_memory(&mut confinement);
        landlock::restrict(needs, &mut confinement);
        // Last: it takes away what the others are done with.
        seccomp::restrict(&mut confinement);
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = needs;
        let reason = "all of it: this system has nothing that a daemon could confine itself with";
        confinement.missing.push(reason.to_owned());
    }
    confinement
}

/// Names the threads that run already: they go on as they are.
#[cfg(target_os = "linux")]
fn count_threads(confinement: &mut Confinement) {
    let others = std::fs::read_dir("/proc/self/task").map_or(0, |threads| threads.count() - 1);
    if others > 0 {
        let what = format!("all of it: {others} threads that were started before");
        confinement.missing.push(what);
    }
}

/// Keeps other processes of the same user from looking into this one, and its keys out of core dumps.
#[cfg(target_os = "linux")]
fn hide_memory(confinement: &mut Confinement) {
    // SAFETY: this prctl takes plain numbers.
    let set = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    match nix::errno::Errno::result(set) {
        Ok(_) => confinement.in_force.push("memory".to_owned()),
        Err(error) => confinement.missing.push(format!("memory: {error}")),
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_directories_of_a_file_and_of_what_it_links_to_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        std::fs::create_dir_all(dir.join("static")).unwrap();
        std::fs::write(dir.join("static/agent.toml"), "").unwrap();
        symlink("../static/agent.toml", dir.join("etc/agent.toml")).unwrap();
        let config = dir.join("etc/agent.toml");
        let needs = Needs::new([&*config], [Path::new("/state")]);
        assert_eq!(needs.read, [dir.join("etc"), dir.join("static")]);
        assert_eq!(needs.write, [PathBuf::from("/state")]);
        assert_eq!(
            Needs::new([Path::new("none.toml")], []).read,
            [Path::new(".")]
        );
    }

    #[test]
    fn one_line_says_what_is_in_force_and_what_is_not() {
        let confinement = Confinement {
            in_force: vec!["files".to_owned(), "system calls".to_owned()],
            missing: vec!["signals: Landlock 6 (this kernel has 5)".to_owned()],
        };
        assert_eq!(
            confinement.to_string(),
            "files, system calls; not: signals: Landlock 6 (this kernel has 5)"
        );
        assert_eq!(
            Confinement::switched_off().to_string(),
            "nothing; not: all of it: `confine = false`"
        );
    }
}
