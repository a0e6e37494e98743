//! What can be told of the ways to a peer.

use std::time::Duration;

use mesh_types::Instant;

use super::{Origin, PathEvent, Paths};
use crate::Via;

/// What is known of one way, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathView {
    /// The way.
    pub via: Via,
    /// How it became known first.
    pub origin: Origin,
    /// Whether the peer says that it is there.
    pub told: bool,
    /// The smoothed round trip; `None`: it never answered since the network changed.
    pub rtt: Option<Duration>,
    /// When it last answered; `None`: not since the network changed.
    pub answered: Option<Instant>,
    /// Probes sent since.
    pub unanswered: usize,
    /// When it became known.
    pub since: Instant,
    /// Probes sent, all in all.
    pub probes: u32,
    /// When the last of them was sent; `None`: there was none since it last answered.
    pub last_probe: Option<Instant>,
    /// When it last answered, whatever happened to the network since; `None`: never.
    pub last_answer: Option<Instant>,
    /// When it was left because it had stopped answering; `None`: it was not, or is tried anew.
    pub left: Option<Instant>,
    /// Whether packets take it.
    pub selected: bool,
}

impl Paths {
    /// What is known, for people.
    pub(crate) fn view(&self) -> Vec<PathView> {
        self.ways
            .iter()
            .map(|(via, way)| PathView {
                via: *via,
                origin: way.origin,
                told: way.told,
                rtt: way.rtt,
                answered: way.answered,
                unanswered: way.waiting.len(),
                since: way.since,
                probes: way.probes,
                last_probe: way.waiting.last().copied(),
                last_answer: way.last_answer,
                left: way.left,
                selected: self.selected == Some(*via),
            })
            .collect()
    }

    /// Whether this way is known.
    pub(crate) fn knows(&self, via: Via) -> bool {
        self.ways.get(via).is_some()
    }

    /// How many ways are known.
    pub(crate) fn count(&self) -> usize {
        self.ways.iter().len()
    }

    /// What became of them, the oldest first.
    pub(crate) fn history(&self) -> Vec<PathEvent> {
        self.history.events().collect()
    }
}
