//! The local API: HTTP on a UNIX socket, whose mode says who may ask.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh_api::{Logs, Ping, Probe, Status, VERSION};
use mesh_types::MachineName;
use serde::Deserialize;
use tokio::net::UnixListener;

use crate::{agent::Agent, snapshot};

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
struct LogsQuery {
    lines: Option<usize>,
}

/// A refused question.
struct Refused(StatusCode, String);

/// Answers on `listener` until dropped.
pub(crate) async fn serve(agent: Arc<Agent>, listener: UnixListener) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/ping", post(ping))
        .route("/v1/probe", post(probe))
        .route("/v1/logs", get(logs))
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

async fn logs(State(agent): State<Arc<Agent>>, Query(query): Query<LogsQuery>) -> Json<Logs> {
    Json(agent.logs.last(query.lines.unwrap_or(LINES_DEFAULT)))
}

async fn ping(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<PingQuery>,
) -> Result<Json<Ping>, Refused> {
    let name: MachineName = query
        .name
        .parse()
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("{error}")))?;
    let roster = agent
        .roster()
        .ok_or_else(|| Refused(StatusCode::CONFLICT, "there is no roster yet".to_owned()))?;
    let member = roster.members().get(&name).ok_or_else(|| {
        let reason = format!(
            "`{name}` is not in the roster (serial {})",
            roster.head().serial
        );
        Refused(StatusCode::NOT_FOUND, reason)
    })?;
    let millis = query.timeout_millis.unwrap_or(PING_TIMEOUT_DEFAULT_MILLIS);
    let timeout = Duration::from_millis(millis).min(PING_TIMEOUT_MAX);
    Ok(Json(snapshot::ping(&agent, member, timeout).await))
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
