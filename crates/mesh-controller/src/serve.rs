//! Connections: one task each, questions side by side.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_control::{Client, CloseCode, Handshake, Question, ReadError, Server};
use mesh_wire::control::{ATTACHMENT_BYTES_MAX, DecodeError, ErrorCode, Notice, Reply, Request};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info};

use crate::{
    controller::{Controller, End, Line, note, now},
    core::{By, ClientId, Hello, Joining, Outcome},
    places::{Place, Places},
};

/// How long a stranger may stay without being admitted: enough to say hello, or for a small push.
const STRANGER_TIME: Duration = Duration::from_secs(15);

/// How long one may stay that pushes a large roster: enough on a slow line.
const PUSHER_TIME: Duration = Duration::from_secs(75);

/// Pushed rosters up to this size need no place of their own, as a connection may make this side hold as
/// much anyway: whoever keeps the places taken does not keep the admin of a small fleet out.
const SMALL_PUSH_BYTES: usize = 256 * 1024;

/// Connections of strangers from which on each must show that it receives what is sent to it.
const STRANGERS_RETRY: usize = 64;

/// Connections of strangers, at most; each may make this side hold a quarter of a megabyte.
const STRANGERS_MAX: usize = 512;

/// The same of one address.
const STRANGERS_AN_ADDRESS: usize = 64;

/// Notices that wait for one client.
const NOTICES_MAX: usize = 256;

/// How long a client that is cut off is given to hear why.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is not admitted, and in no hurry.
    Stranger,
    /// It has a place to hand over a large roster.
    Pushing,
    /// It is a member.
    Admitted,
}

/// Serves until the server is shut down.
pub(crate) async fn serve(controller: Arc<Controller>, server: Arc<Server>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let strangers = Arc::new(Places::new(STRANGERS_MAX, STRANGERS_AN_ADDRESS));
    let mut tasks = JoinSet::new();
    loop {
        let handshake = tokio::select! {
            handshake = server.accept() => handshake,
            Some(_) = tasks.join_next() => continue,
        };
        let Some(handshake) = handshake else {
            return;
        };
        let Some((handshake, stranger)) = admit(&strangers, handshake) else {
            continue;
        };
        let id = ClientId(NEXT.fetch_add(1, Ordering::Relaxed));
        let controller = Arc::clone(&controller);
        tasks.spawn(async move {
            match handshake.complete().await {
                Ok(client) => converse(controller, id, client, stranger).await,
                Err(error) => debug!(%error, "a handshake failed"),
            }
        });
    }
}

/// A place for a client that wants to connect; without one it is turned away.
fn admit(strangers: &Arc<Places>, handshake: Handshake) -> Option<(Handshake, Place)> {
    if strangers.taken() >= STRANGERS_RETRY && !handshake.is_address_validated() {
        handshake.retry();
        return None;
    }
    let ip = handshake.remote_address().ip();
    match Places::take(strangers, ip) {
        Some(place) => Some((handshake, place)),
        None => {
            handshake.refuse();
            None
        }
    }
}

/// One client, from its first question to its end.
async fn converse(controller: Arc<Controller>, id: ClientId, client: Client, stranger: Place) {
    let (standing, mut stands) = watch::channel(Standing::Stranger);
    let standing = Arc::new(standing);
    let mut stranger = Some(stranger);
    let mut patience = Instant::now() + STRANGER_TIME;
    let mut questions = JoinSet::new();
    loop {
        tokio::select! {
            question = client.next_question() => {
                let Ok(question) = question else { break };
                let (controller, client) = (Arc::clone(&controller), client.clone());
                let standing = Arc::clone(&standing);
                questions.spawn(async move {
                    answer(&controller, id, &client, question, &standing).await;
                });
            }
            Some(_) = questions.join_next() => {}
            Ok(()) = stands.changed(), if stranger.is_some() => match *stands.borrow_and_update() {
                Standing::Stranger => {}
                Standing::Pushing => patience = Instant::now() + PUSHER_TIME,
                Standing::Admitted => stranger = None,
            },
            () = sleep_until(patience), if stranger.is_some() => {
                client.close(CloseCode::Violation, "no admission was asked for");
                break;
            }
        }
    }
    questions.shutdown().await;
    controller.disconnect(id);
}

async fn answer(
    controller: &Arc<Controller>,
    id: ClientId,
    client: &Client,
    mut question: Question,
    standing: &watch::Sender<Standing>,
) {
    let request = match question.request().await {
        Ok(request) => request,
        Err(error) => return answer_nonsense(question, &error).await,
    };
    let source = client.remote_address();
    let reply = match request {
        Request::Hello {
            identity,
            name,
            release,
            serial,
            head,
            endpoints,
        } => {
            let hello = Hello {
                identity,
                name,
                release,
                serial,
                head,
                endpoints,
            };
            return greet(controller, id, client, question, hello, standing).await;
        }
        Request::Roster { have } => {
            let (reply, file) = controller.core().roster_for(now(), id, have);
            let file = file.as_ref().map_or(&[][..], |file| file.as_slice());
            let sent = question.answer(&reply, file).await;
            if let (Ok(()), Reply::Roster { serial }) = (sent, reply) {
                controller.core().gave(id, serial);
            }
            return;
        }
        Request::Report { endpoints } => controller.core().report(now(), id, source, &endpoints),
        Request::Endpoints { peer } => {
            let outcome = controller.core().endpoints(now(), id, source, &peer);
            controller.perform(outcome.effects);
            outcome.reply
        }
        Request::Join {
            network,
            name,
            identity,
            invitation,
            proof,
        } => {
            let joining = Joining {
                network,
                name,
                identity,
                invitation,
                proof,
            };
            controller.join(client.node_id(), source, &joining).await
        }
        Request::Push { force } => push(controller, client, &mut question, force, standing).await,
    };
    // A client that does not wait for its answer does not need it.
    let _ = question.answer(&reply, &[]).await;
}

async fn greet(
    controller: &Arc<Controller>,
    id: ClientId,
    client: &Client,
    question: Question,
    hello: Hello,
    standing: &watch::Sender<Standing>,
) {
    // Listening begins before the decision, so that no change of the roster falls between.
    let (notices, inbox) = mpsc::channel(NOTICES_MAX);
    let (end, ending) = watch::channel(None);
    let serial = controller.serial();
    let again = *standing.borrow() == Standing::Admitted;
    if !again {
        controller.connect(id, Line { notices, end });
    }
    let identity = hello.identity;
    let Outcome {
        reply,
        effects,
        writes,
    } = controller
        .core()
        .hello(now(), id, client.node_id(), client.remote_address(), hello);
    note(controller, writes);
    controller.perform(effects);
    let refusal = match &reply {
        Reply::Refused { reason } => Some(reason.clone()),
        Reply::Welcome { name, .. } => {
            if !again {
                info!(%name, "machine connected");
            }
            None
        }
        Reply::Roster { .. }
        | Reply::UpToDate
        | Reply::Endpoints { .. }
        | Reply::Accepted { .. }
        | Reply::Joined { .. }
        | Reply::Done
        | Reply::Error { .. } => None,
    };
    let answered = question.answer(&reply, &[]).await;
    if let Some(reason) = refusal {
        debug!(%identity, reason, "a machine was refused");
        client.close(CloseCode::NotAdmitted, &reason);
        return;
    }
    if again || answered.is_err() || !matches!(reply, Reply::Welcome { .. }) {
        return;
    }
    standing.send_replace(Standing::Admitted);
    speak(client, inbox, serial, ending).await;
}

/// Tells an admitted client what it has not asked for, until it is cut off.
async fn speak(
    client: &Client,
    mut inbox: mpsc::Receiver<Notice>,
    mut serial: watch::Receiver<Option<mesh_types::Serial>>,
    mut ending: watch::Receiver<Option<End>>,
) {
    loop {
        let notice = tokio::select! {
            biased;
            end = ended(&mut ending) => return farewell(client, end).await,
            Ok(()) = serial.changed() => {
                let Some(serial) = *serial.borrow_and_update() else { continue };
                Notice::Roster { serial }
            }
            Some(notice) = inbox.recv() => notice,
        };
        tokio::select! {
            end = ended(&mut ending) => return farewell(client, end).await,
            told = client.notify(&notice) => {
                if told.is_err() {
                    client.close(CloseCode::Violation, "notices are not read");
                    return;
                }
            }
        }
    }
}

/// Waits for the order to end; `None` if nobody is left to give it.
async fn ended(ending: &mut watch::Receiver<Option<End>>) -> Option<End> {
    ending.wait_for(Option::is_some).await.ok()?.clone()
}

async fn farewell(client: &Client, end: Option<End>) {
    match end {
        Some(End::Cut(reason)) => {
            let notice = Notice::Refused {
                reason: reason.clone(),
            };
            // The reason is in the close as well.
            let _ = timeout(FAREWELL, client.notify(&notice)).await;
            info!(reason, "machine was cut off");
            client.close(CloseCode::NotAdmitted, &reason);
        }
        Some(End::Replaced) => client.close(CloseCode::Replaced, "this node connected again"),
        None => client.close(CloseCode::GoingAway, ""),
    }
}

async fn push(
    controller: &Arc<Controller>,
    client: &Client,
    question: &mut Question,
    force: bool,
    standing: &watch::Sender<Standing>,
) -> Reply {
    let source = client.remote_address();
    if let Err(refusal) = controller.core().may_push(now(), source) {
        return refusal;
    }
    let _place = if question.attachment_bytes() > SMALL_PUSH_BYTES {
        let Some(place) = Places::take(&controller.pushes, source.ip()) else {
            return Reply::Error {
                code: ErrorCode::RateLimited,
                message: "too many pushes at once; try again in a minute".to_owned(),
            };
        };
        if *standing.borrow() == Standing::Stranger {
            standing.send_replace(Standing::Pushing);
        }
        Some(place)
    } else {
        None
    };
    let file = match question.attachment(ATTACHMENT_BYTES_MAX).await {
        Ok(file) => file,
        Err(error) => return malformed(&error),
    };
    let reply = controller.push(file, By::Push { source, force }).await;
    if matches!(reply, Reply::Accepted { .. }) {
        controller.core().pushed_well(now(), source);
    }
    reply
}

async fn answer_nonsense(question: Question, error: &ReadError) {
    let reply = match error {
        ReadError::Decode(DecodeError::Unknown(_)) => Reply::Error {
            code: ErrorCode::Unsupported,
            message: error.to_string(),
        },
        ReadError::Lost(_) => return,
        ReadError::TimedOut
        | ReadError::CutShort
        | ReadError::Frame(_)
        | ReadError::Decode(DecodeError::Malformed(_))
        | ReadError::Attachment { .. } => malformed(error),
    };
    let _ = question.answer(&reply, &[]).await;
}

fn malformed(error: &ReadError) -> Reply {
    Reply::Error {
        code: ErrorCode::Malformed,
        message: error.to_string(),
    }
}
