//! A fleet with keys, for tests.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use mesh_core::Stamp;
use mesh_inventory::{
    roster::{HeadFields, MachineClass, Member, NetworkPart, Role, Roster, Signer, Unsigned},
    rules::Rules,
};
use mesh_os::udp::UdpSocket;
use mesh_types::{IdentitySeed, MachineName, MemberKey, NetworkId, Serial};
use rand::RngCore;

use crate::{agent::Agent, config::Config, logs::LogRing, overlay::Overlay};

/// Machines with fresh keys, the first of them the controller, and an admin who signs.
pub(crate) struct Fleet {
    pub(crate) seeds: BTreeMap<MachineName, IdentitySeed>,
    pub(crate) members: BTreeMap<MachineName, Member>,
    pub(crate) rules: Option<Rules>,
    admin: IdentitySeed,
}

pub(crate) fn network() -> NetworkId {
    "000102030405060708090a0b0c0d0e0f".parse().unwrap()
}

pub(crate) fn name(text: &str) -> MachineName {
    text.parse().unwrap()
}

pub(crate) fn seed() -> IdentitySeed {
    let mut bytes = [0; 32];
    rand::thread_rng().fill_bytes(&mut bytes);
    IdentitySeed::from_bytes(bytes)
}

impl Fleet {
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut seeds = BTreeMap::new();
        let mut members = BTreeMap::new();
        for (index, text) in names.iter().enumerate() {
            let key = seed();
            let role = if index == 0 {
                Role::Controller
            } else {
                Role::Peer
            };
            members.insert(name(text), member(text, Some(&key), role));
            seeds.insert(name(text), key);
        }
        Self {
            seeds,
            members,
            rules: None,
            admin: seed(),
        }
    }

    pub(crate) fn signer(&self) -> Signer {
        self.admin.public().into()
    }

    pub(crate) fn seed_of(&self, text: &str) -> &IdentitySeed {
        &self.seeds[&name(text)]
    }

    pub(crate) fn member_mut(&mut self, text: &str) -> &mut Member {
        self.members.get_mut(&name(text)).unwrap()
    }

    pub(crate) fn roster(&self, serial: u64) -> Roster {
        let part = NetworkPart {
            id: network(),
            name: "test".to_owned(),
            domain: "mesh".to_owned(),
            prefix: network().prefix().net(),
            ipv4: self
                .members
                .values()
                .any(|member| member.ipv4.is_some())
                .then(|| "10.1.0.0/16".parse().unwrap()),
            signers: vec![self.admin.public().to_string()],
            rules: self.rules.clone(),
            unknown: BTreeMap::new(),
        };
        let fields = HeadFields {
            serial: Serial::try_from(serial).unwrap(),
            time: 1_795_179_517,
            revision: None,
            previous: None,
        };
        Unsigned::new(&part, &self.members, fields)
            .unwrap()
            .sign_with_seed(&self.admin)
            .unwrap()
    }
}

pub(crate) fn member(text: &str, key: Option<&IdentitySeed>, role: Role) -> Member {
    Member {
        name: name(text),
        class: MachineClass::Nixos,
        public_key: key.map(|key| MemberKey::Mesh(key.public())),
        address: network().address_of(&name(text)).unwrap(),
        ipv4: None,
        enabled: true,
        tags: vec!["all".to_owned(), "nixos".to_owned()],
        roles: vec![role],
        endpoints: Vec::new(),
        aliases: Vec::new(),
        routes: Vec::new(),
        gateways: Vec::new(),
        ciphers: vec!["chacha".to_owned()],
        ssh_host_keys: Vec::new(),
        relay: true,
        relay_rate_limit: None,
        relay_only: false,
        unknown: BTreeMap::new(),
    }
}

/// An IPv6 packet without content (next header 59) between two machines.
pub(crate) fn packet(fleet: &Fleet, from: &str, to: &str) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    packet.extend(fleet.members[&name(from)].address.octets());
    packet.extend(fleet.members[&name(to)].address.octets());
    packet
}

/// The agent of the machine `text`, on loopback and without a device; `stored` is the serial of the roster
/// that it starts from.
pub(crate) fn agent(
    fleet: &Fleet,
    text: &str,
    controllers: &[SocketAddr],
    stored: Option<u64>,
    state_dir: &Path,
) -> Arc<Agent> {
    let controllers: Vec<_> = controllers.iter().map(ToString::to_string).collect();
    let text_of_config = format!(
        "network = \"{}\"\nsigners = [\"{}\"]\ncontrollers = {controllers:?}\nstate_dir = \"{}\"\n",
        network(),
        fleet.signer(),
        state_dir.display(),
    );
    let config = Config::parse(&text_of_config, Path::new("agent.toml")).unwrap();
    let identity = IdentitySeed::parse(&fleet.seed_of(text).to_line()).unwrap();
    let socket = UdpSocket::bind(0).unwrap();
    let address = network().prefix().agent_address();
    let (overlay, _news) = Overlay::new(&identity, address, Stamp::ZERO, vec![socket]);
    let roster = stored.map(|serial| fleet.roster(serial));
    let logs = LogRing::default();
    Agent::new(identity, config, roster, Arc::new(overlay), None, logs)
}
