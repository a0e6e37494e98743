//! What the controller answers on its local socket and, questions only, over HTTP on loopback.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh_api::{ControllerReport, METRICS_TYPE, Pending, VERSION, controller_metrics};
use mesh_store::AuditEntry;
use mesh_types::{MachineName, PublicIdentity};
use serde::{Deserialize, Serialize};

use crate::controller::{Controller, now};

/// Audit entries in an answer unless the question says otherwise.
const ENTRIES_DEFAULT: usize = 100;

/// `GET /v1/audit?limit=N`: what happened, latest first.
#[derive(Serialize)]
struct Audit {
    version: u32,
    entries: Vec<AuditEntry>,
}

#[derive(Deserialize)]
struct AuditQuery {
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct InviteQuery {
    name: MachineName,
    key: PublicIdentity,
    /// Seconds since 1970.
    expires: u64,
}

#[derive(Deserialize)]
struct UninviteQuery {
    name: MachineName,
}

/// What the local socket answers: whoever may use it may also confirm.
pub(crate) fn socket_router(controller: Arc<Controller>) -> Router {
    let confirm = Router::new()
        .route("/v1/accept-shrink", post(accept_shrink))
        .route("/v1/invite", post(invite))
        .route("/v1/uninvite", post(uninvite))
        .with_state(Arc::clone(&controller));
    router(controller).merge(confirm)
}

/// What is answered over TCP, too: questions only.
pub(crate) fn router(controller: Arc<Controller>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/pending", get(pending))
        .route("/v1/audit", get(audit))
        .route("/metrics", get(metrics))
        .fallback(|| async { refused(StatusCode::NOT_FOUND, "there is no such question") })
        .with_state(controller)
}

async fn status(State(controller): State<Arc<Controller>>) -> Json<ControllerReport> {
    Json(controller.core().report_answer(now()))
}

async fn metrics(State(controller): State<Arc<Controller>>) -> Response {
    let report = controller.core().report_answer(now());
    let text = controller_metrics(&report);
    ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response()
}

async fn pending(State(controller): State<Arc<Controller>>) -> Json<Pending> {
    Json(controller.core().pending_answer(now()))
}

async fn audit(
    State(controller): State<Arc<Controller>>,
    Query(query): Query<AuditQuery>,
) -> Response {
    let limit = query.limit.unwrap_or(ENTRIES_DEFAULT);
    match controller.keeper().audit(limit).await {
        Ok(entries) => Json(Audit {
            version: VERSION,
            entries,
        })
        .into_response(),
        Err(error) => refused(StatusCode::SERVICE_UNAVAILABLE, &format!("{error:#}")),
    }
}

async fn accept_shrink(State(controller): State<Arc<Controller>>) -> Response {
    match controller.accept_shrink().await {
        Ok(accepted) => Json(accepted).into_response(),
        Err(error) => refused(StatusCode::CONFLICT, &error),
    }
}

async fn invite(
    State(controller): State<Arc<Controller>>,
    query: Result<Query<InviteQuery>, QueryRejection>,
) -> Response {
    let Query(InviteQuery { name, key, expires }) = match query {
        Ok(query) => query,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    match controller.invite(name, key, expires).await {
        Ok(invited) => Json(invited).into_response(),
        Err(error) => refused(StatusCode::CONFLICT, &error),
    }
}

async fn uninvite(
    State(controller): State<Arc<Controller>>,
    query: Result<Query<UninviteQuery>, QueryRejection>,
) -> Response {
    let Query(UninviteQuery { name }) = match query {
        Ok(query) => query,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    match controller.uninvite(name).await {
        Ok(uninvited) => Json(uninvited).into_response(),
        Err(error) => refused(StatusCode::CONFLICT, &error),
    }
}

fn refused(status: StatusCode, error: &str) -> Response {
    let error = mesh_api::Error {
        version: VERSION,
        error: error.to_owned(),
    };
    (status, Json(error)).into_response()
}
