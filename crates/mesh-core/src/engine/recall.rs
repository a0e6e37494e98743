//! A moon that was started anew looks for the clients of the process before: its sessions are gone, and who only
//! listens would ask it again after 150 seconds only.
//!
//! Where each of them was is a hint, which the shell keeps. A client is found by a handshake, as anybody is, and asks
//! for a token because the session is new.
//!
//! | whom | when |
//! |---|---|
//! | who is sent a frame and is not here | at once, once, unless it was just now |
//! | all, one after the other | [`AT_ONCE`] every [`EVERY`] |
//! | who does not answer | three handshakes in [`PATIENCE`] |
//! | nobody | while the machine has no network, and after [`OVER_AFTER`] |

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use mesh_types::{Instant, WireguardPublicKey};

use super::{Context, Engine, PeerId, peer::Peer};
use crate::Now;

/// Clients that are looked for in one go, and the time until the next ones: 250 a second. A handshake is a few
/// scalar multiplications, so that takes less than a tenth of a core and half a megabit a second, while others
/// come by themselves. Of 10 000 the last one is looked for after 40 seconds, and every one of a usual network at once.
const AT_ONCE: usize = 25;
const EVERY: Duration = Duration::from_millis(100);

/// How long a client is tried: handshakes go out at once, after a second and after three.
const PATIENCE: Duration = Duration::from_secs(5);

/// A handshake that is younger is not repeated for a frame: its own repetition is soon.
const FRESH: Duration = Duration::from_secs(1);

/// For so long a moon takes a client to be where it was: who is there has asked by then, and others are gone.
const OVER_AFTER: Duration = Duration::from_secs(300);

/// The clients of the process before.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// Where they were.
    places: BTreeMap<PeerId, SocketAddr>,
    /// Those whose turn has not come.
    queue: VecDeque<PeerId>,
    /// When each of those that are tried is given up, the first one first.
    tried: VecDeque<(Instant, PeerId)>,
    /// When the next ones are looked for.
    next: Instant,
    /// When none is looked for any more.
    over: Instant,
}

/// What is to be done about one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Look(PeerId, SocketAddr),
    GiveUp(PeerId),
}

impl Recall {
    fn new(places: BTreeMap<PeerId, SocketAddr>, now: Instant) -> Self {
        Self {
            queue: places.keys().copied().collect(),
            places,
            tried: VecDeque::new(),
            next: now,
            over: now + OVER_AFTER,
        }
    }

    /// Looks for one out of turn.
    fn seek(&mut self, client: &PeerId, now: Instant) -> Option<Step> {
        let at = *self.places.get(client).filter(|_| now < self.over)?;
        // This is its turn; and tried already, it gets all its handshakes from here on.
        self.queue.retain(|other| other != client);
        self.tried.retain(|(_, other)| other != client);
        Some(self.look(*client, at, now))
    }

    fn look(&mut self, client: PeerId, at: SocketAddr, now: Instant) -> Step {
        self.tried.push_back((now + PATIENCE, client));
        Step::Look(client, at)
    }

    /// Does what is due.
    fn run(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some((at, client)) = self.tried.front().copied()
            && at <= now
        {
            self.tried.pop_front();
            steps.push(Step::GiveUp(client));
        }
        if now >= self.over {
            self.places.clear();
            self.queue.clear();
        }
        if now >= self.next && !self.queue.is_empty() {
            self.next = now + EVERY;
            for client in self
                .queue
                .drain(..AT_ONCE.min(self.queue.len()))
                .collect::<Vec<_>>()
            {
                if let Some(at) = self.places.get(&client).copied() {
                    steps.push(self.look(client, at, now));
                }
            }
        }
        steps
    }

    /// When [`Recall::run`] has something to do next.
    fn due(&self) -> Option<Instant> {
        let tried = self.tried.front().map(|(at, _)| *at);
        let next = (!self.queue.is_empty()).then_some(self.next);
        let over = (!self.places.is_empty()).then_some(self.over);
        [tried, next, over].into_iter().flatten().min()
    }
}

impl Engine {
    /// Looks for the clients that this node relayed for before it was started anew, where they were then. To be called once,
    /// when the roster is applied; without a relay, nothing is done.
    ///
    /// Who is no peer is passed over, and so are those beyond the number of clients that the relay serves.
    pub fn recall_clients(
        &mut self,
        clients: impl IntoIterator<Item = (WireguardPublicKey, SocketAddr)>,
        now: Now,
    ) {
        let Some(server) = &self.context.relay_server else {
            return;
        };
        let places: BTreeMap<PeerId, SocketAddr> = clients
            .into_iter()
            .map(|(client, at)| (*client.as_bytes(), at))
            .filter(|(client, _)| self.peers.get(client).is_some_and(Peer::speaks_mesh))
            .take(server.limits().clients_max)
            .collect();
        let attention = self.context.forwarding.attention().clone();
        server.expect(places.keys(), attention);
        self.recall = Recall::new(places, now.instant);
    }

    /// Where the clients are that this node relays for, by UDP, and those that it still looks for: what the next process is to
    /// be given by [`Engine::recall_clients`].
    pub fn clients(&self, now: Instant) -> BTreeMap<WireguardPublicKey, SocketAddr> {
        let Some(server) = &self.context.relay_server else {
            return BTreeMap::new();
        };
        let before = self.recall.places.iter();
        let known = before.filter_map(|(id, at)| Some((self.peers.get(id)?.key(), *at)));
        known.chain(server.places(now)).collect()
    }

    /// Looks for the clients whose turn it is.
    pub(super) fn run_recall(&mut self, now: Now) {
        if self.context.offline {
            return;
        }
        let mut steps = self.recall.run(now.instant);
        if let Some(server) = &self.context.relay_server {
            let sought = server.take_sought();
            let sought = sought.iter().map(WireguardPublicKey::as_bytes);
            steps.extend(sought.filter_map(|client| self.recall.seek(client, now.instant)));
        }
        for step in steps {
            match step {
                Step::Look(client, at) => {
                    self.with_peer(&client, now, |peer, context| peer.recall(at, context, now));
                }
                Step::GiveUp(client) => {
                    self.with_peer(&client, now, |peer, context| peer.give_up_trial(context));
                }
            }
        }
    }

    pub(super) fn recall_due(&self) -> Option<Instant> {
        self.recall.due().filter(|_| !self.context.offline)
    }
}

impl Peer {
    /// Shakes hands with a client of the process before, where it was, unless it came by itself. One whose session
    /// was handed over may not have heard that it is to ask again.
    fn recall(&mut self, at: SocketAddr, context: &mut Context, now: Now) {
        let server = context.relay_server.as_ref();
        if server.is_some_and(|server| server.is_here(&self.key(), now.instant))
            || context.forwarding.is_inside(at.into())
        {
            return;
        }
        if self.usable_session(now.instant).is_some() {
            return self.tell_to_ask_again(context, now);
        }
        self.trial |= !self.is_connecting();
        self.set_candidates(vec![at], context, now);
        self.begin(now.instant);
        // Right behind another one a handshake is refused, and the answer to that one is none any more.
        if !self.attempted_within(FRESH, now.instant) {
            self.retry_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: u16 = 1_000;

    fn id(number: u16) -> PeerId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn at(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    fn recall() -> Recall {
        let places = (0..CLIENTS).map(|number| (id(number), at(number)));
        Recall::new(places.collect(), Instant::ZERO)
    }

    /// All that is done, and when.
    fn run_out(recall: &mut Recall) -> Vec<(Instant, Step)> {
        let mut done = Vec::new();
        let mut last = None;
        while let Some(due) = recall.due() {
            assert!(Some(due) > last, "time goes on");
            last = Some(due);
            done.extend(recall.run(due).into_iter().map(|step| (due, step)));
        }
        done
    }

    #[test]
    fn every_client_is_looked_for_once_at_the_pace_and_given_up() {
        let mut recall = recall();
        let done = run_out(&mut recall);
        let looks: Vec<_> = done
            .iter()
            .filter(|(_, step)| matches!(step, Step::Look(..)))
            .collect();
        assert_eq!(looks.len(), usize::from(CLIENTS));
        for pair in looks.windows(AT_ONCE + 1) {
            assert!(pair[AT_ONCE].0.saturating_since(pair[0].0) >= EVERY);
        }
        let last = looks[looks.len() - 1].0.saturating_since(Instant::ZERO);
        assert_eq!(last, EVERY * 39, "{AT_ONCE} every {EVERY:?}");
        for number in 0..CLIENTS {
            let look = Step::Look(id(number), at(number));
            let looked = done.iter().find(|(_, step)| *step == look).unwrap().0;
            let given_up = (looked + PATIENCE, Step::GiveUp(id(number)));
            assert!(done.contains(&given_up));
        }
        assert!(recall.places.is_empty(), "nothing is kept");
    }

    #[test]
    fn who_is_sought_is_looked_for_at_once_and_for_as_long() {
        let mut recall = recall();
        recall.run(Instant::ZERO);
        let last = id(CLIENTS - 1);
        let now = Instant::ZERO + EVERY / 2;
        let step = recall.seek(&last, now);
        assert_eq!(step, Some(Step::Look(last, at(CLIENTS - 1))));
        assert_eq!(recall.seek(&id(CLIENTS), now), None, "no client");
        // One that is tried already is not given up sooner.
        let again = Instant::ZERO + (PATIENCE - Duration::from_millis(1));
        recall.run(again);
        recall.seek(&id(0), again);
        let steps = recall.run(again + EVERY);
        assert!(steps.contains(&Step::GiveUp(last)));
        assert!(!steps.contains(&Step::GiveUp(id(0))));
        assert!(steps.contains(&Step::GiveUp(id(1))));
    }

    #[test]
    fn nobody_is_looked_for_later() {
        let mut recall = recall();
        let late = Instant::ZERO + OVER_AFTER;
        assert_eq!(recall.seek(&id(0), late), None);
        assert_eq!(recall.run(late), []);
        assert_eq!(recall.due(), None);
    }
}
