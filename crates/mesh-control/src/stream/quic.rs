//! Over QUIC: datagrams (RFC 9221), and a stream in each direction for those that are longer than its packets.
//!
//! A connection begins with packets of 1200 bytes and finds out by itself what the network carries, up to 1452.
//! Datagrams wait for QUIC's congestion control in a bounded buffer, of which the oldest give way, as in a
//! router's queue.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use mesh_types::{IdentitySeed, NodeId};
use quinn::{
    ConnectionError, ReadError, RecvStream, SendDatagramError, SendStream, TokioRuntime,
    TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use tokio::time::timeout;

use super::{
    ALPN, DatagramReceiver, DatagramSender, HANDSHAKE_TIMEOUT, Stream, StreamError, frames,
    frames::FrameReader,
};
use crate::{
    CloseCode, Closed,
    client::client_endpoint,
    crypto::{Expect, client_tls, proven_key, server_tls},
    server::endpoint_config,
};

/// A connection by which nothing came for this long is over.
const IDLE: Duration = Duration::from_secs(60);

/// Datagrams that wait for the network, or to be read, in bytes: 50 ms of 100 Mbit/s. Of more the oldest are
/// lost.
const BUFFER_BYTES: usize = 640 * 1024;

/// What a stream of long datagrams may have under way, in bytes: at least one of the longest.
const WINDOW_BYTES: u32 = 256 * 1024;

/// Handshakes that wait to be looked at; further ones are refused by QUIC.
const INCOMING_MAX: usize = 256;

pub(super) struct Listener(quinn::Endpoint);

/// The connection, which is closed when the last half lets go.
struct Connection {
    connection: quinn::Connection,
    /// A client's socket, for as long as the connection is there.
    _endpoint: Option<quinn::Endpoint>,
}

pub(super) struct Sender {
    connection: Arc<Connection>,
    /// For datagrams that are longer than a packet; opened by the first.
    long: Option<SendStream>,
    frames: Vec<u8>,
}

pub(super) struct Receiver {
    connection: Arc<Connection>,
    long: Option<FrameReader<RecvStream>>,
    datagram: Vec<u8>,
}

/// What came.
enum Came {
    Datagram(Vec<u8>),
    Long(std::ops::Range<usize>),
    LongBegins(RecvStream),
    LongEnds,
}

pub(super) async fn dial(
    address: SocketAddr,
    identity: &IdentitySeed,
    expected: NodeId,
) -> Result<Stream, StreamError> {
    dial_as(address, Some(identity), expected).await
}

#[cfg(test)]
pub(super) async fn dial_without_key(
    address: SocketAddr,
    expected: NodeId,
) -> Result<Stream, StreamError> {
    dial_as(address, None, expected).await
}

async fn dial_as(
    address: SocketAddr,
    identity: Option<&IdentitySeed>,
    expected: NodeId,
) -> Result<Stream, StreamError> {
    let (tls, unexpected) = client_tls(identity, Expect::OneOf(vec![expected]), ALPN);
    let tls: QuicClientConfig = tls
        .try_into()
        .expect("TLS 1.3 has QUIC's initial cipher suite");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    let connect = |source| StreamError::Connect { address, source };
    let endpoint = client_endpoint().map_err(connect)?;
    let connecting = endpoint
        // The name is not sent; QUIC's interface wants one.
        .connect_with(config, address, "mesh.invalid")
        .map_err(|error| connect(io::Error::other(error)))?;
    let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return Err(match unexpected.get() {
                Some(found) => StreamError::Unexpected {
                    address,
                    found: *found,
                },
                None => failed(address, error),
            });
        }
        Err(_) => return Err(StreamError::TimedOut { address }),
    };
    Ok(stream(expected, connection, Some(endpoint)))
}

impl Listener {
    pub(super) fn bind(listen: SocketAddr, identity: &IdentitySeed) -> io::Result<Self> {
        let tls: QuicServerConfig = server_tls(identity, ALPN)
            .try_into()
            .expect("TLS 1.3 has QUIC's initial cipher suite");
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config
            .transport_config(Arc::new(transport()))
            .max_incoming(INCOMING_MAX);
        let endpoint = quinn::Endpoint::new(
            endpoint_config(identity),
            Some(config),
            UdpSocket::bind(listen)?,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self(endpoint))
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(super) async fn accept(&self) -> io::Result<quinn::Incoming> {
        let incoming = self.0.accept().await;
        incoming.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

pub(super) async fn complete(
    incoming: quinn::Incoming,
    address: SocketAddr,
) -> Result<Stream, StreamError> {
    let connecting = incoming.accept().map_err(|error| failed(address, error))?;
    let connection = timeout(HANDSHAKE_TIMEOUT, connecting)
        .await
        .map_err(|_| StreamError::TimedOut { address })?
        .map_err(|error| failed(address, error))?;
    let Some(peer) = proven_key(&connection) else {
        connection.close(CloseCode::NotAdmitted.to_wire(), b"no key");
        return Err(StreamError::NoKey { address });
    };
    Ok(stream(peer, connection, None))
}

fn failed(address: SocketAddr, error: ConnectionError) -> StreamError {
    match Closed::from(error) {
        Closed::TimedOut => StreamError::TimedOut { address },
        closed @ (Closed::ByPeer { .. } | Closed::Reset | Closed::Locally | Closed::Failed(_)) => {
            StreamError::Tls {
                address,
                source: io::Error::other(closed),
            }
        }
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = VarInt::from_u32(u32::try_from(IDLE.as_millis()).unwrap_or(u32::MAX));
    config
        .max_idle_timeout(Some(idle.into()))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .datagram_send_buffer_size(BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(BUFFER_BYTES));
    config
}

fn stream(
    peer: NodeId,
    connection: quinn::Connection,
    endpoint: Option<quinn::Endpoint>,
) -> Stream {
    let connection = Arc::new(Connection {
        connection,
        _endpoint: endpoint,
    });
    let sender = Sender {
        connection: Arc::clone(&connection),
        long: None,
        frames: Vec::new(),
    };
    let receiver = Receiver {
        connection,
        long: None,
        datagram: Vec::new(),
    };
    Stream {
        peer,
        sender: DatagramSender(super::Sender::Quic(sender)),
        receiver: DatagramReceiver(super::Receiver::Quic(receiver)),
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Done.to_wire(), b"");
    }
}

impl Sender {
    pub(super) async fn send<'a>(
        &mut self,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let connection = &self.connection.connection;
        self.frames.clear();
        for datagram in datagrams
            .into_iter()
            .filter(|datagram| !datagram.is_empty())
        {
            match connection.send_datagram(datagram.to_vec().into()) {
                Ok(()) => {}
                Err(SendDatagramError::ConnectionLost(error)) => return Err(error.into()),
                Err(
                    SendDatagramError::TooLarge
                    | SendDatagramError::UnsupportedByPeer
                    | SendDatagramError::Disabled,
                ) => frames::push(&mut self.frames, datagram),
            }
        }
        if self.frames.is_empty() {
            return Ok(());
        }
        let long = match &mut self.long {
            Some(long) => long,
            None => self.long.insert(connection.open_uni().await?),
        };
        Ok(long.write_all(&self.frames).await?)
    }

    #[cfg(test)]
    pub(super) fn max_datagram_bytes(&self) -> usize {
        self.connection.connection.max_datagram_size().unwrap_or(0)
    }
}

impl Receiver {
    pub(super) async fn receive(&mut self) -> io::Result<Option<&mut [u8]>> {
        loop {
            match self.next().await {
                Ok(Came::Datagram(datagram)) => {
                    self.datagram = datagram;
                    return Ok(Some(&mut self.datagram));
                }
                Ok(Came::Long(range)) => {
                    return Ok(self.long.as_mut().map(|long| long.at(range)));
                }
                Ok(Came::LongBegins(stream)) => self.long = Some(FrameReader::new(stream)),
                Ok(Came::LongEnds) => self.long = None,
                Err(error) => return ended(error),
            }
        }
    }

    async fn next(&mut self) -> io::Result<Came> {
        let connection = &self.connection.connection;
        let long = async {
            match &mut self.long {
                Some(long) => Ok(long.next().await?.map_or(Came::LongEnds, Came::Long)),
                None => Ok(Came::LongBegins(connection.accept_uni().await?)),
            }
        };
        tokio::select! {
            datagram = connection.read_datagram() => Ok(Came::Datagram(datagram?.into())),
            long = long => long,
        }
    }
}

/// An end that the other side meant is none of a stream's errors.
fn ended<T>(error: io::Error) -> io::Result<Option<T>> {
    let inner = error.get_ref().and_then(|inner| {
        let lost = match inner.downcast_ref() {
            Some(ReadError::ConnectionLost(lost)) => Some(lost),
            Some(_) | None => inner.downcast_ref(),
        };
        lost.cloned()
    });
    match inner.map(Closed::from) {
        Some(Closed::ByPeer {
            code: CloseCode::Done,
            ..
        }) => Ok(None),
        Some(_) | None => Err(error),
    }
}
