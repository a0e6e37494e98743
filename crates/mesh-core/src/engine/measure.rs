//! How it is measured for how long this machine's NATs hold a mapping ([`crate::hold`]): with a socket of its
//! own, that nobody depends on.
//!
//! ```text
//!   the socket            moon               session
//!     │ reflect request     │                   │
//!     ├────────────────────>│                   │
//!     │          reflection │                   │
//!     │<────────────────────┤                   │
//!     │ 3 s later once more │  endpoint, proof  │
//!     │<───────────────────>│                   │
//!     │                     │  knock request    │
//!     │                     │<──────────────────┤
//!     ┆ silence             │                   │
//!     │               knock │                   │
//!     │<────────────────────┤                   │
//! ```

use std::{net::SocketAddr, time::Duration};

use mesh_types::Instant;
use mesh_wire::{
    reflect::{Heard, ReflectRequest},
    tunnel::{KnockOutcome, TunnelMessage},
};
use rand::RngCore;

use super::{Context, Engine, Event, PeerId, peer::Peer};
use crate::{Now, hold::Hold, link::Sent};

/// Between the two exchanges: Linux holds a mapping for 30 s until there was an answer and two seconds have
/// passed, and for 120 s from the next packet on.
const WARMING: Duration = Duration::from_secs(3);

/// What is not answered is sent again after this, so often.
const REPEAT: Duration = Duration::from_secs(1);
const TRIES_MAX: u32 = 3;

/// A knock may be so late.
const LATE: Duration = Duration::from_secs(3);

/// What is known of this machine's NATs, for each family.
#[derive(Debug)]
pub(super) struct Holds {
    v4: Hold,
    v6: Hold,
    measuring: Option<Measuring>,
}

/// A measurement under way.
#[derive(Debug)]
struct Measuring {
    moon: PeerId,
    ipv6: bool,
    silence: Duration,
    /// Where the moon is, and the token there.
    to: SocketAddr,
    token: u64,
    /// Of what is waited for.
    id: u64,
    step: Step,
    tries: u32,
    due: Instant,
}

#[derive(Debug)]
enum Step {
    /// The socket's first exchange.
    Opening,
    /// Between the exchanges.
    Warming,
    /// The second exchange.
    Reflecting,
    /// The moon is asked to knock.
    Asking { seen_at: SocketAddr, proof: u64 },
    /// It agreed, at that time.
    Silent(Instant),
}

impl Holds {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            v4: Hold::new(now),
            v6: Hold::new(now),
            measuring: None,
        }
    }

    pub(super) const fn of(&self, ipv6: bool) -> &Hold {
        if ipv6 { &self.v6 } else { &self.v4 }
    }

    pub(super) const fn of_mut(&mut self, ipv6: bool) -> &mut Hold {
        if ipv6 { &mut self.v6 } else { &mut self.v4 }
    }

    /// When the measurement with this moon goes on.
    pub(super) fn due(&self, moon: &PeerId) -> Option<Instant> {
        let measuring = self.measuring.as_ref();
        measuring
            .filter(|measuring| measuring.moon == *moon)
            .map(|measuring| measuring.due)
    }
}

impl Context {
    /// Another network: what was found of the one before does not count.
    pub(super) fn forget_holds(&mut self, now: Instant) {
        self.end_measuring(None);
        self.holds = Holds::new(now);
    }

    /// The socket is wanted for something else.
    pub(super) fn put_off_measuring(&mut self, now: Instant) {
        if let Some(measuring) = self.holds.measuring.take() {
            self.holds.of_mut(measuring.ipv6).put_off(now);
        }
    }

    /// Ends the measurement under way, if it is with this moon or whoever's.
    pub(super) fn end_measuring(&mut self, moon: Option<&PeerId>) {
        let measuring = &mut self.holds.measuring;
        let ended = measuring.take_if(|measuring| moon.is_none_or(|moon| measuring.moon == *moon));
        if ended.is_some() {
            self.output.event(Event::Measured);
        }
    }
}

impl Engine {
    /// Takes a datagram that came to the socket of [`Event::Measure`].
    pub fn handle_measured(&mut self, from: SocketAddr, datagram: &[u8], now: Now) {
        let Some(heard) = Heard::parse(datagram) else {
            return;
        };
        if let (Heard::Reflection(reflection), true) =
            (heard, self.context.foretelling.is_under_way())
        {
            return self.handle_sample(from, reflection, now);
        }
        let measuring = self.context.holds.measuring.as_ref();
        if let Some(Measuring { moon, .. }) = measuring.filter(|measuring| measuring.to == from) {
            let moon = *moon;
            self.with_peer(&moon, now, |peer, context| {
                peer.go_on_measuring(heard, context, now);
            });
        }
    }
}

impl Peer {
    /// Begins to measure, if it is time and nobody else is: the moon has just answered.
    pub(super) fn begin_measuring(&mut self, token: u64, context: &mut Context, now: Instant) {
        let moon = *self.link.peer.as_bytes();
        if context.holds.measuring.is_some() || context.foretelling.is_under_way() {
            return;
        }
        let due = [false, true].into_iter().find_map(|ipv6| {
            let silence = context.holds.of(ipv6).due(now)?;
            let to = self.paths.best_of_family(ipv6)?.udp()?;
            let seen = context.moons.is_seen_by(&moon, ipv6);
            seen.then_some((ipv6, silence, to))
        });
        if let Some((ipv6, silence, to)) = due {
            context.holds.measuring = Some(Measuring {
                moon,
                ipv6,
                silence,
                to,
                token,
                id: 0,
                step: Step::Opening,
                tries: 0,
                due: now,
            });
        }
    }

    /// Does what is due of a measurement with this moon.
    pub(super) fn run_measuring(&mut self, context: &mut Context, now: Now) {
        let own = *self.link.peer.as_bytes();
        let due = context.holds.due(&own);
        let Some(mut measuring) = context
            .holds
            .measuring
            .take_if(|_| due.is_some_and(|due| due <= now.instant))
        else {
            return;
        };
        let tried = measuring.tries >= TRIES_MAX;
        match measuring.step {
            Step::Silent(_) => {
                context.holds.of_mut(measuring.ipv6).missed(now.instant);
                return context.output.event(Event::Measured);
            }
            Step::Opening | Step::Reflecting | Step::Asking { .. } if tried => {
                context.holds.of_mut(measuring.ipv6).failed(now.instant);
                return context.output.event(Event::Measured);
            }
            Step::Opening | Step::Reflecting => measuring.reflect(context),
            Step::Warming => {
                measuring.step = Step::Reflecting;
                measuring.reflect(context);
            }
            Step::Asking { seen_at, proof } => {
                let after = measuring.silence.as_secs();
                let request = TunnelMessage::KnockRequest {
                    id: measuring.id,
                    after_seconds: u16::try_from(after).unwrap_or(u16::MAX),
                    from_other_port: false,
                    to: seen_at,
                    proof,
                };
                self.say(request, Sent::Probe, context, now);
            }
        }
        measuring.tries += 1;
        measuring.due = now.instant + REPEAT;
        context.holds.measuring = Some(measuring);
    }

    /// Something came to the socket.
    fn go_on_measuring(&mut self, heard: Heard, context: &mut Context, now: Now) {
        let Some(measuring) = &mut context.holds.measuring else {
            return;
        };
        match (&measuring.step, heard) {
            (Step::Opening, Heard::Reflection(reflection)) if reflection.id == measuring.id => {
                measuring.step = Step::Warming;
                measuring.tries = 0;
                measuring.due = now.instant + WARMING;
            }
            (Step::Reflecting, Heard::Reflection(reflection)) if reflection.id == measuring.id => {
                measuring.step = Step::Asking {
                    seen_at: reflection.observed,
                    proof: reflection.proof,
                };
                measuring.id = context.rng.next_u64();
                measuring.tries = 0;
                // Its timers run at the end of this call.
                measuring.due = now.instant;
            }
            (Step::Silent(since), Heard::Knock(id)) if id == measuring.id => {
                let hold = match measuring.ipv6 {
                    true => &mut context.holds.v6,
                    false => &mut context.holds.v4,
                };
                // The moon's clock may differ a little, but one that knocks early tells nothing.
                if now.instant.saturating_since(*since) + REPEAT >= measuring.silence {
                    hold.held(now.instant);
                } else {
                    hold.failed(now.instant);
                }
                context.end_measuring(None);
            }
            (
                Step::Opening
                | Step::Warming
                | Step::Reflecting
                | Step::Asking { .. }
                | Step::Silent(_),
                Heard::Reflection(_) | Heard::Knock(_),
            ) => {}
        }
    }

    /// The moon says whether it will knock.
    pub(super) fn take_knock_answer(
        &mut self,
        id: u64,
        outcome: KnockOutcome,
        other_port: Option<u16>,
        context: &mut Context,
        now: Instant,
    ) {
        let own = *self.link.peer.as_bytes();
        let measuring = context.holds.measuring.as_mut();
        match measuring.filter(|measuring| measuring.moon == own && measuring.id == id) {
            Some(measuring) => match (&measuring.step, outcome) {
                (Step::Asking { .. }, KnockOutcome::Agreed) => {
                    measuring.step = Step::Silent(now);
                    measuring.due = now + measuring.silence + LATE;
                }
                (
                    Step::Asking { .. },
                    KnockOutcome::NotShown | KnockOutcome::TooMany | KnockOutcome::Other(_),
                ) => {
                    let ipv6 = measuring.ipv6;
                    context.holds.of_mut(ipv6).failed(now);
                    context.end_measuring(None);
                }
                (
                    Step::Opening | Step::Warming | Step::Reflecting | Step::Silent(_),
                    KnockOutcome::Agreed
                    | KnockOutcome::NotShown
                    | KnockOutcome::TooMany
                    | KnockOutcome::Other(_),
                ) => {}
            },
            None if self.client.is_some() => context.output.event(Event::KnockAnswered {
                peer: self.key(),
                id,
                agreed: outcome == KnockOutcome::Agreed,
                other_port,
            }),
            None => {}
        }
    }
}

impl Measuring {
    fn reflect(&mut self, context: &mut Context) {
        let fresh = matches!(self.step, Step::Opening) && self.tries == 0;
        self.id = context.rng.next_u64();
        let request = ReflectRequest {
            token: self.token,
            id: self.id,
        };
        context.output.event(Event::Measure {
            to: self.to,
            data: request.emit(),
            fresh,
        });
    }
}
