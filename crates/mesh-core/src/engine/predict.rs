//! The engine's side of foretelling ports ([`Paths::run_predict`](crate::paths::Paths::run_predict)): moons are asked
//! where they see a fresh socket, forecasts are exchanged inside the session, and sweeps are sent.
//!
//! The socket is that of measurements. One of those that is under way is put off: it takes minutes, and a forecast
//! is wanted now.

use std::net::SocketAddr;

use mesh_wire::{
    reflect::{ReflectRequest, Reflection},
    tunnel::TunnelMessage,
};
use rand::RngCore;

use super::{Context, Engine, Event, PeerId, peer::Peer};
use crate::{
    Now, Via,
    link::Sent,
    paths::{Forecast, Part, Step},
};

/// One attempt at a time, for whichever peer: two would take each other's ports.
#[derive(Debug, Default)]
pub(super) struct Foretelling {
    peer: Option<PeerId>,
    sample: Sample,
}

/// What two moons say of a fresh socket.
#[derive(Debug, Default)]
enum Sample {
    /// Nobody is asked.
    #[default]
    None,
    /// Moons are to be found.
    Wanted,
    /// These are asked, in this order.
    Asked([Asked; 2]),
}

/// A moon, the question, and what it answered.
#[derive(Clone, Copy, Debug)]
struct Asked {
    to: SocketAddr,
    request: ReflectRequest,
    seen: Option<SocketAddr>,
}

impl Foretelling {
    /// Takes the turn for a peer, if nobody has it.
    fn begin(&mut self, peer: PeerId) -> bool {
        let free = self.peer.is_none();
        if free {
            self.peer = Some(peer);
            self.sample = Sample::Wanted;
        }
        free
    }

    pub(super) const fn is_under_way(&self) -> bool {
        self.peer.is_some()
    }

    /// Whose attempt waits for moons to be asked.
    fn wanted(&self) -> Option<PeerId> {
        self.peer.filter(|_| matches!(self.sample, Sample::Wanted))
    }

    /// A moon answers; what both said, if this was the last answer.
    fn hear(&mut self, from: SocketAddr, heard: Reflection) -> Option<(SocketAddr, SocketAddr)> {
        let Sample::Asked(asked) = &mut self.sample else {
            return None;
        };
        for moon in asked.iter_mut() {
            if (moon.to, moon.request.id) == (from, heard.id) {
                moon.seen = Some(heard.observed);
            }
        }
        let [first, second] = asked;
        Some((first.seen?, second.seen?))
    }
}

impl Context {
    /// Asks those again that have not answered.
    fn repeat_sample(&mut self) {
        if let Sample::Asked(asked) = &self.foretelling.sample {
            for Asked { to, request, .. } in asked.iter().filter(|moon| moon.seen.is_none()) {
                let (to, data) = (*to, request.emit());
                let fresh = false;
                self.output.event(Event::Measure { to, data, fresh });
            }
        }
    }

    /// The socket is not needed any more.
    fn end_sample(&mut self) {
        if let Sample::Asked(_) = std::mem::take(&mut self.foretelling.sample) {
            self.output.event(Event::Measured);
        }
    }

    /// Ends the turn of this peer, if it has it.
    pub(super) fn end_foretelling(&mut self, peer: &PeerId) {
        if self.foretelling.peer == Some(*peer) {
            self.end_sample();
            self.foretelling.peer = None;
        }
    }
}

impl Engine {
    /// Asks two moons where they see a fresh socket, if somebody wants to know.
    pub(super) fn run_foretelling(&mut self, now: Now) {
        let Some(peer) = self.context.foretelling.wanted() else {
            return;
        };
        let mut moons: Vec<_> = self
            .peers
            .values()
            .filter_map(|moon| {
                let client = moon.client.as_ref().filter(|client| client.reflects())?;
                let token = client.token()?;
                let to = moon.paths.best_of_family(false).and_then(Via::udp)?;
                let seen = self
                    .context
                    .moons
                    .is_seen_by(moon.link.peer.as_bytes(), false);
                seen.then_some((moon.rtt.is_none(), moon.rtt, to, token))
            })
            .collect();
        moons.sort_unstable();
        let [(.., first, first_token), (.., second, second_token), ..] = moons.as_slice() else {
            self.context.foretelling.sample = Sample::None;
            self.tell_sample(&peer, None, now);
            return;
        };
        self.context.put_off_measuring(now.instant);
        let mut ask = |to: SocketAddr, token: u64, fresh: bool| {
            let id = self.context.rng.next_u64();
            let request = ReflectRequest { token, id };
            let data = request.emit();
            let event = Event::Measure { to, data, fresh };
            self.context.output.event(event);
            let seen = None;
            Asked { to, request, seen }
        };
        let asked = [
            ask(*first, *first_token, true),
            ask(*second, *second_token, false),
        ];
        self.context.foretelling.sample = Sample::Asked(asked);
    }

    /// Takes an answer to it.
    pub(super) fn handle_sample(&mut self, from: SocketAddr, heard: Reflection, now: Now) {
        let seen = self.context.foretelling.hear(from, heard);
        let (Some(seen), Some(peer)) = (seen, self.context.foretelling.peer) else {
            return;
        };
        self.context.end_sample();
        self.tell_sample(&peer, Some(seen), now);
    }

    fn tell_sample(&mut self, peer: &PeerId, seen: Option<(SocketAddr, SocketAddr)>, now: Now) {
        self.with_peer(peer, now, |peer, context| {
            let id = context.rng.next_u64();
            let steps = peer.paths.measured(seen, id, now.instant);
            peer.take_steps(steps, context, now);
        });
    }
}

impl Peer {
    /// Does what is due of foretelling this peer's ports.
    pub(super) fn run_predict(&mut self, context: &mut Context, now: Now) {
        let part = match context.keys.public < *self.link.peer.as_bytes() {
            true => Part::Few,
            false => Part::Many,
        };
        let facts = self.facts(now.instant);
        let own = || context.own_side();
        let step = self.paths.run_predict(part, own, &facts, now.instant);
        self.take_steps(step, context, now);
        if !self.paths.is_foretelling() {
            context.end_foretelling(self.link.peer.as_bytes());
        }
    }

    /// The peer tells what its NAT does next.
    pub(super) fn hear_forecast(
        &mut self,
        (id, asks): (u64, bool),
        (next, stride): (Option<SocketAddr>, i8),
        context: &mut Context,
        now: Now,
    ) {
        // Who begins is settled by the keys.
        if asks == (context.keys.public < *self.link.peer.as_bytes()) {
            return;
        }
        let next = next.filter(|next| !context.forwarding.is_inside((*next).into()));
        let theirs = next.and_then(|next| Forecast::told(next, stride));
        let facts = self.facts(now.instant);
        let step = self
            .paths
            .hear_forecast((id, asks), theirs, &facts, now.instant);
        self.take_steps(step, context, now);
    }

    fn take_steps(
        &mut self,
        steps: impl IntoIterator<Item = Step>,
        context: &mut Context,
        now: Now,
    ) {
        for step in steps {
            match step {
                Step::Measure => {
                    if !context.foretelling.begin(*self.link.peer.as_bytes()) {
                        self.paths.put_off_predict(now.instant);
                    }
                }
                Step::Repeat => context.repeat_sample(),
                Step::Tell {
                    id,
                    tell_yours,
                    forecast,
                } => {
                    let forecast = TunnelMessage::Forecast {
                        id,
                        tell_yours,
                        stride: forecast.map_or(0, |forecast| forecast.stride),
                        next: forecast.map(|forecast| forecast.next),
                    };
                    self.say(forecast, Sent::Probe, context, now);
                }
                Step::Sweep { targets, openers } => {
                    let kind = match openers {
                        true => Sent::Opener,
                        false => Sent::Probe,
                    };
                    for target in targets {
                        self.probe_way_with(target.into(), kind, context, now);
                    }
                }
            }
        }
    }
}
