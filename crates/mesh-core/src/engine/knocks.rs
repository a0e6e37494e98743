//! What a moon sends to its clients' addresses because they asked for it inside their sessions: one small
//! datagram each, to see what their NATs let in, and for how long.

use std::{net::SocketAddr, time::Duration};

use mesh_types::Instant;
use mesh_wire::{
    reflect::emit_knock,
    tunnel::{KnockOutcome, TunnelMessage},
};

use super::{Context, Event, peer::Peer};
use crate::{Granted, Now, Remote, Via, link::Sent};

/// Knocks of one client that wait, and how many more it may ask for at once and later: a look at its network
/// takes eight, a measurement one in half a minute.
const WAITING_MAX: usize = 8;
const BURST: u32 = 16;
const INTERVAL: Duration = Duration::from_secs(5);

/// The latest that a knock may be asked for: what a NAT should hold (RFC 4787 section 4.3).
const AFTER_MAX: Duration = Duration::from_secs(300);

/// What one client asked for.
#[derive(Debug, Default)]
pub(super) struct Knocks {
    waiting: Vec<Knock>,
    /// The one at the client's own address, which each request for a token replaces.
    own: Option<Knock>,
    spent: u32,
    paid_until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Knock {
    at: Instant,
    to: SocketAddr,
    id: u64,
    from_other_port: bool,
}

impl Knocks {
    pub(super) fn due(&self) -> Option<Instant> {
        let all = self.waiting.iter().chain(&self.own);
        all.map(|knock| knock.at).min()
    }

    fn take(&mut self, knock: Knock, now: Instant) -> KnockOutcome {
        let paid = now.saturating_since(self.paid_until).as_secs() / INTERVAL.as_secs();
        if paid > 0 {
            self.spent = self
                .spent
                .saturating_sub(u32::try_from(paid).unwrap_or(u32::MAX));
            self.paid_until = now;
        }
        self.waiting.retain(|waiting| waiting.id != knock.id);
        if self.waiting.len() >= WAITING_MAX || self.spent >= BURST {
            return KnockOutcome::TooMany;
        }
        self.spent += 1;
        self.waiting.push(knock);
        KnockOutcome::Agreed
    }
}

impl Peer {
    /// Takes a request for a knock, if the address is one where the client has shown to be.
    pub(super) fn answer_knock_request(
        &mut self,
        (id, after_seconds, from_other_port): (u64, u16, bool),
        (to, proof): (SocketAddr, u64),
        via: Via,
        context: &mut Context,
        now: Now,
    ) {
        let is_shown = context
            .relay_server
            .as_ref()
            .is_some_and(|server| server.is_shown(&self.key(), to.ip(), proof, now.instant));
        let has_port = !from_other_port || context.other_port.is_some();
        let outcome = match (is_shown, has_port) {
            (false, _) => KnockOutcome::NotShown,
            // The answer says that there is no such port.
            (true, false) => KnockOutcome::Agreed,
            (true, true) => {
                let after = Duration::from_secs(after_seconds.into()).min(AFTER_MAX);
                let knock = Knock {
                    at: now.instant + after,
                    to,
                    id,
                    from_other_port,
                };
                self.knocks.take(knock, now.instant)
            }
        };
        let answer = TunnelMessage::KnockAnswer {
            id,
            outcome,
            other_port: context.other_port.filter(|_| is_shown),
        };
        self.say_via(answer, via, Sent::Quiet, context, now);
    }

    /// Knocks at the client's own address, with its token, if it asked for that along with it.
    pub(super) fn knock_at_home(
        &mut self,
        granted: &Granted,
        after_seconds: u16,
        via: Via,
        now: Instant,
    ) {
        let wanted = after_seconds > 0 && granted.proven;
        self.knocks.own = via.udp().filter(|_| wanted).map(|to| Knock {
            at: now + Duration::from_secs(after_seconds.into()).min(AFTER_MAX),
            to,
            id: granted.token,
            from_other_port: false,
        });
    }

    /// Knocks where that is due.
    pub(super) fn run_knocks(&mut self, context: &mut Context, now: Instant) {
        if self.knocks.due().is_none_or(|at| now < at) {
            return;
        }
        let Knocks { waiting, own, .. } = &mut self.knocks;
        let due: Vec<Knock> = waiting
            .extract_if(.., |knock| knock.at <= now)
            .chain(own.take_if(|knock| knock.at <= now))
            .collect();
        if context.relay_server.is_none() {
            return;
        }
        for knock in due {
            let data = emit_knock(knock.id);
            if knock.from_other_port {
                context
                    .output
                    .event(Event::KnockFromOtherPort { to: knock.to, data });
            } else {
                context
                    .output
                    .transmit(Remote::Udp(knock.to), data.to_vec());
            }
        }
    }
}
