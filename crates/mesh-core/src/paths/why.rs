//! Why packets to a peer go through a moon, as far as the ways to it tell.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use mesh_types::Instant;

use super::{Paths, table::Way};
use crate::{Mapping, Reason};

/// How long a search lasts: the last probe of a burst goes out after 1.6 s, to candidates that may be told
/// half a second late, and an answer may take as long again.
pub(super) const SEARCH: Duration = Duration::from_secs(3);

/// What is known of this side of every path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnSide {
    /// Whether this machine has addresses of IPv4 and of IPv6.
    pub(crate) families: [bool; 2],
    /// What its NATs do, by IPv4 and by IPv6.
    pub(crate) mappings: [Mapping; 2],
}

impl Paths {
    /// Why packets take a moon. To be asked only while they do.
    pub(crate) fn why_relayed(&self, own: &OwnSide, now: Instant) -> Reason {
        if self.relay_only {
            return Reason::RelayOnly;
        }
        let searching = self
            .search
            .filter(|since| now.saturating_since(*since) < SEARCH);
        if let Some(since) = searching {
            return Reason::Searching { since };
        }
        let straight: Vec<(IpAddr, &Way)> = self
            .ways
            .iter()
            .filter_map(|(via, way)| Some((via.udp()?.ip(), way)))
            .collect();
        if straight.is_empty() {
            return Reason::NoCandidates;
        }
        let shared = |ipv6: bool| {
            own.families[usize::from(ipv6)] && straight.iter().any(|(ip, _)| ip.is_ipv6() == ipv6)
        };
        if own.families.contains(&true) && !shared(false) && !shared(true) {
            return Reason::NoCommonFamily;
        }
        // A family in which nothing varies is what should have worked.
        let families: Vec<bool> = [false, true].into_iter().filter(|v6| shared(*v6)).collect();
        let all = |varies: &dyn Fn(bool) -> bool| {
            !families.is_empty() && families.iter().all(|ipv6| varies(*ipv6))
        };
        let own_varies = all(&|ipv6| own.mappings[usize::from(ipv6)] == Mapping::Varies);
        let peer_varies = all(&|ipv6| self.peer_varies(ipv6));
        // What worked tells more than what NATs do: one that varies may let everything in.
        if let Some(reason) = why_left(straight.iter().map(|(_, way)| *way)) {
            return reason;
        }
        if own_varies && peer_varies {
            let prediction = self.predict.outcome();
            return Reason::BothNatsVary { prediction };
        }
        if own_varies {
            return Reason::OwnNatVaries;
        }
        if peer_varies {
            return Reason::PeerNatVaries;
        }
        Reason::NoAnswer {
            candidates: straight.len(),
            probes: straight
                .iter()
                .fold(0, |sum, (_, way)| sum.saturating_add(way.probes)),
        }
    }

    /// Whether the peer's NAT gives each destination another port: of one address its moons saw it at
    /// several, or packets came from one that they did not see.
    fn peer_varies(&self, ipv6: bool) -> bool {
        let ways: Vec<_> = self
            .ways
            .iter()
            .filter_map(|(via, way)| Some((via.udp()?, way)))
            .filter(|(endpoint, _)| endpoint.is_ipv6() == ipv6)
            .collect();
        let told: BTreeSet<_> = ways
            .iter()
            .filter(|(_, way)| way.told)
            .map(|(endpoint, _)| *endpoint)
            .collect();
        told.iter().any(|one| {
            told.iter()
                .chain(ways.iter().filter(|(_, way)| way.heard).map(|(at, _)| at))
                .any(|other| other.ip() == one.ip() && other.port() != one.port())
        })
    }

    pub(super) fn begin_search(&mut self, now: Instant) {
        self.search = Some(now);
        self.predict.schedule(now);
    }
}

/// Of the ways that were left, the one that was left last.
fn why_left<'a>(straight: impl Iterator<Item = &'a Way>) -> Option<Reason> {
    let (since, way) = straight
        .filter_map(|way| Some((way.left?, way)))
        .max_by_key(|(since, _)| *since)?;
    Some(match way.last_answer {
        Some(at) if at >= since && way.owed > 0 => Reason::StraightOwes { answers: way.owed },
        Some(_) | None => Reason::StraightSilent { since },
    })
}
