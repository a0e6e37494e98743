//! Which way a packet from the TUN takes: its header, the longest prefix that holds its destination, the peer's
//! session and path.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Context as _;
use ipnet::Ipv6Net;
use mesh_core::{Forwarding, PeerConfig, Protocol};
use mesh_types::WireguardPublicKey;

use super::{CALLS, Rounds};
use crate::pair::{Pair, packet};

/// The way to the one peer of many that there is a session with.
pub(super) struct Lookup {
    pair: Pair,
    forwarding: Arc<Forwarding>,
    packet: Vec<u8>,
}

impl Lookup {
    /// To the peer's own address, one of so many peers.
    pub(super) fn of_a_peer(peers: u16) -> anyhow::Result<Self> {
        Self::new(peers, None)
    }

    /// To an address in a network behind the peer, which no peer has for itself.
    pub(super) fn behind_a_peer(peers: u16) -> anyhow::Result<Self> {
        let network = Ipv6Net::new(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0), 64)?;
        Self::new(peers, Some(network))
    }

    fn new(peers: u16, network: Option<Ipv6Net>) -> anyhow::Result<Self> {
        let protocol = Protocol::MeshAes;
        let mut pair = Pair::new(protocol)?;
        let mut other = pair.peer(1, protocol);
        other.allowed_ips.extend(network.map(ipnet::IpNet::from));
        let strangers = (1..peers).map(stranger).collect::<anyhow::Result<Vec<_>>>();
        let all = std::iter::once(other).chain(strangers?).collect();
        let now = pair.now;
        pair.ends[0].engine.set_peers(all, now);
        let mut packet = packet(0, 1);
        if let Some(network) = network {
            let inside = Ipv6Addr::from(u128::from(network.addr()) | 7);
            packet[24..40].copy_from_slice(&inside.octets());
        }
        let forwarding = pair.ends[0].engine.forwarding();
        Ok(Self {
            pair,
            forwarding,
            packet,
        })
    }
}

impl Rounds for Lookup {
    fn prepare(&mut self) -> anyhow::Result<()> {
        let route = self.forwarding.route(&self.packet).context("no session")?;
        anyhow::ensure!(route.peer() == self.pair.ends[1].key, "another peer");
        Ok(())
    }

    fn run(&mut self) -> u32 {
        (0..CALLS)
            .map(|_| {
                let route = self.forwarding.route(black_box(&self.packet));
                u32::from(black_box(route).is_some())
            })
            .sum()
    }
}

/// A peer that nothing is heard of.
fn stranger(number: u16) -> anyhow::Result<PeerConfig> {
    let [high, low] = number.to_be_bytes();
    let mut key = [7; 32];
    key[..2].copy_from_slice(&[high, low]);
    let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, number);
    Ok(PeerConfig {
        key: WireguardPublicKey::try_from(key.as_slice()).context("a key")?,
        speaks_mesh: true,
        protocol: Protocol::MeshAes,
        allowed_ips: vec![IpAddr::from(address).into()],
        access: Arc::default(),
        relay_only: false,
    })
}
