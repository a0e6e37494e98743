//! Giving up privileges for good.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown, fchown},
    path::Path,
};

use nix::{
    errno::Errno,
    unistd::{User, geteuid, setgroups, setresgid, setresuid},
};

/// CAP_NET_ADMIN (capabilities(7)): the one that configuring interfaces and routes needs.
const CAP_NET_ADMIN: u32 = 12;

/// `_LINUX_CAPABILITY_VERSION_3` of capget(2).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

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

/// `struct __user_cap_header_struct` of capget(2).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct` of capget(2); two of them hold 64 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Leaves the process with what `keep` says, for good: bounding and ambient sets are emptied, programs
/// that it runs get nothing (`no_new_privs`), and if it is root it becomes `user` where one is named.
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
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(DropError::Threads(threads));
    }
    clear_bounding_set()?;
    let change = change_user(user)?;
    // SAFETY: this prctl takes plain numbers.
    let cleared = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    checked("clear the ambient capabilities", cleared)?;
    keep_only(keep)?;
    // SAFETY: as above.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    checked("set no_new_privs", set)?;
    Ok(change)
}

/// The user that [`drop_privileges`] will change to, so that files can be given to it before; `Err` is
/// the reason why there will be no change.
pub fn user_after_drop(user: Option<&str>) -> Result<User, String> {
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
    let mapped =
        |map: &str, id: u32| fs::read_to_string(map).map_or(true, |text| is_mapped(&text, id));
    if !mapped("/proc/self/uid_map", found.uid.as_raw())
        || !mapped("/proc/self/gid_map", found.gid.as_raw())
    {
        return Err(format!("this user namespace does not map `{name}`"));
    }
    if fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny") {
        return Err("this user namespace does not let groups be given up".to_owned());
    }
    Ok(found)
}

/// The account to become: the one that is configured, else `mesh` or `nobody`, whichever can be had. Where
/// neither can, [`user_after_drop`] says why.
pub fn choose_user(configured: Option<&str>) -> String {
    let available = |name: &&str| user_after_drop(Some(name)).is_ok();
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

fn change_user(user: Option<&str>) -> Result<UserChange, DropError> {
    let user = match user_after_drop(user) {
        Ok(user) => user,
        Err(reason) => return Ok(UserChange::Kept { reason }),
    };
    // SAFETY: this prctl takes plain numbers.
    let kept = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) };
    checked("keep capabilities over the change of user", kept)?;
    let failed = |action| {
        move |error: Errno| DropError::Io {
            action,
            source: error.into(),
        }
    };
    setgroups(&[]).map_err(failed("leave all groups"))?;
    setresgid(user.gid, user.gid, user.gid).map_err(failed("change the group"))?;
    setresuid(user.uid, user.uid, user.uid).map_err(failed("change the user"))?;
    Ok(UserChange::Changed {
        uid: user.uid.as_raw(),
        name: user.name,
    })
}

/// Needs CAP_SETPCAP; a process without it has nothing that the set could give back, as programs that it
/// runs are bound by `no_new_privs`.
fn clear_bounding_set() -> Result<(), DropError> {
    for capability in 0..64 {
        // SAFETY: this prctl takes plain numbers.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(dropped) {
            Ok(_) => {}
            // Past the last capability that this kernel knows, or not allowed.
            Err(Errno::EINVAL | Errno::EPERM) => break,
            Err(error) => {
                return Err(DropError::Io {
                    action: "clear the bounding set",
                    source: error.into(),
                });
            }
        }
    }
    Ok(())
}

fn keep_only(keep: Keep) -> Result<(), DropError> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut data = [CapabilityData::default(); 2];
    let kept = match keep {
        Keep::Nothing => 0,
        Keep::NetAdmin => 1 << CAP_NET_ADMIN,
    };
    data[0].permitted = kept;
    data[0].effective = kept;
    // SAFETY: `header` and `data` are what capset(2) of version 3 reads, alive for the whole call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    match Errno::result(result) {
        Ok(_) => Ok(()),
        // A service manager gave just these, and its filter of system calls forbids to change them.
        Err(Errno::EPERM) if has_exactly(kept) => Ok(()),
        Err(Errno::EPERM) => Err(DropError::Missing),
        Err(error) => Err(DropError::Io {
            action: "give up capabilities",
            source: error.into(),
        }),
    }
}

/// Whether the capabilities in force and those that could be are `kept`, each a bit of its number.
fn has_exactly(kept: u32) -> bool {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: `header` and `data` are what capget(2) of version 3 reads and fills, alive for the whole call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    let [low, high] = data;
    result == 0
        && (low.permitted, low.effective) == (kept, kept)
        && (high.permitted, high.effective) == (0, 0)
}

fn checked(action: &'static str, result: libc::c_int) -> Result<(), DropError> {
    match Errno::result(result) {
        Ok(_) => Ok(()),
        Err(error) => Err(DropError::Io {
            action,
            source: error.into(),
        }),
    }
}

/// Whether `map`, in the form of user_namespaces(7), has `id` on its inner side.
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(start)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (start..start.saturating_add(count)).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests;
