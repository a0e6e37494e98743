use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_types::Instant;
use mesh_wire::wireguard::{
    CookieReply, INITIATION_BYTES, INITIATION_MACS_OFFSET, Initiation, Message, RESPONSE_BYTES,
    RESPONSE_MACS_OFFSET, Response,
};

use super::{CANDIDATES_MAX, Context, Engine, Event, peer::Peer};
use crate::{
    Now, Protocol, Refusal, StreamId, Via,
    cookie::{Admission, Cookie},
    link::Sent,
    noise::{Asked, Initiator, NO_PRESHARED_KEY, Responder, Secret, Start, TransportKeys},
    session::{MessageLimits, Session, SessionStart},
};

/// A peer's initiations that come sooner than this after one another are passed over: no honest peer
/// repeats so fast, and each costs us scalar multiplications.
const INITIATION_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// The most endpoints that one initiation is sent to.
const TARGETS_MAX: usize = 2 * CANDIDATES_MAX;

/// Our initiation that waits for a response.
pub(super) struct Attempt {
    initiator: Initiator,
    protocol: Protocol,
    index: u32,
    pub(super) message: [u8; INITIATION_BYTES],
    mac1: [u8; 16],
    sent: Instant,
    targets: Vec<Via>,
    /// It only follows a session that works, and goes by the way in use alone.
    routine: bool,
}

/// Our last response, while it may be asked for again.
pub(super) struct Responded {
    index: u32,
    message: [u8; RESPONSE_BYTES],
    mac1: [u8; 16],
    /// First MAC of the initiation that it answers.
    initiation: [u8; 16],
    /// Where it was sent.
    sent_to: Vec<Via>,
}

/// A response is sent to at most so many places. An initiation is fanned out to many endpoints, and the
/// copy that comes first may have come by a way that leads in one direction only.
const RESPONSE_PLACES_MAX: usize = 4;

impl Engine {
    /// Acts on any message but a transport message.
    pub(super) fn handle_handshake(
        &mut self,
        from: Via,
        datagram: &[u8],
        now: Now,
    ) -> Result<(), Refusal> {
        if self.context.forwarding.is_inside(from) {
            return Err(Refusal::Inside);
        }
        match Message::parse(datagram).map_err(|_| Refusal::Malformed)? {
            Message::Initiation(bytes) => self.handle_initiation(from, bytes, now),
            Message::Response(bytes) => {
                let keys = &self.context.receiver_keys;
                if !keys.verify(bytes, RESPONSE_MACS_OFFSET) {
                    return Err(Refusal::NotAuthentic);
                }
                let response = Response::parse(bytes);
                let id = *self
                    .context
                    .attempts
                    .get(&response.receiver)
                    .ok_or(Refusal::UnknownSession)?;
                self.with_peer(&id, now, |peer, context| {
                    peer.handle_response(from, &response, context, now)
                })
                .unwrap_or(Err(Refusal::UnknownPeer))
            }
            Message::CookieReply(bytes) => {
                self.handle_cookie_reply(&CookieReply::parse(bytes), now)
            }
            Message::Data(_) => Err(Refusal::Malformed),
        }
    }

    fn handle_initiation(
        &mut self,
        from: Via,
        bytes: &[u8; INITIATION_BYTES],
        now: Now,
    ) -> Result<(), Refusal> {
        let context = &mut self.context;
        if !context.receiver_keys.verify(bytes, INITIATION_MACS_OFFSET) {
            return Err(Refusal::NotAuthentic);
        }
        let message = Initiation::parse(bytes);
        let source = context.source(from).ok_or(Refusal::NotRelayed)?;
        match self
            .gate
            .admit(bytes, INITIATION_MACS_OFFSET, source, now.instant)
        {
            Admission::Welcome => {}
            Admission::CookieFirst => {
                let data = self.gate.reply(
                    &context.receiver_keys,
                    message.sender,
                    &message.mac1,
                    source,
                    now.instant,
                    &mut context.rng,
                );
                // Who asks through a moon is not known before its initiation is opened, so it cannot be
                // told of the cookie there; the moon keeps its clients in check.
                if let Via::Direct(remote) = from {
                    context.output.transmit(remote, data.to_vec());
                }
                return Err(Refusal::TooOften);
            }
            Admission::TooOften => return Err(Refusal::TooOften),
        }
        let (protocol, asked) = open_static(context, &message)?;
        let id = asked.peer_public;
        let peer = self.peers.get_mut(&id).ok_or(Refusal::UnknownPeer)?;
        if protocol == Protocol::MeshAes && !peer.speaks_mesh() {
            return Err(Refusal::UnknownPeer);
        }
        if peer.paths.bars(from) {
            return Err(Refusal::RelayOnly);
        }
        let responder = match peer.open_initiation(asked, &message, context, now) {
            Err(Refusal::Replayed) if peer.answers_again(&message) => {
                return peer.repeat_response(from, context);
            }
            other => other?,
        };
        self.with_peer(&id, now, |peer, context| {
            peer.respond(from, protocol, responder, &message, context, now)
        })
        .unwrap_or(Err(Refusal::UnknownPeer))
    }

    /// Takes a cookie that answers our last initiation or response. It must be sealed with the first
    /// MAC of that message, which only who saw it knows.
    fn handle_cookie_reply(&mut self, reply: &CookieReply, now: Now) -> Result<(), Refusal> {
        let index = reply.receiver;
        let id = self
            .context
            .owner_of(index)
            .ok_or(Refusal::UnknownSession)?;
        let peer = self.peers.get_mut(&id).ok_or(Refusal::UnknownPeer)?;
        let attempted = peer
            .attempt
            .as_ref()
            .map(|attempt| (attempt.index, attempt.mac1));
        let responded = peer.responded.as_ref().map(|last| (last.index, last.mac1));
        let mac1 = [attempted, responded]
            .into_iter()
            .flatten()
            .find_map(|(sent, mac1)| (sent == index).then_some(mac1))
            .ok_or(Refusal::UnknownSession)?;
        let cookie = peer
            .receiver_keys
            .open_cookie(reply, &mac1)
            .ok_or(Refusal::NotAuthentic)?;
        let known = peer.cookie.as_ref();
        let is_first = known.and_then(|known| known.fresh(now.instant)).is_none();
        peer.cookie = Some(Cookie::new(cookie, now.instant));
        // Whoever saw the message can answer it so: it is repeated at once for the first cookie in its lifetime alone.
        if is_first && attempted.is_some_and(|(sent, _)| sent == index) {
            self.with_peer(&id, now, |peer, _| peer.retry_now());
        }
        Ok(())
    }
}

/// Opens the initiator's static key as either protocol, with one scalar multiplication for both.
fn open_static(context: &Context, message: &Initiation) -> Result<(Protocol, Asked), Refusal> {
    let keys = &context.keys;
    let ephemeral_static = keys
        .agree(&message.ephemeral)
        .map_err(|_| Refusal::NotAuthentic)?;
    [Protocol::Wireguard, Protocol::MeshAes]
        .into_iter()
        .find_map(|protocol| {
            let asked = Asked::open(
                Start::from(protocol),
                &keys.public,
                &ephemeral_static,
                &message.ephemeral,
                &message.sealed_static,
            );
            Some((protocol, asked.ok()?))
        })
        .ok_or(Refusal::NotAuthentic)
}

impl Peer {
    /// Sends an initiation; false if it has to wait for stamps.
    ///
    /// The first attempt beside a working session goes to the proven endpoint alone, if a NAT cannot have forgotten it;
    /// every other one goes to all endpoints, and the first answer wins.
    pub(super) fn attempt(&mut self, attempts: u32, context: &mut Context, now: Now) -> bool {
        let selected = self.paths.selected();
        let proven = selected.filter(|_| attempts == 0 && !self.is_silent_moon(now.instant));
        let proven = proven.filter(|_| self.usable_session(now.instant).is_some());
        let proven = proven.filter(|_| !self.paths.is_stale());
        let mut targets = match proven {
            Some(via) => vec![via],
            None => self.paths.all().collect(),
        };
        if self.trial {
            targets.retain(|via| !via.is_relay());
        }
        if self.client.is_none() && !self.trial && self.is_wanted(now.instant) {
            context.moons.want(attempts > 0);
            if attempts > 1 {
                // Not by the moons either: UDP may have been lost since they were last asked. (Who starts at
                // the same time as this node answers the second.)
                context.moons.doubt();
            }
        }
        // Who had this node for a moon knows where that is, and asks by itself.
        let recalled = self.trial && !context.moons.choice.is_known(self.link.peer.as_bytes());
        if (targets.is_empty() || attempts > 0) && !self.paths.is_relay_only() && !recalled {
            context
                .output
                .event(Event::NeedEndpoints { peer: self.key() });
        }
        if targets.is_empty() {
            return true;
        }
        let routine = proven.is_some() && !self.is_silent(now.instant);
        self.initiate(targets, routine, context, now)
    }

    /// Sends an initiation to `targets`; false if it has to wait for stamps.
    pub(super) fn initiate(
        &mut self,
        targets: Vec<Via>,
        routine: bool,
        context: &mut Context,
        now: Now,
    ) -> bool {
        let Some(stamp) = context.take_stamp(now) else {
            return false;
        };
        self.drop_attempt(context);
        let Some(mut attempt) =
            self.make_attempt(&stamp.to_tai64n(), targets, context, now.instant)
        else {
            return true;
        };
        attempt.routine = routine;
        for to in &attempt.targets {
            self.send_message(*to, &attempt.message, context);
        }
        context
            .attempts
            .insert(attempt.index, *self.link.peer.as_bytes());
        self.attempt = Some(attempt);
        true
    }

    pub(super) fn drop_attempt(&mut self, context: &mut Context) {
        if let Some(attempt) = self.attempt.take() {
            context.attempts.remove(&attempt.index);
        }
    }

    /// Hears of endpoints. What is under way goes to the added ones at once, unchanged: a responder that
    /// gets it twice answers once.
    pub(super) fn set_candidates(
        &mut self,
        candidates: Vec<SocketAddr>,
        context: &mut Context,
        now: Now,
    ) {
        let added = self.learn_endpoints(candidates, now.instant);
        self.try_new_ways(added, context);
    }

    /// Hears of the streams that there are.
    pub(super) fn set_streams(&mut self, streams: &[StreamId], context: &mut Context, now: Now) {
        let added = self.paths.set_streams(streams, now.instant);
        self.refresh_way(context);
        if added && self.is_silent_moon(now.instant) {
            // That is what the stream was opened for: a handshake by it shows that it serves.
            self.begin(now.instant);
        }
        self.try_new_ways(added, context);
    }

    fn try_new_ways(&mut self, added: bool, context: &mut Context) {
        let Some(mut attempt) = self.attempt.take() else {
            // Only what is new brings an attempt forward, or a caller that answers every
            // `NeedEndpoints` at once would go round in a circle.
            if added {
                self.retry_now();
            }
            return;
        };
        // What is told during a routine handshake is probed, and no more.
        for via in self.paths.all().filter(|_| !attempt.routine) {
            if attempt.targets.len() < TARGETS_MAX && !attempt.targets.contains(&via) {
                attempt.targets.push(via);
                self.send_message(via, &attempt.message, context);
            }
        }
        self.attempt = Some(attempt);
    }

    /// Whether a handshake that is not answered yet was begun within the last `time`.
    pub(super) fn attempted_within(&self, time: Duration, now: Instant) -> bool {
        let attempt = self.attempt.as_ref();
        attempt.is_some_and(|attempt| now.saturating_since(attempt.sent) < time)
    }

    fn make_attempt(
        &mut self,
        stamp: &[u8; 12],
        targets: Vec<Via>,
        context: &mut Context,
        now: Instant,
    ) -> Option<Attempt> {
        let static_static = self.static_static(context)?;
        let ephemeral = context.ephemeral();
        let (initiator, sealed) = Initiator::start(
            Start::from(self.protocol),
            &context.keys.public,
            self.link.peer.as_bytes(),
            &static_static,
            ephemeral,
            stamp,
        )
        .ok()?;
        let index = context.free_index();
        let mut message = Initiation {
            sender: index,
            ephemeral: sealed.ephemeral,
            sealed_static: sealed.sealed_static.try_into().ok()?,
            sealed_stamp: sealed.sealed_payload.try_into().ok()?,
            mac1: [0; 16],
            mac2: [0; 16],
        }
        .emit();
        let cookie = self.cookie.as_ref().and_then(|cookie| cookie.fresh(now));
        let mac1 = self
            .receiver_keys
            .sign(&mut message, INITIATION_MACS_OFFSET, cookie);
        Some(Attempt {
            initiator,
            protocol: self.protocol,
            index,
            message,
            mac1,
            sent: now,
            targets,
            routine: false,
        })
    }

    /// Proves that the initiation is the peer's and newer than every one before it.
    fn open_initiation(
        &mut self,
        asked: Asked,
        message: &Initiation,
        context: &Context,
        now: Now,
    ) -> Result<Responder, Refusal> {
        let static_static = self.static_static(context).ok_or(Refusal::NotAuthentic)?;
        let (responder, stamp) = asked
            .open_payload(&static_static, &message.sealed_stamp)
            .map_err(|_| Refusal::NotAuthentic)?;
        let stamp: [u8; 12] = stamp.try_into().map_err(|_| Refusal::Malformed)?;
        if self.highest_stamp.is_some_and(|highest| stamp <= highest) {
            return Err(Refusal::Replayed);
        }
        let soon = |last: Instant| now.instant.saturating_since(last) < INITIATION_INTERVAL_MIN;
        if self.last_initiation.is_some_and(soon) {
            return Err(Refusal::TooOften);
        }
        self.highest_stamp = Some(stamp);
        self.last_initiation = Some(now.instant);
        Ok(responder)
    }

    fn respond(
        &mut self,
        from: Via,
        protocol: Protocol,
        responder: Responder,
        initiation: &Initiation,
        context: &mut Context,
        now: Now,
    ) -> Result<(), Refusal> {
        // A session that the peer has used by now is no unused one that this one takes the place of.
        self.promote_next(context, now);
        let ephemeral = context.ephemeral();
        let (keys, sealed_nothing) = responder
            .answer(&ephemeral, &NO_PRESHARED_KEY, &[])
            .map_err(|_| Refusal::NotAuthentic)?;
        let index = context.free_index();
        let mut message = Response {
            sender: index,
            receiver: initiation.sender,
            ephemeral: ephemeral.public,
            sealed_nothing: sealed_nothing.try_into().map_err(|_| Refusal::Malformed)?,
            mac1: [0; 16],
            mac2: [0; 16],
        }
        .emit();
        let cookie = self
            .cookie
            .as_ref()
            .and_then(|cookie| cookie.fresh(now.instant));
        let mac1 = self
            .receiver_keys
            .sign(&mut message, RESPONSE_MACS_OFFSET, cookie);
        self.responded = Some(Responded {
            index,
            message,
            mac1,
            initiation: initiation.mac1,
            sent_to: vec![from],
        });
        let start = SessionStart {
            local_index: index,
            remote_index: initiation.sender,
            protocol,
            limits: MessageLimits::new(protocol, context.large_packets),
            established: now.instant,
            initiator: false,
        };
        let session = self.add_session(start, keys, context);
        // The peer may have got the last answer and used its session in what is still under way.
        if let Some(unused) = self.sessions.next.replace(session) {
            self.keep_session(unused, context);
        }
        self.link.note_authentic(INITIATION_BYTES);
        // Where the peer is will be seen when it uses the session: this message, authentic as it is, may
        // be an old one that someone else sent on.
        self.send_message(from, &message, context);
        Ok(())
    }

    /// Whether an initiation that was heard before is the one that we answered last, with a session that
    /// its sender has not used: the answer may not have reached it.
    fn answers_again(&self, initiation: &Initiation) -> bool {
        let unused = self.sessions.next.as_ref().map(|next| next.local_index);
        self.responded
            .as_ref()
            .is_some_and(|last| last.initiation == initiation.mac1 && unused == Some(last.index))
    }

    /// Sends the last response to another place that its initiation came from. It is shorter than the
    /// initiation and says nothing new, so who replays one gains nothing.
    fn repeat_response(&mut self, to: Via, context: &mut Context) -> Result<(), Refusal> {
        let last = self.responded.as_mut().ok_or(Refusal::Replayed)?;
        if last.sent_to.contains(&to) || last.sent_to.len() >= RESPONSE_PLACES_MAX {
            return Err(Refusal::Replayed);
        }
        last.sent_to.push(to);
        let message = last.message;
        self.send_message(to, &message, context);
        Ok(())
    }

    fn handle_response(
        &mut self,
        from: Via,
        response: &Response,
        context: &mut Context,
        now: Now,
    ) -> Result<(), Refusal> {
        if self.paths.bars(from) {
            return Err(Refusal::RelayOnly);
        }
        let Some(attempt) = &self.attempt else {
            return Err(Refusal::UnknownSession);
        };
        let (keys, _) = attempt
            .initiator
            .finish(
                &context.keys,
                &response.ephemeral,
                &response.sealed_nothing,
                &NO_PRESHARED_KEY,
            )
            .map_err(|_| Refusal::NotAuthentic)?;
        let start = SessionStart {
            local_index: attempt.index,
            remote_index: response.sender,
            protocol: attempt.protocol,
            limits: MessageLimits::new(attempt.protocol, context.large_packets),
            established: now.instant,
            initiator: true,
        };
        let rtt = now.instant.saturating_since(attempt.sent);
        self.rtt = Some(rtt);
        self.note_moon_rtt(from, rtt, context, now.instant);
        self.link.note_authentic(RESPONSE_BYTES);
        self.take_way(from, Some(rtt), context, now.instant);
        let session = self.add_session(start, keys, context);
        self.make_current(session, context);
        if !self.resume(context, now) {
            // The responder waits for a packet before it sends on the session.
            self.transmit(&[], Sent::Quiet, context, now);
        }
        Ok(())
    }

    /// Turns to the session that the peer has confirmed by using it.
    pub(super) fn promote_next(&mut self, context: &mut Context, now: Now) {
        let Some(next) = self.sessions.next.take_if(|session| session.is_confirmed()) else {
            return;
        };
        // The peer got our response, and used the session by this way.
        if self.speaks_mesh()
            && let Some(via) = self.link.heard().or(self.paths.selected())
        {
            self.take_way(via, None, context, now.instant);
        }
        // Always, even if ours is younger: this one has been used by the peer as it is now, while what we
        // asked for may have been answered by a process that is gone. When both sides asked at once,
        // each then sends on the other's session, and both go on taking either.
        self.make_current(next, context);
        self.resume(context, now);
    }

    fn take_way(&mut self, via: Via, rtt: Option<Duration>, context: &mut Context, now: Instant) {
        self.hint = None;
        self.paths.established(via, rtt, now);
        self.refresh_way(context);
    }

    fn make_current(&mut self, session: Arc<Session>, context: &mut Context) {
        self.link.current.store(Some(Arc::clone(&session)));
        if let Some(before) = self.sessions.current.replace(session) {
            self.keep_session(before, context);
        }
    }

    /// Keeps a session that nothing more is sent on.
    fn keep_session(&mut self, session: Arc<Session>, context: &mut Context) {
        if let Some(oldest) = self.sessions.keep(session) {
            context.end_session(&oldest);
        }
    }

    /// Goes on with what waited for a session. True if a packet was sent.
    fn resume(&mut self, context: &mut Context, now: Now) -> bool {
        self.rest(context);
        self.last_handshake = Some(now);
        if let Some(session) = self.sessions.current.clone() {
            self.tell_established(&session, context);
            // What was told in the session before may have gone to a process that is no more.
            self.told = None;
            if !self.is_idle_moon(now.instant) {
                self.tell_candidates(false, context, now);
                self.tell_moons(context, now);
            }
        }
        let asked = self.ask_moon(context, now);
        let probed = self.send_waiting_probes(context, now);
        let released = self.release_held(context, now);
        asked || probed || released
    }

    fn add_session(
        &self,
        start: SessionStart,
        keys: TransportKeys,
        context: &mut Context,
    ) -> Arc<Session> {
        let session = Arc::new(Session::new(start, keys));
        context.add_session(&session, &self.link);
        session
    }

    /// What our static keys agree on; `None` for a key of low order, which `WireguardPublicKey` rules
    /// out.
    fn static_static(&mut self, context: &Context) -> Option<Secret> {
        if self.static_static.is_none() {
            self.static_static = context.keys.agree(self.link.peer.as_bytes()).ok();
        }
        self.static_static.clone()
    }
}
