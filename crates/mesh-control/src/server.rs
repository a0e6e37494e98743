use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{hmac, rand};
use mesh_types::{IdentitySeed, NodeId};
use mesh_wire::control::{Notice, Reply, Request};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig, TokioRuntime};
use tokio::time::timeout;

use crate::{
    CloseCode, Closed, ReadError, WriteError,
    crypto::{endpoint_secret, proven_key, server_config},
    framing, transport,
};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long clients are given to hear that the server goes down.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Handshakes that wait to be looked at; further ones are refused by QUIC.
const INCOMING_MAX: usize = 1024;

/// The server's UDP socket with the QUIC endpoint on it. Must be used inside a tokio runtime.
#[derive(Debug)]
pub struct Server {
    endpoint: quinn::Endpoint,
    local_address: SocketAddr,
}

/// A client that wants to connect and has not been answered yet.
#[derive(Debug)]
pub struct Handshake(quinn::Incoming);

/// A connected client. Clones are the same connection, which closes when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    connection: quinn::Connection,
    node_id: Option<NodeId>,
}

/// A client's question, to be answered once.
#[derive(Debug)]
pub struct Question {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    attachment_bytes: usize,
}

impl Server {
    /// Serves on `listen`, as the system binds it.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub fn bind(listen: SocketAddr, identity: &IdentitySeed) -> io::Result<Self> {
        Self::new(UdpSocket::bind(listen)?, identity)
    }

    /// Serves on a bound UDP socket.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub fn new(socket: UdpSocket, identity: &IdentitySeed) -> io::Result<Self> {
        let local_address = socket.local_addr()?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(server_config(identity)));
        config
            .transport_config(transport::server())
            .max_incoming(INCOMING_MAX);
        let endpoint = quinn::Endpoint::new(
            endpoint_config(identity),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            local_address,
        })
    }

    /// Where the server listens, with the port that was taken.
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Waits for a client; `None` once the server was shut down. Cancel-safe.
    pub async fn accept(&self) -> Option<Handshake> {
        self.endpoint.accept().await.map(Handshake)
    }

    /// Closes every connection and waits shortly for the clients to hear of it.
    pub async fn shutdown(&self) {
        self.endpoint.close(
            CloseCode::GoingAway.to_wire(),
            b"the controller is going down",
        );
        // Whoever does not confirm in time finds out by itself.
        let _ = timeout(SHUTDOWN_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Handshake {
    /// Where the client's packets come from.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.0.remote_address())
    }

    /// Whether the client has shown that it receives what is sent to its address.
    pub fn is_address_validated(&self) -> bool {
        self.0.remote_address_validated()
    }

    /// Makes the client show that it receives what is sent to its address (RFC 9000 section 8.1.2).
    pub fn retry(self) {
        // Fails only for a client that was validated already; it may try again.
        let _ = self.0.retry();
    }

    /// Turns the client away.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Completes the handshake.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the client speaks another protocol, does not prove its key, or is too slow.
    pub async fn complete(self) -> Result<Client, Closed> {
        let connecting = self.0.accept()?;
        let connection = timeout(HANDSHAKE_TIMEOUT, connecting)
            .await
            .map_err(|_| Closed::TimedOut)??;
        let node_id = proven_key(&connection);
        Ok(Client {
            connection,
            node_id,
        })
    }
}

impl Client {
    /// The key that the client proved to hold; `None` if it came without one.
    pub const fn node_id(&self) -> Option<NodeId> {
        self.node_id
    }

    /// Where the client's packets come from; it changes when the client roams.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }

    /// The estimated round trip.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// A number that no other open connection has.
    pub fn id(&self) -> usize {
        self.connection.stable_id()
    }

    /// Waits for the client to begin a question. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Closed`] once the connection is gone.
    pub async fn next_question(&self) -> Result<Question, Closed> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok(Question {
            send,
            receive,
            attachment_bytes: 0,
        })
    }

    /// Says something unasked, and returns when the client has it.
    ///
    /// # Errors
    ///
    /// [`WriteError`] if the connection is gone or the client does not take it in time.
    pub async fn notify(&self, notice: &Notice) -> Result<(), WriteError> {
        let open = timeout(framing::MESSAGE_TIMEOUT, self.connection.open_uni()).await;
        let mut stream = open
            .map_err(|_| WriteError::TimedOut)?
            .map_err(|error| WriteError::Lost(error.into()))?;
        framing::write(&mut stream, notice, &[]).await
    }

    /// Closes the connection at once; what was not confirmed may be lost.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code.to_wire(), reason.as_bytes());
    }

    /// Waits for the end of the connection. Cancel-safe.
    pub async fn closed(&self) -> Closed {
        self.connection.closed().await.into()
    }
}

#[cfg(test)]
impl Client {
    pub(crate) const fn raw(&self) -> &quinn::Connection {
        &self.connection
    }
}

impl Question {
    /// Reads what is asked. Not cancel-safe: to be called once.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; the question can still be answered.
    pub async fn request(&mut self) -> Result<Request, ReadError> {
        let (request, attachment_bytes) = framing::read_message(&mut self.receive).await?;
        self.attachment_bytes = attachment_bytes;
        Ok(request)
    }

    /// Length of the attachment that the request announced, in bytes.
    pub const fn attachment_bytes(&self) -> usize {
        self.attachment_bytes
    }

    /// Reads the attachment, which must be of at most `max` bytes. Not cancel-safe: to be called once,
    /// after [`Question::request`].
    ///
    /// # Errors
    ///
    /// [`ReadError`]; the question can still be answered.
    pub async fn attachment(&mut self, max: usize) -> Result<Vec<u8>, ReadError> {
        let length = std::mem::take(&mut self.attachment_bytes);
        framing::read_attachment(&mut self.receive, length, max).await
    }

    /// Answers, and returns when the client has the answer.
    ///
    /// # Errors
    ///
    /// [`WriteError`] if the connection is gone or the client does not take it in time.
    pub async fn answer(mut self, reply: &Reply, attachment: &[u8]) -> Result<(), WriteError> {
        // What is left unread is not wanted.
        let _ = self.receive.stop(CloseCode::Done.to_wire());
        framing::write(&mut self.send, reply, attachment).await
    }
}

/// An IPv4 address as such, not as the IPv6 socket shows it (`::ffff:192.0.2.1`).
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

pub(crate) fn endpoint_config(identity: &IdentitySeed) -> EndpointConfig {
    let reset = endpoint_secret(identity, "mesh-quic-reset-v1");
    let mut config =
        EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// Connection ids of 8 random bytes, quinn's own length.
///
/// quinn's default ids are marked with a random key of the process, and packets whose ids lack the mark
/// are passed over in silence: a restarted server would never tell its old clients that they are gone.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        rand::fill(&mut id).expect("the system's random source works");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
