//! What became of the ways to one peer, for people.

use std::collections::VecDeque;

use mesh_types::Instant;

use crate::Via;

/// Events kept of one peer; the oldest goes first. At 56 bytes each that is 0.9 KB of a peer with a hard
/// life, and nothing of one that never spoke.
pub(super) const EVENTS_MAX: usize = 16;

/// Something that became of the ways to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathEvent {
    /// When; the last time, if it happened several times in a row.
    pub at: Instant,
    /// What.
    pub what: PathChange,
    /// How often in a row.
    pub times: u16,
}

/// What may become of the ways to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// A handshake came through by this way, and packets take it.
    Handshake(Via),
    /// Packets take this way.
    Taken(Via),
    /// What went by this way was not answered, and probes on it were not.
    Unanswered(Via),
    /// This way was left: it was silent while another answered.
    Left(Via),
    /// Packets came by this way, which is not the one in use.
    Heard(Via),
    /// This way was let go, because there was no traffic.
    LetGo(Via),
    /// This way was in use, and is no more: its moon relays no longer, or its stream is over.
    Closed(Via),
    /// This machine's network changed, or it woke up.
    NetworkChanged,
}

#[derive(Debug, Default)]
pub(super) struct History(VecDeque<PathEvent>);

impl History {
    pub(super) fn note(&mut self, what: PathChange, at: Instant) {
        if let Some(last) = self.0.back_mut().filter(|last| last.what == what) {
            last.at = at;
            last.times = last.times.saturating_add(1);
            return;
        }
        if self.0.len() >= EVENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(PathEvent { at, what, times: 1 });
    }

    /// The oldest first.
    pub(super) fn events(&self) -> impl Iterator<Item = PathEvent> + '_ {
        self.0.iter().copied()
    }
}
