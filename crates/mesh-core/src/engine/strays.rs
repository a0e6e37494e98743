//! Data of sessions that are not known. A peer goes on sending in the session that it has when this node was killed
//! and started again, and notices only after seconds of silence. So where such data comes from an endpoint that is
//! known to be a peer's, this node asks that peer for a session.
//!
//! Anybody can send such data in a peer's name: it costs one handshake of one datagram towards the peer, where it is
//! known to be, and none while there is a session.

use std::time::Duration;

use super::{Context, Engine, peer::Peer};
use crate::{Now, Remote, Via};

/// Between two handshakes with one peer for this.
const PACE: Duration = Duration::from_secs(5);

impl Engine {
    /// Acts on data of a session that is not known, which [`Forwarding::open`](crate::Forwarding::open) found.
    pub fn handle_stray(&mut self, from: Remote, now: Now) {
        if self.handed_over {
            return;
        }
        let via = Via::Direct(from);
        let mut peers = self.peers.iter();
        let sender = peers.find(|(_, peer)| peer.may_have_lost_session(via, now));
        if let Some(id) = sender.map(|(id, _)| *id) {
            self.with_peer(&id, now, |peer, context| {
                peer.answer_stray(via, context, now)
            });
        }
    }
}

impl Peer {
    /// Asks for a session by one handshake, which is not repeated: the peer will notice by itself. Before this process has
    /// its first stamps it waits for them.
    fn answer_stray(&mut self, via: Via, context: &mut Context, now: Now) {
        let sent = self.initiate(vec![via], false, context, now);
        self.stray = (!sent).then_some(via);
    }

    /// Does so if one waits for stamps, which are there now.
    pub(super) fn answer_waiting_stray(&mut self, context: &mut Context, now: Now) {
        if let Some(via) = self.stray.take()
            && self.may_have_lost_session(via, now)
        {
            self.answer_stray(via, context, now);
        }
    }

    /// Whether it may be the peer who sent by `via` in a session that is gone.
    fn may_have_lost_session(&self, via: Via, now: Now) -> bool {
        self.usable_session(now.instant).is_none()
            && self.paths.knows(via)
            && !self.attempted_within(PACE, now.instant)
    }
}
