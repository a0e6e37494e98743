//! Datagrams to a moon on port 443, for networks that let no other UDP through.
//!
//! | over | a datagram is | |
//! |---|---|---|
//! | TLS 1.3 on TCP | a frame of a stream | held back behind a lost one, in a queue of TCP's own |
//! | QUIC | a datagram of its own (RFC 9221) | lost with its packet, and alone |
//! | QUIC, longer than its packets | a frame of a stream that goes beside them | repeated until it arrives |
//!
//! Both ends prove their Ed25519 key, as everywhere on the control plane; a client without one is turned away.
//! What the keys may do is for the callers to decide.

mod frames;
mod quic;
mod tls;

use std::{io, net::SocketAddr, time::Duration};

use mesh_types::{IdentitySeed, NodeId};

use crate::server::canonical;

pub use frames::DATAGRAM_BYTES_MAX;

/// The application protocol that both sides name in TLS (RFC 7301).
const ALPN: &[u8] = b"mesh-datagrams-1";

/// How long a handshake may take, with TCP's, for either side.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for clients on a port.
pub struct StreamListener(Listener);

enum Listener {
    Tls(tls::Listener),
    Quic(quic::Listener),
}

/// A client that has not proven who it is.
pub struct StreamHandshake {
    remote: SocketAddr,
    handshake: Handshake,
}

enum Handshake {
    Tls(Box<tls::Handshake>),
    Quic(Box<quinn::Incoming>),
}

/// A stream, open; it closes when both halves are dropped.
pub struct Stream {
    /// Whom the other side has proven to be.
    pub peer: NodeId,
    /// Towards it.
    pub sender: DatagramSender,
    /// From it.
    pub receiver: DatagramReceiver,
}

/// Sends datagrams into a stream.
pub struct DatagramSender(Sender);

enum Sender {
    Tls(tls::Sender),
    Quic(quic::Sender),
}

/// Receives datagrams from a stream.
pub struct DatagramReceiver(Receiver);

enum Receiver {
    Tls(tls::Receiver),
    Quic(quic::Receiver),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// TCP does not get there, or there is no socket.
    #[error("cannot connect to `{address}`")]
    Connect {
        /// What was tried.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The other side is not who it should be, or speaks another protocol.
    #[error("no TLS with `{address}`")]
    Tls {
        /// Where it is.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// It is met with another key than was expected.
    #[error("the server at `{address}` has the key `{found}`, which is not the moon's")]
    Unexpected {
        /// Where it is.
        address: SocketAddr,
        /// Its key.
        found: NodeId,
    },
    /// It shows no key.
    #[error("`{address}` shows no key")]
    NoKey {
        /// Where it is.
        address: SocketAddr,
    },
    /// It takes too long.
    #[error("`{address}` does not answer")]
    TimedOut {
        /// Where it is.
        address: SocketAddr,
    },
}

/// Opens a stream over TLS to the member with key `expected` at `address`. Dropping the future gives the
/// attempt up.
///
/// # Errors
///
/// [`StreamError`].
pub async fn dial_tls(
    address: SocketAddr,
    identity: &IdentitySeed,
    expected: NodeId,
) -> Result<Stream, StreamError> {
    tls::dial(address, identity, expected).await
}

/// The same over QUIC, from a UDP port of its own.
///
/// # Errors
///
/// [`StreamError`].
pub async fn dial_quic(
    address: SocketAddr,
    identity: &IdentitySeed,
    expected: NodeId,
) -> Result<Stream, StreamError> {
    quic::dial(address, identity, expected).await
}

impl StreamListener {
    /// Waits on the TCP port `listen` as the member with this identity.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub async fn bind_tls(listen: SocketAddr, identity: &IdentitySeed) -> io::Result<Self> {
        let listener = tls::Listener::bind(listen, identity).await?;
        Ok(Self(Listener::Tls(listener)))
    }

    /// Waits on the UDP port `listen` as the member with this identity. Must be used inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub fn bind_quic(listen: SocketAddr, identity: &IdentitySeed) -> io::Result<Self> {
        let listener = quic::Listener::bind(listen, identity)?;
        Ok(Self(Listener::Quic(listener)))
    }

    /// Where it listens, with the port that was taken.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Listener::Tls(listener) => listener.local_address(),
            Listener::Quic(listener) => listener.local_address(),
        }
    }

    /// The next client; dropping the future loses none.
    ///
    /// # Errors
    ///
    /// What the system says, such as too many open files: to be tried again after a pause.
    pub async fn accept(&self) -> io::Result<StreamHandshake> {
        match &self.0 {
            Listener::Tls(listener) => {
                let (handshake, remote) = listener.accept().await?;
                let handshake = Handshake::Tls(Box::new(handshake));
                Ok(StreamHandshake { remote, handshake })
            }
            Listener::Quic(listener) => {
                let incoming = listener.accept().await?;
                Ok(StreamHandshake {
                    remote: canonical(incoming.remote_address()),
                    handshake: Handshake::Quic(Box::new(incoming)),
                })
            }
        }
    }
}

impl StreamHandshake {
    /// Where the client is.
    pub const fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// Makes a client over QUIC show first that it receives what is sent to its address (RFC 9000 section
    /// 8.1.2), which TCP's has shown already; `None`: it will come again.
    pub fn prove_address(self) -> Option<Self> {
        match self.handshake {
            Handshake::Quic(incoming) if !incoming.remote_address_validated() => {
                // Fails only for one that has shown it.
                let _ = incoming.retry();
                None
            }
            handshake @ (Handshake::Quic(_) | Handshake::Tls(_)) => {
                Some(Self { handshake, ..self })
            }
        }
    }

    /// Lets the client prove who it is. Dropping the future turns it away.
    ///
    /// # Errors
    ///
    /// [`StreamError`].
    pub async fn complete(self) -> Result<Stream, StreamError> {
        match self.handshake {
            Handshake::Tls(handshake) => handshake.complete(self.remote).await,
            Handshake::Quic(incoming) => quic::complete(*incoming, self.remote).await,
        }
    }
}

impl DatagramSender {
    /// Sends datagrams, of a stream all in one write; those of more than [`DATAGRAM_BYTES_MAX`] bytes are passed
    /// over. Dropping the future may cut the stream within a datagram: it is of no use afterwards.
    ///
    /// # Errors
    ///
    /// What the system, TLS or QUIC says; the stream is over.
    pub async fn send<'a>(
        &mut self,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        match &mut self.0 {
            Sender::Tls(sender) => sender.send(datagrams).await,
            Sender::Quic(sender) => sender.send(datagrams).await,
        }
    }
}

impl DatagramReceiver {
    /// The next datagram, which may be changed in place; `None`: the other side has ended the stream. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    ///
    /// What the system, TLS or QUIC says, such as an end within a datagram; the stream is over.
    pub async fn receive(&mut self) -> io::Result<Option<&mut [u8]>> {
        match &mut self.0 {
            Receiver::Tls(receiver) => tls::receive(receiver).await,
            Receiver::Quic(receiver) => receiver.receive().await,
        }
    }
}

#[cfg(test)]
mod tests;
