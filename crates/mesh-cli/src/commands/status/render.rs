//! `mesh status` as text: a value in, text out.

use mesh_api::{
    ConfinementStatus, ControllerStatus, DnsStatus, PeerState, PeerStatus, RelayStatus,
    RosterStatus, RulesStatus, Status,
};

use crate::human;

/// The table's columns. Programs that read tables anyway may rely on their order.
const COLUMNS: [&str; 10] = [
    "NAME",
    "ADDRESS",
    "STATE",
    "PATH",
    "RTT",
    "HANDSHAKE",
    "RX",
    "TX",
    "MTU",
    "REASON",
];

/// The whole answer: a block on this machine, and a table of its peers.
pub(crate) fn status(status: &Status) -> String {
    let mut text = header(status);
    text.push('\n');
    text.push_str(&peers(&status.peers));
    if let Some(hint) = hint(&status.peers) {
        text.push_str(&hint);
    }
    text
}

fn header(status: &Status) -> String {
    let node = &status.node;
    let mut rows: Vec<(&str, String)> = Vec::new();
    let name = match &node.name {
        Some(name) => name.to_string(),
        None => "(not in a roster)".to_owned(),
    };
    rows.push(("machine", name));
    let mut address = match node.address {
        Some(address) => address.to_string(),
        None => "none".to_owned(),
    };
    if let Some(ipv4) = node.ipv4 {
        address.push_str(&format!(", {ipv4}"));
    }
    if let Some(interface) = &node.interface {
        address.push_str(&format!(" on {interface}"));
    }
    rows.push(("address", address));
    rows.push(("identity", node.identity.clone()));
    rows.push(("network", node.network.clone()));
    rows.push((
        "agent",
        format!("release {}, UDP port {}", node.release, node.listen_port),
    ));
    rows.push((
        "admitted",
        match (node.admitted, &node.reason) {
            (true, None) => "yes".to_owned(),
            (true, Some(remark)) => format!("yes; {remark}"),
            (false, reason) => format!("no: {}", reason.as_deref().unwrap_or("not said why")),
        },
    ));
    rows.push((
        "roster",
        status.roster.as_ref().map_or("none".to_owned(), roster),
    ));
    if let Some(dns) = &status.dns {
        rows.push(("names", names(dns)));
    }
    if status.controllers.is_empty() {
        rows.push(("controller", "none configured".to_owned()));
    }
    for each in &status.controllers {
        rows.push(("controller", controller(each)));
    }
    if let Some(known) = &status.rules {
        rows.push(("rules", rules(known)));
    }
    if let Some(relays) = &status.relaying {
        rows.push(("relays", relaying(relays)));
    }
    if let Some(confined) = &status.confinement {
        rows.push(("confined", confinement(confined)));
    }
    for warning in &status.warnings {
        rows.push(("warning", warning.clone()));
    }
    rows.iter()
        .map(|(label, value)| format!("{label:<11} {value}\n"))
        .collect()
}

fn rules(rules: &RulesStatus) -> String {
    let others = match rules.default_allows {
        true => "allowed",
        false => "denied",
    };
    let packets = match rules.denied_packets {
        0 => String::new(),
        packets => format!("; {packets} packets denied here, see `mesh rule list`"),
    };
    format!("{}, everything else is {others}{packets}", rules.rules)
}

fn relaying(relays: &RelayStatus) -> String {
    let mut text = format!(
        "for {} clients: {} frames, {}",
        relays.clients,
        relays.relayed_frames,
        human::bytes(relays.relayed_bytes),
    );
    if relays.limited_frames > 0 {
        text.push_str(&format!("; {} over a limit", relays.limited_frames));
    }
    text
}

fn confinement(confinement: &ConfinementStatus) -> String {
    let list = |items: &[String]| match items {
        [] => "nothing".to_owned(),
        items => items.join(", "),
    };
    let in_force = list(&confinement.in_force);
    if confinement.missing.is_empty() {
        in_force
    } else {
        format!("{in_force}; not: {}", list(&confinement.missing))
    }
}

fn names(dns: &DnsStatus) -> String {
    match (&dns.listening, &dns.reason, &dns.domain) {
        (Some(at), _, Some(domain)) => {
            format!(
                "{} of `{domain}`, answered on port {}",
                dns.names,
                at.port()
            )
        }
        (_, reason, _) => format!(
            "not answered: {}",
            reason.as_deref().unwrap_or("not said why")
        ),
    }
}

fn roster(roster: &RosterStatus) -> String {
    format!(
        "serial {}, {} members, signed {} ago by {} ({})",
        roster.serial,
        roster.members,
        human::age(roster.age_seconds),
        roster.signer,
        if roster.signed_by_controller {
            "a controller, from the inventory that it watches"
        } else {
            "an admin"
        },
    )
}

fn controller(controller: &ControllerStatus) -> String {
    let mut text = controller.endpoint.clone();
    if let Some(name) = &controller.name {
        text.push_str(&format!(" ({name})"));
    }
    match (controller.connected, &controller.reason) {
        (true, None) => text.push_str(" connected"),
        (true, Some(remark)) => text.push_str(&format!(" connected; {remark}")),
        (false, reason) => text.push_str(&format!(
            " not connected: {}",
            reason.as_deref().unwrap_or("not said why")
        )),
    }
    if let Some(serial) = controller.serial {
        text.push_str(&format!(", serial {serial}"));
    }
    text
}

fn peers(peers: &[PeerStatus]) -> String {
    let rows: Vec<_> = peers.iter().map(row).collect();
    human::table(&COLUMNS, &rows)
}

/// Where to read on, if a peer is reached by a moon or a stream, or is not although it was tried.
fn hint(peers: &[PeerStatus]) -> Option<String> {
    let odd = |peer: &&PeerStatus| match peer.state {
        PeerState::Connected => peer.reason.is_some(),
        PeerState::Unreachable => true,
        PeerState::Idle | PeerState::Connecting | PeerState::Unavailable => false,
    };
    let name = &peers.iter().find(odd)?.name;
    Some(format!(
        "\n`mesh why {name}` tells more, and what would help\n"
    ))
}

fn row(peer: &PeerStatus) -> Vec<String> {
    let none = || "-".to_owned();
    vec![
        peer.name.to_string(),
        peer.address.to_string(),
        peer.state.name().to_owned(),
        human::path(peer.path, peer.endpoint, peer.relay.as_ref()),
        peer.rtt_micros.map_or_else(none, human::micros),
        peer.last_handshake_seconds
            .map_or_else(none, |seconds| format!("{} ago", human::age(seconds))),
        human::bytes(peer.rx_bytes),
        human::bytes(peer.tx_bytes),
        peer.mtu.map_or_else(none, |mtu| mtu.to_string()),
        peer.reason.clone().unwrap_or_else(none),
    ]
}
