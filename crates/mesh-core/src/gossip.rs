use std::{collections::BTreeMap, time::Duration};

use mesh_types::{Instant, Serial};

/// How long the controllers have to hand over a roster that a peer spoke of.
const CONTROLLERS_FIRST: Duration = Duration::from_secs(1);

/// How often one peer's word is acted on: it costs a question to each controller.
const ACT_EVERY: Duration = Duration::from_secs(1);

/// How often, if what it said did not lead to a roster: a member that lies must not keep everyone fetching.
const ACT_ON_DOUBT_EVERY: Duration = Duration::from_secs(10);

/// What is to be done about a peer's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint<P> {
    /// Ask the controllers for a roster with this serial.
    AskControllers(Serial),
    /// Ask this peer for its roster; [`Gossip::fetched`] follows.
    Fetch(P),
}

/// When to act on what peers say of their rosters. Pure: owns no socket, clock or entropy.
///
/// The controllers are asked at once, and the peer itself a little later if they did not have it. One roster
/// is fetched at a time. `P` names a peer; only members are heard, so there are no more entries than members.
#[derive(Debug)]
pub struct Gossip<P> {
    peers: BTreeMap<P, Word>,
    /// Whose roster is being fetched.
    fetching: Option<P>,
}

#[derive(Debug)]
struct Word {
    /// What it said last and nobody acted on.
    heard: Option<Serial>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Its next word is acted on then; without one it is forgotten.
    Rests { until: Instant },
    /// The controllers have until then, and then it is asked itself as soon as nobody else is.
    Waits { serial: Serial, until: Instant },
    /// It is asked for its roster.
    Fetches { serial: Serial },
}

impl<P: Ord + Clone> Gossip<P> {
    /// Nobody has said anything.
    pub const fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            fetching: None,
        }
    }

    /// Hears that `peer` holds a roster with `serial`; that in force is `own`.
    pub fn hear(&mut self, peer: P, serial: Serial, own: Option<Serial>, now: Instant) {
        if Some(serial) <= own {
            return;
        }
        let word = self.peers.entry(peer).or_insert(Word {
            heard: None,
            step: Step::Rests { until: now },
        });
        word.heard = Some(serial);
    }

    /// What is to be done, each of it once. `own` is the serial in force, and `served` whether a controller is
    /// connected.
    pub fn poll_hint(
        &mut self,
        own: Option<Serial>,
        served: bool,
        now: Instant,
    ) -> Option<Hint<P>> {
        let mut hint = None;
        let fetching = &mut self.fetching;
        self.peers.retain(|peer, word| {
            if hint.is_some() {
                return true;
            }
            match word.step {
                Step::Rests { until } if now >= until => {
                    let Some(serial) = word.heard.take() else {
                        return false;
                    };
                    word.step = if Some(serial) > own {
                        hint = Some(Hint::AskControllers(serial));
                        let until = if served { now + CONTROLLERS_FIRST } else { now };
                        Step::Waits { serial, until }
                    } else {
                        rest(serial, own, now)
                    };
                }
                Step::Waits { serial, .. } if Some(serial) <= own => {
                    word.step = rest(serial, own, now);
                }
                Step::Waits { serial, until } if now >= until && fetching.is_none() => {
                    *fetching = Some(peer.clone());
                    hint = Some(Hint::Fetch(peer.clone()));
                    word.step = Step::Fetches { serial };
                }
                Step::Rests { .. } | Step::Waits { .. } | Step::Fetches { .. } => {}
            }
            true
        });
        hint
    }

    /// When [`Gossip::poll_hint`] is to be called without another reason; `None`: nobody has said anything.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |word: &Word| match word.step {
            Step::Rests { until } => Some(until),
            Step::Waits { until, .. } => self.fetching.is_none().then_some(until),
            Step::Fetches { .. } => None,
        };
        self.peers.values().filter_map(due).min()
    }

    /// The peer that was asked for its roster gave it, or did not; the serial in force is `own`.
    pub fn fetched(&mut self, own: Option<Serial>, now: Instant) {
        let Some(peer) = self.fetching.take() else {
            return;
        };
        if let Some(word) = self.peers.get_mut(&peer)
            && let Step::Fetches { serial } = word.step
        {
            word.step = rest(serial, own, now);
        }
    }
}

impl<P: Ord + Clone> Default for Gossip<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// Until a peer's next word is acted on, after it spoke of `serial` and that in force became `own`.
fn rest(serial: Serial, own: Option<Serial>, now: Instant) -> Step {
    let pause = if own >= Some(serial) {
        ACT_EVERY
    } else {
        ACT_ON_DOUBT_EVERY
    };
    Step::Rests { until: now + pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(number: u64) -> Serial {
        Serial::try_from(number).unwrap()
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    const fn ask<P>(serial: Serial) -> Option<Hint<P>> {
        Some(Hint::AskControllers(serial))
    }

    #[test]
    fn the_controllers_are_asked_at_once_and_the_peer_a_second_later() {
        let own = Some(serial(7));
        let mut gossip = Gossip::new();
        gossip.hear("galena", serial(8), own, at(0));
        assert_eq!(gossip.poll_timeout(), Some(at(0)));
        assert_eq!(gossip.poll_hint(own, true, at(0)), ask(serial(8)));
        assert_eq!(gossip.poll_hint(own, true, at(0)), None);
        assert_eq!(gossip.poll_timeout(), Some(at(1_000)));
        let hint = gossip.poll_hint(own, true, at(1_000));
        assert_eq!(hint, Some(Hint::Fetch("galena")));
        assert_eq!(gossip.poll_timeout(), None);
    }

    #[test]
    fn without_a_controller_the_peer_is_asked_at_once() {
        let mut gossip = Gossip::new();
        gossip.hear("galena", serial(8), None, at(0));
        assert_eq!(gossip.poll_hint(None, false, at(0)), ask(serial(8)));
        let hint = gossip.poll_hint(None, false, at(0));
        assert_eq!(hint, Some(Hint::Fetch("galena")));
    }

    #[test]
    fn who_got_it_from_a_controller_asks_nobody_and_forgets() {
        let (before, after) = (Some(serial(7)), Some(serial(8)));
        let mut gossip = Gossip::new();
        gossip.hear("galena", serial(8), before, at(0));
        gossip.poll_hint(before, true, at(0));
        assert_eq!(gossip.poll_hint(after, true, at(1_000)), None);
        assert_eq!(gossip.poll_timeout(), Some(at(2_000)));
        assert_eq!(gossip.poll_hint(after, true, at(2_000)), None);
        assert_eq!(gossip.poll_timeout(), None);
        gossip.hear("galena", serial(8), after, at(3_000));
        assert_eq!(gossip.poll_timeout(), None, "no news");
    }

    #[test]
    fn one_roster_is_fetched_at_a_time() {
        let mut gossip = Gossip::new();
        gossip.hear("galena", serial(8), None, at(0));
        gossip.hear("pyrite", serial(9), None, at(0));
        let hints = std::iter::from_fn(|| gossip.poll_hint(None, false, at(0)));
        let fetched: Vec<_> = hints
            .filter(|hint| matches!(hint, Hint::Fetch(_)))
            .collect();
        assert_eq!(fetched, [Hint::Fetch("galena")]);
        assert_eq!(gossip.poll_timeout(), None, "pyrite waits for its turn");
        gossip.fetched(Some(serial(8)), at(500));
        let hint = gossip.poll_hint(Some(serial(8)), false, at(500));
        assert_eq!(hint, Some(Hint::Fetch("pyrite")));
    }

    #[test]
    fn what_a_peer_says_while_it_is_acted_on_is_not_lost() {
        let mut gossip = Gossip::new();
        gossip.hear("galena", serial(8), None, at(0));
        gossip.poll_hint(None, false, at(0));
        gossip.poll_hint(None, false, at(0));
        gossip.hear("galena", serial(9), None, at(100));
        gossip.hear("galena", serial(10), None, at(200));
        let own = Some(serial(8));
        gossip.fetched(own, at(300));
        assert_eq!(gossip.poll_hint(own, false, at(300)), None);
        assert_eq!(gossip.poll_timeout(), Some(at(1_300)));
        assert_eq!(gossip.poll_hint(own, false, at(1_300)), ask(serial(10)));
    }

    #[test]
    fn a_peer_whose_word_led_to_nothing_waits_longer() {
        let mut gossip = Gossip::new();
        gossip.hear("galena", serial(9), None, at(0));
        gossip.poll_hint(None, false, at(0));
        gossip.poll_hint(None, false, at(0));
        gossip.fetched(Some(serial(8)), at(0));
        assert_eq!(gossip.poll_timeout(), Some(at(10_000)));
    }
}
