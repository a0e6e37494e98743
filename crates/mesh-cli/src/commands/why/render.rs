//! `mesh why` as text: a value in, text out.

use std::net::SocketAddr;

use mesh_api::{
    MoonStatus, Nat, PathKind, PeerState, PeerStatus, WayChange, WayEvent, WayOrigin, WayStatus,
    Why,
};
use mesh_types::MachineName;

use crate::human;

/// The columns of the table of ways.
const COLUMNS: [&str; 7] = ["WAY", "FROM", "KNOWN", "PROBES", "ANSWERED", "RTT", "STATE"];

/// The whole answer: a sentence, what would help, the ways, this side, the moons, and what happened.
pub(crate) fn why(why: &Why) -> String {
    let mut text = headline(&why.peer);
    if let Some(helps) = &why.helps {
        text.push_str(&format!("what would help: {helps}\n"));
    }
    if !why.ways.is_empty() {
        let rows: Vec<_> = why.ways.iter().map(way_row).collect();
        text.push('\n');
        text.push_str(&human::table(&COLUMNS, &rows));
    }
    text.push('\n');
    text.push_str(&this_side(why));
    if !why.history.is_empty() {
        text.push('\n');
        let lines: String = why.history.iter().map(event).collect();
        text.push_str(&lines);
    }
    text
}

fn headline(peer: &PeerStatus) -> String {
    let name = &peer.name;
    let state = match (peer.state, peer.path, &peer.relay) {
        (PeerState::Connected, _, Some(moon)) => format!("is relayed by {moon}"),
        (PeerState::Connected, Some(PathKind::Direct), None) => match peer.endpoint {
            Some(endpoint) => format!("is reached straight at {endpoint}"),
            None => "is reached on port 443, by QUIC or TLS".to_owned(),
        },
        (PeerState::Connected, Some(PathKind::Relayed) | None, None) => "is relayed".to_owned(),
        (PeerState::Idle, ..) => "is idle".to_owned(),
        (PeerState::Connecting, ..) => "is being connected to".to_owned(),
        (PeerState::Unreachable, ..) => "is not reached".to_owned(),
        (PeerState::Unavailable, ..) => "is not tried".to_owned(),
    };
    match (&peer.reason, peer.rtt_micros) {
        (Some(reason), _) => format!("{name} {state}: {reason}\n"),
        (None, Some(rtt)) => format!("{name} {state}, {} there and back\n", human::micros(rtt)),
        (None, None) => format!("{name} {state}\n"),
    }
}

fn way_row(way: &WayStatus) -> Vec<String> {
    let none = || "-".to_owned();
    let ago = |seconds: u64| format!("{} ago", human::age(seconds));
    let origin = match way.origin {
        WayOrigin::Peer => "the peer",
        WayOrigin::Told => "roster, controller",
        WayOrigin::Heard => "a packet",
        WayOrigin::Moon => "the moon",
    };
    vec![
        way_name(way.endpoint, way.relay.as_ref()),
        origin.to_owned(),
        ago(way.known_seconds),
        way.probes.to_string(),
        way.last_answer_seconds
            .map_or_else(|| "never".to_owned(), ago),
        way.rtt_micros.map_or_else(none, human::micros),
        way_state(way),
    ]
}

fn way_state(way: &WayStatus) -> String {
    match (way.in_use, way.left_seconds, way.last_probe_seconds) {
        (true, ..) => "in use".to_owned(),
        (false, Some(left), _) => format!("left {} ago, silent", human::age(left)),
        (false, None, Some(probed)) => format!("last probe {} ago, unanswered", human::age(probed)),
        (false, None, None) if way.rtt_micros.is_some() => "answers".to_owned(),
        (false, None, None) if way.probes == 0 => "not tried".to_owned(),
        (false, None, None) => "let go".to_owned(),
    }
}

fn way_name(endpoint: Option<SocketAddr>, relay: Option<&MachineName>) -> String {
    match (endpoint, relay) {
        (Some(endpoint), _) => endpoint.to_string(),
        (None, Some(moon)) => format!("through {moon}"),
        (None, None) => "port 443".to_owned(),
    }
}

fn this_side(why: &Why) -> String {
    let list = |endpoints: &[SocketAddr]| {
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        match endpoints.as_slice() {
            [] => "nowhere known".to_owned(),
            some => some.join(", "),
        }
    };
    let told = match why.told_seconds {
        Some(seconds) => format!("; the peer was told {} ago", human::age(seconds)),
        None => String::new(),
    };
    let mut rows = vec![
        ("this side", format!("{}{told}", list(&why.own_candidates))),
        ("NAT, IPv4", nat(why.nat_ipv4).to_owned()),
        ("NAT, IPv6", nat(why.nat_ipv6).to_owned()),
    ];
    if let Some(mtu) = why.peer.mtu {
        rows.push(("packets", format!("up to {mtu} bytes by the way in use")));
    }
    if why.moons.is_empty() {
        rows.push(("moon", "none in the roster".to_owned()));
    }
    for each in &why.moons {
        rows.push(("moon", moon(each)));
    }
    rows.iter()
        .map(|(label, value)| format!("{label:<9}  {value}\n"))
        .collect()
}

const fn nat(nat: Nat) -> &'static str {
    match nat {
        Nat::Unseen => "no moon sees this machine",
        Nat::None => "none: moons see this machine at its own address",
        Nat::Translated => "there is one; with one moon beyond it, no more is known",
        Nat::SamePort => "gives all moons the same port",
        Nat::PortVaries => "gives each moon another port",
    }
}

fn moon(moon: &MoonStatus) -> String {
    let mut text = match &moon.name {
        Some(name) => name.to_string(),
        None => "(not in the roster)".to_owned(),
    };
    text.push_str(match (moon.relays, &moon.refused) {
        (true, _) => " relays",
        (false, Some(_)) => " does not relay: ",
        (false, None) => " does not relay",
    });
    if let Some(refused) = &moon.refused {
        text.push_str(refused);
    }
    if let Some(rtt) = moon.rtt_micros {
        text.push_str(&format!(", {} there and back", human::micros(rtt)));
    }
    if let Some(seconds) = moon.unanswered_seconds {
        text.push_str(&format!(
            ", asked without an answer for {}",
            human::age(seconds)
        ));
    }
    if !moon.observed.is_empty() {
        let observed: Vec<_> = moon.observed.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            ", sees this machine at {}",
            observed.join(" and ")
        ));
    }
    text
}

fn event(event: &WayEvent) -> String {
    let by = match (event.endpoint, &event.relay) {
        (Some(endpoint), _) => format!("by {endpoint}"),
        (None, Some(moon)) => format!("through {moon}"),
        (None, None) => "on port 443".to_owned(),
    };
    let what = match event.what {
        WayChange::Handshake => format!("a handshake came back {by}"),
        WayChange::Taken => format!("packets go {by}"),
        WayChange::Unanswered => format!("no answer {by}"),
        WayChange::Left => format!("left the way {by}: silent, while another answered"),
        WayChange::Heard => format!("packets came {by}"),
        WayChange::LetGo => format!("no traffic: let go of the way {by}"),
        WayChange::Closed => format!("the way {by} was closed"),
        WayChange::NetworkChanged => "this machine's network changed, or it woke up".to_owned(),
    };
    let times = match event.times {
        0 | 1 => String::new(),
        times => format!(" ({times} times)"),
    };
    format!("{:>7} ago  {what}{times}\n", human::age(event.seconds))
}
