//! The sockets of port 53: datagrams, and streams of them (RFC 7766), each bounded.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use ipnet::{Ipv4Net, Ipv6Net};
use mesh_core::names::{self, NameTable, Transport};
use mesh_os::socket::{self, BindError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::debug;

/// The longest question that is read, in bytes: a name, its type and EDNS with options are below 1 KiB.
const QUESTION_BYTES_MAX: usize = 4096;

/// Connections at a time, from everyone and from one address.
const CONNECTIONS_MAX: usize = 64;
const CONNECTIONS_PER_SOURCE_MAX: usize = 16;

/// Those of them that only this machine's own programs get: a few other machines, of two addresses each, can
/// take all the rest.
const CONNECTIONS_KEPT: usize = 16;

/// How long a connection may be silent, or a reply wait to be taken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may last; a client that has more to ask connects again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// How long is waited after an error of a socket, such as an interface that was taken down.
const ERROR_PAUSE: Duration = Duration::from_millis(200);

/// What is answered, and to whom.
#[derive(Debug)]
pub(super) struct Answers {
    table: NameTable,
    prefix: Ipv6Net,
    pool: Option<Ipv4Net>,
}

/// Port 53 of this machine's addresses. Dropping it closes everything.
pub(super) struct Server {
    addresses: Vec<IpAddr>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// Why port 53 is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeNamesError {
    /// Another program has it.
    #[error(
        "{transport} port {port} is in use by {holder}; stop it, let it leave `{address}` free, or set `dns = false`"
    )]
    InUse {
        transport: socket::Transport,
        port: u16,
        address: IpAddr,
        holder: socket::Holder,
    },
    /// The system refuses.
    #[error(transparent)]
    Bind(BindError),
    /// The runtime does not take the socket.
    #[error("cannot use the socket of port 53")]
    Register(#[source] io::Error),
}

/// What all tasks of a server use.
struct Shared {
    answers: ArcSwap<Answers>,
    connections: Connections,
}

/// Who is connected.
#[derive(Debug)]
struct Connections {
    /// This machine's addresses.
    own: Vec<IpAddr>,
    by_source: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A place among the connections, given back when dropped.
struct Place<'a> {
    connections: &'a Connections,
    source: IpAddr,
}

impl Answers {
    pub(super) const fn new(table: NameTable, prefix: Ipv6Net, pool: Option<Ipv4Net>) -> Self {
        Self {
            table,
            prefix,
            pool,
        }
    }

    /// The answer for whoever has the address `source`; nobody outside the mesh learns anything.
    fn to(&self, source: IpAddr, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let inside = match source {
            IpAddr::V6(source) => self.prefix.contains(&source),
            IpAddr::V4(source) => self.pool.is_some_and(|pool| pool.contains(&source)),
        };
        if inside {
            names::answer(&self.table, question, transport)
        } else {
            // Not longer than the question, so nobody gains by lying about the source.
            names::refuse(question, transport)
        }
    }
}

impl Server {
    /// Binds `port` of each address, for UDP and TCP, and answers what comes in through `interface` and from
    /// this machine itself. Must be called inside a runtime.
    pub(super) fn bind(
        addresses: &[IpAddr],
        port: u16,
        interface: &str,
        answers: Answers,
    ) -> Result<Self, ServeNamesError> {
        let shared = Arc::new(Shared {
            answers: ArcSwap::from_pointee(answers),
            connections: Connections::of(addresses),
        });
        let mut tasks = JoinSet::new();
        for address in addresses {
            let failed = |error| named(error, *address);
            let address = SocketAddr::new(*address, port);
            for socket in socket::bind_udp_inside(address, interface).map_err(failed)? {
                socket
                    .set_nonblocking(true)
                    .map_err(ServeNamesError::Register)?;
                let socket = UdpSocket::from_std(socket).map_err(ServeNamesError::Register)?;
                tasks.spawn(datagrams(socket, shared.clone()));
            }
            for listener in socket::bind_tcp_inside(address, interface).map_err(failed)? {
                listener
                    .set_nonblocking(true)
                    .map_err(ServeNamesError::Register)?;
                let listener =
                    TcpListener::from_std(listener).map_err(ServeNamesError::Register)?;
                tasks.spawn(streams(listener, shared.clone()));
            }
        }
        Ok(Self {
            addresses: addresses.to_vec(),
            shared,
            _tasks: tasks,
        })
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// From here on, these are the answers.
    pub(super) fn replace(&self, answers: Answers) {
        self.shared.answers.store(Arc::new(answers));
    }
}

fn named(error: BindError, address: IpAddr) -> ServeNamesError {
    match error {
        BindError::InUse {
            transport,
            port,
            holder,
        } => ServeNamesError::InUse {
            transport,
            port,
            address,
            holder,
        },
        error @ BindError::Io { .. } => ServeNamesError::Bind(error),
    }
}

async fn datagrams(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        let (length, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "a question could not be received");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let answers = shared.answers.load();
        let Some(reply) = answers.to(source.ip(), &buffer[..length], Transport::Udp) else {
            continue;
        };
        // A client that is gone, or a full queue: it asks again.
        if let Err(error) = socket.try_send_to(&reply, source) {
            debug!(%error, "an answer could not be sent");
        }
    }
}

async fn streams(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        let (stream, source) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(%error, "a connection could not be taken");
                    sleep(ERROR_PAUSE).await;
                    continue;
                }
            },
            Some(_) = clients.join_next() => continue,
        };
        let shared = shared.clone();
        clients.spawn(async move {
            let Some(_place) = shared.connections.enter(source.ip()) else {
                debug!("too many connections for names; one was closed");
                return;
            };
            let all = converse(stream, source.ip(), &shared, IDLE_TIMEOUT);
            // The client went away, fell silent, or had its time: there is nobody to tell.
            let _ = timeout(CONNECTION_TIMEOUT, all).await;
        });
    }
}

/// Answers the questions of one client, one after the other. What it sends ahead waits in the system's
/// buffers, which are bounded.
async fn converse(
    mut stream: TcpStream,
    source: IpAddr,
    shared: &Shared,
    idle: Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        let silence = Instant::now() + idle;
        let length = usize::from(timeout_at(silence, stream.read_u16()).await??);
        let Some(question) = buffer.get_mut(..length) else {
            return Ok(());
        };
        timeout_at(silence, stream.read_exact(question)).await??;
        let reply = shared.answers.load().to(source, question, Transport::Tcp);
        let Some(reply) = reply else {
            return Ok(());
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [length.to_be_bytes().as_slice(), &reply].concat();
        timeout(idle, stream.write_all(&framed)).await??;
    }
}

impl Connections {
    /// Nobody is connected to a machine that has the addresses `own`.
    fn of(own: &[IpAddr]) -> Self {
        Self {
            own: own.to_vec(),
            by_source: Mutex::default(),
        }
    }

    fn enter(&self, source: IpAddr) -> Option<Place<'_>> {
        let limit = match self.own.contains(&source) {
            true => CONNECTIONS_MAX,
            false => CONNECTIONS_MAX - CONNECTIONS_KEPT,
        };
        let mut connected = self.lock();
        let from_all: usize = connected.values().sum();
        let from_source = connected.entry(source).or_default();
        if from_all >= limit || *from_source >= CONNECTIONS_PER_SOURCE_MAX {
            if *from_source == 0 {
                connected.remove(&source);
            }
            return None;
        }
        *from_source += 1;
        Some(Place {
            connections: self,
            source,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.by_source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut connected = self.connections.lock();
        if let Some(count) = connected.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                connected.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::names::NamesConfig;
    use mesh_types::{MachineName, Serial};

    use super::*;

    /// Answers of a fleet without names, for whoever is in `prefix`.
    fn shared(prefix: &str) -> Arc<Shared> {
        let server: MachineName = "galena".parse().unwrap();
        let prefix = prefix.parse().unwrap();
        let config = NamesConfig {
            domain: "mesh",
            prefix,
            pool: None,
            serial: Serial::FIRST,
            server: &server,
        };
        let table = NameTable::new(&config, []).unwrap();
        Arc::new(Shared {
            answers: ArcSwap::from_pointee(Answers::new(table, prefix, None)),
            connections: Connections::of(&[]),
        })
    }

    /// Asks for the SOA of `mesh`.
    fn question(id: u8) -> Vec<u8> {
        let mut bytes = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(b"\x04mesh\x00\x00\x06\x00\x01");
        bytes
    }

    /// The code of a reply, and its number of answers.
    fn told(reply: &[u8]) -> (u8, u8) {
        (reply[3] & 15, reply[7])
    }

    async fn client(to: SocketAddr, prefix: &str) -> (u8, u8) {
        let server = UdpSocket::bind(to).await.unwrap();
        let to = server.local_addr().unwrap();
        let serving = tokio::spawn(datagrams(server, shared(prefix)));
        let client = UdpSocket::bind("[::1]:0").await.unwrap();
        // Neither is a question: nobody is answered, and nobody waits.
        client.send_to(b"", to).await.unwrap();
        client.send_to(&[0xff; 40], to).await.unwrap();
        client.send_to(&question(7), to).await.unwrap();
        let mut reply = [0; 1500];
        let (length, from) = client.recv_from(&mut reply).await.unwrap();
        serving.abort();
        assert_eq!((from, reply[1]), (to, 7));
        told(&reply[..length])
    }

    #[tokio::test]
    async fn only_sources_inside_the_mesh_are_answered() {
        let anywhere = "[::1]:0".parse().unwrap();
        assert_eq!(client(anywhere, "::/48").await, (0, 1));
        assert_eq!(client(anywhere, "fdc3:582e:db61::/48").await, (5, 0));
    }

    async fn listening() -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(streams(listener, shared("::/48")));
        (address, serving)
    }

    #[tokio::test]
    async fn questions_that_are_sent_ahead_are_answered_in_their_order() {
        let (address, serving) = listening().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let framed = |id| {
            let question = question(id);
            [vec![0, u8::try_from(question.len()).unwrap()], question].concat()
        };
        let all: Vec<u8> = (0..200).flat_map(framed).collect();
        stream.write_all(&all).await.unwrap();
        for id in 0..200 {
            let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut reply).await.unwrap();
            assert_eq!((reply[1], told(&reply)), (id, (0, 1)));
        }
        serving.abort();
    }

    #[tokio::test]
    async fn a_stream_that_is_no_dns_is_closed() {
        let (address, serving) = listening().await;
        for noise in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0, 3, 1, 2, 3]] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(noise).await.unwrap();
            // Closed with what it sent unread, which some systems call a reset.
            let mut rest = Vec::new();
            let ended = stream.read_to_end(&mut rest).await;
            assert!(ended.is_err() || rest.is_empty(), "{rest:?}");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed() {
        let (near, far) = {
            let listener = TcpListener::bind("[::1]:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap());
            let (near, far) = tokio::join!(near, listener.accept());
            (near.unwrap(), far.unwrap().0)
        };
        let idle = Duration::from_millis(20);
        let ended = converse(far, "::1".parse().unwrap(), &shared("::/48"), idle).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(near);
    }

    #[test]
    fn one_source_cannot_take_all_connections() {
        let connections = Connections::of(&[]);
        let greedy: IpAddr = "fd00::1".parse().unwrap();
        let other: IpAddr = "fd00::2".parse().unwrap();
        let places: Vec<_> = (0..100).filter_map(|_| connections.enter(greedy)).collect();
        assert_eq!(places.len(), CONNECTIONS_PER_SOURCE_MAX);
        assert!(connections.enter(other).is_some());
        drop(places);
        assert!(connections.lock().is_empty());
        let many: Vec<_> = (0..100_u16)
            .filter_map(|last| connections.enter([0xfd00, 0, 0, 0, 0, 0, 0, last].into()))
            .collect();
        assert_eq!(many.len(), CONNECTIONS_MAX - CONNECTIONS_KEPT);
        drop(many);
        assert!(connections.lock().is_empty());
    }

    #[test]
    fn the_others_together_leave_places_for_this_machines_own_programs() {
        let own: IpAddr = "fd00::1".parse().unwrap();
        let connections = Connections::of(&[own]);
        let others: Vec<_> = (0..1000_u16)
            .filter_map(|last| connections.enter([0xfd00, 0, 0, 1, 0, 0, 0, last % 9].into()))
            .collect();
        let ours: Vec<_> = (0..100).filter_map(|_| connections.enter(own)).collect();
        assert_eq!(ours.len(), CONNECTIONS_KEPT);
        assert_eq!(others.len() + ours.len(), CONNECTIONS_MAX);
    }
}
