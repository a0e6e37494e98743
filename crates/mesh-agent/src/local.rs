//! The local API: HTTP on a UNIX socket, whose mode says who may ask.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh_api::{Hosts, Logs, Netcheck, Ping, Probe, RuleTest, Rules, Status, VERSION, Why};
use mesh_inventory::roster::{Member, Roster};
use mesh_types::MachineName;
use serde::Deserialize;
use tokio::net::UnixListener;

use crate::{
    agent::Agent,
    names,
    rules::{self, Question},
    snapshot, view,
};

/// How long one ping waits for its answer, at most.
const PING_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// How long one ping waits unless it says so.
const PING_TIMEOUT_DEFAULT_MILLIS: u64 = 5_000;

/// How many lines of the log are given unless the question says so.
const LINES_DEFAULT: usize = 100;

#[derive(Deserialize)]
struct PingQuery {
    name: String,
    timeout_millis: Option<u64>,
}

#[derive(Deserialize)]
struct WhyQuery {
    name: String,
}

#[derive(Deserialize)]
struct LogsQuery {
    lines: Option<usize>,
}

/// A refused question.
struct Refused(StatusCode, String);

/// Answers on `listener` until dropped.
pub(crate) async fn serve(agent: Arc<Agent>, listener: UnixListener) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/why", get(why))
        .route("/v1/ping", post(ping))
        .route("/v1/probe", post(probe))
        .route("/v1/netcheck", post(netcheck))
        .route("/v1/logs", get(logs))
        .route("/v1/hosts", get(hosts))
        .route("/v1/rules", get(rules))
        .route("/v1/rules/test", get(test_rules))
        .fallback(unknown)
        .with_state(agent);
    axum::serve(listener, router).await
}

async fn status(State(agent): State<Arc<Agent>>) -> Json<Status> {
    Json(snapshot::status(&agent))
}

async fn probe(State(agent): State<Arc<Agent>>) -> Json<Probe> {
    Json(Probe {
        version: VERSION,
        peers: agent.overlay.probe_all(),
    })
}

async fn netcheck(State(agent): State<Arc<Agent>>) -> Json<Netcheck> {
    Json(crate::netcheck::run(&agent).await)
}

async fn logs(State(agent): State<Arc<Agent>>, Query(query): Query<LogsQuery>) -> Json<Logs> {
    Json(agent.logs.last(query.lines.unwrap_or(LINES_DEFAULT)))
}

async fn hosts(State(agent): State<Arc<Agent>>) -> Result<Json<Hosts>, Refused> {
    match agent.roster() {
        Some(roster) => Ok(Json(names::hosts(&roster))),
        None => Err(no_roster()),
    }
}

async fn rules(State(agent): State<Arc<Agent>>) -> Result<Json<Rules>, Refused> {
    let roster = agent.roster().ok_or_else(no_roster)?;
    Ok(Json(agent.overlay.rules.report(&roster, agent.public())))
}

async fn test_rules(
    State(agent): State<Arc<Agent>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<RuleTest>, Refused> {
    let wrong = |error: String| Refused(StatusCode::BAD_REQUEST, error);
    let Query(question) = question.map_err(|error| wrong(error.body_text()))?;
    let roster = agent.roster().ok_or_else(no_roster)?;
    let answer = rules::test(roster.parts(), &question);
    answer.map(Json).map_err(|error| wrong(error.to_string()))
}

async fn ping(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<PingQuery>,
) -> Result<Json<Ping>, Refused> {
    let roster = agent.roster().ok_or_else(no_roster)?;
    let member = member(&roster, &query.name)?;
    let millis = query.timeout_millis.unwrap_or(PING_TIMEOUT_DEFAULT_MILLIS);
    let timeout = Duration::from_millis(millis).min(PING_TIMEOUT_MAX);
    Ok(Json(snapshot::ping(&agent, member, timeout).await))
}

async fn why(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<WhyQuery>,
) -> Result<Json<Why>, Refused> {
    let roster = agent.roster().ok_or_else(no_roster)?;
    let member = member(&roster, &query.name)?;
    Ok(Json(snapshot::why(&agent, member)))
}

/// The member of that name.
fn member<'a>(roster: &'a Roster, name: &str) -> Result<&'a Member, Refused> {
    let name: MachineName = name
        .parse()
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("{error}")))?;
    roster.members().get(&name).ok_or_else(|| {
        let meant = view::nearest(&name, roster.members().keys());
        let meant = meant.map(|near| format!("; did you mean `{near}`?"));
        let reason = format!(
            "`{name}` is not in the roster (serial {}){}",
            roster.head().serial,
            meant.unwrap_or_default()
        );
        Refused(StatusCode::NOT_FOUND, reason)
    })
}

fn no_roster() -> Refused {
    Refused(StatusCode::CONFLICT, "there is no roster yet".to_owned())
}

async fn unknown() -> Refused {
    Refused(
        StatusCode::NOT_FOUND,
        "this release of the agent does not know the question".to_owned(),
    )
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        let body = mesh_api::Error {
            version: VERSION,
            error,
        };
        (status, Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
    };

    use super::*;
    use crate::testing::{Fleet, agent, name};

    /// Asks galena's agent, which holds roster 7, and returns the HTTP status and the answer.
    async fn ask<T: DeserializeOwned>(question: &str) -> (u16, T) {
        let mut fleet = Fleet::new(&["cinnabar", "galena", "scheelite"]);
        fleet.member_mut("scheelite").enabled = false;
        let dir = tempfile::tempdir().unwrap();
        let galena = agent(&fleet, "galena", &[], Some(7), dir.path());
        let path = dir.path().join("s");
        let serving = tokio::spawn(serve(galena, UnixListener::bind(&path).unwrap()));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let request = format!("{question} HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.abort();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap())
    }

    #[tokio::test]
    async fn the_status_names_this_machine_and_its_peers() {
        let (code, status): (_, Status) = ask("GET /v1/status").await;
        assert_eq!((code, status.version), (200, VERSION));
        assert_eq!(status.node.name, Some(name("galena")));
        assert!(status.node.admitted);
        let peers: Vec<_> = status.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(peers, ["cinnabar", "scheelite"]);
    }

    #[tokio::test]
    async fn a_ping_that_cannot_be_answered_says_why() {
        let (code, ping): (_, Ping) = ask("POST /v1/ping?name=scheelite").await;
        assert_eq!((code, ping.rtt_micros), (200, None));
        assert_eq!(ping.reason.as_deref(), Some("switched off"));
        let (_, ping): (_, Ping) = ask("POST /v1/ping?name=galena").await;
        assert_eq!(ping.reason.as_deref(), Some("this is the machine itself"));
        let (_, ping): (_, Ping) = ask("POST /v1/ping?name=cinnabar&timeout_millis=1").await;
        let reason = ping.reason.unwrap();
        assert!(reason.starts_with("no endpoint known"), "{reason}");
    }

    #[tokio::test]
    async fn every_member_has_a_story() {
        for (name, code, helps) in [
            ("cinnabar", "no-way", true),
            ("scheelite", "switched-off", true),
            ("galena", "this-machine", false),
        ] {
            let question = format!("GET /v1/why?name={name}");
            let (status, why): (_, Why) = ask(&question).await;
            assert_eq!((status, why.peer.reason_code.as_str()), (200, code));
            assert_eq!(why.helps.is_some(), helps, "{name}");
            let moons: Vec<_> = why.moons.into_iter().filter_map(|moon| moon.name).collect();
            assert_eq!(moons, [self::name("cinnabar")], "{name}");
        }
    }

    #[tokio::test]
    async fn wrong_questions_are_refused_in_words() {
        for (question, expected, words) in [
            (
                "POST /v1/ping?name=nobody",
                404,
                "`nobody` is not in the roster (serial 7)",
            ),
            (
                "GET /v1/why?name=galina",
                404,
                "`galina` is not in the roster (serial 7); did you mean `galena`?",
            ),
            ("POST /v1/ping?name=No_Name", 400, "use `no-name`"),
            ("GET /v2/status", 404, "does not know the question"),
        ] {
            let (code, refusal): (_, mesh_api::Error) = ask(question).await;
            assert_eq!(code, expected, "{question}");
            assert!(refusal.error.contains(words), "{}", refusal.error);
        }
    }

    #[tokio::test]
    async fn probing_counts_the_peers_that_can_be_tried() {
        let (code, probe): (_, Probe) = ask("POST /v1/probe").await;
        assert_eq!((code, probe.peers), (200, 1));
        let (code, hosts): (_, Hosts) = ask("GET /v1/hosts").await;
        let known: Vec<_> = hosts.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(
            (code, known),
            (200, vec!["cinnabar", "galena", "scheelite"])
        );
        assert!(!hosts.hosts[2].enabled);
        let (code, logs): (_, Logs) = ask("GET /v1/logs?lines=3").await;
        assert_eq!((code, logs.dropped), (200, 0));
    }
}
