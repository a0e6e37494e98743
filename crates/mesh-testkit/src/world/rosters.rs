//! Signed rosters of the machines of a world.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use mesh_inventory::roster::{
    HeadFields, MachineClass, Member as RosterMember, NetworkPart, Role, Roster, Signer, Unsigned,
};
use mesh_types::{IdentitySeed, MachineName, MemberKey, PublicIdentity, Serial};

use super::{HostId, machine::Member};
use crate::node::{NETWORK, identity};

/// A roster as it is published.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) roster: Roster,
    pub(super) file: Arc<Vec<u8>>,
    /// The same as far as machines go by it.
    pub(super) members: Arc<Vec<Member>>,
}

impl Published {
    /// Signs a roster with these members, of whom `controllers` are.
    pub(super) fn sign(
        members: Arc<Vec<Member>>,
        controllers: &[HostId],
        previous: Option<&Self>,
    ) -> Self {
        let part = NetworkPart {
            id: NETWORK,
            name: "world".to_owned(),
            domain: "mesh".to_owned(),
            prefix: NETWORK.prefix().net(),
            ipv4: None,
            signers: vec![admin().public().to_string()],
            rules: None,
            unknown: BTreeMap::new(),
        };
        let fields = HeadFields {
            serial: previous.map_or(Serial::FIRST, |previous| {
                previous.serial().next().expect("a test is shorter")
            }),
            time: 1_700_000_000,
            revision: None,
            previous: previous.map(|previous| previous.roster.head_hash()),
        };
        let all = members.iter().map(|member| {
            let is_controller = controllers.contains(&HostId(member.index));
            let member = roster_member(member, is_controller);
            (member.name.clone(), member)
        });
        let roster = Unsigned::new(&part, &all.collect(), fields)
            .and_then(|unsigned| unsigned.sign_with_seed(admin()))
            .expect("a roster");
        let file = roster.to_file();
        let roster = Roster::verify(&file, &NETWORK, &signers()).expect("as it was signed");
        Self {
            roster,
            file: Arc::new(file),
            members,
        }
    }

    pub(super) fn serial(&self) -> Serial {
        self.roster.head().serial
    }

    /// Whether a machine is a member.
    pub(super) fn has(&self, host: HostId) -> bool {
        self.members.iter().any(|member| member.index == host.0)
    }
}

/// Who may sign.
pub(super) fn signers() -> Vec<Signer> {
    vec![admin().public().into()]
}

/// The identity of the machine with this number.
pub(super) fn public(host: HostId) -> PublicIdentity {
    static ALL: [OnceLock<PublicIdentity>; 256] = [const { OnceLock::new() }; 256];
    *ALL[host.0].get_or_init(|| identity(number(host)).public())
}

/// A machine's name in rosters.
pub(super) fn name(host: HostId) -> MachineName {
    format!("m{}", host.0).parse().expect("a name")
}

/// The machine with this name.
pub(super) fn host(name: &MachineName) -> Option<HostId> {
    name.as_str().strip_prefix('m')?.parse().ok().map(HostId)
}

fn number(host: HostId) -> u8 {
    u8::try_from(host.0 + 1).expect("at most 255 machines")
}

/// No machine has the number 0.
fn admin() -> &'static IdentitySeed {
    static ADMIN: OnceLock<IdentitySeed> = OnceLock::new();
    ADMIN.get_or_init(|| identity(0))
}

fn roster_member(member: &Member, is_controller: bool) -> RosterMember {
    let host = HostId(member.index);
    let is_moon = member.moon_at.is_some();
    let roles = [
        (is_controller, Role::Controller),
        (is_moon, Role::Moon),
        (!is_controller && !is_moon, Role::Peer),
    ];
    let roles = roles.into_iter().filter(|(has, _)| *has);
    RosterMember {
        name: name(host),
        class: MachineClass::Nixos,
        public_key: Some(MemberKey::Mesh(public(host))),
        address: NETWORK.address_of(&name(host)).expect("an address"),
        ipv4: None,
        enabled: true,
        tags: Vec::new(),
        roles: roles.map(|(_, role)| role).collect(),
        endpoints: Vec::new(),
        aliases: Vec::new(),
        routes: Vec::new(),
        gateways: Vec::new(),
        ciphers: vec!["chacha".to_owned()],
        ssh_host_keys: Vec::new(),
        relay: is_moon || !is_controller,
        relay_rate_limit: None,
        relay_only: member.relay_only,
        unknown: BTreeMap::new(),
    }
}
