//! Hears of changes to interfaces, addresses and routes.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::{io::unix::AsyncFd, time::timeout};

use super::{LinkError, failed, system};

/// Changes that come within this time of each other are one: an interface that comes up brings a dozen.
const QUIET: Duration = Duration::from_millis(100);

/// A flood of changes is reported at least this often.
const PATIENCE: Duration = Duration::from_secs(1);

/// Changes of this machine's interfaces, addresses and routes.
#[derive(Debug)]
pub struct NetworkChanges(AsyncFd<OwnedFd>);

impl NetworkChanges {
    /// Listens from now on, in this thread's network namespace. Needs a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if the system has no such socket.
    pub fn new() -> Result<Self, LinkError> {
        system::listen_for_changes()
            .and_then(|fd| {
                // SAFETY: the descriptor is owned by the `AsyncFd` alone and stays open as long as it.
                unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
            })
            .map(Self)
            .map_err(failed(|| "listen for network changes".to_owned()))
    }

    /// Returns after something changed and it was quiet for 100 ms (or a second has passed). May be
    /// cancelled at any time; a change seen before that may then be lost, not one that comes later.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if the socket broke.
    pub async fn changed(&mut self) -> Result<(), LinkError> {
        let result = async {
            self.next().await?;
            let quiet = async { while timeout(QUIET, self.next()).await.is_ok() {} };
            // Running out of patience is as good as quiet.
            let _ = timeout(PATIENCE, quiet).await;
            Ok(())
        };
        result
            .await
            .map_err(failed(|| "hear of network changes".to_owned()))
    }

    /// Waits for messages that are worth a look: who hears of a change looks for itself.
    async fn next(&self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let mut guard = self.0.readable().await?;
            let attempt = guard.try_io(|fd| {
                recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)
            });
            match attempt {
                Ok(Ok(length)) if system::tells_of_change(&buffer[..length]) => return Ok(()),
                // More changes than the socket holds are changes too.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    return Ok(());
                }
                Ok(Err(error)) => return Err(error),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }
}
