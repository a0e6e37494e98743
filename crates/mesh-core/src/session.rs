use std::time::Duration;

use mesh_aead::PacketKey;
use mesh_types::Instant;
use mesh_wire::wireguard::{DATA_BYTES_MIN, DATA_HEADER_BYTES, DataHeader, data_message_bytes};

use crate::{
    handover::SessionRecord,
    noise::{Protocol, TransportKeys},
    replay::{Order, ReplayWindow, WINDOW_PACKETS},
    usage::Usage,
};

/// The initiator asks for a new session when it sends on one of this age (whitepaper section 6.2).
pub(crate) const REKEY_AFTER: Duration = Duration::from_secs(120);

/// The initiator asks for a new session when it receives on one of this age: what is left until
/// [`REJECT_AFTER`] is time for a keepalive and one lost handshake (10 s and 5 s).
pub(crate) const REKEY_AFTER_RECEIVING: Duration = Duration::from_secs(165);

/// Nothing is sent or taken on a session of this age (whitepaper section 6.2). The engine forgets its
/// keys at once, sooner than the whitepaper asks (three times this).
pub(crate) const REJECT_AFTER: Duration = Duration::from_secs(180);

/// Nothing is sealed in the last part of that: the peer, for whom the session may be older by the time that
/// the handshake's response took, would refuse what comes to it after the end.
const LATENESS: Duration = Duration::from_secs(1);

/// What a send counter grows by when a session is handed on: more than any thread of the old process can
/// still have had in hand, and little beside the limits (a 256th of an AES session's packets).
pub(crate) const COUNTER_LEAP: u64 = 1 << 20;

/// How many sessions are kept for packets under way. When two handshakes cross, each side goes on with both
/// sessions and sends on that which the other began; after another crossing, packets sent on three older ones
/// may still come.
pub(crate) const PREVIOUS_MAX: usize = 3;

/// All that a peer may have: those, the current one, and one that waits for the peer's first packet.
pub(crate) const SESSIONS_MAX: usize = PREVIOUS_MAX + 2;

/// How many packets a session may seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageLimits {
    rekey_after: u64,
    reject_after: u64,
    /// The peer may know of no large packets, and seal more than this side does.
    open_before: u64,
}

impl MessageLimits {
    /// WireGuard's limits (whitepaper section 6.1), or those that keep AES-GCM's bounds on the data
    /// under one key: 2^27 and 2^28 packets, an eighth where packets over 2 KiB are carried.
    pub(crate) const fn new(protocol: Protocol, large_packets: bool) -> Self {
        let (rekey_after, reject_after) = match (protocol, large_packets) {
            (Protocol::Wireguard, _) => (1 << 60, u64::MAX - WINDOW_PACKETS),
            (Protocol::MeshAes, false) => (1 << 27, 1 << 28),
            (Protocol::MeshAes, true) => (1 << 24, 1 << 25),
        };
        let open_before = match protocol {
            Protocol::Wireguard => u64::MAX - WINDOW_PACKETS,
            Protocol::MeshAes => 1 << 28,
        };
        Self {
            rekey_after,
            reject_after,
            open_before,
        }
    }
}

/// A session that seals nothing more: too old, out of counters, or taken away. The packet is for
/// [`crate::Engine::handle_packet`], which holds it back until there is another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over; give the packet to the engine")]
pub struct SealError;

/// Why [`Session::open`] refuses a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenFailure {
    Over,
    NotAuthentic,
    Replayed,
}

/// One set of transport keys. Shared by the data threads; sealing takes an atomic increment, opening an
/// uncontended lock.
pub(crate) struct Session {
    pub(crate) local_index: u32,
    remote_index: u32,
    send: PacketKey,
    receive: PacketKey,
    /// What both were made of, for the process that follows: a [`PacketKey`] does not give it back.
    keys: TransportKeys,
    limits: MessageLimits,
    pub(crate) protocol: Protocol,
    pub(crate) established: Instant,
    /// Whether this side asked for the session, and so has to ask for the next.
    pub(crate) initiator: bool,
    usage: Usage,
}

/// What a session starts from, besides its keys.
pub(crate) struct SessionStart {
    pub(crate) local_index: u32,
    pub(crate) remote_index: u32,
    pub(crate) protocol: Protocol,
    pub(crate) limits: MessageLimits,
    pub(crate) established: Instant,
    pub(crate) initiator: bool,
}

impl Session {
    pub(crate) fn new(start: SessionStart, keys: TransportKeys) -> Self {
        // Who asked for a session has the other one's proof in the answer.
        let usage = Usage::new(0, ReplayWindow::new(), start.initiator);
        Self::used(start, keys, usage)
    }

    fn used(start: SessionStart, keys: TransportKeys, usage: Usage) -> Self {
        let cipher = start.protocol.cipher();
        Self {
            local_index: start.local_index,
            remote_index: start.remote_index,
            send: PacketKey::new(cipher, &keys.send),
            receive: PacketKey::new(cipher, &keys.receive),
            keys,
            limits: start.limits,
            protocol: start.protocol,
            established: start.established,
            initiator: start.initiator,
            usage,
        }
    }

    /// Goes on with a session that another process of this node handed on; `None` if it has no packet
    /// left to seal, or is over.
    ///
    /// The first packet sealed has a number at least [`COUNTER_LEAP`] above all that the other process
    /// sealed.
    pub(crate) fn resume(
        record: SessionRecord,
        limits: MessageLimits,
        now: Instant,
    ) -> Option<Self> {
        let counter = record.counter.checked_add(COUNTER_LEAP)?;
        let start = SessionStart {
            local_index: record.local_index,
            remote_index: record.remote_index,
            protocol: record.protocol,
            limits,
            established: record.established,
            initiator: record.initiator,
        };
        let usage = Usage::new(counter, record.window, record.confirmed);
        let session = Self::used(start, record.keys, usage);
        let goes_on = !session.is_over(now) && session.has_counters();
        goes_on.then_some(session)
    }

    /// Ends the session, and says what the process that follows has to know.
    pub(crate) fn record(&self) -> SessionRecord {
        let (counter, window) = self.usage.record();
        SessionRecord {
            local_index: self.local_index,
            remote_index: self.remote_index,
            protocol: self.protocol,
            initiator: self.initiator,
            confirmed: self.is_confirmed(),
            established: self.established,
            counter,
            keys: TransportKeys {
                send: self.keys.send.clone(),
                receive: self.keys.receive.clone(),
            },
            window,
        }
    }

    /// Seals the packet at `frame[16..16 + packet_bytes]` in place, padded with zeros to a multiple of 16
    /// bytes or to `fit`, whichever is less; returns the transport message's length.
    pub(crate) fn seal(
        &self,
        frame: &mut [u8],
        packet_bytes: usize,
        fit: usize,
        now: Instant,
    ) -> Result<usize, SealError> {
        if !self.is_usable(now) {
            return Err(SealError);
        }
        let counter = self.usage.take_number();
        let length = data_message_bytes(packet_bytes).min(DATA_BYTES_MIN + fit.max(packet_bytes));
        let header = DataHeader {
            receiver: self.remote_index,
            counter,
        };
        let (head, body) = frame[..length].split_at_mut(DATA_HEADER_BYTES);
        head.copy_from_slice(&header.emit());
        body[packet_bytes..].fill(0);
        self.send.seal(counter, &[], body);
        Ok(length)
    }

    /// Opens a transport message of this session in place; returns its packet, padding included.
    pub(crate) fn open<'a>(
        &self,
        counter: u64,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Result<(&'a mut [u8], Order), OpenFailure> {
        if self.is_over(now) || counter >= self.limits.open_before {
            return Err(OpenFailure::Over);
        }
        let packet = self
            .receive
            .open(counter, &[], &mut datagram[DATA_HEADER_BYTES..])
            .map_err(|_| OpenFailure::NotAuthentic)?;
        let order = self.usage.accept(counter).ok_or(OpenFailure::Replayed)?;
        Ok((packet, order))
    }

    /// Whether packets may be sealed.
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        !self.is_over(now + LATENESS) && self.has_counters()
    }

    fn has_counters(&self) -> bool {
        self.usage.next() < self.limits.reject_after
    }

    /// Whether nothing more is sent or taken.
    fn is_over(&self, now: Instant) -> bool {
        self.usage.is_retired() || now.saturating_since(self.established) >= REJECT_AFTER
    }

    /// Whether sending at `now` calls for a new session.
    pub(crate) fn wants_rekey_on_send(&self, now: Instant) -> bool {
        self.usage.next() >= self.limits.rekey_after
            || (self.initiator && now.saturating_since(self.established) >= REKEY_AFTER)
    }

    /// Whether receiving at `now` calls for a new session.
    pub(crate) fn wants_rekey_on_receive(&self, now: Instant) -> bool {
        self.initiator && now.saturating_since(self.established) >= REKEY_AFTER_RECEIVING
    }

    /// Whether the peer has proven to hold the keys.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.usage.is_confirmed()
    }

    /// Notes that an authentic packet came; true for the first of a responder's session.
    pub(crate) fn confirm(&self) -> bool {
        self.usage.confirm()
    }

    /// Ends the session at once for everyone who holds it.
    pub(crate) fn retire(&self) {
        self.usage.retire();
    }

    /// When the session ends by its age.
    pub(crate) fn expires(&self) -> Instant {
        self.established + REJECT_AFTER
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    /// Room for any padding.
    const WIDE: usize = 2_000;

    fn pair(protocol: Protocol, large_packets: bool) -> (Session, Session) {
        let start = |local_index, remote_index, initiator| SessionStart {
            local_index,
            remote_index,
            protocol,
            limits: MessageLimits::new(protocol, large_packets),
            established: Instant::ZERO,
            initiator,
        };
        let keys = |send, receive| TransportKeys {
            send: Zeroizing::new([send; 32]),
            receive: Zeroizing::new([receive; 32]),
        };
        (
            Session::new(start(1, 2, true), keys(3, 4)),
            Session::new(start(2, 1, false), keys(4, 3)),
        )
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_packet_is_padded_with_zeros_and_opened_once() {
        let (a, b) = pair(Protocol::Wireguard, false);
        let mut frame = [0xff; 100];
        frame[16..21].copy_from_slice(b"hello");
        let length = a.seal(&mut frame, 5, WIDE, at(0)).unwrap();
        assert_eq!(length, 48);
        let header = DataHeader::parse(&frame[..length]).unwrap();
        assert_eq!((header.receiver, header.counter), (2, 0));
        let mut copy = frame;
        let (packet, order) = b.open(0, &mut frame[..length], at(0)).unwrap();
        assert_eq!(packet, b"hello\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(order, Order::Newest);
        assert_eq!(
            b.open(0, &mut copy[..length], at(0)),
            Err(OpenFailure::Replayed)
        );
    }

    #[test]
    fn a_session_rekeys_at_120_seconds_and_ends_at_180() {
        let (a, b) = pair(Protocol::Wireguard, false);
        assert!(!a.wants_rekey_on_send(at(119)));
        assert!(a.wants_rekey_on_send(at(120)));
        assert!(!a.wants_rekey_on_receive(at(164)));
        assert!(a.wants_rekey_on_receive(at(165)));
        assert!(!b.wants_rekey_on_send(at(179)) && !b.wants_rekey_on_receive(at(179)));
        let mut frame = [0; 100];
        let length = a.seal(&mut frame, 0, WIDE, at(178)).unwrap();
        // What is sealed arrives later, where the session may be older.
        assert_eq!(a.seal(&mut frame, 0, WIDE, at(179)), Err(SealError));
        let mut copy = frame;
        assert!(b.open(0, &mut copy[..length], at(179)).is_ok());
        assert_eq!(
            b.open(0, &mut frame[..length], at(180)),
            Err(OpenFailure::Over)
        );
    }

    #[test]
    fn the_limits_in_messages_are_those_of_the_protocol() {
        for (protocol, large, rekey, reject, open_before) in [
            (
                Protocol::Wireguard,
                false,
                1 << 60,
                u64::MAX - 8192,
                u64::MAX - 8192,
            ),
            (
                Protocol::Wireguard,
                true,
                1 << 60,
                u64::MAX - 8192,
                u64::MAX - 8192,
            ),
            (Protocol::MeshAes, false, 1 << 27, 1 << 28, 1 << 28),
            // Of a peer that does not know of large packets as many are taken as it may seal.
            (Protocol::MeshAes, true, 1 << 24, 1 << 25, 1 << 28),
        ] {
            let (a, b) = pair(protocol, large);
            let mut frame = [0; 32];
            a.usage.set_next(rekey - 1);
            assert!(!a.wants_rekey_on_send(at(0)));
            assert!(a.seal(&mut frame, 0, WIDE, at(0)).is_ok());
            assert!(a.wants_rekey_on_send(at(0)));
            a.usage.set_next(reject - 1);
            assert!(a.seal(&mut frame, 0, WIDE, at(0)).is_ok());
            assert!(b.open(reject - 1, &mut frame, at(0)).is_ok());
            assert_eq!(a.seal(&mut frame, 0, WIDE, at(0)), Err(SealError));
            assert_eq!(
                b.open(open_before, &mut frame, at(0)),
                Err(OpenFailure::Over)
            );
        }
    }

    #[test]
    fn a_retired_session_does_nothing_for_those_who_still_hold_it() {
        let (a, b) = pair(Protocol::MeshAes, false);
        let mut frame = [0; 32];
        a.seal(&mut frame, 0, WIDE, at(0)).unwrap();
        b.retire();
        assert_eq!(b.open(0, &mut frame, at(0)), Err(OpenFailure::Over));
        a.retire();
        assert_eq!(a.seal(&mut frame, 0, WIDE, at(0)), Err(SealError));
    }

    #[test]
    fn a_session_that_is_handed_on_leaps_ahead_and_ends_where_its_limit_is() {
        for (protocol, large, last) in [
            (Protocol::MeshAes, false, 1 << 28),
            (Protocol::MeshAes, true, 1 << 25),
            (Protocol::Wireguard, false, u64::MAX - WINDOW_PACKETS),
        ] {
            let limits = MessageLimits::new(protocol, large);
            let (a, _) = pair(protocol, large);
            a.usage.set_next(41);
            let again = Session::resume(a.record(), limits, at(0)).unwrap();
            let mut frame = [0; 32];
            again.seal(&mut frame, 0, WIDE, at(0)).unwrap();
            let header = DataHeader::parse(&frame).unwrap();
            assert_eq!(header.counter, 41 + COUNTER_LEAP);
            assert!(Session::resume(a.record(), limits, at(180)).is_none());

            a.usage.set_next(last - COUNTER_LEAP - 1);
            assert!(Session::resume(a.record(), limits, at(0)).is_some());
            a.usage.set_next(last - COUNTER_LEAP);
            assert!(Session::resume(a.record(), limits, at(0)).is_none());
            a.usage.set_next(u64::MAX);
            assert!(Session::resume(a.record(), limits, at(0)).is_none());
        }
    }

    #[test]
    fn threads_that_seal_at_once_never_share_a_counter() {
        let (a, _) = pair(Protocol::Wireguard, false);
        let counters = std::sync::Mutex::new(std::collections::BTreeSet::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let mut frame = [0; 32];
                        a.seal(&mut frame, 0, WIDE, at(0)).unwrap();
                        let header = DataHeader::parse(&frame).unwrap();
                        assert!(counters.lock().unwrap().insert(header.counter));
                    }
                });
            }
        });
        assert_eq!(counters.lock().unwrap().len(), 2000);
    }
}
