use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn agent() -> Ipv6Addr {
    "fdc3:582e:db61:ffff::1".parse().unwrap()
}

#[test]
fn an_echo_request_has_its_golden_bytes() {
    let request = TunnelMessage::EchoRequest {
        id: 0x0102_0304_0506_0708,
        wall_millis: 0x1112_1314_1516_1718,
    };
    let mut golden = vec![0x60, 0, 0, 0, 0, 28, 17, 1];
    golden.extend(agent().octets());
    golden.extend(agent().octets());
    // Port 4193 is 0x1061.
    golden.extend([0x10, 0x61, 0x10, 0x61, 0, 28, 0x1a, 0xe1]);
    golden.extend([1, 1, 0, 0]);
    golden.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    golden.extend([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    assert_eq!(emit(request, agent()), golden);
}

#[test]
fn a_forecast_has_its_golden_bytes() {
    let forecast = TunnelMessage::Forecast {
        id: 0x0102_0304_0506_0708,
        tell_yours: true,
        stride: -2,
        next: Some(SocketAddr::from(([192, 0, 2, 1], 4193))),
    };
    let mut golden = vec![1, 13, 0, 0];
    golden.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    golden.extend([1, 0xfe, 0, 0]);
    golden.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    golden.extend([0x10, 0x61]);
    assert_eq!(emit(forecast, agent())[PAYLOAD_OFFSET..], golden);
}

#[test]
fn the_answer_of_a_moon_is_no_longer_than_the_question() {
    let grant = TunnelMessage::RelayGrant {
        id: 1,
        token: 2,
        observed: None,
        lasts_seconds: 190,
    };
    assert!(emit(grant, agent()).len() <= emit(relay_request(1), agent()).len());
    let answer = TunnelMessage::KnockAnswer {
        id: 1,
        outcome: KnockOutcome::Agreed,
        other_port: Some(7),
    };
    let request = TunnelMessage::KnockRequest {
        id: 1,
        after_seconds: 2,
        from_other_port: true,
        to: SocketAddr::from(([192, 0, 2, 1], 4193)),
        proof: 3,
    };
    assert!(emit(answer, agent()).len() <= emit(request, agent()).len());
}

fn relay_request(id: u64) -> TunnelMessage {
    TunnelMessage::RelayRequest {
        id,
        renew_seconds: 0,
        knock_seconds: 0,
    }
}

/// The message without the last `bytes` of its body.
fn shorter(message: TunnelMessage, bytes: usize) -> Vec<u8> {
    let mut packet = emit(message, agent());
    packet.truncate(packet.len() - bytes);
    let bytes = u16::try_from(packet.len() - IPV6_HEADER_BYTES).unwrap();
    packet[4..6].copy_from_slice(&bytes.to_be_bytes());
    packet[44..46].copy_from_slice(&bytes.to_be_bytes());
    packet[46..48].copy_from_slice(&[0, 0]);
    let sum = sum(&packet).checksum();
    packet[46..48].copy_from_slice(&sum);
    packet
}

#[test]
fn a_grant_of_an_earlier_release_says_nothing_of_how_long_it_lasts() {
    let grant = |lasts_seconds| TunnelMessage::RelayGrant {
        id: 1,
        token: 2,
        observed: Some(SocketAddr::from(([192, 0, 2, 1], 4193))),
        lasts_seconds,
    };
    assert_eq!(parse(&shorter(grant(190), 2), agent()), Ok(grant(0)));
    let request = parse(&shorter(relay_request(1), 32), agent());
    assert_eq!(request, Ok(relay_request(1)));
}

#[test]
fn an_echo_reply_of_an_earlier_release_is_read() {
    let reply = TunnelMessage::EchoReply {
        id: 7,
        wall_millis: 0,
        observed: None,
    };
    let packet = shorter(reply.clone(), ENDPOINT_BYTES);
    assert_eq!(parse(&packet, agent()), Ok(reply));
}

#[test]
fn a_later_version_or_kind_is_told_apart_from_damage() {
    let notice = TunnelMessage::EpochNotice {
        serial: 7,
        head_hash: [9; 32],
    };
    let with = |offset: usize, byte: u8| {
        let mut packet = emit(notice.clone(), agent());
        packet[offset] = byte;
        packet[46..48].copy_from_slice(&[0, 0]);
        let sum = sum(&packet).checksum();
        packet[46..48].copy_from_slice(&sum);
        parse(&packet, agent())
    };
    assert_eq!(
        with(48, 2),
        Err(ParseError::Unknown {
            version: 2,
            kind: 3
        })
    );
    assert_eq!(
        with(49, 99),
        Err(ParseError::Unknown {
            version: 1,
            kind: 99
        })
    );
    let mut damaged = emit(notice.clone(), agent());
    damaged[60] ^= 1;
    assert_eq!(parse(&damaged, agent()), Err(ParseError::Malformed));
}

#[test]
fn another_source_or_destination_is_not_from_an_agent() {
    let packet = emit(
        TunnelMessage::EchoReply {
            id: 1,
            wall_millis: 2,
            observed: None,
        },
        agent(),
    );
    for offset in [8, 24] {
        let mut other = packet.clone();
        other[offset] ^= 1;
        assert_eq!(parse(&other, agent()), Err(ParseError::NotAgents));
        assert!(
            concerns_agents(&other, agent()),
            "one address is the agents'"
        );
    }
    assert!(!concerns_agents(&packet[..39], agent()));
}

fn any_endpoint() -> impl Strategy<Value = SocketAddr> {
    (any::<bool>(), any::<[u8; 16]>(), 1..=u16::MAX).prop_map(|(v4, octets, port)| {
        let address = if v4 {
            let [a, b, c, ..] = octets;
            IpAddr::from([a | 1, a, b, c])
        } else {
            let mut octets = octets;
            octets[0] = 0x20;
            IpAddr::from(octets)
        };
        SocketAddr::new(address, port)
    })
}

fn any_message() -> impl Strategy<Value = TunnelMessage> {
    prop_oneof![
        any::<(u64, u64)>()
            .prop_map(|(id, wall_millis)| TunnelMessage::EchoRequest { id, wall_millis }),
        (any::<(u64, u64)>(), prop::option::of(any_endpoint())).prop_map(
            |((id, wall_millis), observed)| TunnelMessage::EchoReply {
                id,
                wall_millis,
                observed,
            }
        ),
        any::<(u64, [u8; 32])>()
            .prop_map(|(serial, head_hash)| TunnelMessage::EpochNotice { serial, head_hash }),
        (
            any::<bool>(),
            prop::collection::vec(any_endpoint(), 0..=CANDIDATES_MAX)
        )
            .prop_map(|(tell_yours, endpoints)| TunnelMessage::Candidates {
                tell_yours,
                endpoints,
            }),
        any::<(u64, u16, u16)>().prop_map(|(id, renew_seconds, knock_seconds)| {
            TunnelMessage::RelayRequest {
                id,
                renew_seconds,
                knock_seconds,
            }
        }),
        (any::<(u64, u64, u16)>(), prop::option::of(any_endpoint())).prop_map(
            |((id, token, lasts_seconds), observed)| TunnelMessage::RelayGrant {
                id,
                token,
                observed,
                lasts_seconds,
            }
        ),
        (any::<(u64, u16, bool, u64)>(), any_endpoint()).prop_map(
            |((id, after_seconds, from_other_port, proof), to)| TunnelMessage::KnockRequest {
                id,
                after_seconds,
                from_other_port,
                to,
                proof,
            }
        ),
        (any::<(u64, u8)>(), prop::option::of(1..=u16::MAX)).prop_map(
            |((id, code), other_port)| TunnelMessage::KnockAnswer {
                id,
                outcome: KnockOutcome::from_code(code),
                other_port,
            }
        ),
        any::<(u64, u8)>().prop_map(|(id, code)| TunnelMessage::RelayRefusal {
            id,
            reason: RelayRefused::from_code(code),
        }),
        Just(TunnelMessage::AskAgain),
        prop::collection::vec(any::<[u8; 32]>(), 0..=MOONS_MAX)
            .prop_map(|keys| TunnelMessage::Moons { keys }),
        (any::<(u64, bool, i8)>(), prop::option::of(any_endpoint())).prop_map(
            |((id, tell_yours, stride), next)| TunnelMessage::Forecast {
                id,
                tell_yours,
                stride,
                next,
            }
        ),
    ]
}

proptest! {
    #[test]
    fn messages_survive_their_bytes_and_padding(message in any_message(), padding in 0usize..16) {
        let mut packet = emit(message.clone(), agent());
        prop_assert!(packet.len() <= PACKET_BYTES_MAX);
        packet.resize(packet.len() + padding, 0);
        prop_assert_eq!(parse(&packet, agent()), Ok(message));
    }

    #[test]
    fn a_cut_packet_is_refused(message in any_message(), keep in 0usize..PACKET_BYTES_MAX) {
        let packet = emit(message, agent());
        let keep = keep.min(packet.len() - 1);
        prop_assert!(parse(&packet[..keep], agent()).is_err());
    }

    #[test]
    fn no_packet_panics(tail in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut packet = emit(relay_request(1), agent());
        packet.truncate(40);
        packet.extend(tail);
        let _ = parse(&packet, agent());
        packet[4..6].copy_from_slice(&[0, 0]);
        let _ = parse(&packet, agent());
        let _ = parse(&packet[40..], agent());
    }
}
