//! Sleeping until there is something to do, for plain threads.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Wakes a thread that sleeps in [`wait_readable`] or [`wait_writable`].
///
/// One waker may serve several threads: after [`Wake::wake`] every waiter returns at once, until
/// somebody calls [`Wake::reset`]. Without a reset it is a stop signal for all of them.
#[derive(Debug)]
pub struct Wake {
    reader: io::PipeReader,
    writer: io::PipeWriter,
}

/// Why a wait ended. Both may be true; neither is after the time-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// The descriptor is ready, or has an error that the next call on it will say.
    pub ready: bool,
    /// Somebody called [`Wake::wake`].
    pub woken: bool,
}

impl Wake {
    /// A waker at rest.
    ///
    /// # Errors
    ///
    /// What making a pipe gives: no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        set_nonblocking(reader.as_fd())?;
        set_nonblocking(writer.as_fd())?;
        Ok(Self { reader, writer })
    }

    /// Ends the waits that are under way and those that follow. May be called from any thread.
    pub fn wake(&self) {
        // A full pipe is as readable as one with a single byte in it.
        let _ = io::Write::write(&mut &self.writer, &[1]);
    }

    /// Brings the waker to rest.
    pub fn reset(&self) {
        let mut bytes = [0; 64];
        while matches!(io::Read::read(&mut &self.reader, &mut bytes), Ok(1..)) {}
    }
}

/// Sleeps until `fd` can be read, `wake` is woken, or `timeout` (`None`: never) is over.
///
/// # Errors
///
/// What `poll` gives; a signal is no error.
pub fn wait_readable(fd: impl AsFd, wake: &Wake, timeout: Option<Duration>) -> io::Result<Woken> {
    wait(fd.as_fd(), PollFlags::POLLIN, wake, timeout)
}

/// As [`wait_readable`], until `fd` can be written.
///
/// # Errors
///
/// As [`wait_readable`].
pub fn wait_writable(fd: impl AsFd, wake: &Wake, timeout: Option<Duration>) -> io::Result<Woken> {
    wait(fd.as_fd(), PollFlags::POLLOUT, wake, timeout)
}

fn wait(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    wake: &Wake,
    timeout: Option<Duration>,
) -> io::Result<Woken> {
    let timeout = match timeout {
        None => PollTimeout::NONE,
        // Rounded up: a wait that ends early by a fraction would be repeated in a busy loop.
        Some(time) => {
            PollTimeout::try_from(time.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        }
    };
    let mut fds = [
        PollFd::new(fd, flags),
        PollFd::new(wake.reader.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut fds, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(Woken::default()),
        Err(error) => return Err(error.into()),
    }
    let any = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
    Ok(Woken {
        ready: any(&fds[0]),
        woken: any(&fds[1]),
    })
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, thread};

    use super::*;

    #[test]
    fn a_waker_ends_waits_until_it_is_reset() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wake = Wake::new().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| wait_readable(&socket, &wake, None).unwrap());
            wake.wake();
            let woken = waiter.join().unwrap();
            assert!(woken.woken && !woken.ready);
        });
        wake.wake();
        wake.reset();
        let timeout = Some(Duration::from_micros(1));
        assert_eq!(
            wait_readable(&socket, &wake, timeout).unwrap(),
            Woken::default()
        );
    }

    #[test]
    fn a_datagram_ends_a_wait() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wake = Wake::new().unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let woken = wait_readable(&socket, &wake, None).unwrap();
        assert!(woken.ready && !woken.woken);
    }
}
