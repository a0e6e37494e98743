//! Asks the router for a port: the sockets and the HTTP of [`PortMapper`], which decides.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use mesh_core::{Gateway, GatewayAsk, MappingView, PortMapper, Unmapped, is_public};
use mesh_os::{
    clock,
    link::{LinkError, Links},
    socket::bind_udp_shared,
};
use mesh_types::Instant;
use mesh_wire::gateway::{ANNOUNCE_PORT, BYTES_MAX};
use socket2::SockRef;
use tokio::{net::UdpSocket, sync::watch, task::JoinHandle, time::timeout};
use tracing::{debug, info, warn};

use crate::{agent::Agent, chain, underlay};

mod http;

pub(crate) use http::PORTS as HTTP_PORTS;

/// Datagrams that are read in a second; what else comes waits in the socket and is dropped there. A router
/// sends a handful for each question.
const TAKEN_PER_SECOND: u32 = 64;

/// An answer that is longer than any of the protocols is cut, and so makes no sense to them.
const BUFFER_BYTES: usize = 2 * BYTES_MAX;

/// How long the end may be waited for: a little more than the router is.
const STOP_PATIENCE: Duration = Duration::from_millis(1500);

/// The task that keeps the mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    stop: watch::Sender<Option<Stop>>,
    task: JoinHandle<()>,
}

/// How the task ends.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// Whether a mapping is given back that would end by itself, too.
    all: bool,
}

/// What happened.
enum Happened {
    Network,
    Configured,
    Datagram(SocketAddrV4, Vec<u8>),
    Http(u64, http::Answered),
    Time,
    Stopping(Stop),
}

/// The ways to the router.
struct Ways {
    /// Towards the router, from this machine's address on its link.
    socket: Option<(Gateway, UdpSocket)>,
    /// What routers announce to all; `None`: another program has the port to itself.
    announcements: Option<UdpSocket>,
    /// The question by HTTP that is under way.
    http: Option<(u64, JoinHandle<http::Answered>)>,
    /// How much was read since when.
    intake: (Instant, u32),
}

impl Mapping {
    /// Asks for a port from now on, and whenever the network or the configuration changes.
    pub(crate) fn keep(agent: Arc<Agent>) -> Self {
        let (stop, stopped) = watch::channel(None);
        Self {
            stop,
            task: tokio::spawn(run(agent, stopped)),
        }
    }

    /// Gives the mapping back; one that ends by itself only if `all` are to go. A second at most.
    pub(crate) async fn stop(mut self, all: bool) {
        self.stop.send_replace(Some(Stop { all }));
        if timeout(STOP_PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

async fn run(agent: Arc<Agent>, mut stopped: watch::Receiver<Option<Stop>>) {
    let nonce = agent.identity().port_mapping_nonce();
    let mut mapper = PortMapper::new(nonce, agent.overlay.socket().port());
    let mut network = agent.network.subscribe();
    let mut config = agent.config.subscribe();
    let mut ways = Ways::new();
    let mut stopping = false;
    mapper.set_gateway(router(&agent), clock::now());
    loop {
        ways.perform(&mut mapper);
        publish(&agent, &mapper);
        if stopping && mapper.is_released() {
            return;
        }
        let happened = tokio::select! {
            Ok(()) = network.changed(), if !stopping => Happened::Network,
            Ok(()) = config.changed(), if !stopping => Happened::Configured,
            Ok(stop) = stopped.wait_for(Option::is_some), if !stopping => {
                Happened::Stopping(stop.unwrap_or(Stop { all: false }))
            }
            happened = ways.next(mapper.poll_timeout()) => happened,
        };
        let now = clock::now();
        match happened {
            Happened::Network => {
                mapper.set_gateway(router(&agent), now);
                mapper.refresh(now);
            }
            Happened::Configured => mapper.set_gateway(router(&agent), now),
            Happened::Datagram(from, bytes) => mapper.handle_datagram(from, &bytes, now),
            Happened::Http(id, answer) => {
                let answer = match &answer {
                    Ok((status, body)) => Ok((*status, &**body)),
                    Err(reason) => Err(reason.clone()),
                };
                mapper.handle_http(id, answer, now);
            }
            Happened::Time => mapper.handle_timeout(now),
            Happened::Stopping(Stop { all }) => {
                stopping = true;
                mapper.release(all, now);
            }
        }
    }
}

/// The router to ask, or why none is asked.
fn router(agent: &Agent) -> Result<Gateway, Unmapped> {
    let config = agent.config();
    if !config.port_mapping {
        return Err(Unmapped::SwitchedOff);
    }
    let found = Links::open().and_then(|mut links| links.router());
    let router = found.unwrap_or_else(|error: LinkError| {
        warn!(error = chain(&error), "could not look for a router");
        None
    });
    let router = router.ok_or(Unmapped::NoRouter)?;
    if !underlay::takes(config.listen.ip(), IpAddr::V4(router.local)) {
        return Err(Unmapped::NoRouter);
    }
    if is_public(router.local) {
        return Err(Unmapped::NotNeeded(router.local));
    }
    Ok(Gateway {
        address: router.address,
        local: router.local,
    })
}

/// Tells who wants to know, if something changed.
fn publish(agent: &Agent, mapper: &PortMapper) {
    let view = mapper.view();
    let mut endpoint_changed = false;
    agent.mapping.send_if_modified(|known| {
        let differs = *known != view;
        if differs {
            endpoint_changed = external(known) != external(&view);
            *known = view.clone();
        }
        differs
    });
    if endpoint_changed {
        match &view.mapped {
            Ok(mapped) => {
                info!(protocol = %mapped.protocol, "the router mapped a port");
                debug!(external = %mapped.external, "the router's port");
            }
            Err(reason) => info!(%reason, "no port of the router's any more"),
        }
        underlay::publish(agent);
    }
}

/// The endpoint that a router maps to this machine.
pub(crate) fn external(view: &MappingView) -> Option<SocketAddr> {
    let mapped = view.mapped.as_ref().ok()?;
    Some(SocketAddr::V4(mapped.external))
}

impl Ways {
    fn new() -> Self {
        let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, ANNOUNCE_PORT));
        let announcements = bind_udp_shared(all)
            .inspect_err(|error| debug!(%error, "announcements of routers are not heard"))
            .ok();
        Self {
            socket: None,
            announcements: announcements.and_then(|socket| UdpSocket::from_std(socket).ok()),
            http: None,
            intake: (Instant::ZERO, 0),
        }
    }

    /// Sends what is to be sent.
    fn perform(&mut self, mapper: &mut PortMapper) {
        while let Some(ask) = mapper.poll_ask() {
            match ask {
                GatewayAsk::Datagram { to, bytes } => {
                    let Some(gateway) = mapper.gateway() else {
                        continue;
                    };
                    let Some(socket) = self.socket(gateway) else {
                        continue;
                    };
                    if let Err(error) = socket.try_send_to(&bytes, to.into()) {
                        debug!(%to, %error, "could not ask the router");
                    }
                }
                GatewayAsk::Http { id, url, soap } => {
                    if let Some((_, before)) = self.http.take() {
                        before.abort();
                    }
                    self.http = Some((id, tokio::spawn(http::ask(url, soap))));
                }
            }
        }
    }

    fn socket(&mut self, gateway: Gateway) -> Option<&UdpSocket> {
        if self.socket.as_ref().is_none_or(|(of, _)| *of != gateway) {
            self.socket = None;
            let open = || {
                let socket = std::net::UdpSocket::bind((gateway.local, 0))?;
                socket.set_nonblocking(true)?;
                SockRef::from(&socket).set_multicast_if_v4(&gateway.local)?;
                UdpSocket::from_std(socket)
            };
            match open() {
                Ok(socket) => self.socket = Some((gateway, socket)),
                Err(error) => debug!(%error, "could not open a socket for the router"),
            }
        }
        self.socket.as_ref().map(|(_, socket)| socket)
    }

    /// Waits for something that concerns the router, no longer than until `deadline`. May be dropped at any
    /// time: nothing that was taken is lost by that.
    async fn next(&mut self, deadline: Option<Instant>) -> Happened {
        let now = clock::now();
        if now.saturating_since(self.intake.0) >= Duration::from_secs(1) {
            self.intake = (now, 0);
        }
        let may_read = self.intake.1 < TAKEN_PER_SECOND;
        let reopened = (!may_read).then(|| self.intake.0 + Duration::from_secs(1));
        let wake = deadline.into_iter().chain(reopened).min();
        let (from, bytes) = tokio::select! {
            received = receive(self.socket.as_ref().map(|(_, socket)| socket)), if may_read => received,
            received = receive(self.announcements.as_ref()), if may_read => received,
            answer = answered(&mut self.http) => return answer,
            () = until(wake, now) => return Happened::Time,
        };
        self.intake.1 += 1;
        Happened::Datagram(from, bytes)
    }
}

async fn until(wake: Option<Instant>, now: Instant) {
    match wake {
        Some(wake) => tokio::time::sleep(wake.saturating_since(now)).await,
        None => std::future::pending().await,
    }
}

/// One datagram; for ever without a socket, or with one that is broken.
async fn receive(socket: Option<&UdpSocket>) -> (SocketAddrV4, Vec<u8>) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, SocketAddr::V4(from))) => {
                buffer.truncate(length);
                return (from, buffer);
            }
            Ok((_, SocketAddr::V6(_))) => {}
            Err(error) => {
                debug!(%error, "could not hear the router");
                return std::future::pending().await;
            }
        }
    }
}

/// The answer by HTTP; for ever while nothing is asked.
async fn answered(asked: &mut Option<(u64, JoinHandle<http::Answered>)>) -> Happened {
    let Some((id, task)) = asked else {
        return std::future::pending().await;
    };
    let id = *id;
    let answer = task.await;
    *asked = None;
    let answer = answer.unwrap_or_else(|error| Err(error.to_string()));
    Happened::Http(id, answer)
}
