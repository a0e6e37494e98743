//! Collects the facts that [`view`] judges into what the local API answers.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_api::{
    ConfinementStatus, ControllerStatus, PeerState, Ping, PortMappingStatus, RosterStatus,
    SelfStatus, Status, VERSION, Why,
};
use mesh_core::{MappingView, Reason};
use mesh_inventory::roster::{Member, Role, Roster};
use mesh_os::clock;
use mesh_types::{MachineName, MemberKey, NodeId};

use crate::{
    agent::{Agent, Controller},
    config::HostPort,
    device::Device,
    overlay::PingOutcome,
    view::{self, Link, Scene, Standing, Verdict},
    why,
};

/// The whole status at this moment.
pub(crate) fn status(agent: &Agent) -> Status {
    let roster = agent.roster();
    let controllers = agent.controllers();
    let links = agent.overlay.links();
    let scene = scene(agent, &controllers, &links);
    Status {
        version: VERSION,
        node: node(agent, roster.as_deref(), &controllers),
        roster: roster
            .as_deref()
            .map(|roster| roster_status(roster, scene.unix_seconds)),
        controllers: controllers
            .iter()
            .map(|(endpoint, facts)| controller(endpoint, facts, roster.as_deref()))
            .collect(),
        peers: roster
            .as_deref()
            .map(|roster| peers(roster, &agent.public().node_id(), &links, &scene))
            .unwrap_or_default(),
        dns: Some(agent.dns.borrow().clone()),
        confinement: agent
            .confinement
            .get()
            .map(|confinement| ConfinementStatus {
                in_force: confinement.in_force.clone(),
                missing: confinement.missing.clone(),
            }),
        relaying: agent.overlay.moon.status(),
        port_mapping: Some(port_mapping(&agent.mapping.borrow())),
        rules: roster
            .as_deref()
            .and_then(|roster| agent.overlay.rules.status(roster)),
        warnings: warnings(agent, &scene),
    }
}

pub(crate) fn port_mapping(view: &MappingView) -> PortMappingStatus {
    let mapped = view.mapped.as_ref().ok();
    PortMappingStatus {
        router: view.router,
        protocol: mapped.map(|mapped| match mapped.protocol {
            mesh_core::MappingProtocol::Pcp => mesh_api::MappingProtocol::Pcp,
            mesh_core::MappingProtocol::NatPmp => mesh_api::MappingProtocol::NatPmp,
            mesh_core::MappingProtocol::Upnp => mesh_api::MappingProtocol::Upnp,
        }),
        external: mapped.map(|mapped| mapped.external.into()),
        lease_seconds: mapped
            .and_then(|mapped| mapped.until)
            .map(|until| until.saturating_since(clock::now()).as_secs()),
        reason: view.mapped.as_ref().err().map(ToString::to_string),
    }
}

/// One echo inside the tunnel, with what it took or why there is no answer.
pub(crate) async fn ping(agent: &Agent, member: &Member, timeout: Duration) -> Ping {
    let mut answer = Ping {
        version: VERSION,
        name: member.name.clone(),
        address: member.address.into(),
        rtt_micros: None,
        path: None,
        endpoint: None,
        relay: None,
        reason: None,
    };
    let is_self = is_self(agent, member);
    let not_tried = if is_self {
        Some(Reason::ThisMachine)
    } else if agent.standing() == Standing::Member {
        view::not_tried(member)
    } else {
        Some(Reason::NotAdmitted)
    };
    if let Some(reason) = not_tried {
        let scene = scene(agent, &agent.controllers(), &BTreeMap::new());
        answer.reason = view::line(reason, member, None, &scene).reason;
        return answer;
    }
    match agent.overlay.ping(&member.name, timeout).await {
        PingOutcome::Answered {
            rtt,
            endpoint,
            relay,
        } => {
            answer.rtt_micros = Some(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
            answer.path = Some(match &relay {
                Some(_) => mesh_api::PathKind::Relayed,
                None => mesh_api::PathKind::Direct,
            });
            answer.endpoint = endpoint;
            answer.relay = relay;
        }
        PingOutcome::Unanswered => {
            let links = agent.overlay.links();
            let scene = scene(agent, &agent.controllers(), &links);
            let peer = view::peer(member, links.get(&member.name), &scene);
            answer.endpoint = peer.endpoint;
            answer.reason = Some(match peer.reason {
                Some(reason) if !is_reached(peer.state) => reason,
                Some(_) | None => format!("no answer in {} ms", timeout.as_millis()),
            });
        }
        PingOutcome::TooMany => {
            answer.reason = Some("too many pings are under way".to_owned());
        }
    }
    answer
}

/// The whole story of one member.
pub(crate) fn why(agent: &Agent, member: &Member) -> Why {
    let links = agent.overlay.links();
    let link = links.get(&member.name);
    let scene = scene(agent, &agent.controllers(), &links);
    let reason = if is_self(agent, member) {
        Reason::ThisMachine
    } else {
        view::reason(member, link, &scene)
    };
    why::tell(
        view::line(reason, member, link, &scene),
        view::words::helps(reason, member, &scene),
        &agent.overlay.tale(&member.name),
        |key| agent.overlay.name_of(key),
        scene.unix_seconds,
    )
}

const fn is_reached(state: PeerState) -> bool {
    match state {
        PeerState::Connected | PeerState::Idle => true,
        PeerState::Connecting | PeerState::Unreachable | PeerState::Unavailable => false,
    }
}

fn is_self(agent: &Agent, member: &Member) -> bool {
    matches!(&member.public_key, Some(MemberKey::Mesh(key)) if key == agent.public())
}

fn scene(
    agent: &Agent,
    controllers: &[(HostPort, Controller)],
    links: &BTreeMap<MachineName, Link>,
) -> Scene {
    // The least difference: where most clocks agree with ours, it is another's that is wrong.
    let skew = controllers
        .iter()
        .filter_map(|(_, facts)| facts.clock_ahead_millis)
        .chain(links.values().filter_map(|link| link.clock_ahead_millis))
        .map(i64::unsigned_abs)
        .min();
    Scene {
        member: agent.standing() == Standing::Member,
        controller: controllers
            .iter()
            .any(|(_, facts)| facts.verdict == Verdict::Admitted),
        skew: skew.map(Duration::from_millis),
        listen_port: agent.overlay.socket().port(),
        now: clock::now(),
        unix_seconds: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs()),
    }
}

fn node(
    agent: &Agent,
    roster: Option<&Roster>,
    controllers: &[(HostPort, Controller)],
) -> SelfStatus {
    let member = roster.and_then(|roster| roster.member_by_node_id(&agent.public().node_id()));
    let verdicts: Vec<_> = controllers
        .iter()
        .map(|(_, facts)| facts.verdict.clone())
        .collect();
    let admission = view::admission(&verdicts, &agent.standing());
    let config = agent.config();
    SelfStatus {
        name: member.map(|member| member.name.clone()),
        address: agent.device.as_ref().and_then(Device::address),
        ipv4: member.and_then(|member| member.ipv4),
        identity: agent.public().to_string(),
        network: config.network.to_string(),
        interface: agent
            .device
            .as_ref()
            .map(|device| device.tun.name().to_owned()),
        listen_port: agent.overlay.socket().port(),
        admitted: admission.is_ok(),
        reason: admission.err(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn warnings(agent: &Agent, scene: &Scene) -> Vec<String> {
    let restart = agent.restart_needed.borrow().join(", ");
    let restart = (!restart.is_empty())
        .then(|| format!("restart needed: the configuration changed in {restart}"));
    let refused = agent.refused_roster.borrow().clone();
    view::skew_reason(scene.skew)
        .into_iter()
        .chain(refused)
        .chain(restart)
        .collect()
}

fn roster_status(roster: &Roster, unix_seconds: u64) -> RosterStatus {
    let head = roster.head();
    let signer = roster.signer();
    let signed_by_controller = signer.identity().is_some_and(|identity| {
        roster
            .member_by_node_id(&identity.node_id())
            .is_some_and(|member| member.roles.contains(&Role::Controller))
    });
    RosterStatus {
        serial: head.serial,
        signer: signer.to_string(),
        signed_by_controller,
        age_seconds: unix_seconds.saturating_sub(head.time),
        members: head.member_count,
    }
}

fn controller(
    endpoint: &HostPort,
    facts: &Controller,
    roster: Option<&Roster>,
) -> ControllerStatus {
    let name = facts
        .node_id
        .as_ref()
        .and_then(|id| roster?.member_by_node_id(id))
        .map(|member| member.name.clone());
    let connected = facts.connection.is_some();
    let reason = match &facts.reason {
        None if !connected => Some("connecting".to_owned()),
        reason => reason.clone(),
    };
    ControllerStatus {
        endpoint: endpoint.to_string(),
        name,
        connected,
        reason,
        serial: facts.serial,
    }
}

fn peers(
    roster: &Roster,
    own: &NodeId,
    links: &BTreeMap<MachineName, Link>,
    scene: &Scene,
) -> Vec<mesh_api::PeerStatus> {
    roster
        .members()
        .values()
        .filter(|member| member.public_key.and_then(|key| key.node_id()).as_ref() != Some(own))
        .map(|member| view::peer(member, links.get(&member.name), scene))
        .collect()
}
