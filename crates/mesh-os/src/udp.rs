//! The agent's UDP socket: both families on one port, many datagrams a call.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use crate::socket::{BindError, bind_udp};

/// The most bytes that one system call hands over for one peer, whatever the offload: a UDP payload.
const BURST_BYTES_MAX: usize = 65_507;

/// Buffers filled by one receive call. Where the system joins the datagrams of one peer into one buffer a
/// few are enough; macOS gives one datagram a buffer.
const BURSTS: usize = if cfg!(target_os = "macos") {
    quinn_udp::BATCH_SIZE
} else {
    8
};

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
}

/// Room for what one [`UdpSocket::recv`] gives. Made once, used for ever.
#[derive(Debug)]
pub struct RecvBatch {
    bytes: Vec<u8>,
    meta: [RecvMeta; BURSTS],
    filled: usize,
}

/// A received datagram.
#[derive(Debug)]
pub struct Datagram<'b> {
    /// Who sent it. An IPv4 sender is given as such, also on a socket of both families.
    pub from: SocketAddr,
    /// To which of this machine's addresses; `None` where the system does not say.
    pub to: Option<IpAddr>,
    /// What was sent; may be changed in place.
    pub payload: &'b mut [u8],
}

/// Gathers datagrams, so that neighbours of one length to one destination leave in one system call.
///
/// Nothing is sent before [`SendBatch::flush`], except when the room is used up. What is not flushed when
/// the batch is dropped is lost.
#[derive(Debug)]
pub struct SendBatch {
    bytes: Vec<u8>,
    destination: SocketAddr,
    source: Option<IpAddr>,
    segment_bytes: usize,
    segments: usize,
    /// A datagram shorter than its predecessors ends a burst.
    ended: bool,
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
        batch.filled = 0;
        let mut chunks = batch.bytes.chunks_exact_mut(BURST_BYTES_MAX + 1);
        let mut buffers: [IoSliceMut<'_>; BURSTS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let socket = UdpSockRef::from(&self.socket);
        match self.state.recv(socket, &mut buffers, &mut batch.meta) {
            Ok(filled) => batch.filled = filled,
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(batch.filled > 0)
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
        self.transmit(destination, source, datagram, None)
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
            use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
            let to = SockaddrStorage::from(self.of_socket_family(destination)?);
            let hops = hops.into();
            let limit = [ControlMessage::Ipv4Ttl(&hops)];
            let contents = [io::IoSlice::new(datagram)];
            let fd = std::os::fd::AsRawFd::as_raw_fd(&self.socket);
            sendmsg(fd, &contents, &limit, MsgFlags::MSG_DONTWAIT, Some(&to))?;
            return Ok(());
        }
        let _ = hops;
        self.send(destination, None, datagram)
    }

    fn transmit(
        &self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.of_socket_family(destination)?,
            ecn: None,
            contents,
            segment_size,
            src_ip: source.map(|ip| self.ip_of_socket_family(ip)),
        };
        let socket = UdpSockRef::from(&self.socket);
        match self.state.try_send(socket, &transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.transmit_when_writable(&transmit)
            }
            result => result,
        }
    }

    /// A full send buffer is waited for, briefly: throwing away what was sealed costs more than it gains.
    fn transmit_when_writable(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        use nix::poll::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        let _ = poll(&mut fds, 10u8)?;
        self.state
            .try_send(UdpSockRef::from(&self.socket), transmit)
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

impl RecvBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BURSTS * (BURST_BYTES_MAX + 1)],
            meta: [RecvMeta::default(); BURSTS],
            filled: 0,
        }
    }

    /// The datagrams of the last [`UdpSocket::recv`], in the order of their arrival.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.bytes
            .chunks_exact_mut(BURST_BYTES_MAX + 1)
            .zip(&self.meta[..self.filled])
            .flat_map(|(bytes, meta)| {
                let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
                let from = keep_scope(from, meta.addr);
                let to = meta.dst_ip.map(|ip| ip.to_canonical());
                // An empty datagram has stride 0, and is of no use to anybody.
                let stride = meta.stride.max(1);
                bytes[..meta.len]
                    .chunks_mut(stride)
                    .map(move |payload| Datagram { from, to, payload })
            })
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl SendBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(BURST_BYTES_MAX),
            destination: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            source: None,
            segment_bytes: 0,
            segments: 0,
            ended: false,
        }
    }

    /// Adds a datagram, after sending the burst so far if this one does not continue it.
    ///
    /// # Errors
    ///
    /// As [`SendBatch::flush`], for the datagrams before this one; this one is kept.
    pub fn push(
        &mut self,
        socket: &UdpSocket,
        destination: SocketAddr,
        source: Option<IpAddr>,
        datagram: &[u8],
    ) -> io::Result<()> {
        let continues = !self.bytes.is_empty()
            && !self.ended
            && destination == self.destination
            && source == self.source
            && datagram.len() <= self.segment_bytes
            && self.segments < socket.state.max_gso_segments()
            && self.bytes.len() + datagram.len() <= BURST_BYTES_MAX;
        let result = if continues {
            Ok(())
        } else {
            self.flush(socket)
        };
        if self.bytes.is_empty() {
            self.destination = destination;
            self.source = source;
            self.segment_bytes = datagram.len();
        }
        self.ended = datagram.len() < self.segment_bytes;
        self.bytes.extend_from_slice(datagram);
        self.segments += 1;
        result
    }

    /// Sends what was gathered. The batch is empty afterwards, also after an error.
    ///
    /// # Errors
    ///
    /// What `sendmsg` gives, such as an unreachable network: the datagrams are lost, the socket goes on.
    pub fn flush(&mut self, socket: &UdpSocket) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let segment_size = (self.segments > 1).then_some(self.segment_bytes);
        let result = socket.transmit(self.destination, self.source, &self.bytes, segment_size);
        self.bytes.clear();
        self.segments = 0;
        self.ended = false;
        result
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// A link-local sender is reached only with its interface.
fn keep_scope(canonical: SocketAddr, raw: SocketAddr) -> SocketAddr {
    match canonical {
        SocketAddr::V4(_) => canonical,
        SocketAddr::V6(_) => raw,
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
mod tests {
    use crate::poll::{Wake, wait_readable};

    use super::*;

    /// Everything that arrives until `count` datagrams are there.
    fn receive(socket: &UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let wake = Wake::new().unwrap();
        let mut batch = RecvBatch::new();
        let mut received = Vec::new();
        while received.len() < count {
            let timeout = Some(std::time::Duration::from_secs(5));
            assert!(wait_readable(socket, &wake, timeout).unwrap().ready);
            socket.recv(&mut batch).unwrap();
            received.extend(batch.datagrams().map(|d| (d.from, d.payload.to_vec())));
        }
        received
    }

    #[test]
    fn both_families_arrive_on_one_port_in_their_own_form() {
        let socket = UdpSocket::bind(0).unwrap();
        for local in ["127.0.0.1", "::1"] {
            let local: IpAddr = local.parse().unwrap();
            let Ok(peer) = std::net::UdpSocket::bind((local, 0)) else {
                continue; // A machine without IPv6.
            };
            peer.send_to(b"question", (local, socket.port())).unwrap();
            let received = receive(&socket, 1);
            assert_eq!(
                received,
                [(peer.local_addr().unwrap(), b"question".to_vec())]
            );

            socket.send(received[0].0, Some(local), b"answer").unwrap();
            let mut answer = [0; 10];
            let (length, from) = peer.recv_from(&mut answer).unwrap();
            assert_eq!(&answer[..length], b"answer");
            assert_eq!(from, SocketAddr::new(local, socket.port()));
        }
    }

    #[test]
    fn the_wildcard_of_ipv4_is_ipv4_alone() {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = UdpSocket::bind_address(any).unwrap();
        let bound = socket.socket.local_addr().unwrap();
        assert_eq!(bound.ip(), Ipv4Addr::UNSPECIFIED);
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
        let refused = socket.send(v6, None, b"x").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable);
    }

    #[test]
    fn a_batch_arrives_datagram_by_datagram_in_order() {
        let (from, to) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
        let other = UdpSocket::bind(0).unwrap();
        let at = |socket: &UdpSocket| SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port()));
        let lengths = [1312, 1312, 1312, 80, 1312, 48, 48, 1312, 1, 1, 2];
        let sent: Vec<_> = (0u8..).zip(lengths).map(|(i, n)| vec![i; n]).collect();
        let mut batch = SendBatch::new();
        for datagram in &sent {
            batch.push(&from, at(&to), None, datagram).unwrap();
        }
        batch.push(&from, at(&other), None, b"elsewhere").unwrap();
        batch.flush(&from).unwrap();

        let received: Vec<_> = receive(&to, sent.len())
            .into_iter()
            .map(|(_, d)| d)
            .collect();
        assert_eq!(received, sent);
        assert_eq!(receive(&other, 1)[0].1, b"elsewhere");
    }

    #[test]
    fn more_than_fits_one_burst_is_sent_in_several() {
        let (from, to) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
        let destination = SocketAddr::from((Ipv4Addr::LOCALHOST, to.port()));
        let mut batch = SendBatch::new();
        for i in 0..70u8 {
            batch.push(&from, destination, None, &[i; 1312]).unwrap();
        }
        batch.flush(&from).unwrap();
        let firsts: Vec<_> = receive(&to, 70).into_iter().map(|(_, d)| d[0]).collect();
        assert_eq!(firsts, (0..70).collect::<Vec<_>>());
    }

    #[test]
    fn a_socket_is_adopted_with_what_waits_in_it_if_it_is_bound_as_configured() {
        let socket = UdpSocket::bind(0).unwrap();
        let from = UdpSocket::bind(0).unwrap();
        let destination = SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port()));
        from.send(destination, None, b"waits").unwrap();
        let copy = || socket.as_fd().try_clone_to_owned().unwrap();
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        assert!(UdpSocket::adopt(copy(), any(1)).is_err());
        let local = SocketAddr::from((Ipv6Addr::LOCALHOST, socket.port()));
        assert!(UdpSocket::adopt(copy(), local).is_err());
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(UdpSocket::adopt(pipe.into(), any(0)).is_err());
        let adopted = UdpSocket::adopt(copy(), any(socket.port())).unwrap();
        drop(socket);
        assert_eq!(receive(&adopted, 1)[0].1, b"waits");

        let only_ipv6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None);
        let only_ipv6 = only_ipv6.unwrap();
        only_ipv6.set_only_v6(true).unwrap();
        only_ipv6.bind(&any(0).into()).unwrap();
        let refused = UdpSocket::adopt(only_ipv6.into(), any(0)).unwrap_err();
        assert!(refused.to_string().contains("IPv6 alone"), "{refused}");
    }

    #[test]
    fn an_adopted_socket_takes_more_however_much_waits_in_it() {
        const WAITING: usize = 2_000;
        const LATER: usize = 50;
        let socket = UdpSocket::bind(0).unwrap();
        socket.set_patient(true);
        let granted = socket2::SockRef::from(&socket.socket).recv_buffer_size();
        if granted.unwrap() < PATIENT_BUFFER_BYTES {
            return; // A longer queue than the system's limit needs CAP_NET_ADMIN.
        }
        let from = UdpSocket::bind(0).unwrap();
        let destination = SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port()));
        let send = |count| {
            for _ in 0..count {
                from.send(destination, None, &[0; 1200]).unwrap();
            }
        };
        send(WAITING);
        let copy = socket.as_fd().try_clone_to_owned().unwrap();
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, socket.port()));
        let adopted = UdpSocket::adopt(copy, any).unwrap();
        send(LATER);
        assert_eq!(receive(&adopted, WAITING + LATER).len(), WAITING + LATER);
        adopted.set_patient(false);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_datagram_for_the_neighbourhood_says_so_and_later_ones_do_not() {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
        let to = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        setsockopt(&to, sockopt::Ipv4RecvTtl, &true).unwrap();
        let hops = || {
            let mut buffer = [0; 8];
            let mut contents = [IoSliceMut::new(&mut buffer)];
            let mut room = nix::cmsg_space!(i32);
            let fd = std::os::fd::AsRawFd::as_raw_fd(&to);
            let message = recvmsg::<()>(fd, &mut contents, Some(&mut room), MsgFlags::empty());
            let message = message.unwrap();
            let Some(ControlMessageOwned::Ipv4Ttl(hops)) = message.cmsgs().unwrap().next() else {
                panic!("the hops are asked for");
            };
            hops
        };
        let socket = UdpSocket::bind(0).unwrap();
        let destination = to.local_addr().unwrap();
        socket.send_near(destination, 3, b"near").unwrap();
        socket.send(destination, None, b"far").unwrap();
        assert_eq!(hops(), 3);
        assert!(hops() > 30);
    }

    #[test]
    fn a_refused_datagram_does_not_break_the_socket() {
        let socket = UdpSocket::bind(0).unwrap();
        let gone = UdpSocket::bind(0).unwrap();
        let destination = SocketAddr::from((Ipv4Addr::LOCALHOST, gone.port()));
        drop(gone);
        let _ = socket.send(destination, None, b"x");
        let mut batch = RecvBatch::new();
        assert!(!socket.recv(&mut batch).unwrap());
        assert_eq!(batch.datagrams().count(), 0);
    }
}
