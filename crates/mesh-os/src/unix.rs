//! Local sockets: who may connect, and none left behind.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{Group, chown},
};
use tracing::{debug, warn};

/// Why a local socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("another process already listens on `{}`; stop it, or choose another `socket`", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("`{}` is in the way and is not a socket; remove it, or choose another `socket`", .0.display())]
    NotASocket(PathBuf),
    /// There is no such group.
    #[error("there is no group `{0}`; create it, or leave `group` out")]
    UnknownGroup(String),
    /// The system refused.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Removes the socket's file when dropped, if it is still the one that was made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// Listens on the UNIX socket `path` with permission bits `mode`, owned by `group` if one is named.
///
/// Missing parent directories are made (0755). A socket that nobody listens on any more is replaced. The
/// socket appears under its name only with its final owner and mode. Changing the group may need
/// privileges: listen before they are dropped. A group that the user namespace does not map is left out,
/// with a warning. The listener blocks until told otherwise.
///
/// # Errors
///
/// [`ListenError`].
pub fn listen(
    path: &Path,
    mode: u32,
    group: Option<&str>,
) -> Result<(UnixListener, SocketFile), ListenError> {
    let failed = |action| {
        move |source| ListenError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let group = group.map(find_group).transpose()?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    crate::file::create_dirs(parent).map_err(failed("create the directory of"))?;
    refuse_occupied(path)?;

    // Made in a directory that nobody else may enter, so that nobody connects before the mode is set.
    let room = tempfile::Builder::new()
        .prefix(".mesh-")
        .tempdir_in(parent)
        .map_err(failed("create the socket"))?;
    let made = room.path().join("s");
    let listener = UnixListener::bind(&made).map_err(failed("create the socket"))?;
    // A service manager's sandbox may forbid to give away what is right already.
    let owned_by = |group: &Group| {
        made.metadata()
            .is_ok_and(|it| it.gid() == group.gid.as_raw())
    };
    if let Some(group) = group.filter(|group| !owned_by(group)) {
        match chown(&made, None, Some(group.gid)) {
            Ok(()) => {}
            Err(Errno::EINVAL) => warn!(
                group = group.name,
                "this user namespace does not map the group; the socket is for its owner alone"
            ),
            Err(error) => return Err(failed("give the group the socket")(error.into())),
        }
    }
    fs::set_permissions(&made, Permissions::from_mode(mode))
        .map_err(failed("set the permissions of"))?;
    let inode = fs::symlink_metadata(&made)
        .map_err(failed("create the socket"))?
        .ino();
    fs::rename(&made, path).map_err(failed("create the socket"))?;
    let file = SocketFile {
        path: path.to_owned(),
        inode,
    };
    Ok((listener, file))
}

/// The name of the group that a file belongs to; `None` if it cannot be told.
pub fn group_of(path: &Path) -> Option<String> {
    let gid = fs::metadata(path).ok()?.gid();
    let group = Group::from_gid(nix::unistd::Gid::from_raw(gid)).ok()??;
    Some(group.name)
}

fn find_group(name: &str) -> Result<Group, ListenError> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group),
        Ok(None) | Err(_) => Err(ListenError::UnknownGroup(name.to_owned())),
    }
}

fn refuse_occupied(path: &Path) -> Result<(), ListenError> {
    let Ok(metadata) = path.symlink_metadata() else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        // Nobody listens: what a killed process left behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) | Ok(_) => Err(ListenError::InUse(path.to_owned())),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = self
            .path
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            debug!(%error, "could not remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_has_its_mode_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/for/it.sock");
        let (_listener, file) = listen(&path, 0o660, None).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        drop(file);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let stale = UnixListener::bind(&path).unwrap();
        assert!(matches!(
            listen(&path, 0o600, None),
            Err(ListenError::InUse(_))
        ));
        drop(stale);
        assert!(path.exists());
        let (_listener, _file) = listen(&path, 0o600, None).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_newer_owners_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (listener, file) = listen(&path, 0o600, None).unwrap();
        drop(listener);
        let (_newer, _newer_file) = listen(&path, 0o600, None).unwrap();
        drop(file);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_and_an_unknown_group_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "not a socket").unwrap();
        assert!(matches!(
            listen(&path, 0o600, None),
            Err(ListenError::NotASocket(_))
        ));
        let free = dir.path().join("free");
        let error = listen(&free, 0o600, Some("no-such-group-here")).unwrap_err();
        assert!(matches!(error, ListenError::UnknownGroup(_)));
        assert!(!free.exists());
    }

    /// Set where the test below runs a second time, in a user namespace.
    const INSIDE: &str = "MESH_TEST_INSIDE_USER_NAMESPACE";

    #[test]
    fn a_group_that_the_user_namespace_does_not_map_is_left_out() {
        let Some(group) = (1..100).find_map(|gid| Group::from_gid(gid.into()).ok()?) else {
            return; // A machine with root's group alone.
        };
        if std::env::var_os(INSIDE).is_none() {
            // A process with threads, as a test's is, cannot enter one.
            let enter = |program: &Path| {
                let mut command = std::process::Command::new("unshare");
                command.args(["--user", "--map-root-user"]).arg(program);
                command
            };
            if !enter(Path::new("true")).status().is_ok_and(|s| s.success()) {
                return; // No user namespaces.
            }
            let status = enter(&std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "unix::tests::a_group_that_the_user_namespace_does_not_map_is_left_out",
                ])
                .env(INSIDE, "1")
                .status();
            assert!(status.unwrap().success());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (_listener, _file) = listen(&path, 0o660, Some(&group.name)).unwrap();
        assert_eq!(
            path.metadata().unwrap().gid(),
            dir.path().metadata().unwrap().gid()
        );
    }
}
