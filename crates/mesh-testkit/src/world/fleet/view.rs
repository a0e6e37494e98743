//! What can be seen of a fleet.

use mesh_core::{Carrier, Keeping, Now, PathView, PeerState, PeerStory, Reason, Via};
use mesh_types::Instant;

use super::Fleet;
use crate::world::{
    HostId, SiteId,
    reference::{self, Verdict},
};

impl Fleet {
    /// Whether a machine's process runs and the machine is awake.
    pub fn runs(&self, host: HostId) -> bool {
        self.machines[host.0].running && self.underlay.is_awake(host)
    }

    /// Whether a machine's process runs, awake or not.
    pub fn is_running(&self, host: HostId) -> bool {
        self.machines[host.0].running
    }

    /// The clocks of the world.
    pub const fn now(&self) -> Now {
        self.now
    }

    /// All machines.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.machines.len()).map(HostId)
    }

    /// Those that relay.
    pub fn moons(&self) -> impl Iterator<Item = HostId> + '_ {
        self.hosts().filter(|host| self.is_moon(*host))
    }

    /// Whether a machine relays.
    pub fn is_moon(&self, host: HostId) -> bool {
        self.machines[host.0].is_moon()
    }

    /// Whether a machine holds a roster in which the other is.
    pub fn knows(&self, host: HostId, other: HostId) -> bool {
        let members = &self.machines[host.0].members;
        members.iter().any(|member| member.index == other.0)
    }

    /// The moons that a machine asks to relay for it, and whether each does.
    pub fn moons_of(&self, host: HostId) -> Vec<(HostId, bool)> {
        let moons = self.machines[host.0].node.engine.moons(self.now.instant);
        moons
            .filter_map(|(key, by)| Some((self.host_of(&key)?, by.is_some())))
            .collect()
    }

    /// In which state a machine sees another, and by which way it sends; `None`: it does not know it.
    pub fn view(&self, host: HostId, other: HostId) -> Option<(PeerState, Option<Via>)> {
        let key = self.machines[other.0].key();
        self.machines[host.0].view_of(&key, self.now)
    }

    /// The largest packet that is proven to go from a machine to another by the way in use.
    pub fn mtu(&self, host: HostId, other: HostId) -> Option<u16> {
        let key = self.machines[other.0].key();
        let node = &self.machines[host.0].node;
        node.engine.peer(&key, node.clock(self.now))?.mtu
    }

    /// When a machine was told that a packet of its own is too big, and what fits; told no more.
    pub fn take_too_big(&mut self, host: HostId) -> Vec<(Instant, u16)> {
        std::mem::take(&mut self.machines[host.0].node.too_big)
    }

    /// How many packets a machine sent in pieces.
    pub fn cut(&self, host: HostId) -> u64 {
        self.machines[host.0].node.cut
    }

    /// Whether a way leads through this moon.
    pub fn is_relay(&self, via: Option<Via>, moon: HostId) -> bool {
        via == Some(Via::Relay(self.machines[moon.0].key()))
    }

    /// The ways to another that a machine knows.
    pub fn paths(&self, host: HostId, other: HostId) -> Vec<PathView> {
        self.machines[host.0].paths_to(&self.machines[other.0].key())
    }

    /// Why a machine reaches another as it does, or does not; `None`: it does not know it.
    pub fn reason(&self, host: HostId, other: HostId) -> Option<Reason> {
        let key = self.machines[other.0].key();
        self.machines[host.0].reason_of(&key, self.now)
    }

    /// What a machine can tell of its ways to another.
    pub fn story(&self, host: HostId, other: HostId) -> PeerStory {
        self.machines[host.0].story_of(&self.machines[other.0].key())
    }

    /// How a machine keeps the mappings of its NATs for IPv4.
    pub fn keeping(&self, host: HostId) -> Keeping {
        self.machines[host.0].node.engine.keeping(false)
    }

    /// What the reference says of a pair: whether they have a direct path at this moment.
    pub fn verdict(&self, a: HostId, b: HostId) -> Verdict {
        if !self.runs(a) || !self.runs(b) {
            return Verdict::Impossible;
        }
        reference::pair(&self.underlay, a, b, self.now.instant)
    }

    /// Whether two machines run and know each other.
    pub fn is_introduced(&self, a: HostId, b: HostId) -> bool {
        self.runs(a) && self.runs(b) && self.knows(a, b) && self.knows(b, a)
    }

    /// Whether no line of these sites loses, doubles, reorders or detains anything.
    pub fn is_calm(&self, sites: &[SiteId]) -> bool {
        sites.iter().all(|site| {
            let line = &self.underlay.gateway(*site).line;
            line.up.is_calm() && line.down.is_calm()
        })
    }

    /// Whether there is a moon that both know and reach, by UDP or by streams.
    pub fn share_a_moon(&self, a: HostId, b: HostId) -> bool {
        self.meet(a, b, |host, moon| {
            reference::reaches_internet(&self.underlay, host, moon)
                || self.underlay.pipe(host, moon, Carrier::Tls).is_some()
        })
    }

    /// The same by UDP alone.
    pub fn share_a_moon_by_udp(&self, a: HostId, b: HostId) -> bool {
        self.meet(a, b, |host, moon| {
            reference::reaches_internet(&self.underlay, host, moon)
        })
    }

    fn meet(&self, a: HostId, b: HostId, reaches: impl Fn(HostId, HostId) -> bool) -> bool {
        self.moons().any(|moon| {
            self.runs(moon)
                && [a, b].into_iter().all(|host| {
                    host == moon
                        || self.knows(host, moon) && self.knows(moon, host) && reaches(host, moon)
                })
        })
    }
}
