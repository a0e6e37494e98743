//! One process of a node ends, and the next one goes on with its sessions.

use std::sync::{Arc, atomic::Ordering};

use zeroize::Zeroizing;

use super::{
    Context, Engine,
    peer::{Peer, Sessions},
};
use crate::{
    Handover, Now,
    handover::{PeerRecord, SessionRecord},
    link::Link,
    session::{MessageLimits, Session},
};

/// What became of a [`Handover`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Peers that are still peers.
    pub peers: usize,
    /// Sessions of theirs that go on.
    pub sessions: usize,
    /// Sessions that do not: too old, out of packets, or of somebody who is no peer any more.
    pub dropped: usize,
}

/// Why a [`Handover`] is not taken at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeOverError {
    /// Its sessions were made with another key than this node's.
    #[error("it is of another identity")]
    Identity,
    /// The monotonic clock is behind what it was: the machine was started anew in between.
    #[error("it is from before the machine was started")]
    Clock,
}

impl Engine {
    /// Ends every session in this process, and returns what [`Engine::take_over`] needs to go on with
    /// them in the next one: keys, so the bytes must never touch a disk, and must be used once.
    ///
    /// No data thread may be running: what one would seal or open after this is lost. This engine has no
    /// peers from here on. Handshakes under way, and packets held back for them, are not handed on.
    pub fn hand_over(&mut self, now: Now) -> Zeroizing<Vec<u8>> {
        self.handed_over = true;
        let peers = std::mem::take(&mut self.peers);
        self.deadlines.clear();
        self.publish_routes();
        for peer in peers.values() {
            peer.retire(&mut self.context);
        }
        self.context.attempts.clear();
        self.context.publish();
        let mut handover = Handover {
            written: now.instant,
            last_stamp: self.context.stamps.last(),
            own: self.context.keys.public,
            peers: peers.values().map(Peer::record).collect(),
            flows: self.context.forwarding.flows(),
        };
        handover.bound();
        handover.emit()
    }

    /// Goes on with the sessions of another process of this node, which must have ended, or handed over
    /// for good. To be called once, when the peers are set and before any packet is carried.
    ///
    /// Peers that are not in the roster in force, or are of another kind in it, stay out. Every send
    /// counter goes on 2^20 above where it was; a session whose limit that passes is dropped.
    ///
    /// # Errors
    ///
    /// [`TakeOverError`]; nothing is changed then, and peers get new handshakes.
    pub fn take_over(&mut self, handover: Handover, now: Now) -> Result<TakenOver, TakeOverError> {
        if handover.own != self.context.keys.public {
            return Err(TakeOverError::Identity);
        }
        if handover.written > now.instant {
            return Err(TakeOverError::Clock);
        }
        self.context.stamps.continue_after(handover.last_stamp);
        self.context.forwarding.restore_flows(&handover.flows);
        let mut taken = TakenOver::default();
        for record in handover.peers {
            let offered = record.sessions.iter().flatten().count();
            let known = self
                .peers
                .get(&record.key)
                .is_some_and(|peer| peer.speaks_mesh() == record.speaks_mesh);
            if !known {
                taken.dropped += offered;
                continue;
            }
            let id = record.key;
            let resumed = self.with_peer(&id, now, |peer, context| {
                let resumed = peer.take_over(record, context, now);
                peer.tell_to_ask_again(context, now);
                resumed
            });
            let resumed = resumed.unwrap_or(0);
            taken.peers += 1;
            taken.sessions += resumed;
            taken.dropped += offered - resumed;
        }
        Ok(taken)
    }
}

impl Peer {
    /// Ends the sessions for whoever still holds them, and leaves them to be recorded.
    fn retire(&self, context: &mut Context) {
        self.link.current.store(None);
        for session in self.sessions.all() {
            context.end_session(session);
        }
    }

    fn record(&self) -> PeerRecord {
        let link: &Link = &self.link;
        PeerRecord {
            key: *link.peer.as_bytes(),
            speaks_mesh: link.speaks_mesh,
            wants_session: self.is_connecting() || link.rekey_wanted.load(Ordering::Acquire),
            endpoint: link.via().and_then(crate::Via::udp),
            highest_stamp: self.highest_stamp,
            wanted: self.wanted,
            last_data_sent: link.last_data_sent.get(),
            last_data_received: link.last_data_received.get(),
            unanswered: link.unanswered.get(),
            owes: link.owes.get(),
            last_handshake: self.last_handshake,
            rtt_micros: self
                .rtt
                .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            sent_bytes: link.sent_bytes.load(Ordering::Relaxed),
            received_bytes: link.received_bytes.load(Ordering::Relaxed),
            sessions: self
                .sessions
                .slots()
                .map(|session| Some(session.as_ref()?.record())),
        }
    }

    /// Becomes what the record says; returns the number of sessions that go on.
    fn take_over(&mut self, record: PeerRecord, context: &mut Context, now: Now) -> usize {
        self.highest_stamp = self.highest_stamp.max(record.highest_stamp);
        self.wanted = record.wanted;
        self.last_handshake = record.last_handshake;
        self.rtt = record.rtt_micros.map(std::time::Duration::from_micros);
        let outside = |endpoint: &_| !context.forwarding.is_inside(Into::into(*endpoint));
        if let Some(endpoint) = record.endpoint.filter(outside) {
            self.paths.established(endpoint.into(), None, now.instant);
            self.refresh_way(context);
        }
        self.link.restore(&record);
        let resumed = record
            .sessions
            .map(|session| self.resume_session(session?, context, now));
        self.sessions = Sessions::from_slots(resumed);
        self.link.current.store(self.sessions.current.clone());
        if record.wants_session {
            self.begin(now.instant);
        } else if self.usable_session(now.instant).is_some() {
            // What was wanted before the session came, such as a moon's token.
            self.rest(context);
            self.renew_grant(now.instant);
        }
        self.sessions.all().count()
    }

    fn resume_session(
        &self,
        record: SessionRecord,
        context: &mut Context,
        now: Now,
    ) -> Option<Arc<Session>> {
        let limits = MessageLimits::new(record.protocol, context.large_packets);
        let session = Arc::new(Session::resume(record, limits, now.instant)?);
        context.add_session(&session, &self.link);
        Some(session)
    }
}
