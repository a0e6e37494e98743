//! stub
use crate::agent::Agent;
use std::sync::Arc;
pub(crate) async fn act(_: Arc<Agent>) {
    std::future::pending().await
}
