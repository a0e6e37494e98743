//! Descriptors that outlive a process: a service manager keeps them and passes them to the next one.
//!
//! The protocol is systemd's, `FDSTORE=1` and `BARRIER=1` of sd_notify(3) and `LISTEN_FDS` of
//! sd_listen_fds(3); `mesh agent supervise` speaks its other side. `LISTEN_PID` may also name the
//! parent: a parent that does not exec itself cannot put its child's number into its environment.

pub mod manager;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::notify::Notifier;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
pub const FIRST: RawFd = 3;

/// The most descriptors that are taken: more than anyone keeps for us.
const PASSED_MAX: usize = 64;

/// What the manager passed to this process, by name.
#[derive(Debug, Default)]
pub struct Passed(BTreeMap<String, Vec<OwnedFd>>);

/// The manager's store, where one is offered: a connection that is opened while the process may still open
/// sockets by name.
#[derive(Debug)]
pub struct Store(Notifier);

impl Passed {
    /// Takes what the environment speaks of, once: a second call gives nothing. Must come before this
    /// process opens anything, so that the numbers are those that were passed.
    pub fn take() -> Self {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Self::default();
        }
        let variable = |name| env::var(name).ok();
        let names = names(
            variable("LISTEN_PID").as_deref(),
            variable("LISTEN_FDS").as_deref(),
            variable("LISTEN_FDNAMES").as_deref(),
            &[process::id(), std::os::unix::process::parent_id()],
        );
        let mut passed = Self::default();
        for (fd, name) in (FIRST..).zip(names) {
            // SAFETY: only looked at, for the length of this call; a closed number gives an error.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            if fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_err() {
                continue;
            }
            // SAFETY: it is open, was passed to this process, and nothing else took it: see above.
            let owned = unsafe { OwnedFd::from_raw_fd(fd) };
            passed.0.entry(name).or_default().push(owned);
        }
        passed
    }

    /// The one descriptor of this name; `None` if there is none, or several, of which none can be told to
    /// be the right one.
    pub fn one(&mut self, name: &str) -> Option<OwnedFd> {
        let mut all = self.all(name);
        let one = all.pop();
        one.filter(|_| all.is_empty())
    }

    /// All descriptors of this name, in the order in which they were passed.
    pub fn all(&mut self, name: &str) -> Vec<OwnedFd> {
        self.0.remove(name).unwrap_or_default()
    }

    /// Whether there is a descriptor of this name that was not asked for yet.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The names of what was not asked for yet.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

impl Store {
    /// Connects to the store that the environment offers; `None` if it offers none: `FDSTORE` says how many
    /// descriptors the manager keeps.
    ///
    /// # Errors
    ///
    /// The manager cannot be reached.
    pub fn offered() -> io::Result<Option<Self>> {
        let count = env::var("FDSTORE")
            .ok()
            .and_then(|count| count.parse().ok());
        match env::var_os("NOTIFY_SOCKET") {
            Some(name) if count.unwrap_or(0u64) > 0 => Self::connect(&name).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// The store of the manager that listens at `name`, as [`Notifier::connect`] takes it.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub fn connect(name: &OsStr) -> io::Result<Self> {
        Notifier::connect(name).map(Self)
    }

    /// Gives a copy of `fd` to the manager, under `name`.
    ///
    /// # Errors
    ///
    /// The manager cannot be told. Whether it has taken it is known after [`Store::settle`].
    pub fn keep(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        // Kept whatever its state: errors of a socket or a device are for the process that has it.
        self.0
            .hand_over(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), &[fd])
    }

    /// Makes the manager close all that it keeps under `name`.
    ///
    /// # Errors
    ///
    /// As [`Store::keep`].
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.0.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"))
    }

    /// Waits until the manager has acted on all that it was told.
    ///
    /// # Errors
    ///
    /// As [`Store::keep`]; [`io::ErrorKind::TimedOut`] if it has not after `patience`.
    pub fn settle(&self, patience: Duration) -> io::Result<()> {
        let (reader, writer) = io::pipe()?;
        self.0.hand_over("BARRIER=1", &[writer.as_fd()])?;
        // The manager's is the last copy; it closes it.
        drop(writer);
        let patience = PollTimeout::try_from(patience.as_millis()).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::empty())];
        loop {
            match poll(&mut fds, patience) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The names of the descriptors from [`FIRST`] on; nothing if they are not for one of `own`, or what is
/// said of them does not fit together.
fn names(pid: Option<&str>, count: Option<&str>, names: Option<&str>, own: &[u32]) -> Vec<String> {
    let said = || {
        let pid: u32 = pid?.parse().ok()?;
        let count: usize = count?.parse().ok()?;
        let names: Vec<_> = names?.split(':').map(str::to_owned).collect();
        (own.contains(&pid) && count <= PASSED_MAX && names.len() == count).then_some(names)
    };
    said().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn what_is_passed_is_for_the_process_or_its_child() {
        let of = |pid, count, list| names(pid, count, list, &[7, 8]).join(" ");
        assert_eq!(of(Some("7"), Some("2"), Some("tun:udp")), "tun udp");
        assert_eq!(of(Some("8"), Some("1"), Some("tun")), "tun");
        for (pid, count, list) in [
            (Some("9"), Some("1"), Some("tun")),
            (Some("7"), Some("2"), Some("tun")),
            (Some("7"), Some("1"), None),
            (Some("7"), Some("-1"), Some("tun")),
            (Some("7"), Some("65"), Some("tun")),
            (None, None, None),
        ] {
            assert_eq!(of(pid, count, list), "");
        }
    }

    #[test]
    fn of_several_descriptors_with_one_name_none_is_taken() {
        let open = || OwnedFd::from(io::pipe().unwrap().0);
        let mut passed = Passed(BTreeMap::from([
            ("tun".to_owned(), vec![open()]),
            ("udp".to_owned(), vec![open(), open()]),
            ("other".to_owned(), vec![open()]),
        ]));
        assert!(passed.one("tun").is_some());
        assert!(passed.one("tun").is_none());
        assert!(passed.one("udp").is_none());
        assert_eq!(passed.names(), ["other"]);
    }

    #[test]
    fn a_manager_that_does_not_answer_is_waited_for_no_longer_than_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let store = Store::connect(path.as_os_str()).unwrap();
        let error = store.settle(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut message = [0; 100];
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"BARRIER=1");
        // Without anybody's copy, the descriptor that came with it was closed: that is the answer.
        store.forget("state").unwrap();
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"FDSTOREREMOVE=1\nFDNAME=state");
    }
}
