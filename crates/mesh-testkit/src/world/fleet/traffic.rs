//! What machines send, by kind.

use std::{collections::BTreeMap, net::SocketAddr};

use mesh_wire::relay::{self, Frame, MemberTag};

use super::Fleet;
use crate::world::HostId;

/// Datagrams that machines have sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Between machines of which one is a moon.
    pub with_moons: u64,
    /// The same by who sent to whom; `None`: to an address of a NAT, or of nobody.
    pub with_moons_by: BTreeMap<(HostId, Option<HostId>), u64>,
    /// From nodes to addresses that no machine has by itself, of NATs or of nobody: who sent how many to where, by the
    /// first byte.
    pub strays: BTreeMap<(HostId, SocketAddr, u8), u64>,
    /// Between others, straight or through moons: who sent how many to whom.
    pub between: BTreeMap<(HostId, HostId), u64>,
}

impl Traffic {
    /// How many [`Traffic::strays`] there are.
    pub fn into_the_blue(&self) -> u64 {
        self.strays.values().sum()
    }
}

impl Fleet {
    /// Counts a datagram to `receiver`, or to whom it names.
    pub(super) fn count_datagram(
        &mut self,
        host: HostId,
        receiver: Option<HostId>,
        to: Option<SocketAddr>,
        data: &[u8],
    ) {
        let frame = relay::parse(data);
        let receiver = match frame {
            Some(Frame::Data(header)) => self.hosts().find(|other| {
                MemberTag::of(self.machines[other.0].key().as_bytes()) == header.member
            }),
            Some(Frame::Notice(..)) | None => receiver,
        };
        let is_between_nodes =
            !self.is_moon(host) && receiver.is_none_or(|receiver| !self.is_moon(receiver));
        if !is_between_nodes {
            // What it relays was counted when its client sent it.
            let is_relayed = self.is_moon(host) && matches!(frame, Some(Frame::Data(_)));
            if !is_relayed {
                self.traffic.with_moons += 1;
                let by = self.traffic.with_moons_by.entry((host, receiver));
                *by.or_default() += 1;
            }
        } else if let Some(receiver) = receiver {
            *self.traffic.between.entry((host, receiver)).or_default() += 1;
        } else if let Some(to) = to {
            let kind = data.first().copied().unwrap_or_default();
            *self.traffic.strays.entry((host, to, kind)).or_default() += 1;
        }
    }
}
