//! `metrics_listen`: what this agent says, for Prometheus.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use mesh_api::{METRICS_TYPE, agent_metrics};
use mesh_os::socket;
use tracing::warn;

use crate::{agent::Agent, snapshot};

/// Answers at `listen`, for ever; `None`: nowhere. What cannot be had there is said in the log, and keeps nothing else from
/// working.
pub(crate) async fn serve(agent: Arc<Agent>, listen: Option<SocketAddr>) {
    if let Some(listen) = listen
        && let Err(error) = answer(agent, listen).await
    {
        warn!(error = format!("{error:#}"), "no metrics are served");
    }
    std::future::pending().await
}

async fn answer(agent: Arc<Agent>, listen: SocketAddr) -> anyhow::Result<()> {
    let listener = socket::bind_tcp(listen)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(agent);
    Ok(axum::serve(listener, router).await?)
}

async fn metrics(State(agent): State<Arc<Agent>>) -> impl IntoResponse {
    let status = snapshot::status(&agent);
    let roster = agent.roster();
    let rules = roster
        .as_deref()
        .filter(|roster| roster.network().rules.is_some())
        .map(|roster| agent.overlay.rules.report(roster, agent.public()));
    let text = agent_metrics(&status, rules.as_ref());
    ([(CONTENT_TYPE, METRICS_TYPE)], text)
}
