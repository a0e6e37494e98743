use std::time::Duration;

use mesh_types::Instant;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::backoff::Backoff;

/// What is to be done about a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Connect and say hello; [`Conversation::connected`] or [`Conversation::ended`] follows.
    Connect,
    /// Ask for the roster; [`Conversation::answered`] or [`Conversation::ended`] follows.
    AskRoster,
    /// Tell where this machine is reached; as for [`Errand::AskRoster`].
    Report,
}

/// When to connect to one controller, and what to say to it. Pure: owns no socket, clock or entropy.
///
/// ```text
///             poll_errand            connected
///   Waiting ──────────────▶ Connecting ───────▶ Connected: one errand at a time
///      ▲                        │ ended             │ ended
///      └────────────────────────┴───────────────────┘
/// ```
///
/// After every call: do what [`Conversation::poll_errand`] says, and call it again at
/// [`Conversation::poll_timeout`].
#[derive(Debug)]
pub struct Conversation {
    state: State,
    backoff: Backoff,
    /// How often a roster is asked for although the controller spoke of none: a notice that was lost, or a
    /// roster that it did not hand over at once, holds a removal up no longer than this.
    roster_every: Duration,
    random: ChaCha8Rng,
}

#[derive(Debug)]
enum State {
    /// It is tried again then.
    Waiting { until: Instant },
    /// It is being connected to.
    Connecting,
    /// It has admitted this machine.
    Connected {
        /// Whether an answer is awaited.
        asking: bool,
        /// When it is asked for the roster without a reason.
        roster_due: Instant,
        /// Whether somebody spoke of a newer roster since it was last asked.
        rumoured: bool,
        /// Whether the endpoints changed since they were last told.
        moved: bool,
    },
}

impl Conversation {
    /// How often an agent asks for the roster without a reason.
    pub const ROSTER_EVERY: Duration = Duration::from_secs(60);

    /// A conversation that begins at once.
    pub fn new(seed: [u8; 32], roster_every: Duration, now: Instant) -> Self {
        Self {
            state: State::Waiting { until: now },
            backoff: Backoff::default(),
            roster_every,
            random: ChaCha8Rng::from_seed(seed),
        }
    }

    /// What is to be done, each of it once. `is_behind`: the serial that somebody spoke of last is higher than
    /// that of the roster in force.
    pub fn poll_errand(&mut self, is_behind: bool, now: Instant) -> Option<Errand> {
        match &mut self.state {
            State::Waiting { until } => {
                if now < *until {
                    return None;
                }
                self.state = State::Connecting;
                Some(Errand::Connect)
            }
            State::Connecting | State::Connected { asking: true, .. } => None,
            State::Connected {
                asking,
                roster_due,
                rumoured,
                moved,
            } => {
                let errand = if std::mem::take(moved) {
                    Errand::Report
                } else if std::mem::take(rumoured) && is_behind {
                    Errand::AskRoster
                } else if now >= *roster_due {
                    *roster_due = now + self.roster_every;
                    Errand::AskRoster
                } else {
                    return None;
                };
                *asking = true;
                Some(errand)
            }
        }
    }

    /// When [`Conversation::poll_errand`] is to be called without another reason; `None`: it waits for an
    /// answer.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Connecting | State::Connected { asking: true, .. } => None,
            State::Connected { roster_due, .. } => Some(*roster_due),
        }
    }

    /// The controller has welcomed this machine.
    pub fn connected(&mut self, now: Instant) {
        self.backoff.reset();
        // Not all agents at the same time after a controller's restart.
        let first = self.roster_every.mul_f64(self.random.r#gen());
        self.state = State::Connected {
            asking: false,
            roster_due: now + first,
            // What changed since the hello.
            rumoured: true,
            moved: true,
        };
    }

    /// There is no connection, or no more. `served`: there is one to another controller.
    pub fn ended(&mut self, served: bool, now: Instant) {
        let wait = self.backoff.next_wait(served, &mut self.random);
        self.state = State::Waiting { until: now + wait };
    }

    /// What was asked or told is answered.
    pub const fn answered(&mut self) {
        if let State::Connected { asking, .. } = &mut self.state {
            *asking = false;
        }
    }

    /// Somebody spoke of a newer roster.
    pub const fn hear_of_roster(&mut self) {
        if let State::Connected { rumoured, .. } = &mut self.state {
            *rumoured = true;
        }
    }

    /// This machine's endpoints are others.
    pub const fn endpoints_changed(&mut self) {
        if let State::Connected { moved, .. } = &mut self.state {
            *moved = true;
        }
    }

    /// Another roster is in force: it may name this controller, or its new key, which is no reason to wait on.
    pub fn roster_changed(&mut self, now: Instant) {
        if let State::Waiting { until } = &mut self.state {
            *until = now.min(*until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Conversation::ROSTER_EVERY;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn conversation() -> Conversation {
        Conversation::new([7; 32], EVERY, at(0))
    }

    /// One that was welcomed at 0 s, and has told its endpoints.
    fn connected() -> Conversation {
        let mut conversation = conversation();
        assert_eq!(
            conversation.poll_errand(false, at(0)),
            Some(Errand::Connect)
        );
        conversation.connected(at(0));
        assert_eq!(conversation.poll_errand(false, at(0)), Some(Errand::Report));
        conversation.answered();
        conversation
    }

    #[test]
    fn it_connects_at_once_and_again_after_a_wait() {
        let mut conversation = conversation();
        assert_eq!(conversation.poll_timeout(), Some(at(0)));
        assert_eq!(
            conversation.poll_errand(false, at(0)),
            Some(Errand::Connect)
        );
        assert_eq!(conversation.poll_errand(true, at(9)), None, "under way");
        assert_eq!(conversation.poll_timeout(), None);
        conversation.ended(false, at(10));
        let until = conversation.poll_timeout().unwrap();
        assert!((at(11)..=at(12)).contains(&until));
        assert_eq!(conversation.poll_errand(true, at(10)), None);
        assert_eq!(conversation.poll_errand(true, until), Some(Errand::Connect));
    }

    #[test]
    fn another_roster_ends_the_wait() {
        let mut conversation = conversation();
        conversation.poll_errand(false, at(0));
        conversation.ended(true, at(10));
        conversation.roster_changed(at(10));
        let errand = conversation.poll_errand(false, at(10));
        assert_eq!(errand, Some(Errand::Connect));
    }

    #[test]
    fn the_roster_is_asked_for_once_a_minute_and_when_somebody_spoke_of_a_newer_one() {
        let mut conversation = connected();
        let first = conversation.poll_timeout().unwrap();
        assert!(first <= at(60));
        assert_eq!(
            conversation.poll_errand(false, first),
            Some(Errand::AskRoster)
        );
        assert_eq!(conversation.poll_timeout(), None, "awaits the answer");
        conversation.answered();
        assert_eq!(conversation.poll_timeout(), Some(first + EVERY));
        conversation.hear_of_roster();
        let errand = conversation.poll_errand(true, first);
        assert_eq!(errand, Some(Errand::AskRoster));
        conversation.answered();
        assert_eq!(conversation.poll_errand(true, first), None, "asked already");
        conversation.hear_of_roster();
        let errand = conversation.poll_errand(false, first);
        assert_eq!(errand, None, "another controller had it meanwhile");
    }

    #[test]
    fn what_changes_while_an_answer_is_awaited_is_told_after_it() {
        let mut conversation = connected();
        conversation.endpoints_changed();
        assert_eq!(conversation.poll_errand(true, at(0)), Some(Errand::Report));
        conversation.endpoints_changed();
        conversation.hear_of_roster();
        assert_eq!(conversation.poll_errand(true, at(0)), None);
        conversation.answered();
        assert_eq!(conversation.poll_errand(true, at(0)), Some(Errand::Report));
        conversation.answered();
        let errand = conversation.poll_errand(true, at(0));
        assert_eq!(errand, Some(Errand::AskRoster));
    }

    #[test]
    fn what_was_under_way_is_forgotten_with_the_connection() {
        let mut conversation = connected();
        conversation.endpoints_changed();
        conversation.poll_errand(false, at(0));
        conversation.ended(false, at(5));
        conversation.answered();
        conversation.hear_of_roster();
        assert_eq!(conversation.poll_errand(true, at(5)), None);
        let until = conversation.poll_timeout().unwrap();
        assert_eq!(conversation.poll_errand(true, until), Some(Errand::Connect));
    }
}
