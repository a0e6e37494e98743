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

/// Binds and listens on a TCP port. A wildcard IPv6 address takes IPv4 too.
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

fn bind(transport: Transport, address: SocketAddr) -> Result<Socket, BindError> {
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
        }
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
    fn any_port_is_bound_on_request() {
        let socket = bind_udp("[::]:0".parse().unwrap()).unwrap();
        assert_ne!(socket.local_addr().unwrap().port(), 0);
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), 0);
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
