//! Capabilities (capabilities(7)) and user namespaces.

use std::fs;

use nix::{
    errno::Errno,
    unistd::{User, setgroups, setresgid, setresuid},
};

use super::{DropError, Keep, UserChange, failed};

/// CAP_NET_BIND_SERVICE (capabilities(7)): ports below 1024.
const CAP_NET_BIND_SERVICE: u32 = 10;

/// CAP_NET_ADMIN (capabilities(7)): the one that configuring interfaces and routes needs.
const CAP_NET_ADMIN: u32 = 12;

/// `_LINUX_CAPABILITY_VERSION_3` of capget(2).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

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

/// As [`super::drop_privileges`]; `user` is who to become, or why nobody.
pub(super) fn drop_privileges(
    user: Result<User, String>,
    keep: Keep,
) -> Result<UserChange, DropError> {
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

/// Why the process cannot become `user`, if it cannot.
pub(super) fn obstacle(user: &User, _keep: Keep) -> Option<String> {
    let mapped =
        |map: &str, id: u32| fs::read_to_string(map).map_or(true, |text| is_mapped(&text, id));
    if !mapped("/proc/self/uid_map", user.uid.as_raw())
        || !mapped("/proc/self/gid_map", user.gid.as_raw())
    {
        return Some(format!("this user namespace does not map `{}`", user.name));
    }
    if fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny") {
        return Some("this user namespace does not let groups be given up".to_owned());
    }
    None
}

fn change_user(user: Result<User, String>) -> Result<UserChange, DropError> {
    let user = match user {
        Ok(user) => user,
        Err(reason) => return Ok(UserChange::Kept { reason }),
    };
    // SAFETY: this prctl takes plain numbers.
    let kept = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) };
    checked("keep capabilities over the change of user", kept)?;
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
    let admin = 1 << CAP_NET_ADMIN;
    let kept = match keep {
        Keep::Nothing => 0,
        Keep::NetAdmin => admin,
        Keep::NetAdminAndPorts => admin | permitted() & 1 << CAP_NET_BIND_SERVICE,
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
    capabilities().is_some_and(|[low, high]| {
        (low.permitted, low.effective) == (kept, kept) && (high.permitted, high.effective) == (0, 0)
    })
}

/// The first 32 of the capabilities that could be in force.
fn permitted() -> u32 {
    capabilities().map_or(0, |[low, _]| low.permitted)
}

fn capabilities() -> Option<[CapabilityData; 2]> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: `header` and `data` are what capget(2) of version 3 reads and fills, alive for the whole call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    (result == 0).then_some(data)
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
