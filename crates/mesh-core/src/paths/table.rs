//! The ways to one peer: what is known of each, which are forgotten when there are too many, and which is
//! the better of two.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, btree_map},
    time::Duration,
};

use mesh_types::Instant;

use super::mtu::Mtu;
use crate::{Carrier, Remote, Via};

/// When a way that never answered is probed, after it was heard of. Both sides do so at about the same
/// time, which opens NATs from within: the first probe opens this side's, the second finds the other's
/// open, the rest are for loss and for a peer that hears later. By IPv4 the first is an *opener*, which does
/// not reach the other side: Linux tracks a packet that nobody asked for, if no filter drops it, and then
/// gives its port to nobody behind it. So nothing should come there before the peer's own first probe has
/// gone out; 100 ms is what the peer may hear later by a far moon.
pub(super) const BURST: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(350),
    Duration::from_millis(500),
    Duration::from_millis(900),
    Duration::from_millis(1600),
];

/// Other straight ways that are probed along with the way in use; relays always are.
const DOUBT_OTHERS: usize = 8;

/// A probe is overdue after twice the round trip, and no sooner than this after one.
const OVERDUE_SLACK: Duration = Duration::from_millis(100);

/// The round trip of a way that never told it.
const RTT_UNKNOWN: Duration = Duration::from_millis(200);

/// Between probes of a way that owes answers.
pub(super) const OWED_INTERVAL: Duration = Duration::from_millis(500);

/// Ways known at a time. The ones that never answered go first.
pub(super) const WAYS_MAX: usize = 32;

/// Ports of one address that packets came from: those that answered last, so that one NAT does not fill
/// the table.
const PORTS_HEARD_MAX: usize = 4;

/// Unanswered probes that are remembered of one way.
const WAITING_MAX: usize = 8;

/// How a way became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A controller, a peer or the roster told of it.
    Told,
    /// A packet came by it.
    Heard,
    /// A moon relays.
    Moon,
}

#[derive(Debug)]
pub(super) struct Way {
    pub(super) origin: Origin,
    pub(super) rtt: Option<Duration>,
    pub(super) answered: Option<Instant>,
    /// When each probe was sent that was not answered; those before the last answer are forgotten.
    pub(super) waiting: Vec<Instant>,
    /// Answers to come before it may be chosen.
    pub(super) owed: u32,
    /// The burst under way: when it began and how many of it are sent.
    pub(super) burst: Option<(Instant, usize)>,
    /// How large packets may be.
    pub(super) mtu: Mtu,
    /// When it became known.
    pub(super) since: Instant,
    /// Whether the peer itself told of it, and whether a packet came by it.
    pub(super) told: bool,
    pub(super) heard: bool,
    /// Probes sent, all in all.
    pub(super) probes: u32,
    /// When it last answered, whatever happened to the network since.
    pub(super) last_answer: Option<Instant>,
    /// When it was left because it had stopped answering.
    pub(super) left: Option<Instant>,
}

/// The ways by what they lead through.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<Via, Way>);

impl Table {
    pub(super) fn get(&self, via: Via) -> Option<&Way> {
        self.0.get(&via)
    }

    pub(super) fn get_mut(&mut self, via: Via) -> Option<&mut Way> {
        self.0.get_mut(&via)
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, Via, Way> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> btree_map::IterMut<'_, Via, Way> {
        self.0.iter_mut()
    }

    /// Whether one has to go for another.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= WAYS_MAX
    }

    /// Hears of a way; true if it is new. `selected` is never forgotten for it.
    pub(super) fn learn(
        &mut self,
        via: Via,
        origin: Origin,
        selected: Option<Via>,
        now: Instant,
    ) -> bool {
        if let Some(way) = self.0.get_mut(&via) {
            way.heard |= origin == Origin::Heard;
            // What did not answer before may do so now that the peer speaks of it again.
            if !way.serves() && way.burst.is_none() && origin != Origin::Moon {
                way.burst = Some((now, 0));
            }
            return false;
        }
        if origin == Origin::Heard {
            self.forget_other_ports(via, selected);
        }
        if self.is_full() && !self.forget_one(selected) {
            return false;
        }
        self.0.insert(via, Way::new(origin, now));
        true
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Via, &Way) -> bool) {
        self.0.retain(|via, way| keep(via, way));
    }

    /// The straight way of a family that answered last and fastest, or else one that may.
    pub(super) fn best_of_family(&self, ipv6: bool) -> Option<Via> {
        self.iter()
            .filter(|(via, _)| via.udp().is_some_and(|endpoint| endpoint.is_ipv6() == ipv6))
            .min_by_key(|(_, way)| (way.rtt.is_none(), way.rtt))
            .map(|(via, _)| *via)
    }

    /// The stream that is best by its kind, answered, and is fastest.
    pub(super) fn best_stream(&self) -> Option<Via> {
        self.iter()
            .filter(|(via, _)| matches!(via, Via::Direct(Remote::Stream(_))))
            .min_by_key(|(via, way)| (rank(**via), way.rtt.is_none(), way.rtt))
            .map(|(via, _)| *via)
    }

    /// The best of the ways other than `selected` that answered, at or after `since` if given.
    pub(super) fn best_besides(
        &self,
        selected: Option<Via>,
        since: Option<Instant>,
    ) -> Option<Via> {
        self.iter()
            .filter(|(via, way)| Some(**via) != selected && way.serves() && way.answered >= since)
            .min_by_key(|(via, way)| (rank(**via), way.rtt))
            .map(|(via, _)| *via)
    }

    /// The fastest of the relays that answered on this network, or else of those that ever did.
    pub(super) fn best_relay(&self) -> Option<Via> {
        self.iter()
            .filter(|(via, way)| via.is_relay() && way.is_proven())
            .min_by_key(|(_, way)| (!way.serves(), way.rtt))
            .map(|(via, _)| *via)
    }

    /// Whether a way that answered is to be taken in place of `selected`.
    pub(super) fn is_better(&self, via: Via, selected: Via) -> bool {
        let (Some(way), Some(current)) = (self.get(via), self.get(selected)) else {
            return true;
        };
        way.owed == 0
            && match rank(via).cmp(&rank(selected)) {
                Ordering::Less => true,
                Ordering::Equal => way.is_clearly_faster_than(current),
                Ordering::Greater => false,
            }
    }

    /// The ways that may take the place of `selected`: relays, and the straight ones that answered last.
    pub(super) fn others(&self, selected: Via) -> Vec<Via> {
        let mut straight: Vec<_> = self
            .iter()
            .filter(|(via, way)| **via != selected && !via.is_relay() && way.is_proven())
            .map(|(via, way)| (Reverse(way.answered), *via))
            .collect();
        straight.sort_unstable();
        let relays = self
            .0
            .keys()
            .copied()
            .filter(|via| *via != selected && via.is_relay());
        relays
            .chain(straight.into_iter().take(DOUBT_OTHERS).map(|(_, via)| via))
            .collect()
    }

    /// Makes room for another port of an address that packets come from: a NAT may give each packet one of
    /// its own.
    fn forget_other_ports(&mut self, via: Via, selected: Option<Via>) {
        let address = via.udp().map(|endpoint| endpoint.ip());
        let mut others: Vec<_> = self
            .iter()
            .filter(|(other, way)| {
                way.origin == Origin::Heard
                    && Some(**other) != selected
                    && other.udp().map(|endpoint| endpoint.ip()) == address
            })
            .map(|(other, way)| (way.answered, *other))
            .collect();
        others.sort_unstable();
        for (_, other) in others.iter().rev().skip(PORTS_HEARD_MAX - 1) {
            self.0.remove(other);
        }
    }

    /// Makes room by forgetting the endpoint that answered longest ago, or never; false if there is none
    /// but the one in use. A stream is a way for as long as it is open: there are few, and none is told of twice.
    fn forget_one(&mut self, selected: Option<Via>) -> bool {
        // Those under trial go last, and what the peer says after what only came.
        let forgotten = self
            .iter()
            .filter(|(via, _)| via.udp().is_some() && Some(**via) != selected)
            .min_by_key(|(_, way)| {
                let told = way.origin == Origin::Told;
                (way.burst.is_some(), way.answered, told)
            })
            .map(|(via, _)| *via);
        forgotten.is_some_and(|via| self.0.remove(&via).is_some())
    }
}

impl Way {
    fn new(origin: Origin, now: Instant) -> Self {
        Self {
            origin,
            rtt: None,
            answered: None,
            waiting: Vec::new(),
            owed: 0,
            burst: Some((now, 0)),
            mtu: Mtu::default(),
            since: now,
            told: false,
            heard: matches!(origin, Origin::Heard),
            probes: 0,
            last_answer: None,
            left: None,
        }
    }

    /// Whether a NAT of the peer's may be in the way that nothing came through yet.
    pub(super) fn may_be_shut(&self, via: Via) -> bool {
        let ipv4 = via.udp().is_some_and(|endpoint| endpoint.is_ipv4());
        ipv4 && !self.is_proven() && self.origin == Origin::Told
    }

    pub(super) const fn is_proven(&self) -> bool {
        self.rtt.is_some()
    }

    /// Whether it is proven, and since the network last changed.
    pub(super) const fn serves(&self) -> bool {
        self.is_proven() && self.answered.is_some()
    }

    pub(super) fn probed(&mut self, now: Instant) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.remove(0);
        }
        self.waiting.push(now);
        self.probes = self.probes.saturating_add(1);
    }

    pub(super) fn answer(&mut self, rtt: Option<Duration>, now: Instant) {
        // RFC 6298's smoothing.
        self.rtt = match (self.rtt, rtt) {
            (Some(old), Some(new)) => Some((old * 7 + new) / 8),
            (old, new) => new.or(old),
        };
        self.answered = Some(now);
        self.last_answer = Some(now);
        self.waiting.clear();
        self.owed = self.owed.saturating_sub(1);
        self.burst = (self.owed > 0).then_some((now + OWED_INTERVAL, 0));
    }

    pub(super) fn burst_due(&self) -> Option<Instant> {
        let (since, sent) = self.burst?;
        BURST.get(sent).map(|offset| since + *offset)
    }

    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        let rtt = self.rtt.unwrap_or(RTT_UNKNOWN);
        (rtt * 2).max(rtt + OVERDUE_SLACK)
    }

    /// Probes sent since `since` that should have been answered by now.
    pub(super) fn overdue(&self, since: Instant, now: Instant) -> usize {
        let patience = self.patience();
        self.waiting
            .iter()
            .filter(|sent| **sent >= since && now >= **sent + patience)
            .count()
    }

    /// By a fifth and 2 ms at least, so that two good ways do not alternate.
    fn is_clearly_faster_than(&self, current: &Self) -> bool {
        let (Some(new), Some(old)) = (self.rtt, current.rtt) else {
            return false;
        };
        new + (old / 5).max(Duration::from_millis(2)) < old
    }
}

/// Straight ways before streams before relays; of streams QUIC before TLS.
pub(super) const fn rank(via: Via) -> u8 {
    match via {
        Via::Direct(Remote::Udp(_)) => 0,
        Via::Direct(Remote::Stream(stream)) => match stream.carrier {
            Carrier::Quic => 1,
            Carrier::Tls => 2,
        },
        Via::Relay(_) => 3,
    }
}
