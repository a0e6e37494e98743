use std::{collections::BTreeMap, time::Duration};

use mesh_types::Instant;

use super::{Arrived, Fleet, HostId};

/// Two machines that send to each other, and what came of it.
pub struct Talk {
    hosts: [HostId; 2],
    since: Instant,
    /// Packets in each direction: when each was sent, and its number.
    sent: [BTreeMap<Instant, u64>; 2],
}

impl Talk {
    /// Begins to look at what these two say to each other.
    pub const fn between(fleet: &Fleet, a: HostId, b: HostId) -> Self {
        Self {
            hosts: [a, b],
            since: fleet.now().instant,
            sent: [BTreeMap::new(), BTreeMap::new()],
        }
    }

    /// Lets both send a packet every so often for some time, and returns what is seen at its end.
    pub fn go_on(&mut self, fleet: &mut Fleet, every: Duration, time: Duration) {
        let end = fleet.now().instant + time;
        while fleet.now().instant < end {
            let [a, b] = self.hosts;
            let now = fleet.now().instant;
            self.sent[0].insert(now, fleet.send(a, b));
            self.sent[1].insert(now, fleet.send(b, a));
            fleet.run_for(every);
        }
    }

    /// How long it has gone on.
    pub fn lasts(&self, fleet: &Fleet) -> Duration {
        fleet.now().instant.saturating_since(self.since)
    }

    /// How long it took until a packet had come in each direction; `None`: none has.
    pub fn reached(&self, fleet: &Fleet) -> Option<Duration> {
        let first = |i: usize| self.arrivals(fleet, i).map(|(_, arrived)| arrived.at).min();
        let at = first(0)?.max(first(1)?);
        Some(at.saturating_since(self.since))
    }

    /// The same for the first packet of each direction that came without a moon, if the last one did, too.
    pub fn direct(&self, fleet: &Fleet) -> Option<Duration> {
        let first = |i: usize| {
            let last = self.arrivals(fleet, i).last()?;
            let direct = self.arrivals(fleet, i).filter(|(_, a)| a.direct);
            last.1.direct.then(|| direct.map(|(_, a)| a.at).min())?
        };
        let at = first(0)?.max(first(1)?);
        Some(at.saturating_since(self.since))
    }

    /// The longest time in which nothing came in one direction or the other.
    pub fn longest_gap(&self, fleet: &Fleet) -> Duration {
        let gap = |i: usize| {
            let mut arrivals: Vec<Instant> = self.arrivals(fleet, i).map(|(_, a)| a.at).collect();
            arrivals.sort_unstable();
            arrivals.push(fleet.now().instant);
            let mut last = self.since;
            let mut longest = Duration::ZERO;
            for at in arrivals {
                longest = longest.max(at.saturating_since(last));
                last = at;
            }
            longest
        };
        gap(0).max(gap(1))
    }

    /// What came in one direction, in the order of sending.
    fn arrivals<'a>(
        &'a self,
        fleet: &'a Fleet,
        direction: usize,
    ) -> impl Iterator<Item = (Instant, Arrived)> + 'a {
        self.sent[direction]
            .iter()
            .filter_map(|(sent, packet)| Some((*sent, fleet.arrived(*packet)?)))
    }
}
