//! Which packets from a peer reach this node: those that a rule accepts, and answers to what this node sent.
//!
//! Rules name who may begin; what follows is remembered by flow, so that answers pass. A peer that may reach
//! everything costs nothing: its packets are not looked into and its flows not remembered.

mod access;
mod flow;
mod flows;

use std::net::IpAddr;

use mesh_types::Instant;

pub use access::{Access, Grant, RuleCounts};
use flow::{Flow, Kind};
pub(crate) use flow::{Seen, look};
use flows::Flows;
pub(crate) use flows::{FLOWS_MAX, FlowsRecord};

/// What holds a node's packets against its rules, and remembers flows. Shared by all threads.
pub(crate) struct Guard {
    /// What this node began.
    ours: Flows,
    /// What peers began, as rules let them. An answer to it makes no flow of ours: with its rule it ends.
    theirs: Flows,
}

/// What a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who asks.
    pub source: IpAddr,
    /// The number of the protocol above IP.
    pub protocol: u8,
    /// The port, of TCP and UDP.
    pub port: Option<u16>,
}

impl From<&Seen> for Asked {
    fn from(seen: &Seen) -> Self {
        let port = match seen.kind {
            Kind::Ports { destination, .. } => Some(destination),
            Kind::EchoRequest { .. }
            | Kind::EchoReply { .. }
            | Kind::Error { .. }
            | Kind::LaterFragment { .. }
            | Kind::Other => None,
        };
        Self {
            source: seen.source,
            protocol: seen.protocol,
            port,
        }
    }
}

/// Why a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// A rule accepts it, which has this number.
    Accepted(usize),
    /// It answers what this node sent, or belongs to a packet that was judged.
    Follows,
}

/// Fragments after the first have no ports. They pass from here on, in bytes: none of them can write over the ports and flags of
/// the first one, which was judged (RFC 1858 section 4, RFC 3128).
const LATER_FRAGMENT_FROM: u16 = 64;

impl Guard {
    /// `seed` keys the hashes of flows, and must be secret: who knows it can pass for another flow.
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self {
            ours: Flows::new(seed),
            theirs: Flows::new(seed),
        }
    }

    /// What is remembered, for the next process.
    pub(crate) fn record(&self) -> FlowsRecord {
        FlowsRecord {
            keys: self.ours.keys(),
            ours: self.ours.record(),
            theirs: self.theirs.record(),
        }
    }

    /// Goes on with what another process remembered, before any packet is held against it.
    pub(crate) fn restore(&self, record: &FlowsRecord) {
        self.ours.restore(record.keys, &record.ours);
        self.theirs.restore(record.keys, &record.theirs);
    }

    /// Why a packet from a peer may reach this node; `None`: it may not.
    pub(crate) fn admits(&self, access: &Access, seen: &Seen, now: Instant) -> Option<Passed> {
        let mark = self.ours.mark(&seen.flow());
        let (begins, port) = match &seen.kind {
            Kind::LaterFragment { offset } => {
                return (*offset >= LATER_FRAGMENT_FROM).then_some(Passed::Follows);
            }
            // What it is about was sent by this node, or could have been answered.
            Kind::Error { about: Some(about) }
                if self.remembers(about, now) || access.answers(about) =>
            {
                return Some(Passed::Follows);
            }
            Kind::Error { .. } => (true, None),
            Kind::Ports {
                opens, destination, ..
            } => (*opens, Some(*destination)),
            Kind::EchoReply { .. } => (false, None),
            Kind::EchoRequest { .. } => (true, None),
            Kind::Other => (seen.is_icmp(), None),
        };
        if !begins && self.ours.renews(mark, now) {
            return Some(Passed::Follows);
        }
        let rule = access.rule(seen.protocol, port)?;
        if !access.is_open() && !matches!(seen.kind, Kind::Error { .. }) {
            self.theirs.note(mark, now);
        }
        Some(Passed::Accepted(rule))
    }

    /// Notes a packet that this node sends to a peer which may reach what `access` says. Where a rule lets the peer's packets in
    /// anyhow there is nothing to remember: so who may open connections here fills no place of ours with our answers.
    pub(crate) fn note_sent(&self, access: &Access, seen: &Seen, now: Instant) {
        let begins = match seen.kind {
            Kind::Ports { .. } | Kind::EchoRequest { .. } => true,
            Kind::Other => !seen.is_icmp(),
            Kind::EchoReply { .. } | Kind::Error { .. } | Kind::LaterFragment { .. } => false,
        };
        let flow = seen.flow().reversed();
        if !begins || access.answers(&flow) {
            return;
        }
        let mark = self.ours.mark(&flow);
        if !self.theirs.knows(mark, now) {
            self.ours.note(mark, now);
        }
    }

    /// Whether a flow is ours or theirs.
    fn remembers(&self, flow: &Flow, now: Instant) -> bool {
        let mark = self.ours.mark(flow);
        self.ours.knows(mark, now) || self.theirs.knows(mark, now)
    }
}

/// Holds bytes against rules as a peer's packet and as one of this node's, for fuzzers.
#[doc(hidden)]
pub fn judge_any(packet: &[u8]) {
    let guard = Guard::new(&[0; 32]);
    let grant = Grant {
        rule: 0,
        protocol: None,
        ports: Some(22..=22),
    };
    let access = Access::of(&[grant], &std::sync::Arc::default());
    if let Some(seen) = look(packet) {
        let now = Instant::from_micros(0);
        let first = guard.admits(&access, &seen, now);
        guard.note_sent(&access, &seen, now);
        // What this node sends opens nothing to the same packet from outside, unless both ends are one.
        let again = guard.admits(&access, &seen, now);
        assert!(first.is_some() == again.is_some() || seen.flow() == seen.flow().reversed());
    }
}

#[cfg(test)]
mod tests;
