use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{relay, wireguard::DATA_BYTES_MIN};

use crate::{
    Remote, Via,
    attention::Attention,
    handover::PeerRecord,
    packet::{Cut, cut},
    paths::{FLOOR, MTU_BASE},
    session::Session,
    watched::{Moment, Watched},
};

/// What the data threads and the engine share about one peer.
///
/// The data threads leave stamps and counts here; the engine reads them when its timers run. A flag is
/// raised only when there is a timer to start, so a busy peer costs the engine nothing.
pub(crate) struct Link {
    pub(crate) peer: WireguardPublicKey,
    pub(crate) speaks_mesh: bool,
    /// The session to send on.
    pub(crate) current: ArcSwapOption<Session>,
    /// The way that packets take.
    way: ArcSwapOption<Way>,
    /// Packets come by another way; which one, in the mutex, that is locked only when this changes.
    elsewhere: AtomicBool,
    heard: Mutex<Option<Via>>,
    /// The engine has to look at this peer.
    attention: Attention,
    /// The engine wants to know of the next packet sent, having stopped trying by itself.
    pub(crate) wake_on_send: AtomicBool,
    /// A session's age or count calls for a new one.
    pub(crate) rekey_wanted: AtomicBool,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) last_data_sent: Moment,
    pub(crate) last_data_received: Moment,
    /// The first data sent after the last authentic packet came.
    pub(crate) unanswered: Watched,
    /// The first data that came after anything was sent.
    pub(crate) owes: Watched,
    /// The first datagram sent that not every way carries, after the engine last checked that its own does.
    pub(crate) large: Watched,
}

/// A way, ready for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) via: Via,
    /// Where datagrams go.
    pub(crate) remote: Remote,
    /// What stands in front of them for a moon.
    pub(crate) header: Option<[u8; relay::HEADER_BYTES]>,
    /// The largest packet that goes in one datagram.
    pub(crate) fit: u16,
    /// What the way is said to carry: [`Way::fit`] where a size is proven, and never less than that.
    pub(crate) mtu: u16,
}

impl Way {
    /// A way whose peer cannot be asked what it carries.
    pub(crate) const fn unmeasured(via: Via, remote: Remote) -> Self {
        Self {
            via,
            remote,
            header: None,
            fit: MTU_BASE,
            mtu: MTU_BASE,
        }
    }

    /// The same with the size that is proven on it.
    pub(crate) fn measured(self, proven: Option<u16>) -> Self {
        Self {
            fit: proven.unwrap_or(FLOOR),
            mtu: proven.unwrap_or(MTU_BASE),
            ..self
        }
    }
}

/// Datagrams that are longer than those which every way carries.
const LARGE_BYTES: usize = FLOOR as usize + DATA_BYTES_MIN;

/// Two handshakes that crossed are over within this, be one of them repeated once.
const CROSSED_WITHIN: Duration = Duration::from_secs(10);

/// What a packet sent means to the timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// An answer is expected.
    Data,
    /// A keepalive, or an answer itself.
    Quiet,
    /// A probe of a way, which the peer may never get.
    Probe,
    /// One that goes a few hops only.
    Opener,
}

impl Link {
    pub(crate) fn new(peer: WireguardPublicKey, speaks_mesh: bool, attention: Attention) -> Self {
        Self {
            peer,
            speaks_mesh,
            current: ArcSwapOption::empty(),
            way: ArcSwapOption::empty(),
            elsewhere: AtomicBool::new(false),
            heard: Mutex::default(),
            attention,
            wake_on_send: AtomicBool::new(false),
            rekey_wanted: AtomicBool::new(false),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            last_data_sent: Moment::default(),
            last_data_received: Moment::default(),
            unanswered: Watched::default(),
            owes: Watched::default(),
            large: Watched::default(),
        }
    }

    pub(crate) fn via(&self) -> Option<Via> {
        self.way.load().as_ref().map(|way| way.via)
    }

    pub(crate) fn way(&self) -> Option<Arc<Way>> {
        self.way.load_full()
    }

    /// What the way in use is said to carry.
    pub(crate) fn mtu(&self) -> u16 {
        self.way.load().as_ref().map_or(MTU_BASE, |way| way.mtu)
    }

    /// Whether a packet of so many bytes goes in one datagram.
    pub(crate) fn fits(&self, packet_bytes: usize) -> bool {
        let way = self.way.load();
        packet_bytes <= way.as_ref().map_or(FLOOR, |way| way.fit).into()
    }

    /// What becomes of a packet: what is not too big may have to be sent in pieces.
    pub(crate) fn cut(&self, packet: &[u8], id: u32) -> Cut {
        let way = self.way.load();
        let (fit, mtu) = way
            .as_ref()
            .map_or((FLOOR, MTU_BASE), |way| (way.fit, way.mtu));
        cut(packet, fit, mtu, id)
    }

    pub(crate) fn set_way(&self, way: Option<Way>) {
        if self.way.load().as_deref() != way.as_ref() {
            self.way.store(way.map(Arc::new));
        }
    }

    /// Notes that the newest authentic packet of a session that is not superseded came by another way than that in use.
    pub(crate) fn note_other_way(&self, via: Via) {
        let new = !self.elsewhere.swap(true, Ordering::Relaxed);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if new || *heard != Some(via) {
            *heard = Some(via);
            drop(heard);
            self.raise();
        }
    }

    /// Notes that it came by the way in use.
    pub(crate) fn note_usual_way(&self) {
        if self.elsewhere.load(Ordering::Relaxed) {
            self.elsewhere.store(false, Ordering::Relaxed);
        }
    }

    /// The way other than that in use by which a packet came last.
    pub(crate) fn heard(&self) -> Option<Via> {
        if !self.elsewhere.load(Ordering::Relaxed) {
            return None;
        }
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.filter(|via| self.via() != Some(*via))
    }

    /// Whether this is the session to send on, or one of the same age: where two handshakes crossed, each side may
    /// send on that which the other began.
    pub(crate) fn is_in_use(&self, session: &Arc<Session>) -> bool {
        let current = self.current.load();
        current.as_ref().is_some_and(|current| {
            Arc::ptr_eq(current, session)
                || current.established.saturating_since(session.established) < CROSSED_WITHIN
        })
    }

    /// Goes on where another process of this node stopped.
    pub(crate) fn restore(&self, record: &PeerRecord) {
        self.sent_bytes.store(record.sent_bytes, Ordering::Relaxed);
        self.received_bytes
            .store(record.received_bytes, Ordering::Relaxed);
        for (moment, at) in [
            (&self.last_data_sent, record.last_data_sent),
            (&self.last_data_received, record.last_data_received),
        ] {
            if let Some(at) = at {
                moment.set(at);
            }
        }
        for (watched, since) in [
            (&self.unanswered, record.unanswered),
            (&self.owes, record.owes),
        ] {
            if let Some(since) = since {
                watched.start(since);
            }
        }
    }

    /// Asks the engine to look at this peer.
    pub(crate) fn raise(&self) {
        self.attention.raise();
    }

    /// Whether the engine was asked to look, once.
    pub(crate) fn take_attention(&self) -> bool {
        self.attention.take()
    }

    /// Notes a datagram that was sealed for this peer.
    pub(crate) fn note_sent(&self, session: &Session, bytes: usize, kind: Sent, now: Instant) {
        add(&self.sent_bytes, bytes);
        if !matches!(kind, Sent::Probe | Sent::Opener) {
            self.owes.clear();
        }
        let mut look = self.wake_on_send.load(Ordering::Relaxed)
            && self.wake_on_send.swap(false, Ordering::AcqRel);
        if kind == Sent::Data {
            self.last_data_sent.set(now);
            look |= self.unanswered.start(now);
            if bytes > LARGE_BYTES {
                look |= self.large.start(now);
            }
        }
        if session.wants_rekey_on_send(now) {
            look |= !self.rekey_wanted.swap(true, Ordering::AcqRel);
        }
        if look {
            self.raise();
        }
    }

    /// Notes an authentic datagram from this peer, whatever is in it.
    pub(crate) fn note_authentic(&self, bytes: usize) {
        add(&self.received_bytes, bytes);
        self.unanswered.clear();
    }

    /// Notes that the datagram carried data, which asks for an answer of some kind.
    pub(crate) fn note_data_received(&self, now: Instant) {
        self.last_data_received.set(now);
        if self.owes.start(now) {
            self.raise();
        }
    }
}

fn add(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    // What threads do to each other meanwhile is in `tests/orders.rs`.
    #[test]
    fn a_busy_peer_tells_the_engine_once_until_it_has_looked() {
        let at = Instant::from_micros;
        let watched = Watched::default();
        assert!(watched.start(at(1)));
        for micros in 2..100 {
            watched.clear();
            assert!(!watched.start(at(micros)), "the engine has a timer");
        }
        assert_eq!(watched.watch(false), Some(at(99)));
        watched.clear();
        assert!(!watched.start(at(100)), "it goes on watching");
        watched.clear();
        assert_eq!(watched.watch(true), None);
        assert!(!watched.start(at(100)), "its timer is still armed");
        watched.clear();
        assert_eq!(watched.watch(false), None);
        assert!(watched.start(at(101)), "and asks to be told again");
    }
}
