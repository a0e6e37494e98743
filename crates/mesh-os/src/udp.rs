//! The agent's UDP socket: both families on one port, many datagrams a call.

mod receive;
mod send;

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use mesh_types::Ecn;
use quinn_udp::{EcnCodepoint, Transmit, UdpSockRef, UdpSocketState};

pub use self::{
    receive::{Datagram, RecvBatch},
    send::{Gather, SendBatch},
};
use crate::socket::{BindError, bind_udp, bind_udp_beside};

/// The most bytes that one system call hands over for one peer, whatever the offload: a UDP payload.
const BURST_BYTES_MAX: usize = 65_507;

/// What the kernel is asked to keep for a socket, in bytes: a few milliseconds at full speed. Deeper
/// queues trade latency for throughput.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;

/// What it is asked to keep while one process ends and the next begins: five seconds of 1 000 small
/// packets each, which count for a kilobyte.
const PATIENT_BUFFER_BYTES: usize = 8 << 20;

/// A UDP socket for plain threads. Calls never block: sleep with [`crate::poll::wait_readable`].
///
/// Datagrams are received and sent through the kernel's segmentation offloads where it has them. All
/// methods take `&self`, so that one thread may receive while another sends.
#[derive(Debug)]
pub struct UdpSocket {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    port: u16,
    is_ipv4: bool,
    /// The index of the interface that it is bound to; 0 where it is bound to none.
    interface: AtomicU32,
    /// How many datagrams go in one call at most. Not asked of `state` again, which gives up for ever after any
    /// send that the system calls invalid, be it for its destination.
    segments_max: AtomicUsize,
}

impl UdpSocket {
    /// Binds `port` (0: any) for IPv6 and IPv4, or for IPv4 alone on a machine without IPv6.
    ///
    /// # Errors
    ///
    /// [`BindError`]; a taken port names its holder.
    pub fn bind(port: u16) -> Result<Self, BindError> {
        Self::bind_address(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
    }

    /// Binds one address. The wildcard of IPv6 takes IPv4 too, as with [`UdpSocket::bind`]; the wildcard
    /// of IPv4 takes IPv4 alone.
    ///
    /// # Errors
    ///
    /// [`BindError`]; a taken port names its holder.
    pub fn bind_address(address: SocketAddr) -> Result<Self, BindError> {
        match bind_udp(address) {
            Ok(socket) => Self::new(socket, address),
            Err(BindError::Io { source, .. })
                if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&source) =>
            {
                let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                Self::new(bind_udp(any_v4)?, any_v4)
            }
            Err(error) => Err(error),
        }
    }

    /// Binds one address by `count` sockets, between which the system shares what arrives: all from one sender comes to
    /// the same one. As [`UdpSocket::bind_address`] else; where the system cannot do that, there is one.
    ///
    /// # Errors
    ///
    /// [`BindError`]; a taken port names its holder.
    pub fn bind_group(address: SocketAddr, count: usize) -> Result<Vec<Self>, BindError> {
        // Alone at first: a port that is another process's is taken.
        let mut sockets = vec![Self::bind_address(address)?];
        if cfg!(target_os = "linux") && count > 1 {
            let at = sockets[0].share().map_err(|source| BindError::Io {
                transport: crate::socket::Transport::Udp,
                address,
                source,
            })?;
            for _ in 1..count {
                sockets.push(Self::new(bind_udp_beside(at)?, at)?);
            }
        }
        Ok(sockets)
    }

    /// Lets other sockets of this user have its address; returns that.
    fn share(&self) -> io::Result<SocketAddr> {
        socket2::SockRef::from(&self.socket).set_reuse_port(true)?;
        self.socket.local_addr()
    }

    /// Goes on with a socket that another process bound, with what waits in it. Its queue stays as long as it
    /// is, until [`UdpSocket::set_patient`]: a queue that holds more than it may takes nothing more.
    ///
    /// # Errors
    ///
    /// It is not bound as [`UdpSocket::bind_address`] binds `address`, or it is broken. Then `fd` is
    /// closed.
    pub fn adopt(fd: OwnedFd, address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::from(fd);
        if socket.r#type()? != socket2::Type::DGRAM {
            return Err(io::Error::other("it is no socket for datagrams"));
        }
        let socket = std::net::UdpSocket::from(socket);
        let bound = socket.local_addr()?;
        let any_v4 = address.ip() == Ipv6Addr::UNSPECIFIED && bound.ip() == Ipv4Addr::UNSPECIFIED;
        let same_port = address.port() == 0 || bound.port() == address.port();
        if !same_port || (bound.ip() != address.ip() && !any_v4) {
            return Err(io::Error::other(
                "it is bound to another address than the one configured",
            ));
        }
        if bound.is_ipv6() && address.ip().is_unspecified() {
            let only_ipv6 = socket2::SockRef::from(&socket).only_v6()?;
            if only_ipv6 {
                return Err(io::Error::other("it takes IPv6 alone"));
            }
        }
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            segments_max: state.max_gso_segments().into(),
            state,
            socket,
            port: bound.port(),
            is_ipv4: bound.is_ipv4(),
            // Whatever the last process set: the first call sets it anew.
            interface: AtomicU32::new(u32::MAX),
        })
    }

    /// Makes room for what comes while nobody reads, or takes it back. Does what the system grants.
    pub fn set_patient(&self, patient: bool) {
        let bytes = match patient {
            true => PATIENT_BUFFER_BYTES,
            false => SOCKET_BUFFER_BYTES,
        };
        // With CAP_NET_ADMIN beyond what the system grants to all.
        #[cfg(target_os = "linux")]
        if nix::sys::socket::setsockopt(
            &self.socket,
            nix::sys::socket::sockopt::RcvBufForce,
            &bytes,
        )
        .is_ok()
        {
            return;
        }
        let _ = self
            .state
            .set_recv_buffer_size(UdpSockRef::from(&self.socket), bytes);
    }

    fn new(socket: std::net::UdpSocket, address: SocketAddr) -> Result<Self, BindError> {
        let prepared = || {
            let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
            // What the system grants; less only costs speed.
            let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
            let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
            Ok((state, socket.local_addr()?.port()))
        };
        let (state, port) = prepared().map_err(|source| BindError::Io {
            transport: crate::socket::Transport::Udp,
            address,
            source,
        })?;
        Ok(Self {
            segments_max: state.max_gso_segments().into(),
            socket,
            state,
            port,
            is_ipv4: address.is_ipv4(),
            interface: AtomicU32::new(0),
        })
    }

    /// The port it is bound to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends by way of the interface of index `interface` from now on, whatever the routes say; by the
    /// routes again after `None`. Returns whether that is a change. What arrives by other interfaces may be
    /// lost meanwhile.
    ///
    /// Only macOS has this for every process; elsewhere nothing changes.
    ///
    /// # Errors
    ///
    /// What the system gives: the interface is gone.
    pub fn bind_to_interface(&self, interface: Option<u32>) -> io::Result<bool> {
        let index = interface.unwrap_or(0);
        if self.interface.load(Ordering::Relaxed) == index || !cfg!(target_os = "macos") {
            return Ok(false);
        }
        #[cfg(target_os = "macos")]
        {
            let socket = socket2::SockRef::from(&self.socket);
            let index = std::num::NonZeroU32::new(index);
            // The option of IPv6 is in force for IPv4 too, on a socket of both families.
            if self.is_ipv4 {
                socket.bind_device_by_index_v4(index)?;
            } else {
                socket.bind_device_by_index_v6(index)?;
            }
        }
        self.interface.store(index, Ordering::Relaxed);
        Ok(true)
    }

    /// Receives what has arrived, as much as `batch` has room for. Never blocks.
    ///
    /// Returns whether there was anything; [`RecvBatch::datagrams`] has it.
    ///
    /// # Errors
    ///
    /// What the system gives. An unreachable destination that an earlier send met is no error.
    pub fn recv(&self, batch: &mut RecvBatch) -> io::Result<bool> {
        let received = batch.fill(|buffers, meta| {
            let socket = UdpSockRef::from(&self.socket);
            self.state.recv(socket, buffers, meta)
        });
        match received {
            Err(error) if !is_transient(&error) => Err(error),
            _ => Ok(!batch.is_empty()),
        }
    }

    /// Sends one datagram, for what is rare, such as handshakes. `source`: from which of this machine's
    /// addresses; `None` lets the system choose.
    ///
    /// # Errors
    ///
    /// As [`SendBatch::flush`].
    pub fn send(
        &self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        datagram: &[u8],
    ) -> io::Result<()> {
        self.transmit(destination, source, Ecn::NotCapable, datagram, None)
    }

    /// Sends one datagram that goes `hops` hops at most, if it goes by IPv4 and the system can limit that for a
    /// single one, as Linux does; else as any other.
    ///
    /// # Errors
    ///
    /// As [`SendBatch::flush`].
    pub fn send_near(&self, destination: SocketAddr, hops: u8, datagram: &[u8]) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if destination.is_ipv4() {
            let limit = nix::sys::socket::ControlMessage::Ipv4Ttl(&hops.into());
            return self.send_with(&[limit], destination, &[IoSlice::new(datagram)]);
        }
        let _ = hops;
        self.send(destination, None, datagram)
    }

    fn transmit(
        &self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        ecn: Ecn,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.of_socket_family(destination)?,
            ecn: EcnCodepoint::from_bits(ecn.bits()),
            contents,
            segment_size,
            src_ip: source.map(|ip| self.ip_of_socket_family(ip)),
        };
        self.when_writable(|| {
            self.state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
        })
    }

    fn segments_max(&self) -> usize {
        self.segments_max.load(Ordering::Relaxed)
    }

    /// Sends datagrams to one destination, all but the last of `segment_bytes`, in one call; one by one where
    /// that is refused.
    #[cfg(target_os = "linux")]
    fn send_run(
        &self,
        destination: SocketAddr,
        ecn: Ecn,
        segment_bytes: usize,
        datagrams: &[IoSlice<'_>],
    ) -> io::Result<()> {
        use nix::errno::Errno;
        let Err(error) = self.send_segmented(destination, ecn, segment_bytes, datagrams) else {
            return Ok(());
        };
        match error.raw_os_error().map(Errno::from_raw) {
            // The card that they leave by makes no checksums: it is not asked again.
            Some(Errno::EIO) => self.segments_max.store(1, Ordering::Relaxed),
            // One of them is longer than the way there takes. Perhaps others are not.
            Some(Errno::EMSGSIZE | Errno::EINVAL) => {}
            _ => return Err(error),
        }
        self.send_each(destination, ecn, datagrams)
    }

    /// As [`UdpSocket::send_run`], in one call or not at all.
    #[cfg(target_os = "linux")]
    fn send_segmented(
        &self,
        destination: SocketAddr,
        ecn: Ecn,
        segment_bytes: usize,
        datagrams: &[IoSlice<'_>],
    ) -> io::Result<()> {
        use nix::sys::socket::ControlMessage::{Ipv4Tos, Ipv6TClass, UdpGsoSegments};
        let segment_bytes = u16::try_from(segment_bytes).map_err(io::Error::other)?;
        let (of_ipv4, of_ipv6) = (ecn.bits(), ecn.bits().into());
        let says = match destination {
            SocketAddr::V4(_) => Ipv4Tos(&of_ipv4),
            SocketAddr::V6(_) => Ipv6TClass(&of_ipv6),
        };
        let how = [UdpGsoSegments(&segment_bytes), says];
        let how = match ecn {
            Ecn::NotCapable => &how[..1],
            Ecn::Capable0 | Ecn::Capable1 | Ecn::Experienced => &how[..],
        };
        self.when_writable(|| self.send_with(how, destination, datagrams))
    }

    /// One system call, with what else the system is to be told.
    #[cfg(target_os = "linux")]
    fn send_with(
        &self,
        how: &[nix::sys::socket::ControlMessage<'_>],
        destination: SocketAddr,
        contents: &[IoSlice<'_>],
    ) -> io::Result<()> {
        use nix::sys::socket::{MsgFlags, SockaddrStorage, sendmsg};
        let to = SockaddrStorage::from(self.of_socket_family(destination)?);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.socket);
        sendmsg(fd, contents, how, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }

    /// As above; the system's call takes them from one buffer.
    #[cfg(not(target_os = "linux"))]
    fn send_run(
        &self,
        destination: SocketAddr,
        ecn: Ecn,
        segment_bytes: usize,
        datagrams: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let mut contents = Vec::with_capacity(segment_bytes * datagrams.len());
        for datagram in datagrams {
            contents.extend_from_slice(datagram);
        }
        self.transmit(destination, None, ecn, &contents, Some(segment_bytes))
    }

    /// Sends them one by one, and says what the last failure was.
    #[cfg(target_os = "linux")]
    fn send_each(
        &self,
        destination: SocketAddr,
        ecn: Ecn,
        datagrams: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let mut result = Ok(());
        for datagram in datagrams {
            if let Err(error) = self.transmit(destination, None, ecn, datagram, None) {
                result = Err(error);
            }
        }
        result
    }

    /// Does it; a full send buffer is waited for, briefly: throwing away what was sealed costs more than it gains.
    fn when_writable(&self, send: impl Fn() -> io::Result<()>) -> io::Result<()> {
        use nix::poll::{PollFd, PollFlags, poll};
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, 10u8)?;
                send()
            }
            result => result,
        }
    }

    fn of_socket_family(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        match (address, self.is_ipv4) {
            (SocketAddr::V4(v4), false) => {
                let mapped = v4.ip().to_ipv6_mapped();
                Ok(SocketAddrV6::new(mapped, v4.port(), 0, 0).into())
            }
            (SocketAddr::V6(_), true) => Err(io::Error::new(
                io::ErrorKind::NetworkUnreachable,
                "this socket is for IPv4 alone",
            )),
            (SocketAddr::V4(_), true) | (SocketAddr::V6(_), false) => Ok(address),
        }
    }

    fn ip_of_socket_family(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(v4) if !self.is_ipv4 => v4.to_ipv6_mapped().into(),
            IpAddr::V4(_) | IpAddr::V6(_) => ip,
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// What a receive call may say although the socket is well.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests;
