//! Root, or somebody else: macOS has nothing in between that would fit.
//!
//! Addresses and routes are for root alone, at any time, so who keeps [`Keep::NetAdmin`] or more stays root. A
//! sandbox profile (`sandbox_init`) is deprecated by the system and not used.

use nix::{
    errno::Errno,
    unistd::{User, setgid, setuid},
};

use super::{DropError, Keep, UserChange, failed};

/// As [`super::drop_privileges`]; `user` is who to become, or why nobody. The change is the whole
/// process's, whatever threads it has.
pub(super) fn drop_privileges(
    user: Result<User, String>,
    _keep: Keep,
) -> Result<UserChange, DropError> {
    let user = match user {
        Ok(user) => user,
        Err(reason) => return Ok(UserChange::Kept { reason }),
    };
    let group = user.gid.as_raw();
    // SAFETY: reads one group id, which outlives the call.
    let left = unsafe { libc::setgroups(1, &raw const group) };
    Errno::result(left).map_err(failed("leave all groups"))?;
    setgid(user.gid).map_err(failed("change the group"))?;
    setuid(user.uid).map_err(failed("change the user"))?;
    Ok(UserChange::Changed {
        uid: user.uid.as_raw(),
        name: user.name,
    })
}

/// Why the process cannot become somebody else, if it cannot.
pub(super) fn obstacle(_user: &User, keep: Keep) -> Option<String> {
    match keep {
        Keep::Nothing => None,
        Keep::NetAdmin | Keep::NetAdminAndPorts => {
            Some("macOS lets root alone configure interfaces and routes".to_owned())
        }
    }
}
