//! A conversation with the kernel's network configuration (rtnetlink(7)), one question at a time.
//!
//! [`crate::link`] is made of this, and the lab's namespaces are. It acts in the network namespace of the
//! thread that opened it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages are open-ended, and their enums non-exhaustive"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

/// The longest answer part that the kernel sends (`NLMSG_GOODSIZE` for dumps, larger with many queues).
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A netlink socket for requests.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    ///
    /// What `socket` gives.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            fd: open(0, SockFlag::empty())?,
            sequence: 0,
        })
    }

    /// Asks for a change; `flags` go with it (`NLM_F_CREATE` and the like).
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, flags | NLM_F_REQUEST | NLM_F_ACK)?;
        self.receive(|_| {})
    }

    /// Asks for a list: what the kernel has of the kind of `message`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut list = Vec::new();
        self.receive(|message| list.push(message))?;
        Ok(list)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes the parts of one answer until its end.
    fn receive(&self, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for message in messages(&buffer[..length]) {
                let message = message?;
                // Left over from a question whose answer ended early.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A socket that hears of changes to `groups` (`RTMGRP_*`).
pub(crate) fn open_multicast(groups: i32) -> io::Result<OwnedFd> {
    open(groups.cast_unsigned(), SockFlag::SOCK_NONBLOCK)
}

fn open(groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags | SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// Splits what one `recv` gave into messages.
fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    std::iter::from_fn(move || {
        if bytes.len() < size_of::<libc::nlmsghdr>() {
            return None;
        }
        let length = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes"));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let message = bytes
            .get(..length)
            .filter(|message| message.len() >= size_of::<libc::nlmsghdr>());
        let Some(message) = message else {
            bytes = &[];
            return Some(Err(io::Error::other("a cut netlink message")));
        };
        // Messages are aligned to four bytes (NLMSG_ALIGN).
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(message).map_err(io::Error::other))
    })
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
