//! What of a roster the engine is told, and where peers may be reached.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_core::{Hearsay, PeerConfig, Protocol, Via};
use mesh_inventory::roster::{Member, Roster};
use mesh_types::{MachineName, MemberKey, PublicIdentity, WireguardPublicKey};

use crate::view;

/// AES-256-GCM, as a roster names it.
const AES: &str = "aes";

/// The peers of the machine with `own` identity; none if it is not a member that is switched on.
///
/// A member that is switched off, has no key, or is a guest is no peer: nothing is sent to it, and its
/// handshakes are not answered.
pub(crate) fn of_roster(roster: &Roster, own: &PublicIdentity) -> Vec<(MachineName, PeerConfig)> {
    let own_member = roster.member_by_node_id(&own.node_id());
    let Some(own_member) = own_member.filter(|member| member.enabled) else {
        return Vec::new();
    };
    roster
        .members()
        .values()
        .filter(|member| view::not_tried(member).is_none())
        .filter_map(|member| Some((member.name.clone(), peer(member, own_member)?)))
        .filter(|(_, peer)| peer.key != own.wireguard())
        .collect()
}

/// The members that relay for others: moons, and controllers, unless their settings say otherwise.
pub(crate) fn moons(roster: &Roster) -> Vec<WireguardPublicKey> {
    roster
        .members()
        .values()
        .filter(|member| member.is_relay())
        .filter_map(|member| Some(member.public_key?.wireguard()))
        .collect()
}

fn peer(member: &Member, own: &Member) -> Option<PeerConfig> {
    let key = member.public_key?;
    let address = IpNet::from(Ipv6Net::from(member.address));
    let ipv4 = member.ipv4.map(|ipv4| IpNet::from(Ipv4Net::from(ipv4)));
    let mut allowed_ips = vec![address];
    allowed_ips.extend(ipv4);
    allowed_ips.extend(&member.routes);
    Some(PeerConfig {
        key: key.wireguard(),
        speaks_mesh: matches!(key, MemberKey::Mesh(_)),
        protocol: protocol(member, own, Protocol::MeshAes.cipher().is_fast()),
        allowed_ips,
        access: Arc::default(),
        // With a moon nobody could speak but straight.
        relay_only: (member.relay_only || own.relay_only) && !(member.is_relay() || own.is_relay()),
    })
}

/// The protocol of the handshakes that this side begins; each is answered in kind. AES between two agents whose
/// ciphers it is among, begun by the one whose processor has instructions for it.
fn protocol(member: &Member, own: &Member, has_fast_aes: bool) -> Protocol {
    let takes_aes = |member: &Member| member.ciphers.iter().any(|cipher| cipher == AES);
    let is_agent = matches!(member.public_key, Some(MemberKey::Mesh(_)));
    match is_agent && has_fast_aes && takes_aes(member) && takes_aes(own) {
        true => Protocol::MeshAes,
        false => Protocol::Wireguard,
    }
}

/// The peers' names and where they may be reached, as heard.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    keys: BTreeMap<MachineName, WireguardPublicKey>,
    names: BTreeMap<WireguardPublicKey, MachineName>,
    heard: BTreeMap<WireguardPublicKey, Hearsay>,
}

impl Directory {
    /// Takes the peers of another roster. Endpoints of peers that stay are kept.
    pub(crate) fn replace(&mut self, peers: &[(MachineName, PeerConfig)]) {
        self.keys = peers
            .iter()
            .map(|(name, peer)| (name.clone(), peer.key))
            .collect();
        self.names = peers
            .iter()
            .map(|(name, peer)| (peer.key, name.clone()))
            .collect();
        let names = &self.names;
        self.heard.retain(|key, _| names.contains_key(key));
    }

    /// The key of the peer `name`; `None` if it is no peer.
    pub(crate) fn key(&self, name: &MachineName) -> Option<WireguardPublicKey> {
        self.keys.get(name).copied()
    }

    /// The name of the peer with `key`.
    pub(crate) fn name(&self, key: &WireguardPublicKey) -> Option<&MachineName> {
        self.names.get(key)
    }

    /// The name of the moon that relays on this way, if one does.
    pub(crate) fn relay(&self, via: Via) -> Option<MachineName> {
        match via {
            Via::Relay(moon) => self.name(&moon).cloned(),
            Via::Direct(_) => None,
        }
    }

    /// All peers' keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = WireguardPublicKey> {
        self.names.keys().copied()
    }

    /// Hears of endpoints of a peer, and returns all that are known.
    pub(crate) fn hear(
        &mut self,
        key: WireguardPublicKey,
        endpoints: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        self.heard.entry(key).or_default().hear(endpoints)
    }
}

#[cfg(test)]
mod tests {
    use mesh_inventory::roster::Role;

    use super::*;
    use crate::testing::{Fleet, name, seed};

    #[test]
    fn the_peers_are_the_others_that_can_be_tried() {
        let mut fleet = Fleet::new(&["cinnabar", "galena", "pyrite", "rosegold", "scheelite"]);
        fleet.member_mut("scheelite").enabled = false;
        fleet.member_mut("rosegold").public_key = None;
        let guest = seed().public().wireguard();
        fleet.member_mut("pyrite").public_key = Some(MemberKey::Wireguard(guest));
        let roster = fleet.roster(1);
        let names = |own: &PublicIdentity| -> Vec<String> {
            let peers = of_roster(&roster, own);
            peers.iter().map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(names(&fleet.seed_of("galena").public()), ["cinnabar"]);
        assert_eq!(names(&fleet.seed_of("cinnabar").public()), ["galena"]);
        let nobody: [&str; 0] = [];
        assert_eq!(names(&fleet.seed_of("scheelite").public()), nobody);
        assert_eq!(names(&seed().public()), nobody);
    }

    #[test]
    fn a_peer_owns_its_addresses_and_the_routes_behind_it() {
        let mut fleet = Fleet::new(&["cinnabar", "galena"]);
        let route: IpNet = "10.9.0.0/16".parse().unwrap();
        fleet.member_mut("galena").routes = vec![route];
        fleet.member_mut("galena").ipv4 = Some("10.1.0.2".parse().unwrap());
        let peers = of_roster(&fleet.roster(1), &fleet.seed_of("cinnabar").public());
        let address = fleet.members[&name("galena")].address;
        let expected = [
            format!("{address}/128").parse().unwrap(),
            "10.1.0.2/32".parse().unwrap(),
            route,
        ];
        assert_eq!(peers[0].1.allowed_ips, expected);
    }

    #[test]
    fn a_pair_is_relayed_if_either_is_relay_only_and_neither_a_moon() {
        let mut fleet = Fleet::new(&["cinnabar", "galena", "pyrite"]);
        fleet.member_mut("cinnabar").roles = vec![Role::Moon];
        fleet.member_mut("galena").roles = vec![Role::Peer];
        fleet.member_mut("pyrite").roles = vec![Role::Peer];
        let relayed = |fleet: &Fleet, own: &str| -> Vec<String> {
            let peers = of_roster(&fleet.roster(1), &fleet.seed_of(own).public());
            let relayed = peers.into_iter().filter(|(_, peer)| peer.relay_only);
            relayed.map(|(name, _)| name.to_string()).collect()
        };
        let nobody: [&str; 0] = [];
        assert_eq!(relayed(&fleet, "galena"), nobody);
        fleet.member_mut("galena").relay_only = true;
        assert_eq!(relayed(&fleet, "galena"), ["pyrite"]);
        assert_eq!(relayed(&fleet, "pyrite"), ["galena"]);
        assert_eq!(relayed(&fleet, "cinnabar"), nobody);
        fleet.member_mut("cinnabar").relay = false;
        assert_eq!(relayed(&fleet, "galena"), ["cinnabar", "pyrite"]);
    }

    #[test]
    fn aes_is_between_agents_that_both_take_it_and_begun_by_a_fast_one() {
        let mut fleet = Fleet::new(&["cinnabar", "galena"]);
        let between = |fleet: &Fleet, fast| {
            let [own, member] = ["cinnabar", "galena"].map(|text| &fleet.members[&name(text)]);
            protocol(member, own, fast)
        };
        let set = |fleet: &mut Fleet, text, ciphers: &[&str]| {
            let ciphers = ciphers.iter().map(|cipher| (*cipher).to_owned());
            fleet.member_mut(text).ciphers = ciphers.collect();
        };
        let both = ["aes", "chacha"];
        set(&mut fleet, "cinnabar", &both);
        set(&mut fleet, "galena", &both);
        assert_eq!(between(&fleet, true), Protocol::MeshAes);
        assert_eq!(between(&fleet, false), Protocol::Wireguard);
        set(&mut fleet, "galena", &["chacha"]);
        assert_eq!(between(&fleet, true), Protocol::Wireguard);
        set(&mut fleet, "galena", &both);
        set(&mut fleet, "cinnabar", &["chacha"]);
        assert_eq!(between(&fleet, true), Protocol::Wireguard);
        set(&mut fleet, "cinnabar", &both);
        let guest = seed().public().wireguard();
        fleet.member_mut("galena").public_key = Some(MemberKey::Wireguard(guest));
        assert_eq!(between(&fleet, true), Protocol::Wireguard);
    }

    #[test]
    fn endpoints_go_with_their_peer() {
        let fleet = Fleet::new(&["cinnabar", "galena"]);
        let galena = fleet.seed_of("galena").public().wireguard();
        let peers = of_roster(&fleet.roster(1), &fleet.seed_of("cinnabar").public());
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let mut directory = Directory::default();
        directory.replace(&peers);
        assert_eq!(directory.key(&name("galena")), Some(galena));
        assert_eq!(directory.name(&galena), Some(&name("galena")));
        directory.hear(galena, &[at(1)]);
        directory.replace(&peers);
        assert_eq!(directory.hear(galena, &[]), [at(1)]);
        directory.replace(&[]);
        assert_eq!(directory.key(&name("galena")), None);
        assert_eq!(directory.hear(galena, &[]), []);
    }
}
