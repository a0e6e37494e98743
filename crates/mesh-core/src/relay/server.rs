mod recall;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{
    relay::{Frame, Header, MemberTag, Notice, emit_notice, is_frame, parse},
    tunnel::RelayRefused,
};
use rand::RngCore;

use recall::Sought;

use super::{
    Forwarded, Granted, RelayDropped, RelayLimits, RelayView,
    fair::{Account, FairShare},
    may_talk,
    notices::Notices,
    rate::Rate,
    reflect::Secret,
};
use crate::{Remote, word_hasher::HashesWords};

/// An address from which the client has not asked again for this long is no more the client's, if it does not
/// say when it asks again: then it does every 20 seconds, and two requests may be lost.
const PLACE_LIFETIME: Duration = Duration::from_secs(60);

/// If it does say: so much later. It repeats what is not answered after 1, 2, 4 … seconds.
const PLACE_GRACE: Duration = Duration::from_secs(40);

/// But no longer than this, whatever it says: for so long frames go to an address that it left without a word.
const PLACE_LIFETIME_MAX: Duration = Duration::from_secs(300);

/// A full moon looks at most this often whether a client is gone.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(1);

/// What a frame costs beside its own bytes: IPv6 and UDP headers, so that many small frames are not free.
const UNDERLAY_BYTES: u64 = 48;

/// Parts of the table of tokens, so that the writer of one stops few readers.
const SHARDS: usize = 16;

/// A moon: which clients it has, and what becomes of their frames.
///
/// Shared by the engine, which grants, and the data threads, which forward. A lock is held for one look
/// at one client, or at one part of the tables; none while another client's is held.
///
/// The engine calls [`RelayServer::grant`] for each request that a session carried, and the owner of the
/// timers calls [`RelayServer::expire`] every few seconds, which only frees memory: what has expired counts
/// for nothing from that moment on.
pub struct RelayServer {
    roster: ArcSwap<Roster>,
    tokens: [RwLock<Tokens>; SHARDS],
    share: Mutex<FairShare>,
    pub(super) notices: Notices,
    pub(super) secret: Secret,
    sought: Sought,
    clients: AtomicUsize,
    /// When places were last freed, in microseconds.
    expired_micros: AtomicU64,
    next_id: AtomicU64,
    relayed_frames: AtomicU64,
    relayed_bytes: AtomicU64,
    limited_frames: AtomicU64,
    notices_sent: AtomicU64,
}

/// What changes with the roster alone.
struct Roster {
    limits: RelayLimits,
    members: Members,
}

/// A tag that is two members' is nobody's (`None`): of two keys that a member made to begin alike, neither
/// gets the other's frames.
type Members = HashMap<u64, Option<Arc<Client>>, HashesWords>;

type Tokens = HashMap<u64, Arc<Client>, HashesWords>;

/// A member, whether it has a session at this moon or not.
struct Client {
    key: WireguardPublicKey,
    state: Mutex<State>,
}

/// A member with a place has a session at this moon.
struct State {
    /// The roster has it no more; whoever still holds it finds nobody.
    removed: bool,
    /// It was a client of the process before, and nobody has sent to it.
    expected: bool,
    /// Where the client has shown to be: its frames come from there and go there.
    proven: Option<Place>,
    /// Where it says that it is.
    claimed: Option<Place>,
    rate: Rate,
    account: Account,
}

/// An address, and the token that counts from there.
#[derive(Clone, Copy)]
struct Place {
    remote: Remote,
    token: u64,
    /// Until when it counts, as the client asked last from there.
    until: Instant,
}

impl RelayServer {
    /// Makes a moon without members.
    pub fn new(limits: RelayLimits) -> Self {
        Self {
            roster: ArcSwap::from_pointee(Roster {
                limits,
                members: Members::default(),
            }),
            tokens: std::array::from_fn(|_| RwLock::default()),
            share: Mutex::default(),
            notices: Notices::new(),
            secret: Secret::default(),
            sought: Sought::default(),
            clients: AtomicUsize::new(0),
            expired_micros: AtomicU64::new(0),
            next_id: AtomicU64::new(0),
            relayed_frames: AtomicU64::new(0),
            relayed_bytes: AtomicU64::new(0),
            limited_frames: AtomicU64::new(0),
            notices_sent: AtomicU64::new(0),
        }
    }

    /// Brings the members in line with the roster: those that are enabled. Who is gone has lost its session
    /// and gets no frame when this returns. Not to be called by two threads at once.
    pub fn set_members(&self, keys: impl IntoIterator<Item = WireguardPublicKey>) {
        let before = self.roster.load_full();
        let mut members = Members::default();
        for key in keys {
            let word = word(MemberTag::of(key.as_bytes()));
            match members.entry(word) {
                Entry::Vacant(vacant) => {
                    let kept = before.members.get(&word).cloned().flatten();
                    let client = kept
                        .filter(|client| client.key == key)
                        .unwrap_or_else(|| Arc::new(self.new_client(key)));
                    vacant.insert(Some(client));
                }
                Entry::Occupied(mut occupied) => {
                    if occupied.get().as_ref().is_none_or(|other| other.key != key) {
                        occupied.insert(None);
                    }
                }
            }
        }
        members.shrink_to_fit();
        let limits = before.limits;
        self.roster.store(Arc::new(Roster { limits, members }));
        let after = self.roster.load();
        for client in before.members.values().flatten() {
            let kept = after.member(MemberTag::of(client.key.as_bytes()));
            if !kept.is_some_and(|kept| Arc::ptr_eq(kept, client)) {
                let mut state = client.lock();
                state.removed = true;
                self.retain(&mut state, |_| false);
            }
        }
    }

    /// Sets other limits. Clients that are there already stay, whatever the number.
    ///
    /// Not to be called while another thread calls [`RelayServer::set_members`].
    pub fn set_limits(&self, limits: RelayLimits) {
        let members = self.roster.load().members.clone();
        self.roster.store(Arc::new(Roster { limits, members }));
    }

    /// The limits in force.
    pub fn limits(&self) -> RelayLimits {
        self.roster.load().limits
    }

    /// Answers a member's request, which its session carried from `from`: the token for frames from there.
    ///
    /// `renew` is how soon the client says that it asks again; zero: it does not. `id` is the request's. If it is the token that was given for `from` before, the client has it from
    /// there, and the address is proven. A client gets the same token for the same address as long as its
    /// session lasts; for another one it gets another, and its frames go on to the address before until the
    /// new one is proven.
    ///
    /// # Errors
    ///
    /// [`RelayRefused::NoMoon`] if the key is no member's, [`RelayRefused::Full`] if there are as many
    /// clients as may be.
    pub fn grant(
        &self,
        key: &WireguardPublicKey,
        from: Remote,
        id: u64,
        renew: Duration,
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Result<Granted, RelayRefused> {
        self.secret.ensure(rng);
        let lasts = (renew + PLACE_GRACE).clamp(PLACE_LIFETIME, PLACE_LIFETIME_MAX);
        let roster = self.roster.load_full();
        let client = roster
            .member(MemberTag::of(key.as_bytes()))
            .filter(|client| client.key == *key)
            .ok_or(RelayRefused::NoMoon)?;
        self.make_room(roster.limits.clients_max, client, now);
        let mut state = client.lock();
        if state.removed {
            return Err(RelayRefused::NoMoon);
        }
        self.retain(&mut state, |place| place.lives(now));
        if !state.is_client() {
            let max = roster.limits.clients_max;
            let one_more = |clients| (clients < max).then_some(clients + 1);
            self.clients
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
                .map_err(|_| RelayRefused::Full)?;
        }
        let known = state.places().find(|place| place.remote == from);
        let token = known.map(|place| {
            place.until = now + lasts;
            place.token
        });
        let token = token.unwrap_or_else(|| {
            let token = self.new_token(client, rng);
            let claimed = Place {
                remote: from,
                token,
                until: now + lasts,
            };
            if let Some(old) = state.claimed.replace(claimed) {
                self.forget(old.token);
            }
            token
        });
        if token == id {
            self.prove(&mut state, from, token);
        }
        let proven = state.proven.is_some_and(|place| place.remote == from);
        Ok(Granted {
            token,
            lasts,
            proven,
        })
    }

    /// Takes a datagram that came from `from`, and rewrites it in place if it is to be sent on. A few
    /// hundred nanoseconds.
    ///
    /// A moon that is itself a client of other moons looks for its own tokens first: here theirs are
    /// unknown.
    pub fn forward(&self, from: Remote, datagram: &mut [u8], now: Instant) -> Forwarded {
        if !is_frame(datagram) {
            return Forwarded::NotOurs;
        }
        let header = match parse(datagram) {
            Some(Frame::Data(header)) => header,
            // Moons tell clients, never the other way round.
            Some(Frame::Notice(..)) => return Forwarded::NotOurs,
            None => return Forwarded::Dropped(RelayDropped::Malformed),
        };
        let bytes = u64::try_from(datagram.len()).unwrap_or(u64::MAX);
        let roster = self.roster.load();
        let Some(sender) = self.sender(header.token) else {
            return self.answer(from, Notice::UnknownToken, header, now);
        };
        match self.pass(&sender, from, header.token, bytes, roster.limits, now) {
            Ok(()) => {}
            Err(Refused::UnknownToken) => {
                return self.answer(from, Notice::UnknownToken, header, now);
            }
            Err(Refused::Limited(reason)) => {
                self.limited_frames.fetch_add(1, Ordering::Relaxed);
                return Forwarded::Dropped(reason);
            }
        }
        let receiver = roster
            .member(header.member)
            .filter(|receiver| may_talk(&sender.key, &receiver.key));
        let Some(receiver) = receiver else {
            return self.answer(from, Notice::NotAllowed, header, now);
        };
        let proven = receiver.lock().proven;
        let Some(place) = proven.filter(|place| place.lives(now)) else {
            self.seek(receiver);
            return self.answer(from, Notice::NotHere, header, now);
        };
        let rewritten = Header {
            token: place.token,
            member: MemberTag::of(sender.key.as_bytes()),
        }
        .emit();
        datagram[..rewritten.len()].copy_from_slice(&rewritten);
        self.relayed_frames.fetch_add(1, Ordering::Relaxed);
        self.relayed_bytes.fetch_add(bytes, Ordering::Relaxed);
        Forwarded::To(place.remote)
    }

    /// Frees what clients had that are gone.
    pub fn expire(&self, now: Instant) {
        self.expired_micros
            .store(now.as_micros(), Ordering::Relaxed);
        let roster = self.roster.load_full();
        for client in roster.members.values().flatten() {
            self.retain(&mut client.lock(), |place| place.lives(now));
        }
    }

    /// What the moon has done. A client that is gone is counted until [`RelayServer::expire`].
    pub fn view(&self) -> RelayView {
        RelayView {
            clients: self.clients.load(Ordering::Relaxed),
            relayed_frames: self.relayed_frames.load(Ordering::Relaxed),
            relayed_bytes: self.relayed_bytes.load(Ordering::Relaxed),
            limited_frames: self.limited_frames.load(Ordering::Relaxed),
            notices: self.notices_sent.load(Ordering::Relaxed),
        }
    }

    fn new_client(&self, key: WireguardPublicKey) -> Client {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Client {
            key,
            state: Mutex::new(State {
                removed: false,
                expected: false,
                proven: None,
                claimed: None,
                rate: Rate::default(),
                account: Account::new(id),
            }),
        }
    }

    /// The client that has this token, wherever it is.
    pub(super) fn client_with(&self, token: u64, now: Instant) -> Option<WireguardPublicKey> {
        let client = self.sender(token)?;
        let mut state = client.lock();
        let known = state
            .places()
            .any(|place| place.token == token && place.lives(now));
        known.then_some(client.key)
    }

    fn sender(&self, token: u64) -> Option<Arc<Client>> {
        let tokens = self.shard(token).read();
        let tokens = tokens.unwrap_or_else(PoisonError::into_inner);
        tokens.get(&token).cloned()
    }

    /// Frees the places of clients that are gone if a new one would find none.
    fn make_room(&self, clients_max: usize, client: &Client, now: Instant) {
        if self.clients.load(Ordering::Acquire) < clients_max || client.lock().is_client() {
            return;
        }
        let last = Instant::from_micros(self.expired_micros.load(Ordering::Relaxed));
        if now.saturating_since(last) >= EXPIRE_INTERVAL {
            self.expire(now);
        }
    }

    /// Judges a frame by its sender alone, and charges it.
    fn pass(
        &self,
        sender: &Client,
        from: Remote,
        token: u64,
        bytes: u64,
        limits: RelayLimits,
        now: Instant,
    ) -> Result<(), Refused> {
        let mut guard = sender.lock();
        let state = &mut *guard;
        let comes_from =
            |place: &&mut Place| place.remote == from && place.token == token && place.lives(now);
        state
            .places()
            .find(comes_from)
            .ok_or(Refused::UnknownToken)?;
        self.prove(state, from, token);
        let cost = bytes + UNDERLAY_BYTES;
        if !state.rate.admits(limits.client_bytes_per_second, now) {
            return Err(Refused::Limited(RelayDropped::OverRate));
        }
        let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        if !share.admit(&mut state.account, cost, limits.total_bytes_per_second, now) {
            return Err(Refused::Limited(RelayDropped::OverShare));
        }
        state.rate.charge(cost);
        Ok(())
    }

    /// Takes the address that the client claims for its own, if these are it and its token.
    fn prove(&self, state: &mut State, from: Remote, token: u64) {
        let is_it = |place: &Place| place.remote == from && place.token == token;
        if !state.claimed.as_ref().is_some_and(is_it) {
            return;
        }
        let before = std::mem::replace(&mut state.proven, state.claimed.take());
        if let Some(before) = before {
            self.forget(before.token);
        }
    }

    fn answer(&self, to: Remote, notice: Notice, header: Header, now: Instant) -> Forwarded {
        if !self.notices.admit(to, now) {
            return Forwarded::Dropped(RelayDropped::Unanswered);
        }
        self.notices_sent.fetch_add(1, Ordering::Relaxed);
        Forwarded::Answer(emit_notice(notice, header))
    }

    /// Forgets a client's places, all but some; one without is no client.
    fn retain(&self, state: &mut State, keep: impl Fn(&Place) -> bool) {
        let was_client = state.is_client();
        for place in [&mut state.proven, &mut state.claimed] {
            if let Some(gone) = place.take_if(|place| !keep(place)) {
                self.forget(gone.token);
            }
        }
        if was_client && !state.is_client() {
            self.clients.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn new_token(&self, client: &Arc<Client>, rng: &mut impl RngCore) -> u64 {
        loop {
            let token = rng.next_u64();
            let tokens = self.shard(token).write();
            let mut tokens = tokens.unwrap_or_else(PoisonError::into_inner);
            if let Entry::Vacant(vacant) = tokens.entry(token) {
                vacant.insert(Arc::clone(client));
                return token;
            }
        }
    }

    fn forget(&self, token: u64) {
        let tokens = self.shard(token).write();
        let mut tokens = tokens.unwrap_or_else(PoisonError::into_inner);
        tokens.remove(&token);
    }

    fn shard(&self, token: u64) -> &RwLock<Tokens> {
        let shard = usize::try_from(token % SHARDS as u64).expect("below the number of shards");
        &self.tokens[shard]
    }
}

/// Why a frame is judged by its sender not to be sent on.
enum Refused {
    UnknownToken,
    Limited(RelayDropped),
}

impl Roster {
    fn member(&self, tag: MemberTag) -> Option<&Arc<Client>> {
        self.members.get(&word(tag))?.as_ref()
    }
}

impl Client {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn is_client(&self) -> bool {
        self.proven.is_some() || self.claimed.is_some()
    }

    fn places(&mut self) -> impl Iterator<Item = &mut Place> {
        self.proven.iter_mut().chain(&mut self.claimed)
    }
}

impl Place {
    fn lives(&self, now: Instant) -> bool {
        now < self.until
    }
}

fn word(tag: MemberTag) -> u64 {
    u64::from_be_bytes(tag.0)
}

#[cfg(test)]
mod tests;
