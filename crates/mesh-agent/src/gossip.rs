//! Rosters from peers: for the machine that reaches its peers, but no controller.
//!
//! Each agent serves its roster inside the tunnel, on its mesh address and the controllers' port, to members
//! only. Who hears a higher serial from a peer and gets the roster from no controller asks that peer. The
//! signature is what counts, not who hands the roster over.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_control::{Client, CloseCode, Expect, Handshake, Server, connect_to};
use mesh_core::Hint;
use mesh_inventory::roster::Member;
use mesh_os::clock;
use mesh_types::{CONTROLLER_PORT, MachineName, NodeId, Serial};
use mesh_wire::control::{ErrorCode, Reply, Request};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, info};

use crate::{
    agent::{Agent, controller_keys},
    chain, control,
};

/// How long a peer may take to hand its roster over.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Members served at a time; the others are turned away and ask again with the next notice.
const CLIENTS_MAX: usize = 16;

/// How long a member may be connected, in which it gets one answer.
const SERVE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a taken port or a missing address is looked at again.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// Hears of peers' rosters.
#[derive(Debug)]
pub(crate) struct Gossip(Arc<Words>);

#[derive(Debug, Default)]
struct Words {
    gossip: Mutex<mesh_core::Gossip<MachineName>>,
    news: Notify,
}

impl Gossip {
    /// Begins to act on what is heard, for ever.
    pub(crate) fn start(agent: &Arc<Agent>) -> Self {
        let words = Arc::<Words>::default();
        tokio::spawn(act(agent.clone(), words.clone()));
        Self(words)
    }

    /// Hears that `peer` holds a roster with `serial`.
    pub(crate) fn hear(&self, agent: &Agent, peer: MachineName, serial: Serial) {
        let own = agent.serial();
        self.0.lock().hear(peer, serial, own, clock::now());
        self.0.news.notify_one();
    }
}

impl Words {
    fn lock(&self) -> MutexGuard<'_, mesh_core::Gossip<MachineName>> {
        self.gossip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, agent: &Agent) -> Option<Hint<MachineName>> {
        let served = !agent.connections().is_empty();
        self.lock().poll_hint(agent.serial(), served, clock::now())
    }
}

async fn act(agent: Arc<Agent>, words: Arc<Words>) {
    let mut fetches = JoinSet::new();
    loop {
        while let Some(hint) = words.next(&agent) {
            match hint {
                Hint::AskControllers(serial) => {
                    debug!(%serial, "heard of a newer roster from a peer");
                    agent.hear_of(serial);
                }
                Hint::Fetch(peer) => {
                    let agent = agent.clone();
                    fetches.spawn(async move {
                        if let Err(error) = fetch(&agent, &peer).await {
                            debug!(%peer, error = chain(error.as_ref()), "got no roster from a peer");
                        }
                    });
                }
            }
        }
        let due = words.lock().poll_timeout();
        tokio::select! {
            () = words.news.notified() => {}
            () = sleep(clock::until(due)) => {}
            Some(_) = fetches.join_next() => words.lock().fetched(agent.serial(), clock::now()),
        }
    }
}

/// Asks `peer` for its roster, inside the tunnel, and takes it.
async fn fetch(agent: &Agent, peer: &MachineName) -> anyhow::Result<()> {
    let roster = agent.roster();
    let Some((address, node_id)) = roster
        .as_ref()
        .and_then(|roster| roster.members().get(peer))
        .and_then(contact)
    else {
        return Ok(());
    };
    let address = SocketAddr::from((address, CONTROLLER_PORT));
    let exchange = async {
        let expect = Expect::OneOf(vec![node_id]);
        let connection = connect_to(&[address], Some(agent.identity()), expect).await?;
        let request = Request::Roster {
            have: agent.serial(),
        };
        anyhow::Ok(connection.request(&request, &[]).await?)
    };
    let (reply, file) = timeout(FETCH_TIMEOUT, exchange).await??;
    if let Reply::Roster { serial } = reply {
        info!(%peer, %serial, "got a roster from a peer");
        control::note_taken(agent.take_roster(&file).await, serial);
    } else {
        debug!(%peer, ?reply, "a peer gave no roster");
    }
    Ok(())
}

fn contact(member: &Member) -> Option<(Ipv6Addr, NodeId)> {
    Some((member.address, member.public_key?.node_id()?))
}

/// Serves the roster to members on this machine's mesh address, for ever.
pub(crate) async fn serve(agent: Arc<Agent>) {
    let mut roster = agent.roster.subscribe();
    loop {
        roster.mark_unchanged();
        let address = agent.device.as_ref().and_then(|device| device.address());
        // A controller on this machine has the port, and serves the roster itself.
        let server = address
            .filter(|_| !is_controller(&agent))
            .map(|address| Server::bind((address, CONTROLLER_PORT).into(), agent.identity()));
        match server {
            Some(Ok(server)) => {
                let same_address = async {
                    while roster.changed().await.is_ok() {
                        let now = agent.device.as_ref().and_then(|device| device.address());
                        if now != address || is_controller(&agent) {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = accept(&agent, &server) => {}
                    () = same_address => {}
                }
                server.shutdown().await;
            }
            Some(Err(error)) => {
                debug!(error = chain(&error), "peers cannot ask for the roster");
                sleep(RETRY_EVERY).await;
            }
            // Nothing changes without another roster.
            None if roster.changed().await.is_err() => return,
            None => {}
        }
    }
}

fn is_controller(agent: &Agent) -> bool {
    agent
        .roster()
        .is_some_and(|roster| controller_keys(&roster).contains(&agent.public().node_id()))
}

async fn accept(agent: &Arc<Agent>, server: &Server) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    while let Some(handshake) = server.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            handshake.refuse();
            continue;
        };
        let agent = agent.clone();
        tokio::spawn(async move {
            let _place = place;
            // Whoever is too slow may ask again.
            let _ = timeout(SERVE_TIMEOUT, serve_one(&agent, handshake)).await;
        });
    }
}

async fn serve_one(agent: &Agent, handshake: Handshake) {
    let Ok(client) = handshake.complete().await else {
        return;
    };
    let member = client.node_id().is_some_and(|id| is_member(agent, &id));
    if !member {
        client.close(CloseCode::NotAdmitted, "only members are served");
        return;
    }
    answer(agent, &client).await;
    // The client closes once it has read the answer.
    client.closed().await;
}

async fn answer(agent: &Agent, client: &Client) {
    let Ok(mut question) = client.next_question().await else {
        return;
    };
    let Ok(request) = question.request().await else {
        return;
    };
    let (reply, file) = reply(agent, &request);
    if let Err(error) = question.answer(&reply, &file).await {
        debug!(error = chain(&error), "a member did not take the roster");
    }
}

fn reply(agent: &Agent, request: &Request) -> (Reply, Vec<u8>) {
    let Request::Roster { have } = request else {
        let reply = Reply::Error {
            code: ErrorCode::Unsupported,
            message: "an agent serves its roster only".to_owned(),
        };
        return (reply, Vec::new());
    };
    match agent.roster() {
        Some(roster) if Some(roster.head().serial) > *have => {
            let serial = roster.head().serial;
            (Reply::Roster { serial }, roster.to_file())
        }
        Some(_) | None => (Reply::UpToDate, Vec::new()),
    }
}

fn is_member(agent: &Agent, id: &NodeId) -> bool {
    agent
        .roster()
        .as_ref()
        .and_then(|roster| roster.member_by_node_id(id))
        .is_some_and(|member| member.enabled)
}

#[cfg(test)]
mod tests {
    use mesh_control::Connection;
    use mesh_types::IdentitySeed;

    use super::*;
    use crate::testing::{Fleet, agent, seed};

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Galena serves roster 7; `client` asks it.
    async fn ask(
        fleet: &Fleet,
        client: &IdentitySeed,
        request: Request,
    ) -> Option<(Reply, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let galena = agent(fleet, "galena", &[], Some(7), dir.path());
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(any, galena.identity()).unwrap();
        let address = server.local_address();
        let serving = tokio::spawn(async move { accept(&galena, &server).await });
        let exchange = async {
            let connection: Connection = connect_to(&[address], Some(client), Expect::Any)
                .await
                .ok()?;
            connection.request(&request, &[]).await.ok()
        };
        let answer = timeout(DEADLINE, exchange)
            .await
            .expect("an answer or none");
        serving.abort();
        answer
    }

    fn have(serial: u64) -> Request {
        Request::Roster {
            have: Serial::try_from(serial).ok(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_gets_a_newer_roster_and_nothing_else() {
        let fleet = Fleet::new(&["cinnabar", "galena", "pyrite"]);
        let pyrite = fleet.seed_of("pyrite");
        let (reply, file) = ask(&fleet, pyrite, have(6)).await.unwrap();
        assert!(matches!(reply, Reply::Roster { serial } if serial.get() == 7));
        assert_eq!(file, fleet.roster(7).to_file());
        let (reply, file) = ask(&fleet, pyrite, have(7)).await.unwrap();
        assert_eq!((reply, file), (Reply::UpToDate, Vec::new()));
        let push = Request::Push { force: true };
        let (reply, _) = ask(&fleet, pyrite, push).await.unwrap();
        assert!(matches!(reply, Reply::Error { .. }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stranger_and_a_machine_that_is_switched_off_get_nothing() {
        let mut fleet = Fleet::new(&["cinnabar", "galena", "pyrite"]);
        fleet.member_mut("pyrite").enabled = false;
        let pyrite = fleet.seed_of("pyrite");
        assert_eq!(ask(&fleet, pyrite, have(6)).await, None);
        assert_eq!(ask(&fleet, &seed(), have(6)).await, None);
    }
}
