//! The other side of [`descriptors`](crate::descriptors): what a parent does that keeps descriptors for a
//! child and passes them to the next one. Portable, as it is for systems without systemd.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{self, Command},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

use crate::descriptors::FIRST;

/// The most descriptors that are passed to a child.
pub const KEPT_MAX: usize = 40;

/// The most descriptors that come with one message, whoever sends it (`SCM_MAX_FD` of Linux). Room for fewer
/// would be an error of the call that reads it.
const SENT_MAX: usize = 253;

/// The longest name of a descriptor, in bytes, as systemd has it.
const NAME_BYTES_MAX: usize = 255;

/// The longest message, in bytes. What sd_notify(3) sends is far shorter.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What a child said.
#[derive(Debug, Default)]
pub struct Message {
    /// Lines of `KEY=value`.
    pub text: String,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

/// The numbers from [`FIRST`] on, held free of anything that a child must not lose.
#[derive(Debug)]
pub struct Slots {
    _placeholders: Vec<File>,
}

/// Takes the next message from the datagram socket `socket`, which does not block.
///
/// # Errors
///
/// What `recvmsg` gives, [`io::ErrorKind::WouldBlock`] if there is none.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Message> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut control = nix::cmsg_space!([RawFd; SENT_MAX]);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    #[cfg(target_os = "linux")]
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut control), flags)?;
    let length = received.bytes;
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            for number in numbers {
                // SAFETY: the kernel made this descriptor for us, and says so once.
                let fd = unsafe { OwnedFd::from_raw_fd(number) };
                fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
                fds.push(fd);
            }
        }
    }
    Ok(Message {
        text: String::from_utf8_lossy(&bytes[..length]).into_owned(),
        fds,
    })
}

/// Whether a descriptor may be kept under `name`: one that an environment variable and a list with colons
/// can hold, as systemd has it. Another one would keep every later child from being started.
pub fn is_name(name: &str) -> bool {
    let printable = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(printable)
}

impl Slots {
    /// Fills the numbers that descriptors are passed under. A pipe by which a child tells that it could not
    /// be started, say, never gets one of them then.
    ///
    /// # Errors
    ///
    /// What opening `/dev/null` gives.
    pub fn reserve() -> io::Result<Self> {
        let mut placeholders = Vec::new();
        loop {
            let file = File::open("/dev/null")?;
            if file.as_raw_fd() >= FIRST + i32::try_from(KEPT_MAX).unwrap_or(i32::MAX) {
                return Ok(Self {
                    _placeholders: placeholders,
                });
            }
            placeholders.push(file);
        }
    }

    /// Makes `command` pass `fds` with their names, at most [`KEPT_MAX`], as sd_listen_fds(3) has it.
    /// `LISTEN_PID` is this process: see [`Passed::take`](crate::descriptors::Passed::take).
    ///
    /// # Errors
    ///
    /// No descriptors are left.
    pub fn pass<'f>(
        &self,
        command: &mut Command,
        fds: impl IntoIterator<Item = (&'f str, BorrowedFd<'f>)>,
    ) -> io::Result<()> {
        let mut names = Vec::new();
        let mut copies = Vec::new();
        for (name, fd) in fds.into_iter().take(KEPT_MAX) {
            names.push(name);
            // Out of the way of the numbers that they will have.
            copies.push(fd.try_clone_to_owned()?);
        }
        command
            .env("LISTEN_PID", process::id().to_string())
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        // SAFETY: between fork and exec only dup2 is called, which is safe there (signal-safety(7)). It
        // replaces numbers that the reservation or somebody before it holds, and none of std's own.
        unsafe {
            command.pre_exec(move || {
                for (number, copy) in (FIRST..).zip(&copies) {
                    if libc::dup2(copy.as_raw_fd(), number) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::{fd::AsFd, unix::net::UnixDatagram},
        time::Duration,
    };

    use super::*;
    use crate::{descriptors::Store, notify::Notifier};

    #[test]
    fn what_a_child_gives_is_what_the_next_one_gets() {
        let slots = Slots::reserve().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let store = Store::connect(path.as_os_str()).unwrap();
        store.keep("pipe", reader.as_fd()).unwrap();
        drop(reader);
        let message = receive(socket.as_fd()).unwrap();
        assert_eq!(message.text, "FDSTORE=1\nFDNAME=pipe\nFDPOLL=0");
        assert_eq!(message.fds.len(), 1);

        writer.write_all(b"for the next\n").unwrap();
        drop(writer);
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "echo $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; cat <&3",
        ]);
        let fds = message.fds.iter().map(|fd| ("pipe", fd.as_fd()));
        slots.pass(&mut command, fds).unwrap();
        let output = command.output().unwrap();
        let expected = format!("{} 1 pipe\nfor the next\n", process::id());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }

    #[test]
    fn a_child_that_sends_too_much_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let child = Notifier::connect(path.as_os_str()).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let many = [reader.as_fd(); SENT_MAX];
        child.hand_over("FDSTORE=1\nFDNAME=junk", &many).unwrap();
        drop(reader);
        let message = receive(socket.as_fd()).unwrap();
        assert_eq!(message.fds.len(), SENT_MAX);
        drop(message);
        let error = writer.write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "none stays open");
        for (name, good) in [
            ("sessions", true),
            ("", false),
            ("a:b", false),
            ("a\0b", false),
            ("ä", false),
            (&"x".repeat(256), false),
        ] {
            assert_eq!(is_name(name), good, "{name:?}");
        }
    }

    #[test]
    fn a_child_waits_until_what_it_said_was_acted_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let store = Store::connect(path.as_os_str()).unwrap();
        std::thread::scope(|scope| {
            let settled = scope.spawn(|| store.settle(Duration::from_secs(20)));
            let message = loop {
                match receive(socket.as_fd()) {
                    Ok(message) => break message,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                std::thread::yield_now();
            };
            assert_eq!(message.text, "BARRIER=1");
            drop(message);
            settled.join().unwrap().unwrap();
        });
    }
}
