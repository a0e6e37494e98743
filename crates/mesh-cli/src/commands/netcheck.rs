//! `mesh netcheck`.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use mesh_api::{
    Dependence, FamilyReport, MappingProtocol, MoonReport, Netcheck, PortMappingStatus, Reach,
    UdpOut,
};

use super::status::AGENT_SOCKET;
use crate::{
    client::{self, Daemon},
    failure::{Exit, Failure},
    human, output,
};

/// What the agent may take: its own five seconds, and as long again on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Try out what lies between this machine and others
///
/// Asks the agent to look at the network: whether UDP gets out, what a NAT does to it, which moons answer and how
/// fast, and whether they take TLS on port 443. Takes up to five seconds, and needs no controller. Exits with 1 if
/// nobody is reached.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = AGENT_SOCKET)]
    socket: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let mut told = io::stderr();
    let tells = told.is_terminal() && !args.json;
    if tells {
        // Whether it is seen changes nothing.
        let _ = write!(told, "looking at the network ...");
        let _ = told.flush();
    }
    let daemon = Daemon::agent(&args.socket);
    let report = client::block_on(daemon.post::<Netcheck>("/v1/netcheck", LIMIT));
    if tells {
        let _ = write!(told, "\r\x1b[K");
    }
    let report = report?;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?;
        format!("{json}\n")
    } else {
        render(&report)
    };
    output::answer(&text)?;
    Ok(match report.reach {
        Reach::Offline => Exit::Refused,
        Reach::Direct | Reach::DirectToOpen | Reach::Relayed | Reach::Only443 => Exit::Done,
    })
}

fn render(report: &Netcheck) -> String {
    let mut text = format!("{}\n\n", headline(report.reach));
    let mut row = |name: &str, value: &str| text.push_str(&format!("{name:<14}{value}\n"));
    row(
        "UDP",
        match report.udp {
            UdpOut::Yes => "gets out",
            UdpOut::Only443 => "does not get out; port 443 does",
            UdpOut::No => "no answer",
        },
    );
    for (name, family) in [("IPv4", &report.ipv4), ("IPv6", &report.ipv6)] {
        match family {
            Some(family) => family_rows(name, family, &mut row),
            None => row(name, "none"),
        }
    }
    row("port mapping", &port_mapping(&report.port_mapping));
    if !report.moons.is_empty() {
        row("path MTU", &path_mtu(&report.moons));
        text.push('\n');
        text.push_str(&moons(&report.moons));
    }
    for (number, hint) in report.hints.iter().enumerate() {
        text.push_str(if number == 0 { "\n" } else { "" });
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

const fn headline(reach: Reach) -> &'static str {
    match reach {
        Reach::Direct => "direct paths to most networks",
        Reach::DirectToOpen => "direct only to peers without a strict NAT",
        Reach::Relayed => "relayed over UDP",
        Reach::Only443 => "only over 443",
        Reach::Offline => "offline",
    }
}

fn family_rows(name: &str, family: &FamilyReport, row: &mut impl FnMut(&str, &str)) {
    let own = family.addresses.iter().map(ToString::to_string);
    let own = own.collect::<Vec<_>>().join(", ");
    let own = if own.is_empty() { "no address" } else { &own };
    let seen = match (family.seen_at, family.nat) {
        (Some(_), Some(false)) => format!("{own}, no NAT"),
        (Some(seen), Some(true) | None) => format!("{own}, seen as {seen} behind a NAT"),
        (None, _) => format!("{own}; no moon sees it"),
    };
    row(name, &seen);
    if family.seen_at.is_none() {
        return;
    }
    if family.nat == Some(true) {
        row("  mapping", mapping(family.mapping));
    }
    row("  filtering", filtering(family.filtering));
    if let Some(hairpin) = family.hairpin {
        row("  hairpin", if hairpin { "yes" } else { "no" });
    }
    let keepalive = format!("every {} s", family.keepalive_seconds);
    row(
        "  keepalive",
        &match family.holds_seconds {
            Some(holds) => format!("{keepalive}: silence was seen to hold for {holds} s"),
            None => format!("{keepalive}: not measured on this network"),
        },
    );
}

const fn mapping(mapping: Option<Dependence>) -> &'static str {
    match mapping {
        Some(Dependence::Independent) => "one port for all destinations",
        Some(Dependence::NotPort) => {
            "one port for all ports of a destination (a second moon would tell more)"
        }
        Some(Dependence::Address) => "another port for each address",
        Some(Dependence::AddressOrPort) => "another port for each destination",
        Some(Dependence::AddressAndPort) => "another port for each address and port",
        None => "not known: a second moon would tell",
    }
}

const fn filtering(filtering: Option<Dependence>) -> &'static str {
    match filtering {
        Some(Dependence::Independent) => "lets in everyone",
        Some(Dependence::NotPort) => {
            "lets in every port of who was spoken to (a second moon would tell more)"
        }
        Some(Dependence::Address) => "lets in the addresses that were spoken to",
        Some(Dependence::AddressOrPort) => "lets in only who was spoken to",
        Some(Dependence::AddressAndPort) => "lets in the addresses and ports that were spoken to",
        None => "not known: no moon could knock",
    }
}

fn port_mapping(status: &PortMappingStatus) -> String {
    let protocol = status.protocol.map(|protocol| match protocol {
        MappingProtocol::Pcp => "PCP",
        MappingProtocol::NatPmp => "NAT-PMP",
        MappingProtocol::Upnp => "UPnP",
    });
    match (status.external, protocol) {
        (Some(external), Some(protocol)) => format!("{external}, by {protocol}"),
        (Some(external), None) => external.to_string(),
        (None, _) => format!("none: {}", status.reason.as_deref().unwrap_or("not asked")),
    }
}

fn path_mtu(moons: &[MoonReport]) -> String {
    let measured: Vec<_> = moons
        .iter()
        .filter_map(|moon| Some(format!("{} to {}", moon.mtu?, moon.name)))
        .collect();
    match measured.is_empty() {
        true => "not measured: no packets of programs went to a moon".to_owned(),
        false => measured.join(", "),
    }
}

fn moons(moons: &[MoonReport]) -> String {
    let rows: Vec<Vec<String>> = moons
        .iter()
        .map(|moon| {
            let tcp_443 = match (moon.tcp_443, moon.tcp_443_micros) {
                (true, Some(micros)) => human::micros(micros),
                (true, None) => "in use".to_owned(),
                (false, _) => "no".to_owned(),
            };
            let relays = match (moon.relays, &moon.reason) {
                (true, None) => "yes".to_owned(),
                (true, Some(reason)) => format!("yes; {reason}"),
                (false, Some(reason)) => format!("no: {reason}"),
                (false, None) => "not asked yet".to_owned(),
            };
            vec![
                moon.name.to_string(),
                moon.rtt_micros
                    .map_or_else(|| "-".to_owned(), human::micros),
                moon.endpoint
                    .map_or_else(|| "-".to_owned(), |at| at.to_string()),
                tcp_443,
                relays,
            ]
        })
        .collect();
    human::table(&["MOON", "ROUND TRIP", "UDP", "443", "RELAYS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family() -> FamilyReport {
        FamilyReport {
            addresses: vec!["192.168.1.7".parse().unwrap()],
            seen_at: Some("203.0.113.9:51820".parse().unwrap()),
            nat: Some(true),
            mapping: Some(Dependence::Independent),
            filtering: Some(Dependence::AddressAndPort),
            hairpin: Some(false),
            holds_seconds: Some(120),
            keepalive_seconds: 100,
        }
    }

    fn moon(name: &str, answers: bool) -> MoonReport {
        MoonReport {
            name: name.parse().unwrap(),
            endpoint: answers.then(|| "198.51.100.1:4193".parse().unwrap()),
            rtt_micros: answers.then_some(23_400),
            mtu: answers.then_some(1_440),
            relays: answers,
            reason: (!answers).then(|| "no answer".to_owned()),
            tcp_443: answers,
            tcp_443_micros: answers.then_some(71_900),
        }
    }

    fn report() -> Netcheck {
        Netcheck {
            version: mesh_api::VERSION,
            reach: Reach::Direct,
            udp: UdpOut::Yes,
            ipv4: Some(family()),
            ipv6: None,
            port_mapping: PortMappingStatus {
                router: Some([192, 168, 1, 1].into()),
                protocol: Some(MappingProtocol::Pcp),
                external: Some("203.0.113.9:4193".parse().unwrap()),
                lease_seconds: Some(7_100),
                reason: None,
            },
            moons: vec![moon("cinnabar", true), moon("electrum", false)],
            hints: Vec::new(),
        }
    }

    #[test]
    fn a_home_shows_its_nat_and_its_moons() {
        insta::assert_snapshot!(render(&report()));
        insta::assert_snapshot!("json", serde_json::to_string_pretty(&report()).unwrap());
    }

    #[test]
    fn a_strict_nat_beside_open_ipv6_shows_both() {
        let strict = FamilyReport {
            mapping: Some(Dependence::AddressAndPort),
            holds_seconds: None,
            keepalive_seconds: 20,
            ..family()
        };
        let open = FamilyReport {
            addresses: vec!["2001:db8::7".parse().unwrap()],
            seen_at: Some("[2001:db8::7]:51820".parse().unwrap()),
            nat: Some(false),
            hairpin: None,
            ..strict.clone()
        };
        insta::assert_snapshot!(render(&Netcheck {
            reach: Reach::DirectToOpen,
            ipv4: Some(strict),
            port_mapping: PortMappingStatus {
                reason: Some(
                    "the router 192.168.1.1 answers neither PCP nor NAT-PMP nor UPnP".to_owned()
                ),
                ..PortMappingStatus::default()
            },
            ipv6: Some(open),
            hints: vec!["IPv6 would help".to_owned(), "and a second moon".to_owned()],
            ..report()
        }));
    }

    #[test]
    fn a_network_without_udp_shows_what_is_left() {
        let nobody = FamilyReport {
            seen_at: None,
            nat: None,
            mapping: None,
            filtering: None,
            hairpin: None,
            ..family()
        };
        let moon = MoonReport {
            tcp_443: true,
            tcp_443_micros: None,
            mtu: None,
            rtt_micros: Some(48_000),
            relays: true,
            reason: Some("reached over port 443".to_owned()),
            ..moon("cinnabar", false)
        };
        insta::assert_snapshot!(render(&Netcheck {
            reach: Reach::Only443,
            udp: UdpOut::Only443,
            ipv4: Some(nobody),
            port_mapping: PortMappingStatus::default(),
            moons: vec![moon],
            ..report()
        }));
    }
}
