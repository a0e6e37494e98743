//! Streams in place of UDP: QUIC and TLS on port 443, towards moons where none can be reached otherwise.
//!
//! To the engine a stream is one more way to the moon, with a number for an address. Which there are is decided
//! by [`mesh_core::Dialler`]; here they are opened, carried and taken. One by which nothing has come for a minute
//! is over, as a client of the moon lets itself be heard of every 20 seconds.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_control::stream::{
    DatagramReceiver, DatagramSender, Stream, StreamListener, dial_quic, dial_tls,
};
use mesh_core::{Carrier, Dial, Dialler, Remote, Run, StreamId};
use mesh_inventory::roster::Roster;
use mesh_os::{clock, udp::SendBatch};
use mesh_types::{Ecn, MemberKey, PublicIdentity, WireguardPublicKey};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{agent::Agent, chain, dataplane, overlay::Overlay};

/// Where moons take streams.
pub(crate) const PORT: u16 = 443;

/// After an error of the listening socket.
const PAUSE: Duration = Duration::from_secs(1);

/// A stream by which nothing came for this long is over.
const IDLE: Duration = Duration::from_secs(60);

/// Datagrams that wait to be written into a stream; further ones are lost, as on any full line.
const QUEUE: usize = 256;

/// Datagrams written at a time.
const BATCH: usize = 64;

/// Streams at a time, of 64 KiB each; and handshakes, of each carrier.
const STREAMS_MAX: usize = 1_000;
const HANDSHAKES_MAX: usize = 256;

/// Addresses of one moon that are dialled; further ones are passed over.
const ADDRESSES_MAX: usize = 8;

/// The streams that are open.
#[derive(Default)]
pub(crate) struct Streams(Mutex<Table>);

#[derive(Default)]
struct Table {
    open: BTreeMap<StreamId, (WireguardPublicKey, mpsc::Sender<Vec<u8>>)>,
    last: u64,
}

/// A stream's place in the table, for as long as it is carried.
struct Place<'a> {
    overlay: &'a Overlay,
    peer: WireguardPublicKey,
    id: StreamId,
}

impl Streams {
    /// Queues a datagram for a stream; lost if that is over or full.
    pub(crate) fn send(&self, to: StreamId, datagram: &[u8]) {
        if let Some((_, queue)) = self.lock().open.get(&to)
            && queue.try_send(datagram.to_vec()).is_err()
        {
            debug!(?to, "a stream is full");
        }
    }

    /// The streams to a peer.
    pub(crate) fn of(&self, peer: &WireguardPublicKey) -> Vec<StreamId> {
        let table = self.lock();
        let open = table.open.iter();
        open.filter(|(_, (to, _))| to == peer)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Ends the streams of all but some.
    pub(crate) fn retain(&self, keep: impl Fn(&WireguardPublicKey) -> bool) {
        self.lock().open.retain(|_, (peer, _)| keep(peer));
    }

    /// Makes a place; an older stream of the same kind and peer ends. `None`: there are too many.
    fn add(
        &self,
        peer: WireguardPublicKey,
        carrier: Carrier,
    ) -> Option<(StreamId, mpsc::Receiver<Vec<u8>>)> {
        let mut table = self.lock();
        table
            .open
            .retain(|id, (other, _)| *other != peer || id.carrier != carrier);
        if table.open.len() >= STREAMS_MAX {
            return None;
        }
        table.last += 1;
        let id = StreamId {
            carrier,
            number: table.last,
        };
        let (queue, receiver) = mpsc::channel(QUEUE);
        table.open.insert(id, (peer, queue));
        Some((id, receiver))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.overlay.streams.lock().open.remove(&self.id);
        self.overlay.streams_changed(&self.peer);
    }
}

/// Carries a stream's datagrams until it is over; `deliver` takes packets for the TUN. Dropping the future
/// closes it.
pub(crate) async fn carry(
    overlay: &Overlay,
    deliver: impl Fn(&[u8]),
    peer: WireguardPublicKey,
    carrier: Carrier,
    stream: Stream,
) {
    let Some((id, queue)) = overlay.streams.add(peer, carrier) else {
        debug!("too many streams");
        return;
    };
    let _place = Place { overlay, peer, id };
    overlay.streams_changed(&peer);
    let Stream {
        sender, receiver, ..
    } = stream;
    let over = tokio::select! {
        over = receive(overlay, deliver, id, receiver) => over,
        over = send(queue, sender) => over,
    };
    debug!(
        ?id,
        error = over.err().map(|error| chain(&error)),
        "a stream is over"
    );
}

async fn receive(
    overlay: &Overlay,
    deliver: impl Fn(&[u8]),
    id: StreamId,
    mut receiver: DatagramReceiver,
) -> std::io::Result<()> {
    let mut relayed = SendBatch::new();
    while let Some(datagram) = timeout(IDLE, receiver.receive()).await?? {
        let from = Remote::Stream(id);
        if let Some(packet) = dataplane::open(
            overlay,
            &mut Run::default(),
            from,
            Ecn::NotCapable,
            datagram,
            &mut relayed,
            clock::now(),
        ) {
            deliver(packet);
        }
        if let Err(error) = relayed.flush(overlay.socket()) {
            debug!(%error, "could not relay");
        }
    }
    Ok(())
}

async fn send(
    mut queue: mpsc::Receiver<Vec<u8>>,
    mut sender: DatagramSender,
) -> std::io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        sender.send(batch.iter().map(Vec::as_slice)).await?;
        batch.clear();
    }
    Ok(())
}

/// Takes streams of members on `listen`, for ever.
pub(crate) async fn serve(agent: Arc<Agent>, listen: Option<SocketAddr>) {
    let Some(listen) = listen else {
        return std::future::pending().await;
    };
    let quic = StreamListener::bind_quic(listen, agent.identity());
    let tls = StreamListener::bind_tls(listen, agent.identity()).await;
    let taking = [(Carrier::Quic, quic), (Carrier::Tls, tls)].map(|(carrier, listener)| {
        let agent = agent.clone();
        async move {
            match listener {
                Ok(listener) => {
                    info!(%listen, %carrier, "taking streams of clients without UDP");
                    take(&agent, carrier, &listener).await;
                }
                Err(error) => {
                    warn!(%listen, %carrier, %error, "could not listen for clients without UDP");
                }
            }
        }
    });
    let [quic, tls] = taking;
    tokio::join!(quic, tls);
    std::future::pending().await
}

/// Takes streams of one kind, for ever.
async fn take(agent: &Arc<Agent>, carrier: Carrier, listener: &StreamListener) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut streams = JoinSet::new();
    loop {
        while streams.try_join_next().is_some() {}
        let permit = handshakes.clone().acquire_owned().await;
        let handshake = match listener.accept().await {
            Ok(handshake) => handshake,
            Err(error) => {
                warn!(%error, "could not take a stream");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Under load nobody gets a place with an address that is not his.
        let loaded = handshakes.available_permits() < HANDSHAKES_MAX / 2;
        let handshake = if loaded {
            handshake.prove_address()
        } else {
            Some(handshake)
        };
        let Some(handshake) = handshake else {
            continue;
        };
        let agent = agent.clone();
        streams.spawn(async move {
            let from = handshake.remote_address();
            let stream = match handshake.complete().await {
                Ok(stream) => stream,
                Err(error) => return debug!(%from, error = chain(&error), "no stream"),
            };
            drop(permit);
            let roster = agent.roster();
            let member = roster.as_ref().and_then(|roster| {
                let member = roster.member_by_node_id(&stream.peer)?;
                member.enabled.then_some(member.public_key?.wireguard())
            });
            match member {
                Some(peer) => {
                    carry(&agent.overlay, to_tun(&agent), peer, carrier, stream).await;
                }
                None => debug!(%from, "a stream of somebody who is no member"),
            }
        });
    }
}

/// A connection to a moon.
type Line = (WireguardPublicKey, Carrier);

/// Opens streams to moons as the dialler wants it, for ever.
pub(crate) async fn supervise(agent: Arc<Agent>, port: u16) {
    let mut reached = agent.overlay.moons.subscribe();
    let mut roster = agent.roster.subscribe();
    let mut endpoints = agent.endpoints.subscribe();
    let (opened, mut news) = mpsc::channel(1);
    let mut places = Places::default();
    let mut dialler = Dialler::default();
    let mut lines: BTreeMap<Line, AbortHandle> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    places.replace(roster.borrow_and_update().as_deref(), agent.public());
    loop {
        let moons = places.of(&reached.borrow_and_update());
        dialler.set_moons(moons, clock::now());
        while let Some(dial) = dialler.poll_dial() {
            match dial {
                Dial::Open(moon, carrier) => {
                    let (agent, opened) = (agent.clone(), opened.clone());
                    match places.0.get(&moon).cloned() {
                        Some((identity, hosts)) => {
                            let line =
                                open_and_carry(agent, identity, hosts, port, carrier, opened);
                            let handle = tasks.spawn(async move {
                                line.await;
                                (moon, carrier)
                            });
                            lines.insert((moon, carrier), handle);
                        }
                        None => dialler.ended(&moon, carrier, clock::now()),
                    }
                }
                Dial::Close(moon, carrier) => {
                    if let Some(line) = lines.remove(&(moon, carrier)) {
                        line.abort();
                    }
                }
            }
        }
        // The senders live as long as the agent.
        tokio::select! {
            _ = reached.changed() => {}
            () = agent.overlay.moons_wanted.notified() => dialler.want(clock::now()),
            _ = roster.changed() => {
                places.replace(roster.borrow_and_update().as_deref(), agent.public());
                dialler.network_changed(clock::now());
            }
            _ = endpoints.changed() => dialler.network_changed(clock::now()),
            Some((moon, carrier)) = news.recv() => dialler.opened(&moon, carrier, clock::now()),
            Some(ended) = tasks.join_next_with_id() => {
                // One that was aborted, or took another's place, has ended for the dialler already.
                if let Ok((id, line)) = ended
                    && lines.get(&line).is_some_and(|current| current.id() == id)
                {
                    lines.remove(&line);
                    dialler.ended(&line.0, line.1, clock::now());
                }
            }
            () = sleep(clock::until(dialler.poll_timeout())) => {
                dialler.handle_timeout(clock::now());
            }
        }
    }
}

/// Opens a stream to a moon, says so, and carries it until it is over. Dropping the future closes it.
async fn open_and_carry(
    agent: Arc<Agent>,
    moon: PublicIdentity,
    hosts: Vec<String>,
    port: u16,
    carrier: Carrier,
    opened: mpsc::Sender<Line>,
) {
    let Some(stream) = open(&agent, moon, hosts, port, carrier).await else {
        return;
    };
    info!(%carrier, "reached a moon on port {port}");
    // Whoever listens lives as long as this.
    let _ = opened.send((moon.wireguard(), carrier)).await;
    carry(
        &agent.overlay,
        to_tun(&agent),
        moon.wireguard(),
        carrier,
        stream,
    )
    .await;
}

fn to_tun(agent: &Agent) -> impl Fn(&[u8]) + '_ {
    |packet| {
        if let Some(device) = &agent.device
            && let Err(error) = device.tun.send([packet])
        {
            debug!(%error, "the TUN did not take a packet");
        }
    }
}

/// Where moons are: their identities and hosts.
#[derive(Default)]
struct Places(BTreeMap<WireguardPublicKey, (PublicIdentity, Vec<String>)>);

impl Places {
    /// Takes the moons that the roster tells where to find.
    fn replace(&mut self, roster: Option<&Roster>, own: &PublicIdentity) {
        let members = roster
            .into_iter()
            .flat_map(|roster| roster.members().values());
        let hosts = |endpoint: &String| {
            let (host, _) = endpoint.rsplit_once(':')?;
            Some(host.trim_matches(['[', ']']).to_owned())
        };
        self.0 = members
            .filter(|member| member.is_relay())
            .filter_map(|member| match member.public_key? {
                MemberKey::Mesh(key) if key != *own => {
                    let hosts: Vec<_> = member.endpoints.iter().filter_map(hosts).collect();
                    (!hosts.is_empty()).then_some((key.wireguard(), (key, hosts)))
                }
                MemberKey::Mesh(_) | MemberKey::Wireguard(_) => None,
            })
            .collect();
    }

    /// Those of `reached` that can be dialled, or need not be.
    fn of(
        &self,
        reached: &[(WireguardPublicKey, Option<Remote>)],
    ) -> Vec<(WireguardPublicKey, Option<Remote>)> {
        let known = |moon, by: Option<Remote>| by.is_some() || self.0.contains_key(moon);
        let moons = reached.iter().filter(|(moon, by)| known(moon, *by));
        moons.copied().collect()
    }
}

/// The first stream that opens to any address of a moon.
async fn open(
    agent: &Arc<Agent>,
    moon: PublicIdentity,
    hosts: Vec<String>,
    port: u16,
    carrier: Carrier,
) -> Option<Stream> {
    let mut lookups = JoinSet::new();
    for host in hosts.into_iter().take(ADDRESSES_MAX) {
        lookups.spawn(async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            found.map(Iterator::collect::<Vec<_>>).unwrap_or_default()
        });
    }
    let mut dialled = JoinSet::new();
    loop {
        tokio::select! {
            Some(found) = lookups.join_next() => {
                let free = ADDRESSES_MAX.saturating_sub(dialled.len());
                for address in found.unwrap_or_default().into_iter().take(free) {
                    let agent = agent.clone();
                    dialled.spawn(async move {
                        let (own, expected) = (agent.identity(), moon.node_id());
                        match carrier {
                            Carrier::Quic => dial_quic(address, own, expected).await,
                            Carrier::Tls => dial_tls(address, own, expected).await,
                        }
                    });
                }
            }
            Some(ended) = dialled.join_next() => match ended {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => debug!(%carrier, error = chain(&error), "no stream to a moon"),
                Err(_) => {}
            },
            else => return None,
        }
    }
}
