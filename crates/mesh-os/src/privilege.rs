//! Giving up privileges for good.
//!
//! What they are is the system's: capabilities on Linux, being root on macOS. What a daemon opens before,
//! and whose its files are, is the same everywhere.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown, fchown},
    path::Path,
};

use nix::unistd::{User, geteuid};

#[cfg(target_os = "macos")]
mod darwin;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "macos")]
use darwin as system;
#[cfg(target_os = "linux")]
use linux as system;

/// Accounts that a daemon becomes unless it is told which: its own, else the one that owns nothing.
const USERS: [&str; 2] = ["mesh", LAST_RESORT_USER];

/// The account that owns nothing.
const LAST_RESORT_USER: &str = "nobody";

/// What a process goes on with after it dropped its privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// No capability at all.
    Nothing,
    /// CAP_NET_ADMIN alone.
    NetAdmin,
    /// CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE where the process has it: a port below 1024 that is bound anew
    /// when the address changes.
    NetAdminAndPorts,
}

/// What became of the change of user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserChange {
    /// The process is this user now.
    Changed {
        /// Its name.
        name: String,
        /// Its user id.
        uid: u32,
    },
    /// The process stays who it was.
    Kept {
        /// Why, such as `not started as root`.
        reason: String,
    },
}

/// Why privileges were not given up. The process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// Threads keep their own privileges, so there must be none yet.
    #[error("privileges must be dropped before threads are started; there are {0}")]
    Threads(usize),
    /// The capability that is to be kept is missing.
    #[error("CAP_NET_ADMIN is missing; run as root or through the service manager")]
    Missing,
    /// The kernel refused.
    #[error("cannot {action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Leaves the process with what `keep` says, for good, and if it is root it becomes `user` where one is
/// named.
///
/// On Linux bounding and ambient sets are emptied, and programs that it runs get nothing
/// (`no_new_privs`). On macOS only root may configure interfaces and routes, so a process that keeps
/// [`Keep::NetAdmin`] or more stays root.
///
/// The change of user is left out, with a reason, where the process is not root, there is no such user,
/// or its user namespace does not map it. Open what needs privileges before; call this before any thread
/// is started. Files that the process will write must belong to `user` by then (see
/// [`user_after_drop`]).
///
/// # Errors
///
/// [`DropError`].
pub fn drop_privileges(user: Option<&str>, keep: Keep) -> Result<UserChange, DropError> {
    system::drop_privileges(user_after_drop(user, keep), keep)
}

/// The user that [`drop_privileges`] will change to, so that files can be given to it before; `Err` is
/// the reason why there will be no change.
pub fn user_after_drop(user: Option<&str>, keep: Keep) -> Result<User, String> {
    let Some(name) = user else {
        return Err("no user is configured".to_owned());
    };
    if !geteuid().is_root() {
        return Err("not started as root".to_owned());
    }
    let found = User::from_name(name).ok().flatten();
    let Some(found) = found else {
        return Err(format!("there is no user `{name}`"));
    };
    match system::obstacle(&found, keep) {
        None => Ok(found),
        Some(reason) => Err(reason),
    }
}

/// The account to become: the one that is configured, else `mesh` or `nobody`, whichever can be had. Where
/// neither can, [`user_after_drop`] says why.
pub fn choose_user(configured: Option<&str>, keep: Keep) -> String {
    let available = |name: &&str| user_after_drop(Some(name), keep).is_ok();
    let own = || USERS.into_iter().find(available);
    configured
        .or_else(own)
        .unwrap_or(LAST_RESORT_USER)
        .to_owned()
}

/// Whether there is an account of this name.
pub fn is_user(name: &str) -> bool {
    matches!(User::from_name(name), Ok(Some(_)))
}

/// The name of the account that this process runs as, or its number where it has no name.
pub fn current_user() -> String {
    let uid = geteuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("user id {uid}"),
    }
}

/// Gives the directory `dir` and the files directly in it to `user`; one that is `user`'s already is left
/// as it is, so that nothing which `user` put into it is ever followed.
///
/// # Errors
///
/// What the system says.
pub fn hand_over(dir: &Path, user: &User) -> io::Result<()> {
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let handle = File::open(dir)?;
    if handle.metadata()?.uid() == uid {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(entry.path())?;
        let metadata = file.metadata()?;
        // With a second name it may be somebody else's file.
        if metadata.is_file() && metadata.nlink() == 1 {
            fchown(&file, Some(uid), Some(gid))?;
        }
    }
    // Last, so that a process which is killed meanwhile does the rest at its next start.
    fchown(&handle, Some(uid), Some(gid))
}

/// Gives `user` the directory of the local socket `socket` if it is mesh's own, which is called `mesh`, so
/// that the socket can be removed at the end. The files in it stay whose they are.
///
/// # Errors
///
/// What the system says.
pub fn hand_over_socket_dir(socket: &Path, user: &User) -> io::Result<()> {
    match socket.parent() {
        Some(dir) if dir.file_name().is_some_and(|name| name == "mesh") => {
            chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        }
        Some(_) | None => Ok(()),
    }
}

fn failed(action: &'static str) -> impl Fn(nix::errno::Errno) -> DropError {
    move |error| DropError::Io {
        action,
        source: error.into(),
    }
}
