//! `mesh netcheck`: tries out what lies between this machine and others, with sockets of its own. What it means
//! is told by [`findings`].
//!
//! Two sockets a family: one speaks to all moons, which shows the mapping; the other to one moon alone, so
//! that its NAT knows nobody else when that moon's second port and another moon knock.

mod findings;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_api::{MoonReport, Netcheck};
use mesh_control::stream::dial_tls;
use mesh_core::MoonView;
use mesh_inventory::roster::Roster;
use mesh_types::{MachineName, MemberKey, PublicIdentity};
use mesh_wire::reflect::{Heard, ReflectRequest, Reflection};
use rand::RngCore;
use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use self::findings::{Alone, Family, Seen};
use crate::{
    agent::Agent,
    overlay::{KnockAnswer, PingOutcome},
    relay::streams,
    snapshot,
};

/// Moons that are looked at; more tell nothing new.
const MOONS_MAX: usize = 8;

/// What the agent is given to have a moon relay, if none does.
const FIRST_MOON: Duration = Duration::from_millis(1_000);

/// When a question is asked, and how long its last asking is waited for: above the round trips of the internet.
const ASKED: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
];
const ANSWERED: Duration = Duration::from_millis(1_000);

/// How long each moon's echo and its port 443 are waited for.
const ECHO: Duration = Duration::from_millis(2_000);
const TLS: Duration = Duration::from_millis(3_000);

/// A moon of the roster.
struct Moon {
    name: MachineName,
    key: PublicIdentity,
    /// `host:port`.
    endpoints: Vec<String>,
}

/// Looks at the network. Takes up to five seconds; dropping the future ends it.
pub(crate) async fn run(agent: &Arc<Agent>) -> Netcheck {
    let moons = agent
        .roster()
        .map(|roster| moons(&roster, agent.public()))
        .unwrap_or_default();
    let looked = async {
        let mut reached = agent.overlay.moons.subscribe();
        let one = reached.wait_for(|moons| moons.iter().any(|(_, by)| by.is_some()));
        // Without a token no moon answers; which then shows.
        let _ = timeout(FIRST_MOON, one).await;
        let known = agent.overlay.moon_views();
        let families = tokio::join!(family(agent, &known, false), family(agent, &known, true));
        families.into()
    };
    let (moons, families) = tokio::join!(look_at_moons(agent, moons), looked);
    let known = agent.overlay.moon_views();
    let old_moons = known
        .iter()
        .any(|(_, moon)| moon.token.is_some() && !moon.reflects);
    Seen {
        families,
        moons,
        old_moons,
        port_mapping: snapshot::port_mapping(&agent.mapping.borrow()),
    }
    .report()
}

/// The moons of the roster, in the order of their names.
fn moons(roster: &Roster, own: &PublicIdentity) -> Vec<Moon> {
    let relays = roster.members().values().filter(|member| member.is_relay());
    relays
        .filter_map(|member| match member.public_key? {
            MemberKey::Mesh(key) if key != *own => Some(Moon {
                name: member.name.clone(),
                key,
                endpoints: member.endpoints.iter().map(ToString::to_string).collect(),
            }),
            MemberKey::Mesh(_) | MemberKey::Wireguard(_) => None,
        })
        .take(MOONS_MAX)
        .collect()
}

async fn look_at_moons(agent: &Arc<Agent>, moons: Vec<Moon>) -> Vec<MoonReport> {
    let mut looking = JoinSet::new();
    for moon in moons {
        let agent = agent.clone();
        looking.spawn(async move {
            let (echo, tls) = tokio::join!(
                agent.overlay.ping(&moon.name, ECHO),
                over_443(&agent, &moon)
            );
            report(&agent, moon, &echo, tls)
        });
    }
    let mut reports = looking.join_all().await;
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    reports
}

fn report(
    agent: &Agent,
    moon: Moon,
    echo: &PingOutcome,
    (tcp_443, tcp_443_micros): (bool, Option<u64>),
) -> MoonReport {
    let known = agent.overlay.moon_views();
    let view = known.iter().find(|(name, _)| *name == moon.name);
    let relays = view.is_some_and(|(_, view)| view.token.is_some());
    let refused = view.and_then(|(_, view)| view.refused);
    let (endpoint, rtt, silence) = match echo {
        PingOutcome::Answered {
            rtt,
            endpoint: Some(endpoint),
            ..
        } => (Some(*endpoint), Some(*rtt), None),
        PingOutcome::Answered {
            rtt,
            relay: Some(relay),
            ..
        } => (None, Some(*rtt), Some(format!("reached through {relay}"))),
        PingOutcome::Answered { rtt, .. } => {
            (None, Some(*rtt), Some("reached over port 443".to_owned()))
        }
        PingOutcome::Unanswered | PingOutcome::TooMany => {
            (None, None, Some("no answer".to_owned()))
        }
    };
    let refusal = refused.map(|reason| match reason {
        mesh_wire::tunnel::RelayRefused::NoMoon => {
            "it does not relay for this machine, by its own roster".to_owned()
        }
        mesh_wire::tunnel::RelayRefused::Full => "it has as many clients as it serves".to_owned(),
        mesh_wire::tunnel::RelayRefused::Other(code) => format!("it does not relay: reason {code}"),
    });
    MoonReport {
        name: moon.name,
        endpoint,
        rtt_micros: rtt.map(micros),
        mtu: view.and_then(|(_, view)| view.mtu),
        relays,
        reason: refusal.or(silence),
        tcp_443,
        tcp_443_micros,
    }
}

/// Whether a moon takes TLS on port 443, and how long that took. One whose stream is in use is not dialled: it
/// would give up that one for the new one.
async fn over_443(agent: &Arc<Agent>, moon: &Moon) -> (bool, Option<u64>) {
    if !agent.overlay.streams.of(&moon.key.wireguard()).is_empty() {
        return (true, None);
    }
    let began = Instant::now();
    let dialled = async {
        for endpoint in &moon.endpoints {
            let Some((host, _)) = endpoint.rsplit_once(':') else {
                continue;
            };
            let host = host.trim_matches(['[', ']']);
            let Ok(addresses) = tokio::net::lookup_host((host, streams::PORT)).await else {
                continue;
            };
            for address in addresses {
                if dial_tls(address, agent.identity(), moon.key.node_id())
                    .await
                    .is_ok()
                {
                    return true;
                }
            }
        }
        false
    };
    match timeout(TLS, dialled).await {
        Ok(true) => (true, Some(micros(began.elapsed()))),
        Ok(false) | Err(_) => (false, None),
    }
}

/// Looks at one family, with the moons that answer.
async fn family(agent: &Arc<Agent>, moons: &[(MachineName, MoonView)], ipv6: bool) -> Family {
    let own = agent.endpoints.borrow().clone();
    let own = own.iter().map(SocketAddr::ip);
    let mut family = Family {
        own: own.filter(|address| address.is_ipv6() == ipv6).collect(),
        keeping: Some(agent.overlay.keeping(ipv6)),
        ..Family::default()
    };
    let targets: Vec<Target<'_>> = moons
        .iter()
        .filter_map(|(_, moon)| {
            Some(Target {
                moon,
                at: moon.endpoints[usize::from(ipv6)]?,
                token: moon.token.filter(|_| moon.reflects)?,
            })
        })
        .take(MOONS_MAX)
        .collect();
    let (Ok(common), Ok(alone)) = (bind(ipv6).await, bind(ipv6).await) else {
        return family;
    };
    let at = |targets: &[Target<'_>]| -> Vec<_> {
        targets
            .iter()
            .map(|target| (target.at, target.token))
            .collect()
    };
    let seen = reflect(&common, &at(&targets)).await;
    family.seen = targets
        .iter()
        .filter_map(|target| Some((target.at, seen.get(&target.at)?.observed)))
        .collect();
    // The first that answered, and one elsewhere, which the second socket never speaks to.
    let mut answering = targets
        .iter()
        .filter(|target| seen.contains_key(&target.at));
    let Some(first) = answering.next() else {
        return family;
    };
    let elsewhere = answering.find(|target| target.at.ip() != first.at.ip());
    let elsewhere = elsewhere.map(|target| (target, seen[&target.at].proof));
    family.alone = look_alone(agent, &alone, first, elsewhere).await;
    if let Some((outer, _)) = family.alone.seen {
        family.hairpin = hairpin(&common, seen[&first.at].observed, &alone, outer).await;
    }
    family
}

/// A moon to ask.
struct Target<'a> {
    moon: &'a MoonView,
    at: SocketAddr,
    token: u64,
}

/// What gets in to a socket that spoke to `first` alone.
async fn look_alone(
    agent: &Arc<Agent>,
    socket: &UdpSocket,
    first: &Target<'_>,
    elsewhere: Option<(&Target<'_>, u64)>,
) -> Alone {
    let reflected = reflect(socket, &[(first.at, first.token)]).await;
    let Some(Reflection {
        observed, proof, ..
    }) = reflected.get(&first.at).copied()
    else {
        return Alone::default();
    };
    let overlay = &agent.overlay;
    let from_other_port = overlay.ask_knock(first.moon.key, observed, proof, true);
    let from_elsewhere = async {
        let (target, proof) = elsewhere?;
        overlay
            .ask_knock(target.moon.key, observed, proof, false)
            .await
    };
    let asked = async { tokio::join!(from_other_port, from_elsewhere) };
    let (asked, heard) = tokio::join!(asked, knocks(socket));
    let is_in = |answer: &Option<KnockAnswer>, possible: bool| {
        let answer = answer.as_ref().filter(|answer| answer.agreed && possible);
        answer.map(|answer| heard.contains(&answer.id))
    };
    let (by_port, by_address) = asked;
    let other_port = by_port.as_ref().and_then(|answer| answer.other_port);
    let mut alone = Alone {
        seen: Some((observed, None)),
        other_port: is_in(&by_port, other_port.is_some()),
        other_address: is_in(&by_address, true),
    };
    if let Some(port) = other_port {
        let at = SocketAddr::new(first.at.ip(), port);
        let reflected = reflect(socket, &[(at, first.token)]).await;
        alone.seen = Some((observed, reflected.get(&at).map(|seen| seen.observed)));
    }
    alone
}

/// Asks moons where they see a socket, until all have answered or it is not worth waiting. A moon is told apart
/// by where the answer comes from.
async fn reflect(
    socket: &UdpSocket,
    moons: &[(SocketAddr, u64)],
) -> BTreeMap<SocketAddr, Reflection> {
    let id = rand::rngs::OsRng.next_u64();
    let began = Instant::now();
    let mut seen = BTreeMap::new();
    for (number, at) in ASKED.iter().enumerate() {
        for (to, token) in moons.iter().filter(|(to, _)| !seen.contains_key(to)) {
            let request = ReflectRequest { token: *token, id };
            // What cannot be sent is not answered.
            let _ = socket.send_to(&request.emit(), to).await;
        }
        let next = ASKED.get(number + 1).copied().unwrap_or(*at + ANSWERED);
        while seen.len() < moons.len() {
            match timeout_at(began + next, receive(socket)).await {
                Ok((from, Some(Heard::Reflection(reflection)))) if reflection.id == id => {
                    if moons.iter().any(|(to, _)| *to == from) {
                        seen.insert(from, reflection);
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if seen.len() >= moons.len() {
            break;
        }
    }
    seen
}

/// The knocks that come to a socket within the time for an answer.
async fn knocks(socket: &UdpSocket) -> BTreeSet<u64> {
    let end = Instant::now() + ANSWERED;
    let mut heard = BTreeSet::new();
    while let Ok((_, received)) = timeout_at(end, receive(socket)).await {
        // Whose it is shows by the id, which nobody can guess.
        if let Some(Heard::Knock(id)) = received
            && heard.len() < 16
        {
            heard.insert(id);
        }
    }
    heard
}

/// Whether two sockets reach each other by their addresses outside of the NAT: both send, as peers do.
async fn hairpin(
    a: &UdpSocket,
    a_outside: SocketAddr,
    b: &UdpSocket,
    b_outside: SocketAddr,
) -> Option<bool> {
    let id = rand::rngs::OsRng.next_u64();
    let knock = mesh_wire::reflect::emit_knock(id);
    for _ in 0..2 {
        a.send_to(&knock, b_outside).await.ok()?;
        b.send_to(&knock, a_outside).await.ok()?;
    }
    let came = async { while receive(b).await.1 != Some(Heard::Knock(id)) {} };
    Some(timeout(HAIRPIN, came).await.is_ok())
}

/// What a packet to the own router and back may take.
const HAIRPIN: Duration = Duration::from_millis(200);

/// The next datagram that came, and what it says. An error of the socket is about something sent before.
async fn receive(socket: &UdpSocket) -> (SocketAddr, Option<Heard>) {
    let mut bytes = [0; 64];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut bytes).await {
            return (from, Heard::parse(&bytes[..length]));
        }
    }
}

/// A socket of one family on a free port.
pub(crate) async fn bind(ipv6: bool) -> io::Result<UdpSocket> {
    let any: IpAddr = match ipv6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).await
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
