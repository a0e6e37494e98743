//! Sockets bound to a port, with errors that name who holds it.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

mod holder;

/// Why a socket was not bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error(
        "{transport} port {port} is in use by {holder}; stop it, or choose another port with `listen`"
    )]
    InUse {
        /// Of which transport.
        transport: Transport,
        /// The port.
        port: u16,
        /// Who has it.
        holder: Holder,
    },
    /// The system refused.
    #[error("cannot bind {transport} `{address}`")]
    Io {
        /// Of which transport.
        transport: Transport,
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process that this user may look at.
    Process {
        /// Its name.
        name: String,
        /// Its id.
        pid: u32,
    },
    /// A process that this user may not look at.
    OtherUser {
        /// The user id that it runs as.
        uid: u32,
    },
    /// It could not be told: the socket is gone again, or the system has no list.
    Unknown,
}

/// Binds a UDP socket, for instance of a QUIC endpoint. A wildcard IPv6 address takes IPv4 too.
///
/// # Errors
///
/// [`BindError`].
pub fn bind_udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    bind(Transport::Udp, address).map(UdpSocket::from)
}

/// Binds a UDP port that other programs may have as well, for what is sent to all of a link. Does not block.
///
/// # Errors
///
/// [`BindError`], where another program keeps the port to itself.
pub fn bind_udp_shared(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let share = |socket: &Socket| {
        socket.set_reuse_address(true)?;
        // What others on this system share such a port by.
        #[cfg(target_os = "macos")]
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)
    };
    bind_with(Transport::Udp, address, share).map(UdpSocket::from)
}

/// Binds a UDP address that another socket of this process has and shares. The system gives each what comes from
/// some senders.
///
/// # Errors
///
/// [`BindError`], where the other one does not share.
pub fn bind_udp_beside(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let share = |socket: &Socket| socket.set_reuse_port(true);
    bind_with(Transport::Udp, address, share).map(UdpSocket::from)
}

/// Binds and listens on a TCP port. A wildcard IPv6 address takes IPv4 too. On Linux the address need not be
/// there yet.
///
/// # Errors
///
/// [`BindError`].
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let socket = bind(Transport::Tcp, address)?;
    socket
        .listen(1024)
        .map_err(|error| bind_error(Transport::Tcp, address, error))?;
    Ok(socket.into())
}

/// Binds a UDP port for what comes in through `interface` or from this machine itself. A neighbour on
/// another network who sends to `address` finds nothing there, although the system would take it for its own
/// (RFC 1122 section 3.3.4.2 calls it the weak model).
///
/// Where the system cannot tell interfaces apart (macOS), there is one socket for all of them, and the caller
/// must judge by the source.
///
/// # Errors
///
/// [`BindError`].
pub fn bind_udp_inside(address: SocketAddr, interface: &str) -> Result<Vec<UdpSocket>, BindError> {
    let sockets = bind_inside(Transport::Udp, address, interface)?;
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

/// As [`bind_udp_inside`], for TCP, and listens.
///
/// # Errors
///
/// [`BindError`].
pub fn bind_tcp_inside(
    address: SocketAddr,
    interface: &str,
) -> Result<Vec<TcpListener>, BindError> {
    let sockets = bind_inside(Transport::Tcp, address, interface)?;
    for socket in &sockets {
        socket
            .listen(128)
            .map_err(|error| bind_error(Transport::Tcp, address, error))?;
    }
    Ok(sockets.into_iter().map(TcpListener::from).collect())
}

fn bind_inside(
    transport: Transport,
    address: SocketAddr,
    interface: &str,
) -> Result<Vec<Socket>, BindError> {
    let mut address = address;
    let mut sockets = Vec::new();
    for interface in inside(interface) {
        let socket = bind_on(transport, address, interface)?;
        // With a port of the system's choice, the others have the same.
        let port = socket.local_addr().ok().and_then(|bound| bound.as_socket());
        address.set_port(port.map_or(address.port(), |bound| bound.port()));
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Packets from this machine to itself come in through `lo`, or through the interface that has the address.
#[cfg(target_os = "linux")]
fn inside(interface: &str) -> Vec<Option<&str>> {
    let mut interfaces = vec![Some(interface), Some("lo")];
    interfaces.dedup();
    interfaces
}

#[cfg(not(target_os = "linux"))]
fn inside(_interface: &str) -> Vec<Option<&str>> {
    vec![None]
}

#[cfg(target_os = "linux")]
fn bind_device(socket: &Socket, interface: Option<&str>) -> io::Result<()> {
    match interface {
        Some(interface) => socket.bind_device(Some(interface.as_bytes())),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn bind_device(_socket: &Socket, _interface: Option<&str>) -> io::Result<()> {
    Ok(())
}

fn bind(transport: Transport, address: SocketAddr) -> Result<Socket, BindError> {
    bind_on(transport, address, None)
}

fn bind_on(
    transport: Transport,
    address: SocketAddr,
    interface: Option<&str>,
) -> Result<Socket, BindError> {
    bind_with(transport, address, |socket| bind_device(socket, interface))
}

/// Binds a socket after what `prepare` does to it.
fn bind_with(
    transport: Transport,
    address: SocketAddr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> Result<Socket, BindError> {
    let bound = || {
        let (kind, protocol) = match transport {
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
        };
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        // Connections in TIME_WAIT do not keep a TCP port; for UDP this would allow two holders.
        if transport == Transport::Tcp {
            socket.set_reuse_address(true)?;
            // A controller that starts with the machine is there before the mesh address is.
            #[cfg(target_os = "linux")]
            match address {
                SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
                SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
        }
        prepare(&socket)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    bound().map_err(|error| bind_error(transport, address, error))
}

fn bind_error(transport: Transport, address: SocketAddr, source: io::Error) -> BindError {
    if source.kind() != io::ErrorKind::AddrInUse {
        return BindError::Io {
            transport,
            address,
            source,
        };
    }
    BindError::InUse {
        transport,
        port: address.port(),
        holder: holder::find(transport, address.port()),
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { name, pid } => write!(f, "`{name}` (process {pid})"),
            Self::OtherUser { uid } => write!(f, "another user's process (user id {uid})"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_port_is_bound_twice() {
        let first = bind_udp_shared("127.0.0.1:0".parse().unwrap()).unwrap();
        bind_udp_shared(first.local_addr().unwrap()).unwrap();
    }

    #[test]
    fn any_port_is_bound_on_request() {
        let socket = bind_udp("[::]:0".parse().unwrap()).unwrap();
        assert_ne!(socket.local_addr().unwrap().port(), 0);
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_bound_inside_is_heard_from_this_machine() {
        let address = "[::1]:0".parse().unwrap();
        let sockets = bind_udp_inside(address, "lo").unwrap();
        let [socket] = sockets.as_slice() else {
            panic!("{sockets:?}");
        };
        let client = bind_udp(address).unwrap();
        let to = socket.local_addr().unwrap();
        client.send_to(b"x", to).unwrap();
        let mut buffer = [0; 2];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((length, from), (1, client.local_addr().unwrap()));
        assert_eq!(bind_tcp_inside(address, "lo").unwrap().len(), 1);
        let taken = bind_udp_inside(to, "lo").unwrap_err();
        assert!(matches!(taken, BindError::InUse { .. }), "{taken}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_address_that_comes_later_can_be_listened_on() {
        // Of a documentation prefix, which no machine has.
        for address in ["[2001:db8::1]:0", "192.0.2.1:0"] {
            bind_tcp(address.parse().unwrap()).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_holder_of_a_taken_port_is_named() {
        let us = Holder::Process {
            name: own_name(),
            pid: std::process::id(),
        };
        for taken in ["127.0.0.1:0", "[::]:0"] {
            let socket = bind_udp(taken.parse().unwrap()).unwrap();
            let port = socket.local_addr().unwrap().port();
            let again = SocketAddr::new("::".parse().unwrap(), port);
            let error = bind_udp(again).unwrap_err();
            let BindError::InUse { holder, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*holder, us, "{error}");
            assert!(error.to_string().contains(&format!("UDP port {port}")));
        }
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind_tcp(listener.local_addr().unwrap()).unwrap_err();
        assert!(matches!(error, BindError::InUse { holder, .. } if holder == us));
    }

    #[cfg(target_os = "linux")]
    fn own_name() -> String {
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        name.trim_end().to_owned()
    }
}
