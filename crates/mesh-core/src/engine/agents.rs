use std::time::Duration;

use mesh_types::Instant;
use mesh_wire::tunnel::{self, RelayRefused, TunnelMessage};
use rand::RngCore;

use super::{Context, Event, peer::Peer};
use crate::{
    Now, Via,
    allowance::{Allowance, Limit},
    link::Sent,
    paths::Origin,
};

/// Probes of one peer under way that the owner asked for; further ones are refused until some are answered
/// or expire.
const PROBES_MAX: usize = 16;

/// Probes of ways under way; beyond it the oldest are forgotten.
const WAY_PROBES_MAX: usize = 256;

/// An echo that has not been answered for so long will not be.
const PROBE_LIFETIME: Duration = Duration::from_secs(20);

/// How often is looked for those: timers run far more often.
const PROBES_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// A difference of clocks over this is told: certificates, logs and builds begin to suffer.
const CLOCK_DIFFERENCE_MILLIS: i64 = 60_000;

/// How often one peer's clock is told of, however often it changes.
const CLOCK_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Epoch notices of one peer that are told of. An honest peer sends one with each session and each roster; one that
/// floods must not crowd out what others say.
const NOTICES: Limit = Limit {
    at_once: 10,
    every: Duration::from_secs(1),
};

/// Words of one peer on where it is that are acted on. An honest peer sends one with each session, each change of
/// network and each time it is asked, and again where no straight way was found.
const CANDIDATES: Limit = Limit {
    at_once: 16,
    every: Duration::from_millis(250),
};

/// How much of what a peer says was told of.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The difference of clocks that was last told, and when.
    clock_millis: i64,
    clock_told: Option<Instant>,
    notices: Allowance,
    candidates: Allowance,
}

/// An echo request that waits for its answer.
pub(super) struct Probe {
    /// Whether the engine's owner asked for it, or the path agent did.
    asked: bool,
    /// The way that it went.
    via: Option<Via>,
    /// How many bytes it has, if that is what it asks about.
    size: Option<u16>,
    pub(super) created: Instant,
    /// When it was sent; `None` while it waits for a session.
    sent: Option<Instant>,
}

impl Probe {
    pub(super) const fn of_way(via: Via, now: Instant) -> Self {
        Self {
            asked: false,
            via: Some(via),
            size: None,
            created: now,
            sent: Some(now),
        }
    }

    pub(super) const fn of_size(via: Via, size: u16, now: Instant) -> Self {
        Self {
            size: Some(size),
            ..Self::of_way(via, now)
        }
    }
}

impl Peer {
    pub(super) fn remember_probe(&mut self, id: u64, probe: Probe) {
        if self.probes.len() >= WAY_PROBES_MAX {
            let oldest = self
                .probes
                .iter()
                .filter(|(_, probe)| !probe.asked)
                .min_by_key(|(_, probe)| probe.created)
                .map(|(id, _)| *id);
            oldest.and_then(|id| self.probes.remove(&id));
        }
        self.probes.insert(id, probe);
    }

    pub(super) fn probe(&mut self, context: &mut Context, now: Now) -> Option<u64> {
        self.forget_old_probes(now.instant);
        let asked = self.probes.values().filter(|probe| probe.asked).count();
        if !self.speaks_mesh() || asked >= PROBES_MAX {
            return None;
        }
        let id = context.rng.next_u64();
        let probe = Probe {
            asked: true,
            via: None,
            size: None,
            created: now.instant,
            sent: None,
        };
        self.probes.insert(id, probe);
        if !self.send_echo(id, context, now) {
            self.want(now.instant);
        }
        Some(id)
    }

    /// Sends the probes that waited for a session. True if there was one.
    pub(super) fn send_waiting_probes(&mut self, context: &mut Context, now: Now) -> bool {
        let waiting: Vec<u64> = self
            .probes
            .iter()
            .filter(|(_, probe)| probe.sent.is_none())
            .map(|(id, _)| *id)
            .collect();
        let mut sent = false;
        for id in waiting {
            sent |= self.send_echo(id, context, now);
        }
        sent
    }

    pub(super) fn send_epoch_notice(
        &mut self,
        serial: u64,
        head_hash: [u8; 32],
        context: &mut Context,
        now: Now,
    ) {
        if self.speaks_mesh() {
            let notice = TunnelMessage::EpochNotice { serial, head_hash };
            self.say(notice, Sent::Quiet, context, now);
        }
    }

    pub(super) fn handle_agent_packet(
        &mut self,
        via: Via,
        packet: &[u8],
        context: &mut Context,
        now: Now,
    ) {
        // A session's first packet may be this one; the answer goes out on that session.
        self.promote_next(context, now);
        let Ok(message) = tunnel::parse(packet, context.agent_address) else {
            return;
        };
        match message {
            // An answer would prove the way to a peer that does not know yet that it is barred.
            TunnelMessage::EchoRequest { .. } if self.paths.bars(via) => {}
            TunnelMessage::EchoRequest { id, wall_millis } => {
                let reply = TunnelMessage::EchoReply {
                    id,
                    wall_millis: now.wall.as_millis(),
                    observed: via.udp(),
                };
                // By the way that the request came: this proves it in both directions.
                self.say_via(reply, via, Sent::Quiet, context, now);
                self.compare_clocks(wall_millis, context, now);
            }
            TunnelMessage::EchoReply {
                id,
                wall_millis,
                observed,
            } => {
                self.note_observed(observed, context, now.instant);
                self.handle_echo_reply(id, context, now);
                self.compare_clocks(wall_millis, context, now);
            }
            TunnelMessage::EpochNotice { serial, head_hash } => {
                if !self.heard.notices.takes(NOTICES, now.instant) {
                    return;
                }
                context.output.event(Event::EpochNotice {
                    peer: self.key(),
                    serial,
                    head_hash,
                });
            }
            TunnelMessage::Candidates {
                tell_yours,
                endpoints,
            } => {
                if self.heard.candidates.takes(CANDIDATES, now.instant) {
                    self.hear_candidates(tell_yours, endpoints, context, now);
                }
            }
            TunnelMessage::RelayRequest {
                id,
                renew_seconds,
                knock_seconds,
            } => {
                let seconds = (renew_seconds, knock_seconds);
                self.answer_relay_request(id, seconds, via, context, now);
            }
            TunnelMessage::AskAgain => self.hear_ask_again(now.instant),
            TunnelMessage::Moons { keys } => self.hear_moons(&keys, context, now.instant),
            TunnelMessage::Forecast {
                id,
                tell_yours,
                stride,
                next,
            } => self.hear_forecast((id, tell_yours), (next, stride), context, now),
            TunnelMessage::RelayGrant {
                id,
                token,
                observed,
                lasts_seconds,
            } => {
                let lasts = Duration::from_secs(lasts_seconds.into());
                self.take_grant((id, token, lasts), observed, via, context, now.instant);
            }
            TunnelMessage::KnockRequest {
                id,
                after_seconds,
                from_other_port,
                to,
                proof,
            } => {
                let asked = (id, after_seconds, from_other_port);
                self.answer_knock_request(asked, (to, proof), via, context, now);
            }
            TunnelMessage::KnockAnswer {
                id,
                outcome,
                other_port,
            } => self.take_knock_answer(id, outcome, other_port, context, now.instant),
            TunnelMessage::RelayRefusal { id, reason } => {
                self.take_refusal(id, reason, context, now.instant);
            }
        }
    }

    fn handle_echo_reply(&mut self, id: u64, context: &mut Context, now: Now) {
        let Some(sent) = self.probes.get(&id).and_then(|probe| probe.sent) else {
            return;
        };
        let rtt = now.instant.saturating_since(sent);
        let Some(probe) = self.probes.remove(&id) else {
            return;
        };
        // A large one takes longer than others, and says nothing but that it fits.
        if let (Some(size), Some(via)) = (probe.size, probe.via) {
            self.paths.size_answered(via, size, sent);
            return;
        }
        self.rtt = Some(rtt);
        if let Some(via) = probe.via {
            self.note_moon_rtt(via, rtt, context, now.instant);
            if via.udp().is_some_and(|at| self.paths.is_swept(at)) {
                self.paths.learn(via, Origin::Heard, now.instant);
            }
            let facts = self.facts(now.instant);
            if self.paths.answered(via, rtt, &facts, now.instant) {
                self.refresh_way(context);
            }
        }
        if let (true, Some(via)) = (probe.asked, self.link.via()) {
            context.output.event(Event::ProbeReply {
                peer: self.key(),
                id,
                rtt_micros: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
                via,
            });
        }
    }

    /// Notes the peer's clock, which it read half a round trip ago.
    fn compare_clocks(&mut self, wall_millis: u64, context: &mut Context, now: Now) {
        let millis = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        let on_the_way = self
            .rtt
            .map_or(0, |rtt| i64::try_from(rtt.as_millis() / 2).unwrap_or(0));
        let ahead_millis = millis(wall_millis)
            .saturating_add(on_the_way)
            .saturating_sub(millis(now.wall.as_millis()));
        self.clock_ahead_millis = Some(ahead_millis);
        let changed =
            ahead_millis.abs_diff(self.heard.clock_millis) > CLOCK_DIFFERENCE_MILLIS.unsigned_abs();
        let lately = self
            .heard
            .clock_told
            .is_some_and(|told| now.instant.saturating_since(told) < CLOCK_TOLD_EVERY);
        if !changed || lately {
            return;
        }
        self.heard.clock_millis = ahead_millis;
        self.heard.clock_told = Some(now.instant);
        // A difference that went away is to be seen in the view; only one that is there is told.
        if ahead_millis.abs() > CLOCK_DIFFERENCE_MILLIS {
            context.output.event(Event::ClockDiffers {
                peer: self.key(),
                ahead_millis,
            });
        }
    }

    /// Lets go of probes that will not be answered any more.
    pub(super) fn forget_old_probes(&mut self, now: Instant) {
        if now.saturating_since(self.probes_looked_at) < PROBES_LOOKED_AT_EVERY {
            return;
        }
        self.probes_looked_at = now;
        self.probes
            .retain(|_, probe| now.saturating_since(probe.created) < PROBE_LIFETIME);
    }

    fn send_echo(&mut self, id: u64, context: &mut Context, now: Now) -> bool {
        let request = TunnelMessage::EchoRequest {
            id,
            wall_millis: now.wall.as_millis(),
        };
        let sent = self.say(request, Sent::Data, context, now);
        if sent && let Some(probe) = self.probes.get_mut(&id) {
            probe.sent = Some(now.instant);
            probe.via = self.link.via();
        }
        sent
    }

    pub(super) fn say(
        &mut self,
        message: TunnelMessage,
        kind: Sent,
        context: &mut Context,
        now: Now,
    ) -> bool {
        let packet = tunnel::emit(message, context.agent_address);
        self.transmit(&packet, kind, context, now)
    }

    /// Says it by a way of its own; false if that is not open, or without a session.
    pub(super) fn say_via(
        &mut self,
        message: TunnelMessage,
        via: Via,
        kind: Sent,
        context: &mut Context,
        now: Now,
    ) -> bool {
        let Some(way) = self.resolve(via, context) else {
            return false;
        };
        let packet = tunnel::emit(message, context.agent_address);
        self.transmit_by(&way, &packet, kind, context, now)
    }

    /// Gives a token for the remote that the request came from, if this node relays for the peer.
    fn answer_relay_request(
        &mut self,
        id: u64,
        (renew_seconds, knock_seconds): (u16, u16),
        via: Via,
        context: &mut Context,
        now: Now,
    ) {
        let renew = Duration::from_secs(renew_seconds.into());
        let granted = match (&context.relay_server, via) {
            (Some(server), Via::Direct(from)) => {
                server.grant(&self.key(), from, id, renew, &mut context.rng, now.instant)
            }
            (None, _) | (_, Via::Relay(_)) => Err(RelayRefused::NoMoon),
        };
        let answer = match granted {
            Ok(granted) => {
                self.knock_at_home(&granted, knock_seconds, via, now.instant);
                TunnelMessage::RelayGrant {
                    id,
                    token: granted.token,
                    observed: via.udp(),
                    lasts_seconds: u16::try_from(granted.lasts.as_secs()).unwrap_or(u16::MAX),
                }
            }
            Err(reason) => TunnelMessage::RelayRefusal { id, reason },
        };
        self.say_via(answer, via, Sent::Quiet, context, now);
    }
}
