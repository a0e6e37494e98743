//! stub
use crate::{config::Config, view::Link};
use mesh_inventory::roster::Roster;
use mesh_types::{IdentitySeed, MachineName, PublicIdentity};
use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};
#[derive(Debug)]
pub(crate) struct DataPlane;
pub(crate) struct Threads;
impl Threads {
    pub(crate) fn stop(self) {}
}
pub(crate) enum PingOutcome {
    Answered {
        rtt: Duration,
        endpoint: Option<SocketAddr>,
    },
    Unanswered,
    TooMany,
}
impl DataPlane {
    pub(crate) fn open(_: &Config, _: &IdentitySeed, _: Option<&Roster>) -> anyhow::Result<Self> {
        todo!()
    }
    pub(crate) fn start(&self) -> anyhow::Result<Threads> {
        todo!()
    }
    pub(crate) fn apply_roster(&self, _: &Roster, _: &PublicIdentity) {}
    pub(crate) fn introduce(&self, _: &MachineName, _: &[SocketAddr]) {}
    pub(crate) fn add_candidates(&self, _: &MachineName, _: &[SocketAddr]) {}
    pub(crate) fn probe_all(&self) -> u64 {
        0
    }
    pub(crate) fn links(&self) -> BTreeMap<MachineName, Link> {
        todo!()
    }
    pub(crate) fn address(&self) -> Option<Ipv6Addr> {
        None
    }
    pub(crate) fn interface(&self) -> &str {
        ""
    }
    pub(crate) fn interface_index(&self) -> u32 {
        0
    }
    pub(crate) fn port(&self) -> u16 {
        0
    }
    pub(crate) fn network_changed(&self) {}
    pub(crate) async fn ping(&self, _: &MachineName, _: Duration) -> PingOutcome {
        todo!()
    }
}
