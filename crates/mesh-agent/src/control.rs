//! The conversation with the controllers: one task each, and one that keeps them in step with the
//! configuration.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_control::{Connection, RequestError, connect};
use mesh_core::{Conversation, Errand, usable_endpoints};
use mesh_os::clock;
use mesh_types::{MachineName, Serial};
use mesh_wire::control::{Notice, Reply, Request};
use rand::{RngCore as _, rngs::OsRng};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::{
    agent::{Agent, TakeRosterError, controller_keys},
    chain,
    config::HostPort,
    view::Verdict,
};

/// How long a controller may take to answer where a peer is.
const ENDPOINTS_TIMEOUT: Duration = Duration::from_secs(5);

/// From when on this machine's clock, ahead of a controller's, is not used for stamps: a day.
const CLOCK_AHEAD_MAX_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// How often a controller is asked for a newer roster although it spoke of none.
const ROSTER_EVERY: Duration = if cfg!(test) {
    Duration::from_millis(300)
} else {
    Conversation::ROSTER_EVERY
};

/// How a conversation ended.
enum Ended {
    /// The controller does not admit this machine, and says why.
    Refused(String),
    /// The connection is gone, or what came over it is no use.
    Lost(String),
    /// The roster in force names another key for controllers.
    NoController,
}

/// Keeps a task for each configured controller, until dropped.
pub(crate) async fn supervise(agent: Arc<Agent>) {
    let mut config = agent.config.subscribe();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<HostPort, AbortHandle> = BTreeMap::new();
    loop {
        let wanted = config.borrow_and_update().controllers.clone();
        running.retain(|endpoint, task| {
            let keep = wanted.contains(endpoint);
            if !keep {
                task.abort();
                agent.forget_controller(endpoint);
            }
            keep
        });
        for endpoint in wanted {
            running.entry(endpoint.clone()).or_insert_with(|| {
                let span = info_span!("controller", %endpoint);
                tasks.spawn(keep_connected(agent.clone(), endpoint).instrument(span))
            });
        }
        if config.changed().await.is_err() {
            return;
        }
    }
}

/// Connects, converses, and does so again after a wait, for ever.
async fn keep_connected(agent: Arc<Agent>, endpoint: HostPort) {
    let mut seed = [0; 32];
    OsRng.fill_bytes(&mut seed);
    let mut conversation = Conversation::new(seed, ROSTER_EVERY, clock::now());
    let mut roster = agent.roster.subscribe();
    loop {
        while conversation.poll_errand(false, clock::now()) != Some(Errand::Connect) {
            tokio::select! {
                () = sleep(clock::until(conversation.poll_timeout())) => {}
                Ok(()) = roster.changed() => conversation.roster_changed(clock::now()),
            }
        }
        let ended = connect_once(&agent, &endpoint, &mut conversation).await;
        let (verdict, reason) = match ended {
            Ended::Refused(reason) => {
                let refused = format!("refused: {reason}");
                (Verdict::Refused(reason), refused)
            }
            Ended::Lost(reason) => (Verdict::None, reason),
            Ended::NoController => (
                Verdict::None,
                "the roster in force does not name it as a controller".to_owned(),
            ),
        };
        let mut changed = false;
        agent.update_controller(&endpoint, |controller| {
            changed = controller.reason.as_ref() != Some(&reason);
            controller.connection = None;
            controller.serial = None;
            controller.verdict = verdict;
            controller.reason = Some(reason.clone());
        });
        if changed {
            warn!(reason, "no controller connection");
        }
        conversation.ended(!agent.connections().is_empty(), clock::now());
        roster.mark_unchanged();
    }
}

async fn connect_once(
    agent: &Arc<Agent>,
    endpoint: &HostPort,
    conversation: &mut Conversation,
) -> Ended {
    let expect = agent.expected_controllers();
    let connection = match connect(endpoint.as_str(), Some(agent.identity()), expect).await {
        Ok(connection) => Arc::new(connection),
        Err(error) => return Ended::Lost(chain(&error)),
    };
    let node_id = connection.server();
    agent.update_controller(endpoint, |controller| controller.node_id = Some(node_id));
    match hello(agent, endpoint, &connection).await {
        Ok(()) => {}
        Err(ended) => return ended,
    }
    conversation.connected(clock::now());
    info!("connected to a controller");
    agent.update_controller(endpoint, |controller| {
        controller.connection = Some(connection.clone());
        controller.verdict = Verdict::Admitted;
        controller.reason = None;
    });
    let ended = tokio::select! {
        ended = converse(agent, endpoint, &connection, conversation) => ended,
        never = find_wanted(agent, &connection) => match never {},
    };
    if let Ended::NoController = ended {
        // Dropped everywhere, the connection closes.
        agent.update_controller(endpoint, |controller| controller.connection = None);
    }
    ended
}

async fn hello(agent: &Agent, endpoint: &HostPort, connection: &Connection) -> Result<(), Ended> {
    let roster = agent.roster();
    let request = Request::Hello {
        identity: *agent.public(),
        name: agent.name(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        serial: roster.as_ref().map(|roster| roster.head().serial),
        head: roster.map(|roster| roster.head_hash().to_string()),
        endpoints: agent.endpoints.borrow().clone(),
    };
    let reply = ask(connection, &request).await?.0;
    let Reply::Welcome {
        serial,
        time_millis,
        ..
    } = reply
    else {
        return Err(unexpected(reply));
    };
    let ahead = clock_ahead_millis(time_millis, connection.rtt());
    agent.update_controller(endpoint, |controller| {
        controller.serial = Some(serial);
        controller.clock_ahead_millis = Some(ahead);
    });
    // A clock over a day ahead would make stamps that no later, true one exceeds.
    agent.overlay.trust_clock(ahead > -CLOCK_AHEAD_MAX_MILLIS);
    agent.hear_of(serial);
    Ok(())
}

/// Serves the connection until it ends.
async fn converse(
    agent: &Agent,
    endpoint: &HostPort,
    connection: &Connection,
    conversation: &mut Conversation,
) -> Ended {
    // Side by side, and neither is dropped for the other: half a notice would be a lost one.
    tokio::select! {
        ended = listen(agent, endpoint, connection) => ended,
        ended = speak(agent, connection, conversation) => ended,
    }
}

/// Hears what the controller says unasked.
async fn listen(agent: &Agent, endpoint: &HostPort, connection: &Connection) -> Ended {
    loop {
        match connection.next_notice().await {
            Ok(Notice::Roster { serial }) => {
                agent.update_controller(endpoint, |controller| controller.serial = Some(serial));
                agent.hear_of(serial);
            }
            Ok(Notice::Introduce { peer, endpoints }) => {
                let endpoints = usable_endpoints(endpoints, agent.config().network.prefix());
                agent.overlay.introduce(&peer, &endpoints);
            }
            Ok(Notice::Refused { reason }) => return Ended::Refused(reason),
            Err(closed) => return Ended::Lost(chain(&closed)),
        }
    }
}

/// Asks and tells when there is a reason to.
async fn speak(agent: &Agent, connection: &Connection, conversation: &mut Conversation) -> Ended {
    let mut endpoints = agent.endpoints.subscribe();
    let mut rumoured = agent.rumoured.subscribe();
    let mut roster = agent.roster.subscribe();
    loop {
        while let Some(errand) = conversation.poll_errand(agent.is_behind(), clock::now()) {
            let done = match errand {
                Errand::AskRoster => fetch_roster(agent, connection).await,
                Errand::Report => {
                    let now = endpoints.borrow_and_update().clone();
                    report(connection, now).await
                }
                Errand::Connect => Ok(()),
            };
            if let Err(ended) = done {
                return ended;
            }
            conversation.answered();
        }
        tokio::select! {
            () = sleep(clock::until(conversation.poll_timeout())) => {}
            Ok(()) = rumoured.changed() => conversation.hear_of_roster(),
            Ok(()) = endpoints.changed() => conversation.endpoints_changed(),
            Ok(()) = roster.changed() => {
                if let Err(ended) = still_a_controller(agent, connection) {
                    return ended;
                }
            }
        }
    }
}

fn still_a_controller(agent: &Agent, connection: &Connection) -> Result<(), Ended> {
    match agent.roster() {
        Some(roster) if !controller_keys(&roster).contains(&connection.server()) => {
            Err(Ended::NoController)
        }
        Some(_) | None => Ok(()),
    }
}

/// Asks for the roster and takes it. A roster that is no use does not end the conversation.
async fn fetch_roster(agent: &Agent, connection: &Connection) -> Result<(), Ended> {
    let request = Request::Roster {
        have: agent.serial(),
    };
    let (reply, file) = ask(connection, &request).await?;
    if let Reply::Roster { serial } = reply {
        note_taken(agent.take_roster(&file).await, serial);
        Ok(())
    } else if let Reply::Error { message, .. } = reply {
        warn!(message, "the controller gave no roster");
        Ok(())
    } else if reply == Reply::UpToDate {
        Ok(())
    } else {
        Err(unexpected(reply))
    }
}

pub(crate) fn note_taken(taken: Result<bool, TakeRosterError>, serial: Serial) {
    match taken {
        Ok(true) => {}
        Ok(false) => debug!(%serial, "the roster is in force already"),
        Err(error) => warn!(%serial, error = chain(&error), "roster refused"),
    }
}

async fn report(connection: &Connection, endpoints: Vec<SocketAddr>) -> Result<(), Ended> {
    let request = Request::Report { endpoints };
    let reply = ask(connection, &request).await?.0;
    if let Reply::Error { message, .. } = reply {
        warn!(message, "the controller did not take the endpoints");
        Ok(())
    } else if reply == Reply::Done {
        Ok(())
    } else {
        Err(unexpected(reply))
    }
}

/// Asks every connected controller where `peer` may be reached, and hands what they say to the engine.
pub(crate) async fn find_endpoints(agent: Arc<Agent>, peer: MachineName) {
    let fixed = match agent.roster() {
        Some(roster) => match roster.members().get(&peer) {
            Some(member) => member.endpoints.clone(),
            None => return,
        },
        None => return,
    };
    let prefix = agent.config().network.prefix();
    let mut questions = JoinSet::new();
    for endpoint in fixed {
        questions.spawn(async move {
            match tokio::net::lookup_host(&endpoint).await {
                Ok(addresses) => addresses.collect(),
                Err(error) => {
                    debug!(endpoint, %error, "could not resolve a static endpoint");
                    Vec::new()
                }
            }
        });
    }
    for connection in agent.connections() {
        questions.spawn(ask_endpoints(connection, peer.clone()));
    }
    // Each answer is used as it comes: the slowest does not hold up the others.
    let all = async {
        while let Some(answer) = questions.join_next().await {
            let endpoints = usable_endpoints(answer.unwrap_or_default(), prefix);
            if !endpoints.is_empty() {
                agent.overlay.add_candidates(&peer, &endpoints);
            }
        }
    };
    if timeout(ENDPOINTS_TIMEOUT, all).await.is_err() {
        debug!(%peer, "a controller did not say in time where a peer is");
    }
}

/// Asks a controller that has just been connected where the peers are that this machine tries to reach.
/// The engine asked while there was nobody to answer, and repeats itself only with its next attempt:
/// a second later at first, and half a minute later in the end.
async fn find_wanted(agent: &Agent, connection: &Arc<Connection>) -> Infallible {
    let prefix = agent.config().network.prefix();
    let mut questions = JoinSet::new();
    for (peer, link) in agent.overlay.links() {
        if link.reason.reach().is_sought() {
            let question = ask_endpoints(connection.clone(), peer.clone());
            questions.spawn(async move { (peer, question.await) });
        }
    }
    while let Some(answer) = questions.join_next().await {
        if let Ok((peer, endpoints)) = answer {
            let endpoints = usable_endpoints(endpoints, prefix);
            agent.overlay.add_candidates(&peer, &endpoints);
        }
    }
    std::future::pending().await
}

/// Asks one controller where `peer` may be reached; nothing if it does not say.
async fn ask_endpoints(connection: Arc<Connection>, peer: MachineName) -> Vec<SocketAddr> {
    match connection.request(&Request::Endpoints { peer }, &[]).await {
        Ok((Reply::Endpoints { endpoints, .. }, _)) => endpoints,
        Ok((reply, _)) => {
            debug!(?reply, "a controller gave no endpoints");
            Vec::new()
        }
        Err(error) => {
            debug!(error = chain(&error), "a controller gave no endpoints");
            Vec::new()
        }
    }
}

async fn ask(connection: &Connection, request: &Request) -> Result<(Reply, Vec<u8>), Ended> {
    connection
        .request(request, &[])
        .await
        .map_err(|error: RequestError| Ended::Lost(chain(&error)))
}

fn unexpected(reply: Reply) -> Ended {
    match reply {
        Reply::Error { message, .. } => Ended::Lost(format!("the controller answers: {message}")),
        Reply::Refused { reason } => Ended::Refused(reason),
        Reply::Welcome { .. }
        | Reply::Roster { .. }
        | Reply::UpToDate
        | Reply::Endpoints { .. }
        | Reply::Accepted { .. }
        | Reply::Joined { .. }
        | Reply::Done => Ended::Lost("the controller answers something else than asked".to_owned()),
    }
}

/// How far the controller's clock is ahead of this machine's, in milliseconds. It said `time_millis` half a
/// round trip ago.
fn clock_ahead_millis(time_millis: u64, rtt: Duration) -> i64 {
    let theirs = Duration::from_millis(time_millis) + rtt / 2;
    let ours = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    millis(theirs) - millis(ours)
}

#[cfg(test)]
mod tests;
