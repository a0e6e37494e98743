//! Hears of changes to interfaces, addresses and routes.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use netlink_packet_route::RouteNetlinkMessage;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::{io::unix::AsyncFd, time::timeout};

use super::{LinkError, failed};
use crate::netlink::{messages, open_multicast};

/// Changes that come within this time of each other are one: an interface that comes up brings a dozen.
const QUIET: Duration = Duration::from_millis(100);

/// A flood of changes is reported at least this often.
const PATIENCE: Duration = Duration::from_secs(1);

/// Changes of this machine's interfaces, addresses and routes, the mesh's own interface left out.
#[derive(Debug)]
pub struct NetworkChanges {
    fd: AsyncFd<OwnedFd>,
    ignored: Option<u32>,
}

impl NetworkChanges {
    /// Listens from now on, in this thread's network namespace; `ignored` is the index of the interface
    /// whose changes are our own. Needs a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if the system has no netlink.
    pub fn new(ignored: Option<u32>) -> Result<Self, LinkError> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        open_multicast(groups)
            .and_then(|fd| {
                // SAFETY: the descriptor is owned by the `AsyncFd` alone and stays open as long as it.
                unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
            })
            .map(|fd| Self { fd, ignored })
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
            while !self.next().await? {}
            let quiet = async { while timeout(QUIET, self.next()).await.is_ok() {} };
            // Running out of patience is as good as quiet.
            let _ = timeout(PATIENCE, quiet).await;
            Ok(())
        };
        result
            .await
            .map_err(failed(|| "hear of network changes".to_owned()))
    }

    /// Waits for messages; returns whether one of them matters.
    async fn next(&self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let received = loop {
            let mut guard = self.fd.readable().await?;
            let attempt = guard.try_io(|fd| {
                recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)
            });
            if let Ok(received) = attempt {
                break received;
            }
        };
        match received {
            Ok(length) => Ok(messages(&buffer[..length]).any(|message| match message {
                Ok(message) => match message.payload {
                    netlink_packet_core::NetlinkPayload::InnerMessage(inner) => {
                        self.matters(&inner)
                    }
                    _ => false,
                },
                Err(_) => true,
            })),
            // More changes than the socket holds: something changed for sure.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn matters(&self, message: &RouteNetlinkMessage) -> bool {
        use netlink_packet_route::route::RouteAttribute::Oif;
        let index = match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                Some(link.header.index)
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                Some(address.header.index)
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => route
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    Oif(index) => Some(*index),
                    _ => None,
                }),
            _ => None,
        };
        self.ignored.is_none() || index != self.ignored
    }
}
