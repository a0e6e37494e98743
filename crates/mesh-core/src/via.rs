//! The ways that a datagram may take.

use std::{fmt, net::SocketAddr};

use mesh_types::WireguardPublicKey;

/// The other end of what carries datagrams: a UDP endpoint, or a stream where UDP does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// A UDP endpoint, in canonical form: an IPv4 address as such, not mapped into IPv6.
    Udp(SocketAddr),
    /// A stream or a connection with datagrams of its own, by the number that the shell gave it.
    Stream(StreamId),
}

/// Which stream it is. The shell gives each a new number and tells when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// What it runs over.
    pub carrier: Carrier,
    /// The number.
    pub number: u64,
}

/// What carries datagrams where plain UDP does not; the better one is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// QUIC's datagrams (RFC 9221), on UDP port 443: what is lost holds nothing back.
    Quic,
    /// TLS on TCP port 443.
    Tls,
}

/// The way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Straight to it.
    Direct(Remote),
    /// Through the moon with this key.
    Relay(WireguardPublicKey),
}

impl Remote {
    /// The UDP endpoint; `None` for a stream.
    pub const fn udp(self) -> Option<SocketAddr> {
        match self {
            Self::Udp(endpoint) => Some(endpoint),
            Self::Stream(_) => None,
        }
    }
}

impl Via {
    /// The UDP endpoint that it leads to directly; `None` for a relay or a stream.
    pub const fn udp(self) -> Option<SocketAddr> {
        match self {
            Self::Direct(remote) => remote.udp(),
            Self::Relay(_) => None,
        }
    }

    /// Whether a moon is between.
    pub const fn is_relay(self) -> bool {
        matches!(self, Self::Relay(_))
    }
}

impl From<SocketAddr> for Remote {
    fn from(endpoint: SocketAddr) -> Self {
        Self::Udp(endpoint)
    }
}

impl From<SocketAddr> for Via {
    fn from(endpoint: SocketAddr) -> Self {
        Self::Direct(Remote::Udp(endpoint))
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(endpoint) => write!(f, "{endpoint}"),
            Self::Stream(StreamId { carrier, number }) => write!(f, "{carrier} {number}"),
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::Tls => "TLS",
        })
    }
}
