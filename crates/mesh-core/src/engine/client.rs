//! This node as the client of a moon: it asks for a token inside their session, and again in time for a NAT to remember
//! the way.

use std::{net::SocketAddr, time::Duration};

use mesh_types::Instant;
use mesh_wire::{
    reflect::ReflectRequest,
    tunnel::{RelayRefused, TunnelMessage},
};
use rand::RngCore;

use super::{Context, peer::Peer};
use crate::{Now, Remote, Via, forwarding::OpenMoon, hold::Hold, link::Sent};

/// Between two requests, where nothing is known of how long a NAT holds a mapping, or where a stream is not to
/// end. This is what it costs to be reachable through a moon.
const RENEW: Duration = Hold::BASE;

/// A token is asked for again so long before the moon forgets it: repeated, a request may be lost five times.
const BEFORE_ITS_END: Duration = Duration::from_secs(40);

/// A knock is to come so long before the next request: no packet of ours is to help it through.
const KNOCK_BEFORE: Duration = Duration::from_secs(3);

/// And may be so late.
const KNOCK_LATE: Duration = Duration::from_secs(2);

/// A request is repeated after this, and after twice, four times, … as long.
const REPEAT: Duration = Duration::from_secs(1);

/// A moon that saw this node by the other family, and does not answer there, is asked so often again, each time after
/// twice as long: of lines that lose three in ten each way, one in fifteen then tells nothing until the next renewal.
const REFLECTION_REPEATS: u32 = 3;

/// A moon that answered none of its requests for this long does not relay any more.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// While a peer is wanted and does not answer, each moon that does not relay is asked this often.
const HASTE: Duration = Duration::from_secs(2);

/// A moon that has not answered its request for this long is looked past for another way to one: a little
/// less than [`REPEAT`], when the engine looks again.
const DOUBTED_AFTER: Duration = Duration::from_millis(900);

/// How often a peer that does not answer can make us ask a moon, which answered the last time.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How often a notice can make us ask again.
const RENEW_ON_NOTICE: Duration = Duration::from_secs(1);

/// This node as the client of one moon.
#[derive(Debug)]
pub(super) struct Client {
    /// The request that waits for an answer.
    request: Option<u64>,
    /// When the first one that is not answered was sent.
    pub(super) asked_since: Option<Instant>,
    /// When it was sent, if its answer tells the round trip.
    timed: Option<Instant>,
    /// The token, and the remote that it was given for.
    granted: Option<(Remote, u64)>,
    next: Instant,
    repeat: Duration,
    /// When the moon last said that it does not know our token.
    noticed: Option<Instant>,
    /// How long after the grant a knock is to come that was asked for along with it.
    asked_knock: Option<Duration>,
    /// Whether the moon is of a release that answers outside of the session, and whom of its endpoints was asked.
    reflects: bool,
    reflecting: Option<Reflecting>,
    knock: Option<Knock>,
    /// Why the moon does not relay, if it said so.
    pub(super) refused: Option<RelayRefused>,
}

/// What a moon was asked outside of the session, and did not answer yet.
#[derive(Clone, Copy, Debug)]
struct Reflecting {
    to: SocketAddr,
    id: u64,
    repeated: u32,
    /// When it is asked again; `None`: it was asked often enough, and may still answer.
    repeat: Option<Instant>,
}

/// A knock that is to come to this node's own port, with its token.
#[derive(Clone, Copy, Debug)]
struct Knock {
    at: Instant,
    heard: bool,
}

impl Client {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            request: None,
            asked_since: None,
            timed: None,
            granted: None,
            next: now,
            repeat: REPEAT,
            noticed: None,
            asked_knock: None,
            reflects: false,
            reflecting: None,
            knock: None,
            refused: None,
        }
    }

    pub(super) fn due(&self) -> Instant {
        let repeat = self.reflecting.and_then(|reflecting| reflecting.repeat);
        repeat.map_or(self.next, |repeat| self.next.min(repeat))
    }

    /// Asks at once, and again soon if nothing comes.
    const fn ask_now(&mut self, now: Instant) {
        self.next = now;
        self.repeat = REPEAT;
    }

    /// Asks at once for what somebody said or kept silent about, if that was not done in the last `every`; true if
    /// it is now.
    fn notice(&mut self, every: Duration, now: Instant) -> bool {
        let lately = self
            .noticed
            .is_some_and(|at| now.saturating_since(at) < every);
        if !lately {
            self.noticed = Some(now);
            self.ask_now(now);
        }
        !lately
    }

    /// The token, if the moon relays.
    pub(super) fn token(&self) -> Option<u64> {
        self.granted.map(|(_, token)| token)
    }

    pub(super) const fn reflects(&self) -> bool {
        self.reflects
    }

    /// Whether this answers what the moon was asked outside of the session.
    pub(super) fn takes_reflection(&mut self, asked: (SocketAddr, u64)) -> bool {
        self.reflecting
            .take_if(|reflecting| (reflecting.to, reflecting.id) == asked)
            .is_some()
    }

    /// Whether this is the knock of the moon that was asked for.
    pub(super) fn takes_knock(&mut self, from: Remote, token: u64) -> bool {
        match &mut self.knock {
            Some(knock) if self.granted == Some((from, token)) => {
                knock.heard = true;
                true
            }
            Some(_) | None => false,
        }
    }
}

impl Reflecting {
    fn ask(self, token: u64, context: &mut Context) {
        let request = ReflectRequest { token, id: self.id }.emit();
        let to = Remote::Udp(self.to);
        context.output.transmit(to, request.to_vec());
    }
}

fn seconds(time: Duration) -> u16 {
    u16::try_from(time.as_secs()).unwrap_or(u16::MAX)
}
impl Peer {
    /// The moon went on with the session, and has no token of ours.
    pub(super) fn hear_ask_again(&mut self, now: Instant) {
        if let Some(client) = &mut self.client {
            client.notice(RENEW_ON_NOTICE, now);
        }
    }
    /// Asks the moon for a token when that is due.
    pub(super) fn run_client(&mut self, context: &mut Context, now: Now) {
        self.repeat_reflection(context, now.instant);
        let Some(client) = &mut self.client else {
            return;
        };
        if now.instant < client.next {
            return;
        }
        if client
            .asked_since
            .is_some_and(|since| now.instant.saturating_since(since) >= LOST_AFTER)
        {
            client.granted = None;
            context.moons.close(self.link.peer.as_bytes());
            context.moons.choice.lost(self.link.peer.as_bytes());
        }
        client.next = now.instant + client.repeat;
        client.repeat = (client.repeat * 2).min(RENEW);
        let since = *client.asked_since.get_or_insert(now.instant);
        if self.usable_session(now.instant).is_none() {
            self.begin(now.instant);
            return;
        }
        if self.is_worn(now.instant) {
            // The handshake that is due comes first: the questions go with it.
            return self.begin(now.instant);
        }
        if now.instant.saturating_since(since) >= REPEAT {
            // It may have been started anew.
            self.begin(now.instant);
        }
        self.ask_moon(context, now);
    }

    /// Asks the moon, if it is one, for a token and where it sees this node. True if it was asked for a token.
    pub(super) fn ask_moon(&mut self, context: &mut Context, now: Now) -> bool {
        let sent = self.request_relay(context, now);
        if self.client.is_some() {
            self.ask_in_the_other_family(context, now);
        }
        sent
    }

    /// Whether the session is so old that the next packet begins another one.
    fn is_worn(&self, now: Instant) -> bool {
        let session = self.usable_session(now);
        session.is_some_and(|session| session.wants_rekey_on_send(now))
    }

    /// Has the moon tell where it sees this node by the family that the token is not for, too, and keeps a
    /// NAT's mapping there. Packets to a moon that take another moon learn so of a straight way.
    fn ask_in_the_other_family(&mut self, context: &mut Context, now: Now) {
        let in_use = self.straight().and_then(Via::udp);
        for ipv6 in [false, true] {
            if in_use.is_some_and(|endpoint| endpoint.is_ipv6() == ipv6) {
                continue;
            }
            match (in_use, self.paths.best_of_family(ipv6)) {
                (Some(_), Some(via)) if self.reflect_by(via, context, now.instant) => {}
                (_, Some(via)) => self.probe_way(via, context, now),
                (_, None) => {}
            }
        }
    }

    /// Asks the moon outside of the session where it sees this node by `via`: a packet inside would have both
    /// sides doubt the way in use. False if the moon, of an earlier release, does not answer.
    fn reflect_by(&mut self, via: Via, context: &mut Context, now: Instant) -> bool {
        let (Some(client), Some(to)) = (&mut self.client, via.udp()) else {
            return false;
        };
        let Some((_, token)) = client.granted.filter(|_| client.reflects) else {
            return false;
        };
        if client
            .reflecting
            .is_some_and(|waits| waits.to == to && waits.repeat.is_some())
        {
            return true;
        }
        // One that never saw this node by that family, which it or this node may not have, is not worth a repetition.
        let seen = context
            .moons
            .is_seen_by(self.link.peer.as_bytes(), to.is_ipv6());
        let reflecting = Reflecting {
            to,
            id: context.rng.next_u64(),
            repeated: 0,
            repeat: seen.then(|| now + REPEAT),
        };
        client.reflecting = Some(reflecting);
        reflecting.ask(token, context);
        true
    }

    /// Asks the moon again for what it did not answer.
    fn repeat_reflection(&mut self, context: &mut Context, now: Instant) {
        let Some(client) = &mut self.client else {
            return;
        };
        let Some(waits) = &mut client.reflecting else {
            return;
        };
        if waits.repeat.take_if(|at| *at <= now).is_none() {
            return;
        }
        let Some((_, token)) = client.granted else {
            return;
        };
        waits.ask(token, context);
        waits.repeated += 1;
        waits.repeat =
            (waits.repeated < REFLECTION_REPEATS).then(|| now + REPEAT * 2_u32.pow(waits.repeated));
    }

    /// An answer of a moon tells where it sees this node.
    pub(super) fn note_observed(
        &self,
        observed: Option<SocketAddr>,
        context: &mut Context,
        now: Instant,
    ) {
        if let Some(observed) = observed.filter(|_| self.client.is_some())
            && context
                .moons
                .observe(*self.link.peer.as_bytes(), observed, now)
        {
            // The NAT made another mapping, so the one before was lost.
            context.lost(observed.is_ipv6(), now);
        }
    }

    /// How long until this moon is asked again for the token at `remote`: as long as every mapping that it
    /// keeps may be left silent.
    fn renewal(&self, remote: Remote, context: &Context) -> Duration {
        let Remote::Udp(endpoint) = remote else {
            return RENEW;
        };
        let own = self.link.peer.as_bytes();
        [false, true]
            .into_iter()
            .filter(|ipv6| *ipv6 == endpoint.is_ipv6() || context.moons.is_seen_by(own, *ipv6))
            .map(|ipv6| context.holds.of(ipv6).interval())
            .min()
            .unwrap_or(RENEW)
    }

    /// Asks for a token on the straight way in use; if packets to the moon take another moon, on the one
    /// that a token was given for, or else the best of each family and of the streams: a moon serves whom it sees. A request
    /// with the token that was given there before proves this node's address to the moon. True if one was sent.
    fn request_relay(&mut self, context: &mut Context, now: Now) -> bool {
        let granted = self.client.as_ref().and_then(|client| client.granted);
        let straight = self
            .straight()
            .or(granted.map(|(remote, _)| Via::Direct(remote)));
        let ways: Vec<Via> = match straight {
            Some(via) => vec![via],
            None => [false, true]
                .into_iter()
                .filter_map(|ipv6| self.paths.best_of_family(ipv6))
                .chain(self.paths.best_stream())
                .collect(),
        };
        let Some(client) = self.client.as_mut().filter(|_| !ways.is_empty()) else {
            return false;
        };
        let known = granted.filter(|(remote, _)| ways.contains(&Via::Direct(*remote)));
        let id = known.map_or_else(|| context.rng.next_u64(), |(_, token)| token);
        client.request = Some(id);
        // The answer to a repeated one would not tell the round trip.
        client.timed = client.asked_since.is_none().then_some(now.instant);
        client.asked_since.get_or_insert(now.instant);
        client.next = client.next.max(now.instant + REPEAT);
        let mut sent = false;
        for via in ways {
            let Via::Direct(remote) = via else {
                continue;
            };
            let renew = self.renewal(remote, context);
            // What every NAT holds needs no knock to show that it did.
            let knock = (renew > RENEW).then(|| renew - KNOCK_BEFORE);
            let request = TunnelMessage::RelayRequest {
                id,
                renew_seconds: seconds(renew),
                knock_seconds: knock.map_or(0, seconds),
            };
            sent |= self.say_via(request, via, Sent::Probe, context, now);
            if let Some(client) = &mut self.client {
                client.asked_knock = knock;
            }
        }
        sent
    }

    /// The moon does not know our token: it was started anew, or sees us at another address.
    pub(super) fn ask_moon_again(&mut self, now: Instant) {
        if let Some(client) = &mut self.client
            && client.notice(RENEW_ON_NOTICE, now)
        {
            // Who was started anew knows no session either.
            self.begin(now);
        }
    }

    /// Whether it is a moon that has been asked for a while and is silent.
    pub(super) fn is_silent_moon(&self, now: Instant) -> bool {
        let since = self.client.as_ref().and_then(|client| client.asked_since);
        since.is_some_and(|since| now.saturating_since(since) >= DOUBTED_AFTER)
    }

    /// Somebody is reached by no way: if the moon is gone, that is to be known before its next turn.
    pub(super) fn check_moon(&mut self, now: Instant) {
        if let Some(client) = &mut self.client
            && client.granted.is_some()
            && client.asked_since.is_none()
        {
            client.notice(CHECK_EVERY, now);
        }
    }

    /// Somebody is wanted whom this moon may relay to.
    pub(super) fn hasten_moon(&mut self, now: Instant) {
        if let Some(client) = &mut self.client
            && client.granted.is_none()
        {
            client.next = client.next.min(now + HASTE);
            self.hasten(HASTE);
        }
    }

    /// This node has another address: its tokens do not count from there.
    pub(super) fn renew_grant(&mut self, now: Instant) {
        if let Some(client) = &mut self.client {
            client.ask_now(now);
        }
    }

    /// The moon gave a token for the remote that the answer came from.
    pub(super) fn take_grant(
        &mut self,
        (id, token, lasts): (u64, u64, Duration),
        observed: Option<SocketAddr>,
        via: Via,
        context: &mut Context,
        now: Instant,
    ) {
        let key = self.key();
        let (Some(client), Via::Direct(remote)) = (&mut self.client, via) else {
            return;
        };
        if client.request != Some(id) {
            return;
        }
        client.request = None;
        client.asked_since = None;
        client.refused = None;
        // A moon that started anew knows of no knock, and gives another token.
        let same = client.granted.replace((remote, token)) == Some((remote, token));
        let knock = client.knock.take().filter(|_| same);
        let missed = knock.is_some_and(|knock| !knock.heard && now >= knock.at + KNOCK_LATE);
        if let Some(sent) = client.timed.take() {
            let rtt = now.saturating_since(sent);
            context.moons.choice.measured(key.as_bytes(), rtt, now);
        }
        client.repeat = REPEAT;
        let moon = OpenMoon { key, remote, token };
        context.moons.grant(*key.as_bytes(), moon);
        if let Remote::Udp(endpoint) = remote {
            let moved = observed.is_some_and(|at| context.moons.observe(*key.as_bytes(), at, now));
            if missed || moved {
                context.lost(endpoint.is_ipv6(), now);
            }
        }
        // A new token has not proven this node's address yet: the next request does, at once.
        if token != id {
            client.next = now;
            return;
        }
        let of_this_release = !lasts.is_zero();
        client.reflects = of_this_release;
        client.knock = client
            .asked_knock
            .filter(|_| of_this_release)
            .map(|after| Knock {
                at: now + after,
                heard: false,
            });
        let longest = lasts.saturating_sub(BEFORE_ITS_END).max(RENEW);
        let next = now + self.renewal(remote, context).min(longest);
        if let Some(client) = &mut self.client {
            client.next = next;
        }
        if of_this_release && matches!(remote, Remote::Udp(_)) {
            self.begin_measuring(token, context, now);
        }
    }

    pub(super) fn take_refusal(
        &mut self,
        id: u64,
        reason: RelayRefused,
        context: &mut Context,
        now: Instant,
    ) {
        if let Some(client) = &mut self.client
            && client.request == Some(id)
        {
            client.request = None;
            client.asked_since = None;
            client.refused = Some(reason);
            client.granted = None;
            client.next = now + RENEW;
            context.moons.refuse(*self.link.peer.as_bytes(), reason);
        }
    }

    /// The way that packets take to the moon changed: its token counts from the old one only.
    pub(super) fn check_grant(&mut self, context: &mut Context, now: Now) {
        let Some(Via::Direct(remote)) = self.straight() else {
            return;
        };
        let moved = self
            .client
            .as_ref()
            .is_some_and(|client| client.granted.is_some_and(|(granted, _)| granted != remote));
        if moved {
            if let Some(client) = &mut self.client {
                client.granted = None;
            }
            self.request_relay(context, now);
        }
    }

    fn straight(&self) -> Option<Via> {
        self.paths.selected().filter(|via| !via.is_relay())
    }
}
