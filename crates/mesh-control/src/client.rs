use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_types::{IdentitySeed, NodeId};
use mesh_wire::control::{ATTACHMENT_BYTES_MAX, DecodeError, Notice, Reply, Request};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

pub use crate::crypto::Expect;
use crate::{
    CloseCode, Closed, ReadError, WriteError,
    crypto::{Unexpected, client_config, proven_key},
    framing,
    server::canonical,
    transport,
};

/// How long one address may take to complete the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Head start of each address over the next (RFC 8305 section 8 recommends 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried; further ones are passed over.
const ADDRESSES_MAX: usize = 8;

/// A connection to a controller; it closes when dropped.
#[derive(Debug)]
pub struct Connection {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    server: NodeId,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("cannot find the address of `{endpoint}`")]
    Lookup {
        /// `host:port` as given.
        endpoint: String,
        /// Why not.
        source: io::Error,
    },
    /// No address was given, or found.
    #[error("there is no address to connect to")]
    NoAddress,
    /// No UDP socket can be had.
    #[error("cannot open a UDP socket")]
    Socket(#[source] io::Error),
    /// The server proved to hold another key than was expected.
    #[error("the server at `{address}` has the key `{found}`, which is no controller's")]
    Unexpected {
        /// Where it is.
        address: SocketAddr,
        /// Its key.
        found: NodeId,
    },
    /// Nothing answers there.
    #[error("`{address}` does not answer")]
    TimedOut {
        /// What was tried.
        address: SocketAddr,
    },
    /// The address cannot be sent to, or what answers there speaks another protocol.
    #[error("cannot connect to `{address}`: {reason}")]
    Failed {
        /// What was tried.
        address: SocketAddr,
        /// Why not.
        reason: String,
    },
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The question could not be sent.
    #[error("cannot ask the controller")]
    Write(#[source] WriteError),
    /// The answer could not be read.
    #[error("the controller gave no answer")]
    Read(#[source] ReadError),
}

/// Looks `endpoint` (`host:port`) up and connects to the first of its addresses that answers.
///
/// `identity` is what this side proves to hold; `None` shows no key, which is enough to push a roster.
/// Dropping the future gives the attempt up.
///
/// # Errors
///
/// [`ConnectError`]; of several addresses that fail, the last one's.
pub async fn connect(
    endpoint: &str,
    identity: Option<&IdentitySeed>,
    expect: Expect,
) -> Result<Connection, ConnectError> {
    let lookup = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(endpoint))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let addresses: Vec<_> = lookup
        .map_err(|source| ConnectError::Lookup {
            endpoint: endpoint.to_owned(),
            source,
        })?
        .collect();
    connect_to(&addresses, identity, expect).await
}

/// Connects to the first of `addresses` that answers; each has a short head start over the next.
///
/// As [`connect`] otherwise.
///
/// # Errors
///
/// As [`connect`].
pub async fn connect_to(
    addresses: &[SocketAddr],
    identity: Option<&IdentitySeed>,
    expect: Expect,
) -> Result<Connection, ConnectError> {
    let endpoint = client_endpoint().map_err(ConnectError::Socket)?;
    let mut attempts = JoinSet::new();
    let mut failure = ConnectError::NoAddress;
    let mut addresses = addresses.iter().copied().take(ADDRESSES_MAX);
    loop {
        match addresses.next() {
            Some(address) => {
                let (tls, unexpected) = client_config(identity, expect.clone());
                attempts.spawn(attempt(endpoint.clone(), address, tls, unexpected));
            }
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let head_start = async {
            if addresses.len() == 0 {
                std::future::pending().await
            } else {
                sleep(HEAD_START).await;
            }
        };
        tokio::select! {
            Some(done) = attempts.join_next() => match done {
                Ok(Ok((connection, server))) => {
                    return Ok(Connection { endpoint, connection, server });
                }
                Ok(Err(error)) => failure = error,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
            () = head_start => {}
        }
    }
}

async fn attempt(
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    tls: quinn::crypto::rustls::QuicClientConfig,
    unexpected: Unexpected,
) -> Result<(quinn::Connection, NodeId), ConnectError> {
    let failed = |reason: String| ConnectError::Failed { address, reason };
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport::client());
    let connecting = endpoint
        // The name is not sent; QUIC's interface wants one.
        .connect_with(config, address, "mesh.invalid")
        .map_err(|error| failed(error.to_string()))?;
    let connection = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return Err(match (unexpected.get(), Closed::from(error)) {
                (Some(found), _) => ConnectError::Unexpected {
                    address,
                    found: *found,
                },
                (None, Closed::TimedOut) => ConnectError::TimedOut { address },
                (None, closed) => failed(closed.to_string()),
            });
        }
        Err(_) => return Err(ConnectError::TimedOut { address }),
    };
    let server = proven_key(&connection).ok_or_else(|| failed("it shows no key".to_owned()))?;
    Ok((connection, server))
}

impl Connection {
    /// The key that the server proved to hold.
    pub const fn server(&self) -> NodeId {
        self.server
    }

    /// Where the server is.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }

    /// The address of this machine that the connection uses; `None` where the system does not say.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.connection.local_ip().map(|ip| ip.to_canonical())
    }

    /// The UDP port of this side; `None` where the system does not say.
    pub fn local_port(&self) -> Option<u16> {
        Some(self.endpoint.local_addr().ok()?.port())
    }

    /// The estimated round trip.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Asks, and waits for the reply and its attachment (empty if there is none). Several questions may
    /// be under way. Dropping the future gives the question up; it may have been carried out.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the connection is gone, an answer is overdue, or it is not one.
    pub async fn request(
        &self,
        request: &Request,
        attachment: &[u8],
    ) -> Result<(Reply, Vec<u8>), RequestError> {
        let open = timeout(framing::MESSAGE_TIMEOUT, self.connection.open_bi()).await;
        let (mut send, mut receive) = open
            .map_err(|_| RequestError::Write(WriteError::TimedOut))?
            .map_err(|error| RequestError::Write(WriteError::Lost(error.into())))?;
        let sent = framing::send(&mut send, request, attachment).await;
        match sent {
            // A server that has heard enough stops listening and answers.
            Ok(()) | Err(WriteError::Stopped) => {}
            Err(error) => return Err(RequestError::Write(error)),
        }
        let (reply, length) = framing::read_message(&mut receive)
            .await
            .map_err(RequestError::Read)?;
        let attachment = framing::read_attachment(&mut receive, length, ATTACHMENT_BYTES_MAX)
            .await
            .map_err(RequestError::Read)?;
        framing::read_end(&mut receive).await;
        Ok((reply, attachment))
    }

    /// Waits for the server to say something unasked. What this release does not understand is passed
    /// over. Dropping the future may lose one notice.
    ///
    /// # Errors
    ///
    /// [`Closed`] once the connection is gone.
    pub async fn next_notice(&self) -> Result<Notice, Closed> {
        loop {
            let mut stream = self.connection.accept_uni().await?;
            match framing::read_message(&mut stream).await {
                Ok((notice, _)) => {
                    framing::read_end(&mut stream).await;
                    return Ok(notice);
                }
                Err(ReadError::Lost(closed)) => return Err(closed),
                Err(ReadError::Decode(DecodeError::Unknown(_)))
                | Err(
                    ReadError::TimedOut
                    | ReadError::CutShort
                    | ReadError::Frame(_)
                    | ReadError::Decode(DecodeError::Malformed(_))
                    | ReadError::Attachment { .. },
                ) => {}
            }
        }
    }

    /// Waits for the end of the connection. Cancel-safe.
    pub async fn closed(&self) -> Closed {
        self.connection.closed().await.into()
    }

    /// Closes the connection and waits shortly for the server to hear of it.
    pub async fn close(self) {
        self.connection.close(CloseCode::Done.to_wire(), b"");
        let _ = timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

#[cfg(test)]
impl Connection {
    pub(crate) const fn raw(&self) -> &quinn::Connection {
        &self.connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Done.to_wire(), b"");
    }
}

/// A socket for both families, or for IPv4 alone on a machine without IPv6.
pub(crate) fn client_endpoint() -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::client(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        .or_else(|_| quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}
