//! Words to the service manager, as sd_notify(3) has them.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// How long a word may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the service manager, opened while the process may still open sockets by name. Without a
/// service manager every word is dropped.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    /// Connects to the socket that `$NOTIFY_SOCKET` names, if there is one.
    ///
    /// # Errors
    ///
    /// What the system says, such as that nobody listens there.
    pub fn from_environment() -> io::Result<Self> {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Ok(Self { socket: None });
        };
        Self::connect(&name)
    }

    /// Connects to the socket `name`: a path, or on Linux `@` and an abstract name.
    ///
    /// # Errors
    ///
    /// As [`Notifier::from_environment`].
    pub fn connect(name: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(name)?)?;
        // A service manager that does not read must not hold the daemon up for long.
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket: Some(socket),
        })
    }

    /// Says `state`, such as `READY=1`; several are separated by line feeds.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn say(&self, state: &str) -> io::Result<()> {
        self.hand_over(state, &[])
    }

    /// Says `state` and hands `descriptors` over with it, such as with `FDSTORE=1`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn hand_over(&self, state: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights };
        let bytes = [io::IoSlice::new(state.as_bytes())];
        sendmsg::<()>(socket.as_raw_fd(), &bytes, control, MsgFlags::empty(), None)?;
        Ok(())
    }
}

/// How often the service manager wants to hear `WATCHDOG=1` at least; `None`: never.
pub fn watchdog() -> Option<Duration> {
    let for_another = |pid: String| pid.parse() != Ok(std::process::id());
    if env::var("WATCHDOG_PID").is_ok_and(for_another) {
        return None;
    }
    let micros = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(micros)).filter(|period| !period.is_zero())
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        os::fd::{AsFd, FromRawFd, OwnedFd},
    };

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    #[test]
    fn words_and_descriptors_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        notifier.say("READY=1").unwrap();
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"kept").unwrap();
        notifier
            .hand_over("FDSTORE=1\nFDNAME=tun", &[file.as_fd()])
            .unwrap();
        let mut space = nix::cmsg_space!(RawFd);
        let mut slices = [io::IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<()>(
            manager.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let Some(ControlMessageOwned::ScmRights(fds)) = received.cmsgs().unwrap().next() else {
            panic!("no descriptor");
        };
        // SAFETY: the kernel just made this descriptor, and nobody else knows it.
        let mut kept = File::from(unsafe { OwnedFd::from_raw_fd(fds[0]) });
        kept.rewind().unwrap();
        let mut content = String::new();
        kept.read_to_string(&mut content).unwrap();
        assert_eq!(content, "kept");
    }

    #[test]
    fn without_a_service_manager_words_are_dropped() {
        Notifier { socket: None }.say("READY=1").unwrap();
    }
}
