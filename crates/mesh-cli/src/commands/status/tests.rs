use std::net::SocketAddr;

use mesh_api::{
    ConfinementStatus, ControllerStatus, DnsStatus, MappingProtocol, PathKind, PeerState,
    PeerStatus, PortMappingStatus, RelayStatus, RosterStatus, RulesStatus, SelfStatus, VERSION,
};
use mesh_types::Serial;

use super::*;

fn peer(name: &str, state: PeerState, reason: Option<&str>) -> PeerStatus {
    PeerStatus {
        name: name.parse().unwrap(),
        address: "fdc3:582e:db61:0:f785:d658:d2e9:df7d".parse().unwrap(),
        ipv4: None,
        tags: vec!["all".to_owned(), "nixos".to_owned()],
        path: None,
        mtu: None,
        endpoint: None,
        relay: None,
        rtt_micros: None,
        last_handshake: None,
        last_handshake_seconds: None,
        state,
        reason: reason.map(str::to_owned),
        reason_code: match reason {
            None => "direct",
            Some("no traffic") => "no-traffic",
            Some("switched off") => "switched-off",
            Some(_) => "unanswered",
        }
        .to_owned(),
        rx_bytes: 0,
        tx_bytes: 0,
    }
}

fn status() -> Status {
    let endpoint: SocketAddr = "192.0.2.7:4193".parse().unwrap();
    let mut laptop = peer("blackphos", PeerState::Idle, Some("no traffic"));
    laptop.tags = vec!["all".to_owned(), "darwin".to_owned()];
    Status {
        version: VERSION,
        node: SelfStatus {
            name: Some("galena".parse().unwrap()),
            address: Some("fdc3:582e:db61::2".parse().unwrap()),
            ipv4: None,
            identity: "mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA".to_owned(),
            network: "000102030405060708090a0b0c0d0e0f".to_owned(),
            interface: Some("mesh0".to_owned()),
            listen_port: 4193,
            admitted: true,
            reason: None,
            release: "0.1.0".to_owned(),
        },
        roster: Some(RosterStatus {
            serial: Serial::try_from(7).unwrap(),
            signer: "ssh-ed25519 AAAAC3Nz admin".to_owned(),
            signed_by_controller: false,
            age_seconds: 11_000,
            members: 5,
        }),
        controllers: vec![
            ControllerStatus {
                endpoint: "mesh.example.org:4194".to_owned(),
                name: Some("cinnabar".parse().unwrap()),
                connected: true,
                reason: None,
                serial: Some(Serial::try_from(7).unwrap()),
            },
            ControllerStatus {
                endpoint: "192.0.2.9:4194".to_owned(),
                name: None,
                connected: false,
                reason: Some("`192.0.2.9:4194` does not answer".to_owned()),
                serial: None,
            },
        ],
        peers: vec![
            laptop,
            PeerStatus {
                path: Some(PathKind::Direct),
                mtu: Some(1440),
                endpoint: Some(endpoint),
                relay: None,
                rtt_micros: Some(1_234),
                last_handshake: Some("2026-11-20T12:57:20Z".to_owned()),
                last_handshake_seconds: Some(77),
                rx_bytes: 1_500,
                tx_bytes: 20_000_000,
                ..peer("cinnabar", PeerState::Connected, None)
            },
            PeerStatus {
                endpoint: Some(endpoint),
                relay: None,
                ..peer(
                    "electrum",
                    PeerState::Unreachable,
                    Some("handshake unanswered for 12 s"),
                )
            },
            peer("scheelite", PeerState::Unavailable, Some("switched off")),
        ],
        dns: Some(DnsStatus {
            listening: None,
            reason: Some("UDP port 53 is in use by `dnsmasq` (process 77)".to_owned()),
            domain: Some("mesh".to_owned()),
            names: 12,
        }),
        confinement: Some(ConfinementStatus {
            in_force: vec!["files".to_owned(), "system calls".to_owned()],
            missing: vec!["sockets by name (Landlock 9; this kernel has 7)".to_owned()],
        }),
        relaying: Some(RelayStatus {
            clients: 12,
            relayed_frames: 123_456,
            relayed_bytes: 160_000_000,
            limited_frames: 7,
            notices: 3,
            client_bytes_per_second: 12_500_000,
            total_bytes_per_second: 125_000_000,
        }),
        port_mapping: Some(PortMappingStatus {
            router: Some("192.168.1.1".parse().unwrap()),
            protocol: Some(MappingProtocol::NatPmp),
            external: Some("203.0.113.9:4193".parse().unwrap()),
            lease_seconds: Some(1_312),
            reason: None,
        }),
        rules: Some(RulesStatus {
            default_allows: false,
            rules: 12,
            denied_packets: 17,
        }),
        warnings: vec!["clock differs by 9 min".to_owned()],
    }
}

#[test]
fn the_text_is_for_people() {
    insta::assert_snapshot!(text(&status(), false).unwrap());
}

#[test]
fn a_machine_outside_says_why() {
    let mut status = status();
    status.node.name = None;
    status.node.address = None;
    status.node.admitted = false;
    status.node.reason = Some("no roster yet, and no controller answers".to_owned());
    status.roster = None;
    status.controllers.clear();
    status.peers.clear();
    status.warnings.clear();
    status.confinement = None;
    status.rules = None;
    status.relaying = None;
    insta::assert_snapshot!(text(&status, false).unwrap());
}

#[test]
fn the_json_is_a_contract() {
    insta::assert_snapshot!(text(&status(), true).unwrap());
}

#[test]
fn a_filter_is_a_name_or_a_tag() {
    let shown = |filters: &[&str]| {
        let filters: Vec<Filter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        let mut peers = status().peers;
        filter::keep(&mut peers, &filters);
        let names: Vec<_> = peers.iter().map(|peer| peer.name.to_string()).collect();
        names.join(" ")
    };
    assert_eq!(shown(&[]), "blackphos cinnabar electrum scheelite");
    assert_eq!(shown(&["electrum"]), "electrum");
    assert_eq!(shown(&["tag:darwin", "cinnabar"]), "blackphos cinnabar");
    assert_eq!(shown(&["tag:nobody"]), "");
    assert!("Not A Name".parse::<Filter>().is_err());
    let filters = ["electrum", "elektrum", "tag:nobody"].map(|text| text.parse().unwrap());
    assert_eq!(
        misses(&status(), &filters),
        "warning: no peer in the roster is called `elektrum`\nwarning: no peer in the roster has the tag `nobody`\n"
    );
}
