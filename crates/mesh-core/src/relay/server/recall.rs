//! The clients of a process before this one: which there are to be remembered, and which somebody sends to before
//! they are back.

use std::{
    net::SocketAddr,
    sync::{Mutex, OnceLock, PoisonError},
};

use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::relay::MemberTag;

use super::{Client, RelayServer};
use crate::attention::AnyAttention;

/// The expected clients that were sent to; each is in it once, ever.
#[derive(Default)]
pub(super) struct Sought {
    keys: Mutex<Vec<WireguardPublicKey>>,
    /// What tells the engine's owner of it.
    attention: OnceLock<AnyAttention>,
}

impl RelayServer {
    /// Where each client by UDP has shown to be.
    pub fn places(&self, now: Instant) -> Vec<(WireguardPublicKey, SocketAddr)> {
        let roster = self.roster.load();
        let clients = roster.members.values().flatten();
        clients
            .filter_map(|client| {
                let place = client.lock().proven.filter(|place| place.lives(now))?;
                Some((client.key, place.remote.udp()?))
            })
            .collect()
    }

    /// Whether a member has shown where it is, and has not left there.
    pub(crate) fn is_here(&self, key: &WireguardPublicKey, now: Instant) -> bool {
        let roster = self.roster.load();
        let client = roster.member(MemberTag::of(key.as_bytes()));
        let place = client.and_then(|client| client.lock().proven);
        place.is_some_and(|place| place.lives(now))
    }

    /// Expects these members: if somebody sends to one that is not here, `attention` is raised, and
    /// [`RelayServer::take_sought`] tells which it is, once.
    pub(crate) fn expect<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a [u8; 32]>,
        attention: AnyAttention,
    ) {
        // There is one engine for the whole life of the process.
        let _ = self.sought.attention.set(attention);
        let roster = self.roster.load();
        for key in keys {
            if let Some(client) = roster.member(MemberTag::of(key))
                && client.key.as_bytes() == key
            {
                client.lock().expected = true;
            }
        }
    }

    /// The expected members that were sent to since this was last asked.
    pub(crate) fn take_sought(&self) -> Vec<WireguardPublicKey> {
        let keys = self.sought.keys.lock();
        std::mem::take(&mut *keys.unwrap_or_else(PoisonError::into_inner))
    }

    /// Somebody sends to a member that is not here.
    pub(super) fn seek(&self, client: &Client) {
        if !std::mem::take(&mut client.lock().expected) {
            return;
        }
        let keys = self.sought.keys.lock();
        keys.unwrap_or_else(PoisonError::into_inner)
            .push(client.key);
        if let Some(attention) = self.sought.attention.get() {
            attention.raise();
        }
    }
}
