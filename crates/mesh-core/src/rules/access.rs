//! What the rules let one peer reach, ready to be held against packets.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::flow::Flow;
use crate::packet::protocol::{TCP, UDP};

/// What one peer may reach on this node. How many rules it was made of makes no difference to a packet.
///
/// The default is everything.
#[derive(Debug, Default)]
pub struct Access(Option<Limits>);

/// What a rule accepts of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The rule's number, below that of the [`RuleCounts`]. Of several rules that accept, the lowest counts.
    pub rule: usize,
    /// The number of the protocol above IP; `None`: any.
    pub protocol: Option<u8>,
    /// The destination's ports; `None`: any, and the only one for protocols but TCP and UDP.
    pub ports: Option<RangeInclusive<u16>>,
}

/// How many packets each rule accepted.
#[derive(Debug, Default)]
pub struct RuleCounts(Box<[AtomicU64]>);

#[derive(Debug)]
struct Limits {
    /// The rule for all protocols.
    any: Option<usize>,
    /// Rules for all of a protocol, in the order of their numbers.
    protocols: Vec<(u8, usize)>,
    tcp: Ports,
    udp: Ports,
    counts: Arc<RuleCounts>,
}

/// Ports and their rules.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ports {
    /// Ranges that do not overlap, in their order.
    ranges: Vec<(u16, u16, usize)>,
    /// For each high byte of a port how many ranges begin below it, so that few are left to be searched; empty where
    /// there are few anyhow.
    begin_below: Vec<u32>,
}

/// So many ranges are searched as they are.
const FEW: usize = 16;

impl Access {
    /// To what is granted, and nothing else.
    pub fn of(grants: &[Grant], counts: &Arc<RuleCounts>) -> Self {
        let mut grants: Vec<_> = grants.iter().collect();
        grants.sort_by_key(|grant| grant.rule);
        let mut limits = Limits {
            any: None,
            protocols: Vec::new(),
            tcp: Ports::of(&grants, TCP),
            udp: Ports::of(&grants, UDP),
            counts: Arc::clone(counts),
        };
        for grant in grants {
            match (grant.protocol, &grant.ports) {
                (None, None) => limits.any = limits.any.or(Some(grant.rule)),
                (Some(protocol), None) => limits.protocols.push((protocol, grant.rule)),
                (_, Some(_)) => {}
            }
        }
        // The first of a protocol is the lowest.
        limits.protocols.sort_by_key(|(protocol, _)| *protocol);
        limits.protocols.dedup_by_key(|(protocol, _)| *protocol);
        Self(Some(limits))
    }

    /// Whether no packet needs to be remembered for another to pass.
    pub(crate) fn is_open(&self) -> bool {
        self.0.as_ref().is_none_or(|limits| limits.any.is_some())
    }

    /// Whether nothing needs to be looked at.
    pub(crate) const fn is_everything(&self) -> bool {
        self.0.is_none()
    }

    /// The number of the rule that accepts a packet to begin with; `None`: none does, or none needs to.
    pub fn rule(&self, protocol: u8, port: Option<u16>) -> Option<usize> {
        self.0.as_ref()?.rule(protocol, port)
    }

    /// Whether a rule lets in what comes back on a flow of this node's.
    pub(crate) fn answers(&self, flow: &Flow) -> bool {
        let has_ports = matches!(flow.protocol, TCP | UDP);
        let port = has_ports.then_some(flow.local_port);
        self.rule(flow.protocol, port).is_some()
    }

    /// Counts a packet that a rule accepted.
    pub(crate) fn count(&self, rule: usize) {
        let counter = self.0.as_ref().and_then(|limits| limits.counts.0.get(rule));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Limits {
    fn rule(&self, protocol: u8, port: Option<u16>) -> Option<usize> {
        let of_protocol = self
            .protocols
            .iter()
            .find_map(|(number, rule)| (*number == protocol).then_some(*rule));
        let of_port = port.and_then(|port| match protocol {
            TCP => self.tcp.rule(port),
            UDP => self.udp.rule(port),
            _ => None,
        });
        [self.any, of_protocol, of_port].into_iter().flatten().min()
    }
}

impl Ports {
    /// Those of a protocol, of grants in the order of their rules.
    fn of(grants: &[&Grant], protocol: u8) -> Self {
        let mut covered = BTreeMap::<u16, (u16, usize)>::new();
        for grant in grants {
            let Some(range) = &grant.ports else { continue };
            if grant.protocol.is_some_and(|number| number != protocol) {
                continue;
            }
            // What is covered belongs to a lower rule: only the gaps are left.
            let last = u32::from(*range.end());
            let mut next = u32::from(*range.start());
            let before = covered.range(..=*range.start()).next_back();
            if let Some((_, (end, _))) = before {
                next = next.max(u32::from(*end) + 1);
            }
            let mut gaps = Vec::new();
            for (start, (end, _)) in covered.range(*range.start()..=*range.end()) {
                if next < u32::from(*start) {
                    gaps.push((next, u32::from(*start) - 1));
                }
                next = next.max(u32::from(*end) + 1);
            }
            if next <= last {
                gaps.push((next, last));
            }
            let port = |number| u16::try_from(number).expect("between two ports");
            let gaps = gaps.into_iter();
            covered.extend(gaps.map(|(start, end)| (port(start), (port(end), grant.rule))));
        }
        let ranges = covered.into_iter();
        let ranges: Vec<_> = ranges
            .map(|(start, (end, rule))| (start, end, rule))
            .collect();
        let below = |bound: u32| {
            let below = ranges.partition_point(|(start, _, _)| u32::from(*start) < bound);
            u32::try_from(below).expect("no more ranges than ports")
        };
        let begin_below = match ranges.len() > FEW {
            true => (0..=256).map(|high| below(high * 256)).collect(),
            false => Vec::new(),
        };
        Self {
            ranges,
            begin_below,
        }
    }

    fn rule(&self, port: u16) -> Option<usize> {
        let index = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let high = usize::from(port >> 8);
        let (from, to) = match self.begin_below.get(high..high + 2) {
            Some(&[from, to]) => (index(from), index(to)),
            Some(_) | None => (0, self.ranges.len()),
        };
        let of_byte = self.ranges.get(from..to)?;
        let after = from + of_byte.partition_point(|(start, _, _)| *start <= port);
        let (_, end, rule) = self.ranges.get(after.checked_sub(1)?)?;
        (port <= *end).then_some(*rule)
    }
}

impl RuleCounts {
    /// Counters that go on from what was counted before.
    pub fn new(counts: impl IntoIterator<Item = u64>) -> Self {
        Self(counts.into_iter().map(AtomicU64::new).collect())
    }

    /// What each rule accepted, in packets.
    pub fn read(&self) -> Vec<u64> {
        let counts = self.0.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// Equal in what passes; the counts are not looked at.
impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                let parts = |limits: &Limits| (limits.any, limits.protocols.clone());
                parts(one) == parts(other) && one.tcp == other.tcp && one.udp == other.udp
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl Eq for Access {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every rule in turn, as the words say.
    fn plain(grants: &[Grant], protocol: u8, port: Option<u16>) -> Option<usize> {
        let accepts = |grant: &&Grant| {
            let protocols = match (grant.protocol, &grant.ports) {
                (Some(number), _) => number == protocol,
                (None, None) => true,
                (None, Some(_)) => protocol == TCP || protocol == UDP,
            };
            let has_ports = protocol == TCP || protocol == UDP;
            let ports = grant
                .ports
                .as_ref()
                .is_none_or(|range| has_ports && port.is_some_and(|port| range.contains(&port)));
            protocols && ports
        };
        let accepting = grants.iter().filter(accepts);
        accepting.map(|grant| grant.rule).min()
    }

    fn grant() -> impl Strategy<Value = Grant> {
        let protocol = prop::option::of(prop::sample::select(vec![1, TCP, UDP, 47, 58]));
        let port = || prop_oneof![0u16..20, Just(u16::MAX), any::<u16>()];
        let ports = prop::option::of((port(), port()));
        (0..30_usize, protocol, ports).prop_map(|(rule, protocol, ports)| Grant {
            rule,
            protocol,
            ports: ports.map(|(one, other)| one.min(other)..=one.max(other)),
        })
    }

    #[test]
    fn every_port_finds_its_rule_among_thousands() {
        let grants: Vec<_> = (0..20_000_u16)
            .map(|rule| Grant {
                rule: rule.into(),
                protocol: Some(TCP),
                ports: Some(3 * rule..=3 * rule + rule % 2),
            })
            .collect();
        let access = Access::of(&grants, &Arc::default());
        for port in 0..=u16::MAX {
            let rule = usize::from(port / 3);
            let expected = rule < 20_000 && usize::from(port % 3) <= rule % 2;
            assert_eq!(access.rule(TCP, Some(port)), expected.then_some(rule));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_compiled_form_says_what_trying_every_rule_says(
            grants in prop::collection::vec(grant(), 0..20),
            probes in prop::collection::vec((any::<u16>(), 0u16..25), 0..10),
        ) {
            let counts = Arc::new(RuleCounts::default());
            let access = Access::of(&grants, &counts);
            let ends = grants.iter().filter_map(|grant| grant.ports.clone());
            let ends = ends.flat_map(|range| {
                let (start, end) = range.into_inner();
                [start.saturating_sub(1), start, end, end.saturating_add(1)]
            });
            let ports: Vec<_> = probes.iter().flat_map(|(one, other)| [*one, *other]).chain(ends).collect();
            for protocol in [1, TCP, UDP, 47, 58, 255] {
                let has_ports = protocol == TCP || protocol == UDP;
                for port in &ports {
                    let port = has_ports.then_some(*port);
                    let rule = plain(&grants, protocol, port);
                    prop_assert_eq!(access.rule(protocol, port), rule);
                }
            }
        }
    }
}
