use mesh_types::Instant;
use mesh_wire::tunnel::{self, TunnelMessage};
use rand::RngCore;

use super::{Context, Event, peer::Peer};
use crate::{Now, link::Sent};

/// Probes of one peer under way; further ones are refused until some are answered or expire.
const PROBES_MAX: usize = 16;

/// A difference of clocks over this is told: certificates, logs and builds begin to suffer.
const CLOCK_DIFFERENCE_MILLIS: i64 = 60_000;

/// An echo request that waits for its answer.
pub(super) struct Probe {
    /// Whether the engine's owner asked for it, or liveness did.
    asked: bool,
    pub(super) created: Instant,
    /// When it was sent; `None` while it waits for a session.
    sent: Option<Instant>,
}

impl Peer {
    pub(super) fn probe(&mut self, context: &mut Context, now: Now) -> Option<u64> {
        if !self.speaks_mesh() || self.probes.len() >= PROBES_MAX {
            return None;
        }
        let id = context.rng.next_u64();
        let probe = Probe {
            asked: true,
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

    pub(super) fn send_liveness_echo(&mut self, context: &mut Context, now: Now) {
        if self.probes.len() >= PROBES_MAX {
            return;
        }
        let id = context.rng.next_u64();
        let probe = Probe {
            asked: false,
            created: now.instant,
            sent: None,
        };
        self.probes.insert(id, probe);
        self.send_echo(id, context, now);
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

    pub(super) fn handle_agent_packet(&mut self, packet: &[u8], context: &mut Context, now: Now) {
        // A session's first packet may be this one; the answer goes out on that session.
        self.promote_next(context, now);
        let Ok(message) = tunnel::parse(packet, context.agent_address) else {
            return;
        };
        match message {
            TunnelMessage::EchoRequest { id, wall_millis } => {
                let reply = TunnelMessage::EchoReply {
                    id,
                    wall_millis: now.wall.as_millis(),
                };
                self.say(reply, Sent::Quiet, context, now);
                self.compare_clocks(wall_millis, context, now);
            }
            TunnelMessage::EchoReply { id, wall_millis } => {
                self.handle_echo_reply(id, context, now);
                self.compare_clocks(wall_millis, context, now);
            }
            TunnelMessage::EpochNotice { serial, head_hash } => {
                context.output.event(Event::EpochNotice {
                    peer: self.key(),
                    serial,
                    head_hash,
                });
            }
        }
    }

    fn handle_echo_reply(&mut self, id: u64, context: &mut Context, now: Now) {
        let Some(sent) = self.probes.get(&id).and_then(|probe| probe.sent) else {
            return;
        };
        let rtt = now.instant.saturating_since(sent);
        self.rtt = Some(rtt);
        let asked = self.probes.remove(&id).is_some_and(|probe| probe.asked);
        if let (true, Some(endpoint)) = (asked, self.link.endpoint()) {
            context.output.event(Event::ProbeReply {
                peer: self.key(),
                id,
                rtt_micros: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
                endpoint,
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
            ahead_millis.abs_diff(self.clock_told_millis) > CLOCK_DIFFERENCE_MILLIS.unsigned_abs();
        if !changed {
            return;
        }
        self.clock_told_millis = ahead_millis;
        // A difference that went away is to be seen in the view; only one that is there is told.
        if ahead_millis.abs() > CLOCK_DIFFERENCE_MILLIS {
            context.output.event(Event::ClockDiffers {
                peer: self.key(),
                ahead_millis,
            });
        }
    }

    fn send_echo(&mut self, id: u64, context: &mut Context, now: Now) -> bool {
        let request = TunnelMessage::EchoRequest {
            id,
            wall_millis: now.wall.as_millis(),
        };
        let sent = self.say(request, Sent::Data, context, now);
        if sent && let Some(probe) = self.probes.get_mut(&id) {
            probe.sent = Some(now.instant);
        }
        sent
    }

    fn say(&mut self, message: TunnelMessage, kind: Sent, context: &mut Context, now: Now) -> bool {
        let packet = tunnel::emit(message, context.agent_address);
        self.transmit(&packet, kind, context, now)
    }
}
