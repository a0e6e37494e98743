//! This machine as a moon: whether the roster makes it one, and what its data thread does with frames.

pub(crate) mod clients;
pub(crate) mod streams;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use mesh_api::RelayStatus;
use mesh_core::{Forwarded, RelayLimits, RelayServer, Remote};
use mesh_inventory::roster::{Member, Roster};
use mesh_os::{clock, udp::SendBatch};
use mesh_types::{Ecn, Instant, MemberKey, PublicIdentity, WireguardPublicKey};
use mesh_wire::{reflect::REFLECT_BYTES, relay};
use tracing::{debug, trace};

use crate::overlay::Overlay;

/// The moon that this machine may be. One for the life of the process, so that clients keep their tokens
/// when the roster makes it a moon, makes it none, and makes it one again.
pub(crate) struct Moon {
    server: Arc<RelayServer>,
    /// Whether it is one. Who is none does not say so to strangers.
    relays: AtomicBool,
}

impl Moon {
    pub(crate) fn new() -> Self {
        Self {
            server: Arc::new(RelayServer::new(RelayLimits::default())),
            relays: AtomicBool::new(false),
        }
    }

    /// Sets what all clients together may send, in bytes a second; `None`: the default.
    pub(crate) fn set_total_rate(&self, rate: Option<u64>) {
        let default = RelayLimits::default().total_bytes_per_second;
        self.server.set_limits(RelayLimits {
            total_bytes_per_second: rate.unwrap_or(default),
            ..self.server.limits()
        });
    }

    /// Brings it in line with `roster`: whoever is gone is relayed for no more when this returns. Gives what
    /// the engine grants from; `None`: this machine does not relay.
    pub(crate) fn apply_roster(
        &self,
        roster: &Roster,
        own: &PublicIdentity,
    ) -> Option<Arc<RelayServer>> {
        let member = roster.member_by_node_id(&own.node_id());
        let member = member.filter(|member| member.is_relay());
        self.server.set_members(clients(roster, own, member));
        self.relays.store(member.is_some(), Ordering::Release);
        let default = RelayLimits::default().client_bytes_per_second;
        self.server.set_limits(RelayLimits {
            client_bytes_per_second: member?.relay_rate_limit.unwrap_or(default),
            ..self.server.limits()
        });
        Some(Arc::clone(&self.server))
    }

    /// Relays a datagram if it is a frame for this moon; false if it is not. What is to be sent by UDP waits in
    /// `sending`.
    pub(crate) fn relay(
        &self,
        overlay: &Overlay,
        from: Remote,
        ecn: Ecn,
        datagram: &mut [u8],
        sending: &mut SendBatch,
        now: Instant,
    ) -> bool {
        if let Some(answer) = self.reflect(from, datagram, now) {
            push(overlay, from, Ecn::NotCapable, &answer, sending);
            return true;
        }
        if !relay::is_frame(datagram)
            || !self.relays.load(Ordering::Acquire)
            // The frame of another moon, of which this one is a client.
            || overlay.forwarding.knows_frame(from, datagram)
        {
            return false;
        }
        match self.server.forward(from, datagram, now) {
            Forwarded::To(to) => push(overlay, to, ecn, datagram, sending),
            Forwarded::Answer(notice) => {
                push(overlay, from, Ecn::NotCapable, &notice, sending);
                // The receiver may be one that is to be looked for.
                if overlay.forwarding.needs_attention() {
                    overlay.wake_timer();
                }
            }
            Forwarded::Dropped(reason) => trace!(%reason, "frame dropped"),
            Forwarded::NotOurs => return false,
        }
        true
    }

    /// Tells a client where it is seen; `None`: the datagram does not ask for that, or nobody may know.
    pub(crate) fn reflect(
        &self,
        from: Remote,
        datagram: &[u8],
        now: Instant,
    ) -> Option<[u8; REFLECT_BYTES]> {
        self.is_on()
            .then(|| self.server.reflect(from, datagram, now))
            .flatten()
    }

    /// Whether this machine relays.
    pub(crate) fn is_on(&self) -> bool {
        self.relays.load(Ordering::Acquire)
    }

    /// What `mesh status` says of it; `None`: this machine does not relay.
    pub(crate) fn status(&self) -> Option<RelayStatus> {
        if !self.relays.load(Ordering::Acquire) {
            return None;
        }
        // Who is gone is not to be counted; nothing else needs it sooner.
        self.server.expire(clock::now());
        let view = self.server.view();
        let limits = self.server.limits();
        Some(RelayStatus {
            clients: u64::try_from(view.clients).unwrap_or(u64::MAX),
            relayed_frames: view.relayed_frames,
            relayed_bytes: view.relayed_bytes,
            limited_frames: view.limited_frames,
            notices: view.notices,
            client_bytes_per_second: limits.client_bytes_per_second,
            total_bytes_per_second: limits.total_bytes_per_second,
        })
    }
}

/// Who may be a client: every other member that is switched on and has a mesh identity. Nobody's, where
/// `moon` is none.
fn clients<'a>(
    roster: &'a Roster,
    own: &PublicIdentity,
    moon: Option<&Member>,
) -> impl Iterator<Item = WireguardPublicKey> + use<'a> {
    let own = *own;
    roster
        .members()
        .values()
        .take(moon.map_or(0, |_| usize::MAX))
        .filter(|member| member.enabled)
        .filter_map(move |member| match member.public_key? {
            MemberKey::Mesh(key) if key != own => Some(key.wireguard()),
            MemberKey::Mesh(_) | MemberKey::Wireguard(_) => None,
        })
}

fn push(overlay: &Overlay, to: Remote, ecn: Ecn, frame: &[u8], sending: &mut SendBatch) {
    let Remote::Udp(endpoint) = to else {
        overlay.send(to, frame);
        return;
    };
    if let Err(error) = sending.push(overlay.socket(), endpoint, ecn, frame) {
        debug!(%endpoint, %error, "could not send");
    }
}
