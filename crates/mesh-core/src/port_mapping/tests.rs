mod world;

use mesh_wire::gateway::{nat_pmp, pcp};
use proptest::prelude::*;

use self::world::World;
use super::{questions::seconds, *};

const NONCE: [u8; 12] = [7; 12];
const PORT: u16 = 4193;
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const HERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const GATEWAY: Gateway = Gateway {
    address: ROUTER,
    local: HERE,
};
const ALL: [MappingProtocol; 3] = [
    MappingProtocol::Pcp,
    MappingProtocol::NatPmp,
    MappingProtocol::Upnp,
];

fn external(port: u16) -> Option<SocketAddrV4> {
    Some(SocketAddrV4::new(OUTSIDE, port))
}

#[test]
fn each_protocol_alone_maps_the_port_keeps_it_and_gives_it_back() {
    for protocol in ALL {
        let mut world = World::begin(&[protocol]);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.mapper.external(), external(PORT), "{protocol}");
        assert_eq!(world.mapper.view().mapped.unwrap().protocol, protocol);
        // Many leases later.
        for _ in 0..20 {
            world.pass(LEASE / 2);
            assert_eq!(world.mapper.external(), external(PORT), "{protocol}");
            assert!(world.mapped.is_some(), "{protocol}");
        }
        world.mapper.release(true, world.now);
        assert!(!world.mapper.is_released());
        world.settle();
        assert!(world.mapper.is_released(), "{protocol}");
        assert_eq!(world.mapped, None, "{protocol}");
        assert_eq!(world.mapper.external(), None);
        assert_eq!(world.mapper.poll_timeout(), None);
    }
}

#[test]
fn the_best_protocol_that_the_router_speaks_is_used() {
    for (speaks, used) in [
        (&ALL[..], MappingProtocol::Pcp),
        (&ALL[1..], MappingProtocol::NatPmp),
        (&ALL[2..], MappingProtocol::Upnp),
        (&[ALL[0], ALL[2]], MappingProtocol::Pcp),
    ] {
        let mut world = World::begin(speaks);
        // What answers at once is used at once: only UPnP's is waited for, in case a better one answers.
        let at_once = used != MappingProtocol::Upnp;
        assert_eq!(world.mapper.external().is_some(), at_once, "{used}");
        world.pass(Duration::from_secs(1));
        assert_eq!(world.mapper.view().mapped.unwrap().protocol, used);
    }
}

#[test]
fn a_router_that_says_nothing_is_asked_a_few_times_and_again_half_an_hour_later() {
    let mut world = World::begin(&[]);
    assert_eq!(world.reason(), Unmapped::Asking);
    world.pass(ASKING_MAX);
    assert_eq!(world.reason(), Unmapped::Silent(ROUTER));
    let asked = world.asks;
    assert_eq!(asked, 4 * ROUNDS.len());
    world.pass(RETRY - ASKING_MAX);
    assert_eq!(world.asks, asked);
    world.speaks = vec![MappingProtocol::Pcp];
    world.pass(Duration::from_secs(10));
    assert_eq!(world.mapper.external(), external(PORT));
}

#[test]
fn a_router_that_started_anew_is_noticed_within_minutes_and_asked_again() {
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp] {
        let mut world = World::begin(&[protocol]);
        world.pass(LEASE / 3);
        world.restart_router();
        world.pass(CHECK + ASK_EVERY);
        assert!(world.mapped.is_some(), "{protocol}");
    }
    // UPnP does not tell: the renewal has to do.
    let mut world = World::begin(&[MappingProtocol::Upnp]);
    world.pass(LEASE / 3);
    world.restart_router();
    world.pass(LEASE / 2);
    assert!(world.mapped.is_some());
}

#[test]
fn an_announcement_of_a_new_start_is_acted_on_at_once() {
    let mut world = World::begin(&[MappingProtocol::NatPmp]);
    world.pass(Duration::from_secs(300));
    world.restart_router();
    let announcement = world.nat_pmp(&[0, 0]);
    let port = SocketAddrV4::new(ROUTER, gateway::PORT);
    let stranger = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 66), gateway::PORT);
    world
        .mapper
        .handle_datagram(stranger, &announcement, world.now);
    assert_eq!(world.mapper.poll_ask(), None);
    world.mapper.handle_datagram(port, &announcement, world.now);
    world.pass(PATIENCE_PCP);
    assert!(world.mapped.is_some());
    // One that always says so is asked every ten seconds, no more.
    let before = world.asks;
    for _ in 0..1000 {
        world.restart_router();
        let announcement = world.nat_pmp(&[0, 0]);
        world.mapper.handle_datagram(port, &announcement, world.now);
        world.pass(Duration::from_millis(10));
    }
    assert!(world.asks - before <= 4, "{}", world.asks - before);
}

#[test]
fn a_router_that_had_just_started_when_it_starts_anew_is_asked_again() {
    let mut world = World::new(&[MappingProtocol::NatPmp]);
    world.restart_router();
    world.now = world.now + Duration::from_secs(1);
    world.mapper.set_gateway(Ok(GATEWAY), world.now);
    world.pass(Duration::from_secs(30));
    world.restart_router();
    // Its clock went back by a second alone, which it may for other reasons; but half a minute is missing.
    let announcement = world.nat_pmp(&[0, 0]);
    let port = SocketAddrV4::new(ROUTER, gateway::PORT);
    world.mapper.handle_datagram(port, &announcement, world.now);
    world.pass(PATIENCE_PCP);
    assert!(world.mapped.is_some());
}

#[test]
fn a_clock_that_runs_a_little_differently_is_no_new_start() {
    let mut world = World::begin(&[MappingProtocol::Pcp]);
    world.pass(Duration::from_secs(1));
    let before = world.asks;
    // Three percent slow: 3.6 s in two minutes.
    for _ in 0..5 {
        world.started = world.started + Duration::from_millis(3_600);
        world.pass(CHECK);
    }
    assert_eq!(world.asks - before, 5, "one question every two minutes");
}

#[test]
fn the_network_changing_makes_it_ask_again_and_another_router_from_the_start() {
    let mut world = World::begin(&[MappingProtocol::Pcp]);
    world.pass(Duration::from_secs(60));
    world.restart_router();
    world.mapper.refresh(world.now);
    world.settle();
    assert!(world.mapped.is_some());
    let other = Gateway {
        address: Ipv4Addr::new(10, 0, 0, 1),
        local: Ipv4Addr::new(10, 0, 0, 2),
    };
    world.mapper.set_gateway(Ok(other), world.now);
    assert_eq!(
        world.mapper.external(),
        None,
        "the old router's port is no use"
    );
    let asked: Vec<_> = std::iter::from_fn(|| world.mapper.poll_ask()).collect();
    assert!(asked.contains(&GatewayAsk::Datagram {
        to: SocketAddrV4::new(other.address, gateway::PORT),
        bytes: nat_pmp::address_request().to_vec(),
    }));
    world.mapper.set_gateway(Err(Unmapped::NoRouter), world.now);
    assert_eq!(world.reason(), Unmapped::NoRouter);
    assert_eq!(world.mapper.poll_timeout(), None);
}

#[test]
fn switched_off_at_run_time_the_port_is_given_back_and_on_again_asked_for() {
    for protocol in ALL {
        let mut world = World::begin(&[protocol]);
        world.pass(Duration::from_secs(1));
        for times in 1..3 {
            for _ in 0..times {
                let off = Err(Unmapped::SwitchedOff);
                world.mapper.set_gateway(off, world.now);
                world.settle();
            }
            assert_eq!(world.mapped, None, "{protocol}");
            assert_eq!(world.mapper.external(), None);
            assert_eq!(world.reason(), Unmapped::SwitchedOff);
            world.mapper.set_gateway(Ok(GATEWAY), world.now);
            world.pass(Duration::from_secs(1));
            assert_eq!(world.mapper.external(), external(PORT), "{protocol}");
        }
    }
}

#[test]
fn a_network_that_changes_all_the_time_costs_a_silent_router_little() {
    let mut world = World::begin(&[]);
    for _ in 0..6_000 {
        world.mapper.refresh(world.now);
        world.pass(Duration::from_millis(100));
    }
    assert!(world.asks <= 11 * 4 * ROUNDS.len(), "{}", world.asks);
}

#[test]
fn a_router_behind_a_nat_maps_nothing_of_use_and_keeps_nothing() {
    for protocol in ALL {
        for outside in [
            "100.64.3.4",
            "192.168.178.2",
            "10.1.2.3",
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
        ] {
            let mut world = World::new(&[protocol]);
            world.outside = outside.parse().unwrap();
            world.mapper.set_gateway(Ok(GATEWAY), world.now);
            world.pass(Duration::from_secs(20));
            assert_eq!(world.mapper.external(), None);
            assert_eq!(
                world.reason(),
                Unmapped::BehindNat(world.outside),
                "{protocol}"
            );
            assert_eq!(world.mapped, None, "{protocol}");
        }
    }
}

#[test]
fn leases_that_make_no_sense_are_refused() {
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp] {
        for lifetime_seconds in [0, 1, 119] {
            let mut world = World::new(&[protocol]);
            world.lifetime_seconds = lifetime_seconds;
            world.mapper.set_gateway(Ok(GATEWAY), world.now);
            world.pass(Duration::from_secs(20));
            assert_eq!(
                world.mapper.external(),
                None,
                "{protocol} {lifetime_seconds}"
            );
            assert_eq!(world.reason(), Unmapped::Nonsense(protocol));
        }
        let mut world = World::new(&[protocol]);
        world.lifetime_seconds = u32::MAX;
        world.mapper.set_gateway(Ok(GATEWAY), world.now);
        world.pass(Duration::from_secs(1));
        let until = world.mapper.view().mapped.unwrap().until.unwrap();
        assert!(until <= world.now + LEASE_MAX);
    }
}

#[test]
fn only_the_routers_answer_to_this_question_counts() {
    let mut world = World::new(&[]);
    world.mapper.set_gateway(Ok(GATEWAY), world.now);
    let suggested = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
    let question = pcp::map_request(HERE, Nonce(NONCE), PORT, suggested, 1800);
    let answer = world.pcp(&question);
    let other = |at: usize| {
        let mut bytes = answer.clone();
        bytes[at] ^= 1;
        bytes
    };
    let router = SocketAddrV4::new(ROUTER, gateway::PORT);
    let now = world.now;
    for (from, bytes) in [
        (SocketAddrV4::new(HERE, gateway::PORT), answer.clone()),
        (SocketAddrV4::new(ROUTER, 5352), answer.clone()),
        (router, other(24)), // nonce
        (router, other(36)), // protocol
        (router, other(41)), // internal port
        (router, other(44)), // external address
    ] {
        world.mapper.handle_datagram(from, &bytes, now);
        assert_eq!(world.mapper.external(), None);
    }
    world.mapper.set_gateway(Err(Unmapped::NoRouter), now);
    world.mapper.set_gateway(Ok(GATEWAY), now);
    world.mapper.handle_datagram(router, &answer, now);
    assert_eq!(world.mapper.external(), external(PORT));
    // An answer that nobody waits for changes nothing.
    let mut late = answer.clone();
    late[43] ^= 1;
    world.mapper.handle_datagram(router, &late, now);
    assert_eq!(world.mapper.external(), external(PORT));
}

#[test]
fn ports_of_others_are_left_to_them() {
    let mut world = World::new(&[MappingProtocol::Upnp]);
    world.taken = vec![PORT];
    world.mapper.set_gateway(Ok(GATEWAY), world.now);
    world.pass(Duration::from_secs(1));
    let port = world.mapper.external().unwrap().port();
    assert!(port >= 49152, "{port}");
    world.pass(LEASE * 3);
    assert_eq!(
        world.mapper.external(),
        external(port),
        "a renewal keeps it"
    );

    let mut world = World::new(&[MappingProtocol::Upnp]);
    world.taken = (0..=65535).collect();
    world.mapper.set_gateway(Ok(GATEWAY), world.now);
    world.pass(Duration::from_secs(20));
    assert_eq!(
        world.reason(),
        Unmapped::Refused(MappingProtocol::Upnp, upnp::refusal::CONFLICT)
    );
    assert!(world.asks < 50, "{}", world.asks);
}

#[test]
fn what_has_no_end_is_given_back_even_if_another_process_follows() {
    let mut world = World::new(&[MappingProtocol::Upnp]);
    world.permanent_only = true;
    world.mapper.set_gateway(Ok(GATEWAY), world.now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.mapper.view().mapped.unwrap().until, None);
    world.mapper.release(false, world.now);
    world.settle();
    assert!(world.mapper.is_released());
    assert_eq!(world.mapped, None);

    let mut world = World::begin(&[MappingProtocol::Pcp]);
    world.mapper.release(false, world.now);
    assert!(world.mapper.is_released());
    assert!(world.mapped.is_some(), "it is the next process's");
}

#[test]
fn a_router_that_is_gone_holds_the_end_up_for_a_second_at_most() {
    for protocol in ALL {
        let mut world = World::begin(&[protocol]);
        world.pass(Duration::from_secs(1));
        world.speaks.clear();
        world.mapper.release(true, world.now);
        while world.mapper.poll_ask().is_some() {}
        for _ in 0..10 {
            world.now = world.now + Duration::from_millis(100);
            world.mapper.handle_timeout(world.now);
            while world.mapper.poll_ask().is_some() {}
        }
        assert!(world.mapper.is_released(), "{protocol}");
    }
}

#[test]
fn a_router_that_falls_silent_keeps_its_lease_until_that_ends() {
    let mut world = World::begin(&[MappingProtocol::Pcp]);
    world.speaks.clear();
    world.pass(LEASE - Duration::from_secs(1));
    assert_eq!(world.mapper.external(), external(PORT));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.mapper.external(), None);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.reason(), Unmapped::Silent(ROUTER));
    assert!(world.asks < 200, "{}", world.asks);
}

#[test]
fn what_a_router_refuses_is_said_with_its_reason() {
    let refused = Unmapped::Refused(MappingProtocol::Pcp, 2);
    assert_eq!(
        refused.to_string(),
        "the router refuses, by PCP with 2 (not authorised)"
    );
    let mut world = World::new(&[]);
    world.mapper.set_gateway(Ok(GATEWAY), world.now);
    let suggested = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
    let question = pcp::map_request(HERE, Nonce(NONCE), PORT, suggested, 1800);
    let mut answer = world.pcp(&question);
    answer[3] = 2;
    let router = SocketAddrV4::new(ROUTER, gateway::PORT);
    world.mapper.handle_datagram(router, &answer, world.now);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.reason(), refused);
}

proptest! {
    /// Whatever a router answers and whenever: bounded questions, no busy loop, and nothing private.
    #[test]
    fn no_router_makes_it_ask_without_end(
        answers in proptest::collection::vec(
            (any::<u8>(), prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..70),
                Just(b"HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/\r\n\r\n".to_vec()),
                (any::<u32>(), any::<[u8; 4]>()).prop_map(|(epoch, ip)| {
                    [&[0, 128, 0, 0][..], &epoch.to_be_bytes(), &ip].concat()
                }),
                (any::<u32>(), any::<u16>(), any::<u32>()).prop_map(|(epoch, port, life)| {
                    [
                        &[0, 129, 0, 0][..],
                        &epoch.to_be_bytes(),
                        &PORT.to_be_bytes(),
                        &port.to_be_bytes(),
                        &life.to_be_bytes(),
                    ]
                    .concat()
                }),
            ], 0u64..5_000),
            0..60,
        )
    ) {
        let mut world = World::new(&[]);
        world.mapper.set_gateway(Ok(GATEWAY), world.now);
        let start = world.now;
        for (kind, bytes, millis) in answers {
            let port = if kind & 1 == 0 { gateway::PORT } else { upnp::PORT };
            let from = SocketAddrV4::new(ROUTER, port);
            world.mapper.handle_datagram(from, &bytes, world.now);
            while let Some(ask) = world.mapper.poll_ask() {
                world.asks += 1;
                if let GatewayAsk::Http { id, .. } = ask {
                    let status = if kind & 2 == 0 { 200 } else { 500 };
                    world.mapper.handle_http(id, Ok((status, &bytes)), world.now);
                }
            }
            prop_assert!(world.mapper.external().is_none_or(|it| is_public(*it.ip()) && it.port() > 0));
            world.pass(Duration::from_millis(millis));
        }
        let seconds = world.now.saturating_since(start).as_secs();
        // Twelve rounds of four, and a few questions by HTTP, every ten seconds at most.
        prop_assert!(world.asks as u64 <= 100 * (1 + seconds / 10), "{} in {seconds} s", world.asks);
    }
}

#[test]
fn a_timer_that_comes_late_leaves_nothing_due() {
    let mut mapper = PortMapper::new(NONCE, PORT);
    let mut now = Instant::from_micros(50_000_000);
    mapper.set_gateway(Ok(GATEWAY), now);
    let address = [&[0, 128, 0, 0][..], &[0; 4], &OUTSIDE.octets()].concat();
    mapper.handle_datagram(SocketAddrV4::new(ROUTER, gateway::PORT), &address, now);
    now = now + PATIENCE_PCP;
    mapper.handle_timeout(now);
    assert!(matches!(mapper.phase, Phase::NatPmp { .. }));
    // The machine slept, or was busy.
    now = now + Duration::from_secs(60);
    mapper.handle_timeout(now);
    assert!(mapper.poll_timeout().is_none_or(|at| at > now));
}
