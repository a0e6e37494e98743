//! A peer's timers. Each run does all that is due and computes the next deadline afresh from the state
//! and from the stamps that the data threads left, so no timer is ever armed twice or forgotten.
//!
//! | timer | due | whitepaper |
//! |---|---|---|
//! | keepalive | 10 s after data came that nothing was sent for | 6.5 |
//! | ways, mesh peers | `paths` | ours |
//! | handshake, mesh peers | 3 s after it | ours |
//! | handshake, others | 15 s after it (keepalive plus one lost handshake) | 6.5 |
//! | unresponsive | 12 s after it, or after a session was wanted | ours |
//! | handshake again | 5 s and up to a third after the last; at first 1 s and 2 s for mesh peers | 6.4 |
//! | handshake again, unwanted for 90 s | 30 s after the last | 6.4 gives up |
//! | the same with a moon, from the first | 1, 2, 4, … 20 s after the last; 2 s while a peer does not answer | ours |
//! | give up | 540 s after the session was last wanted; a moon never | 6.3 |
//! | session over | 180 s after it was made | 6.2 |

use std::{sync::atomic::Ordering, time::Duration};

use mesh_types::Instant;
use rand::Rng;

use super::{Context, Event, peer::Peer};
use crate::{Now, link::Sent, session::REJECT_AFTER};

/// A peer that heard data and has nothing to say says nothing, audibly, after this long.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);

/// Between two handshakes with one peer.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// Added to it at random, up to this, so that two peers do not stay in step.
const JITTER_MICROS: u64 = 333_000;

/// The first repetitions towards a mesh peer: a lost datagram should cost a second, not five. The
/// second one leaves room for a round trip of two seconds before the pace of [`REKEY_TIMEOUT`].
const FIRST_RETRIES_MESH: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Without new traffic, handshakes go on at full pace for so long (whitepaper: and then end).
const FULL_PACE: Duration = Duration::from_secs(90);

/// After that they go on at this pace, so that who waits to be sent something is found again.
const SLOW_PACE: Duration = Duration::from_secs(30);

/// Between handshakes with a moon that nobody has anything to say to, doubled up to the second: as it would be
/// asked to relay.
const MOON_PACE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// Without new traffic for so long, an unreachable peer is left alone.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * REJECT_AFTER.as_secs());

/// A mesh peer answers a probe within a round trip, so those of the path agent that go unanswered for so
/// long tell more than WireGuard's passive rule does in fifteen seconds.
const HANDSHAKE_AFTER_MESH: Duration = Duration::from_secs(3);

/// When traffic has gone unanswered for so long, the peer is said to be unresponsive: later than the
/// keepalive of a peer that has nothing to say, and soon enough that whoever looks knows within 15 s.
pub(super) const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(12);

/// Whether a handshake is wanted.
#[derive(Debug)]
pub(super) enum Connecting {
    /// No.
    Rest,
    /// Yes: attempts are repeated until one succeeds or nobody has wanted it for long.
    Running {
        /// When it was first wanted.
        since: Instant,
        /// How many attempts there were.
        attempts: u32,
        /// When the last one was; `None` before the first.
        last: Option<Instant>,
        /// How soon after it the next one follows, at full pace.
        interval: Duration,
        /// Attempts wait for the shell to reserve stamps.
        needs_stamps: bool,
    },
}

/// How far the silence of a peer has been acted on.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// The silence that this is about.
    since: Option<Instant>,
    told: bool,
}

impl Peer {
    /// Does what is due, and returns when to do so next: later than `now`.
    pub(super) fn run_timers(&mut self, context: &mut Context, now: Now) -> Option<Instant> {
        // Before anything is looked at: what is raised from here on is for another run.
        self.link.take_attention();
        self.promote_next(context, now);
        self.expire_sessions(context, now);
        if self.link.rekey_wanted.load(Ordering::Acquire) {
            self.begin(now.instant);
        }
        self.run_keepalive(context, now);
        self.run_paths(context, now);
        self.run_predict(context, now);
        self.run_client(context, now);
        self.run_measuring(context, now);
        self.run_knocks(context, now.instant);
        self.run_liveness(context, now);
        self.run_connecting(context, now);
        self.forget_old_probes(now.instant);
        self.run_want(context, now.instant);
        self.next_deadline(context, now.instant)
    }

    /// Wants a session because of traffic.
    pub(super) fn want(&mut self, now: Instant) {
        self.trial = false;
        self.wanted = Some(now);
        self.begin(now);
    }

    /// Wants a session, for whatever reason. With a moon, through which this node is to be reached, that is
    /// for ever, and at [`MOON_PACE`] unless traffic wants one as well.
    pub(super) fn begin(&mut self, now: Instant) {
        if matches!(self.connecting, Connecting::Rest) {
            if self.client.is_none() {
                self.wanted = self.wanted.max(Some(now));
            }
            self.connecting = Connecting::Running {
                since: now,
                attempts: 0,
                last: None,
                interval: REKEY_TIMEOUT,
                needs_stamps: false,
            };
        }
    }

    /// Starts over at once, towards every endpoint.
    pub(super) fn network_changed(&mut self, context: &mut Context, now: Now) {
        let running = match self.connecting {
            Connecting::Running { since, .. } => Some(since),
            Connecting::Rest => None,
        };
        let session = self.usable_session(now.instant).is_some();
        // A moon that NATs let be asked seldom has none half of the time, and is to know the new address at once.
        if running.is_none() && !session && self.client.is_none() {
            return;
        }
        self.connecting = Connecting::Running {
            since: running.unwrap_or(now.instant),
            // Not the first one, which would go to the proven endpoint alone.
            attempts: 1,
            last: None,
            interval: REKEY_TIMEOUT,
            needs_stamps: false,
        };
        if self.client.is_none() {
            self.wanted = self.wanted.max(Some(now.instant));
        }
        self.paths.network_changed(now.instant);
        self.renew_grant(now.instant);
        // The peer learns our address from any packet, sooner than from a whole handshake.
        if session {
            self.transmit(&[], Sent::Quiet, context, now);
        }
    }

    pub(super) fn retry_if_waiting_for_stamps(&mut self) {
        if let Connecting::Running {
            last, needs_stamps, ..
        } = &mut self.connecting
            && *needs_stamps
        {
            *needs_stamps = false;
            *last = None;
        }
    }

    /// Makes the next attempt at once, if any is wanted.
    pub(super) fn retry_now(&mut self) {
        if let Connecting::Running { last, .. } = &mut self.connecting {
            *last = None;
        }
    }

    /// Makes the next attempt this soon after the last, if any is wanted.
    pub(super) fn hasten(&mut self, pace: Duration) {
        if let Connecting::Running { interval, .. } = &mut self.connecting {
            *interval = pace.min(*interval);
        }
    }

    /// Whether a session is being tried for, because of traffic not long ago.
    pub(super) fn is_sought(&self, now: Instant) -> bool {
        self.is_connecting() && self.quiet(now) < FULL_PACE
    }

    /// There is a session: no handshake is wanted any more.
    pub(super) fn rest(&mut self, context: &mut Context) {
        self.trial = false;
        self.drop_attempt(context);
        self.connecting = Connecting::Rest;
        self.link.rekey_wanted.store(false, Ordering::Release);
        self.link.wake_on_send.store(false, Ordering::Release);
    }

    /// Since when traffic, or the wish for a session, has gone unanswered.
    pub(super) fn unanswered_since(&self, now: Instant) -> Option<Instant> {
        self.silence(self.link.unanswered.get(), now)
    }

    fn silence(&self, traffic: Option<Instant>, now: Instant) -> Option<Instant> {
        let session = match self.connecting {
            Connecting::Running { since, .. } if self.usable_session(now).is_none() => Some(since),
            Connecting::Running { .. } | Connecting::Rest => None,
        };
        match (traffic, session) {
            (Some(traffic), Some(session)) => Some(traffic.min(session)),
            (traffic, session) => traffic.or(session),
        }
    }

    fn expire_sessions(&mut self, context: &mut Context, now: Now) {
        for session in self.sessions.take_expired(now.instant) {
            context.end_session(&session);
        }
        if self.sessions.current.is_none() {
            self.link.current.store(None);
        }
    }

    fn run_keepalive(&mut self, context: &mut Context, now: Now) {
        let Some(since) = self.link.owes.get() else {
            return;
        };
        if now.instant >= since + KEEPALIVE_AFTER {
            self.transmit(&[], Sent::Quiet, context, now);
            // Cleared by sending; and without a session there is nothing to be kept alive.
            self.link.owes.clear();
        }
    }

    fn run_liveness(&mut self, context: &mut Context, now: Now) {
        let since = self.unanswered_since(now.instant);
        if self.liveness.since != since {
            self.liveness = Liveness {
                since,
                ..Liveness::default()
            };
        }
        let Some(since) = since else {
            return;
        };
        if now.instant >= since + UNRESPONSIVE_AFTER && !self.liveness.told {
            self.liveness.told = true;
            context.output.event(Event::PeerUnresponsive {
                peer: self.key(),
                since,
            });
        }
        if self.usable_session(now.instant).is_none() {
            // A session that ended while data waited for an answer leaves the question open: a handshake
            // settles it, or gives up.
            if self.link.unanswered.get().is_some() {
                self.begin(now.instant);
            }
            return;
        }
        if now.instant >= self.handshake_due(since) {
            self.begin(now.instant);
        }
    }

    /// Whether silence on the session called for a handshake.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let since = self.link.unanswered.get();
        since.is_some_and(|since| now >= self.handshake_due(since))
    }

    /// When silence on a session calls for a handshake.
    fn handshake_due(&self, since: Instant) -> Instant {
        if self.speaks_mesh() {
            since + HANDSHAKE_AFTER_MESH
        } else {
            since + KEEPALIVE_AFTER + REKEY_TIMEOUT
        }
    }

    fn run_connecting(&mut self, context: &mut Context, now: Now) {
        if self
            .attempt_due(now.instant)
            .is_none_or(|at| at > now.instant)
        {
            return;
        }
        let quiet = self.quiet(now.instant);
        if quiet >= GIVE_UP_AFTER && self.client.is_none() {
            self.forget_held();
            self.link.unanswered.clear();
            self.rest(context);
            return;
        }
        if quiet >= FULL_PACE {
            self.forget_held();
        }
        // In a slow pace the next packet sent brings the full one back.
        self.link
            .wake_on_send
            .store(quiet >= FULL_PACE, Ordering::Release);
        let Connecting::Running { attempts, .. } = self.connecting else {
            return;
        };
        let has_stamp = self.attempt(attempts, context, now);
        let retry = self.pace(attempts, quiet);
        let jitter = Duration::from_micros(context.rng.gen_range(0..JITTER_MICROS));
        if let Connecting::Running {
            attempts,
            last,
            interval,
            needs_stamps,
            ..
        } = &mut self.connecting
        {
            *attempts += u32::from(has_stamp);
            *last = Some(now.instant);
            *interval = retry + jitter;
            *needs_stamps = !has_stamp;
        }
    }

    /// How long the next attempt waits for an answer to the last of so many.
    fn pace(&self, attempts: u32, quiet: Duration) -> Duration {
        if self.client.is_some() && quiet >= FULL_PACE {
            let (first, most) = MOON_PACE;
            return first
                .saturating_mul(1 << attempts.saturating_sub(1).min(16))
                .min(most);
        }
        usize::try_from(attempts)
            .ok()
            .and_then(|attempts| FIRST_RETRIES_MESH.get(attempts))
            .filter(|_| self.speaks_mesh())
            .copied()
            .unwrap_or(REKEY_TIMEOUT)
    }

    /// When the next attempt is due; `None` if none is wanted, or it waits for stamps.
    fn attempt_due(&self, now: Instant) -> Option<Instant> {
        let Connecting::Running {
            last,
            interval,
            needs_stamps,
            ..
        } = self.connecting
        else {
            return None;
        };
        if needs_stamps {
            return None;
        }
        let Some(last) = last else {
            return Some(now);
        };
        let pace = if self.quiet(now) < FULL_PACE {
            interval.min(REKEY_TIMEOUT + Duration::from_micros(JITTER_MICROS))
        } else if self.client.is_some() {
            interval
        } else {
            SLOW_PACE
        };
        Some(last + pace)
    }

    /// Whether somebody has something to say to this peer, not only had it a while ago.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        self.quiet(now) < 2 * REKEY_TIMEOUT
    }

    /// How long nothing has asked for this peer.
    fn quiet(&self, now: Instant) -> Duration {
        let wanted = self.wanted.max(self.link.last_data_sent.get());
        wanted.map_or(GIVE_UP_AFTER, |wanted| now.saturating_since(wanted))
    }

    fn next_deadline(&mut self, context: &Context, now: Instant) -> Option<Instant> {
        let expiry = self.sessions.all().map(|session| session.expires()).min();
        self.watch_keepalive(now);
        self.watch_liveness(now);
        self.watch_large(now);
        [
            expiry,
            self.attempt_due(now),
            self.keepalive_armed,
            self.liveness_armed,
            self.mtu_armed,
            self.paths_due(now),
            self.client.as_ref().map(super::client::Client::due),
            context.holds.due(self.link.peer.as_bytes()),
            self.knocks.due(),
            self.want_ends(now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn paths_due(&self, now: Instant) -> Option<Instant> {
        self.paths.deadline(&self.facts(now), now)
    }

    /// Goes on watching for data that is owed an answer, as long as a timer is armed.
    fn watch_keepalive(&mut self, now: Instant) {
        let armed = self.keepalive_armed.filter(|at| *at > now);
        let since = self.link.owes.watch(armed.is_some());
        self.keepalive_armed = since.map(|since| since + KEEPALIVE_AFTER).or(armed);
    }

    /// The same for data that is not answered.
    fn watch_liveness(&mut self, now: Instant) {
        let armed = self.liveness_armed.filter(|at| *at > now);
        let traffic = self.link.unanswered.watch(armed.is_some());
        let due = self
            .silence(traffic, now)
            .and_then(|since| self.liveness_due(since, now));
        self.liveness_armed = match traffic {
            // All was done about this silence. It may still end, and another begin untold: within the time
            // after which the way in use is doubted, if anybody is sending.
            Some(_) if self.is_sending(now) => {
                let look = now + self.paths.patience();
                Some(due.map_or(look, |due| due.min(look)))
            }
            Some(_) => due.or(Some(now + UNRESPONSIVE_AFTER)),
            None => [due, armed].into_iter().flatten().min(),
        };
    }

    /// The same for packets of a size that not every way carries, which agents alone can be asked about.
    fn watch_large(&mut self, now: Instant) {
        if !self.speaks_mesh() {
            return;
        }
        // When they are looked at next, is the path agent's to say.
        let armed = self.mtu_armed.filter(|at| *at > now);
        self.link.large.watch(armed.is_some());
        self.mtu_armed = armed;
    }

    /// Whether a mesh peer is being sent data.
    fn is_sending(&self, now: Instant) -> bool {
        self.speaks_mesh()
            && self
                .link
                .last_data_sent
                .get()
                .is_some_and(|at| now.saturating_since(at) < HANDSHAKE_AFTER_MESH)
    }

    fn liveness_due(&self, since: Instant, now: Instant) -> Option<Instant> {
        // Not looked at yet: this silence began during the run.
        if self.liveness.since != Some(since) {
            return Some(self.handshake_due(since).min(since + UNRESPONSIVE_AFTER));
        }
        let told = (!self.liveness.told).then(|| since + UNRESPONSIVE_AFTER);
        let on_session = self
            .usable_session(now)
            .map(|_| self.handshake_due(since))
            .filter(|at| *at > now);
        told.into_iter().chain(on_session).min()
    }
}
