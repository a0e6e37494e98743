//! Datagrams over TLS 1.3 on TCP, for networks that let no UDP through.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 2 | length of the datagram, big-endian; zero: none, to be passed over |
//! | 2 | | the datagram |
//!
//! Both ends prove their Ed25519 key, as everywhere on the control plane; a client without one is turned away.
//! What the keys may do is for the callers to decide. TCP holds datagrams back behind a lost one and makes a
//! queue of its own, so a stream serves only while UDP does not.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mesh_types::{IdentitySeed, NodeId};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::crypto::{Expect, client_tls, server_tls, shown_key};

/// The application protocol that both sides name in TLS (RFC 7301).
const ALPN: &[u8] = b"mesh-datagrams-1";

/// How long TCP and TLS may take together, for either side.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is read at a time, in bytes: the longest datagram fits, so behind a part of one there is always room.
const READ_BYTES: usize = LENGTH_BYTES + DATAGRAM_BYTES_MAX;

const LENGTH_BYTES: usize = 2;

/// The longest datagram, in bytes.
pub const DATAGRAM_BYTES_MAX: usize = 0xffff;

/// Waits for clients on a TCP port.
pub struct StreamListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// A client that has not proven who it is.
pub struct StreamHandshake {
    tcp: TcpStream,
    remote: SocketAddr,
    acceptor: TlsAcceptor,
}

/// A stream, open.
pub struct Stream {
    /// Whom the other side has proven to be.
    pub peer: NodeId,
    /// Towards it.
    pub sender: DatagramSender,
    /// From it.
    pub receiver: DatagramReceiver,
}

/// Sends datagrams into a stream.
pub struct DatagramSender {
    write: Box<dyn AsyncWrite + Send + Unpin>,
    frames: Vec<u8>,
}

/// Receives datagrams from a stream.
pub struct DatagramReceiver {
    read: Box<dyn AsyncRead + Send + Unpin>,
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// TCP does not get there.
    #[error("cannot connect to TCP `{address}`")]
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

/// Opens a stream to the member with key `expected` at `address`. Dropping the future gives the attempt up.
///
/// # Errors
///
/// [`StreamError`].
pub async fn dial(
    address: SocketAddr,
    identity: &IdentitySeed,
    expected: NodeId,
) -> Result<Stream, StreamError> {
    let (config, unexpected) = client_tls(Some(identity), Expect::OneOf(vec![expected]), ALPN);
    let open = async {
        let connect = |source| StreamError::Connect { address, source };
        let tcp = TcpStream::connect(address).await.map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        // Not sent: a server is its key.
        let name = ServerName::IpAddress(address.ip().into());
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let tls = tls.await.map_err(|source| match unexpected.get() {
            Some(found) => StreamError::Unexpected {
                address,
                found: *found,
            },
            None => StreamError::Tls { address, source },
        })?;
        let (read, write) = tokio::io::split(tls);
        Ok(Stream::new(expected, read, write))
    };
    match timeout(HANDSHAKE_TIMEOUT, open).await {
        Ok(opened) => opened,
        Err(_) => Err(StreamError::TimedOut { address }),
    }
}

impl StreamListener {
    /// Waits on `listen` as the member with this identity.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub async fn bind(listen: SocketAddr, identity: &IdentitySeed) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(server_tls(identity, ALPN))),
        })
    }

    /// Where it listens, with the port that was taken.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next client; dropping the future loses none.
    ///
    /// # Errors
    ///
    /// What the system says, such as too many open files: to be tried again after a pause.
    pub async fn accept(&self) -> io::Result<StreamHandshake> {
        let (tcp, remote) = self.listener.accept().await?;
        Ok(StreamHandshake {
            tcp,
            remote,
            acceptor: self.acceptor.clone(),
        })
    }
}

impl StreamHandshake {
    /// Where the client is.
    pub const fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// Lets the client prove who it is. Dropping the future turns it away.
    ///
    /// # Errors
    ///
    /// [`StreamError`].
    pub async fn complete(self) -> Result<Stream, StreamError> {
        let address = self.remote;
        let failed = |source| StreamError::Tls { address, source };
        self.tcp.set_nodelay(true).map_err(failed)?;
        let tls = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(self.tcp))
            .await
            .map_err(|_| StreamError::TimedOut { address })?
            .map_err(failed)?;
        let peer = shown_key(tls.get_ref().1.peer_certificates());
        let peer = peer.ok_or(StreamError::NoKey { address })?;
        let (read, write) = tokio::io::split(tls);
        Ok(Stream::new(peer, read, write))
    }
}

impl Stream {
    fn new(
        peer: NodeId,
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self {
            peer,
            sender: DatagramSender {
                write: Box::new(write),
                frames: Vec::new(),
            },
            receiver: DatagramReceiver {
                read: Box::new(read),
                bytes: vec![0; READ_BYTES].into(),
                begin: 0,
                end: 0,
            },
        }
    }
}

impl DatagramSender {
    /// Sends datagrams, all in one write; those of more than [`DATAGRAM_BYTES_MAX`] bytes are passed over.
    /// Dropping the future may cut the stream within a datagram: it is of no use afterwards.
    ///
    /// # Errors
    ///
    /// What the system or TLS says; the stream is over.
    pub async fn send<'a>(
        &mut self,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        self.frames.clear();
        for datagram in datagrams {
            let Ok(length) = u16::try_from(datagram.len()) else {
                continue;
            };
            self.frames.extend(length.to_be_bytes());
            self.frames.extend_from_slice(datagram);
        }
        self.write.write_all(&self.frames).await?;
        self.write.flush().await
    }
}

impl DatagramReceiver {
    /// The next datagram, which may be changed in place; `None`: the other side has ended the stream. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    ///
    /// What the system or TLS says, such as an end within a datagram; the stream is over.
    pub async fn receive(&mut self) -> io::Result<Option<&mut [u8]>> {
        loop {
            if let Some(length) = self.ready() {
                let datagram = self.begin + LENGTH_BYTES..self.begin + LENGTH_BYTES + length;
                self.begin = datagram.end;
                if length > 0 {
                    return Ok(Some(&mut self.bytes[datagram]));
                }
                continue;
            }
            // Half of a datagram at most is left: it goes to the front, and the longest has room behind it.
            self.bytes.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
            let read = self.read.read(&mut self.bytes[self.end..]).await?;
            if read == 0 {
                return match self.end {
                    0 => Ok(None),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            self.end += read;
        }
    }

    /// The length of the datagram that is there as a whole.
    fn ready(&self) -> Option<usize> {
        let held = &self.bytes[self.begin..self.end];
        let (length, rest) = held.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        (rest.len() >= length).then_some(length)
    }
}

#[cfg(test)]
mod tests;
