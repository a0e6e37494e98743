//! Streams in place of UDP: TLS on TCP, towards a moon where no moon can be reached otherwise.
//!
//! To the engine a stream is one more way to the moon, with a number for an address. It ends when nothing has
//! come by it for a minute, as a client of the moon lets itself be heard of every 20 seconds; so it goes by
//! itself once UDP gets through.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_control::stream::{DatagramReceiver, DatagramSender, Stream, StreamListener, dial};
use mesh_core::{Remote, StreamId};
use mesh_inventory::roster::Roster;
use mesh_os::{clock, udp::SendBatch};
use mesh_types::{MemberKey, PublicIdentity, WireguardPublicKey};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{agent::Agent, chain, dataplane, overlay::Overlay};

/// Where moons take streams.
pub(crate) const PORT: u16 = 443;

/// What UDP is given before streams are tried: a handshake and a grant over a slow line.
const HEAD_START: Duration = Duration::from_millis(300);

/// Between attempts, doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A stream by which nothing came for this long is over.
const IDLE: Duration = Duration::from_secs(60);

/// Datagrams that wait to be written into a stream; further ones are lost, as on any full line.
const QUEUE: usize = 256;

/// Datagrams written at a time.
const BATCH: usize = 64;

/// Streams at a time, of 64 KiB each; and handshakes.
const STREAMS_MAX: usize = 1_000;
const HANDSHAKES_MAX: usize = 256;

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

    /// Makes a place; an older stream of the same peer ends. `None`: there are too many.
    fn add(&self, peer: WireguardPublicKey) -> Option<(StreamId, mpsc::Receiver<Vec<u8>>)> {
        let mut table = self.lock();
        table.open.retain(|_, (other, _)| *other != peer);
        if table.open.len() >= STREAMS_MAX {
            return None;
        }
        table.last += 1;
        let id = StreamId(table.last);
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
    stream: Stream,
) {
    let Some((id, queue)) = overlay.streams.add(peer) else {
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
        if let Some(packet) = dataplane::open(overlay, from, datagram, &mut relayed, clock::now()) {
            deliver(packet);
        }
        if let Err(error) = relayed.flush(&overlay.socket) {
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
    let listener = match StreamListener::bind(listen, agent.identity()).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%listen, %error, "could not listen for streams of clients without UDP");
            return std::future::pending().await;
        }
    };
    info!(%listen, "taking streams of clients without UDP");
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
                Some(peer) => carry(&agent.overlay, to_tun(&agent), peer, stream).await,
                None => debug!(%from, "a stream of somebody who is no member"),
            }
        });
    }
}

/// Opens a stream to a moon whenever none relays for this machine, for ever.
pub(crate) async fn supervise(agent: Arc<Agent>, port: u16) {
    let mut relayed = agent.overlay.relayed.subscribe();
    let mut roster = agent.roster.subscribe();
    let mut pause = PAUSE;
    loop {
        // The sender lives as long as the agent.
        let _ = relayed.wait_for(|relayed| !relayed).await;
        if timeout(HEAD_START, relayed.wait_for(|relayed| *relayed))
            .await
            .is_ok()
        {
            pause = PAUSE;
            continue;
        }
        let moons = agent
            .roster()
            .map(|roster| moons(&roster, agent.public()))
            .unwrap_or_default();
        if let Some((peer, stream)) = first(&agent, moons, port).await {
            info!("reached a moon over TLS");
            carry(&agent.overlay, to_tun(&agent), peer, stream).await;
        }
        tokio::select! {
            _ = roster.changed() => pause = PAUSE,
            _ = relayed.wait_for(|relayed| *relayed) => pause = PAUSE,
            () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
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

/// The moons that the roster tells where to find, with their hosts.
fn moons(roster: &Roster, own: &PublicIdentity) -> Vec<(PublicIdentity, String)> {
    let relays = roster.members().values().filter(|member| member.is_relay());
    relays
        .flat_map(|member| member.endpoints.iter().map(move |at| (member, at)))
        .filter_map(|(member, endpoint)| match member.public_key? {
            MemberKey::Mesh(key) if key != *own => {
                Some((key, endpoint.rsplit_once(':')?.0.to_owned()))
            }
            MemberKey::Mesh(_) | MemberKey::Wireguard(_) => None,
        })
        .collect()
}

/// The first moon that a stream can be opened to.
async fn first(
    agent: &Arc<Agent>,
    moons: Vec<(PublicIdentity, String)>,
    port: u16,
) -> Option<(WireguardPublicKey, Stream)> {
    let mut dialled = JoinSet::new();
    for (moon, host) in moons {
        let agent = agent.clone();
        dialled.spawn(async move {
            let host = host.trim_matches(['[', ']']).to_owned();
            let addresses = tokio::net::lookup_host((host.as_str(), port)).await.ok()?;
            for address in addresses {
                match dial(address, agent.identity(), moon.node_id()).await {
                    Ok(stream) => return Some((moon.wireguard(), stream)),
                    Err(error) => debug!(error = chain(&error), "no stream to a moon"),
                }
            }
            None
        });
    }
    while let Some(ended) = dialled.join_next().await {
        if let Ok(Some(stream)) = ended {
            return Some(stream);
        }
    }
    None
}
