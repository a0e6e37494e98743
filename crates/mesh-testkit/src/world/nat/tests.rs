use proptest::prelude::*;
use rand::SeedableRng;

use super::*;

const EXTERNAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1));

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn inner(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 1, last], 4193))
}

fn remote(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 18, 1, last], port))
}

fn nat(mapping: Dependence, ports: Ports) -> Nat {
    let behaviour = NatBehaviour {
        mapping,
        ports,
        ..NatBehaviour::HOME
    };
    Nat::new(behaviour, EXTERNAL)
}

#[test]
fn a_mapping_is_shared_by_the_remotes_that_it_does_not_depend_on() {
    for ports in [
        Ports::Preserved,
        Ports::Random,
        Ports::Sequential { stride: 1 },
    ] {
        for (mapping, same_port, same_address) in [
            (Dependence::Independent, true, true),
            (Dependence::Address, false, true),
            (Dependence::AddressAndPort, false, false),
        ] {
            let (mut nat, mut rng) = (nat(mapping, ports), rng());
            // Another user of the inner port, so that preserving it is not always possible.
            for remote in [remote(1, 1), remote(1, 2), remote(2, 1)] {
                nat.outbound(inner(9), remote, at(0), &mut rng);
            }
            let mut out = |remote| nat.outbound(inner(1), remote, at(0), &mut rng);
            let first = out(remote(1, 1));
            assert_eq!(out(remote(1, 1)), first);
            assert_eq!(out(remote(1, 2)) == first, same_address);
            assert_eq!(out(remote(2, 1)) == first, same_port);
        }
    }
}

#[test]
fn a_nat_that_counts_gives_one_port_after_the_other_whoever_asks() {
    let counting = Ports::Sequential { stride: 2 };
    let (mut nat, mut rng) = (nat(Dependence::AddressAndPort, counting), rng());
    let ports: Vec<u16> = [(1, 1), (1, 2), (2, 1), (1, 3)]
        .into_iter()
        .map(|(host, to)| nat.outbound(inner(host), remote(1, to), at(0), &mut rng))
        .map(|external| external.port())
        .collect();
    assert_eq!(ports, [0, 2, 4, 6].map(|places| ports[0] + places));
    let again = nat.outbound(inner(1), remote(1, 2), at(0), &mut rng);
    assert_eq!(again.port(), ports[1]);
}

#[test]
fn a_preserved_port_goes_to_the_first_who_asks() {
    let (mut nat, mut rng) = (nat(Dependence::Independent, Ports::Preserved), rng());
    let first = nat.outbound(inner(1), remote(1, 1), at(0), &mut rng);
    let second = nat.outbound(inner(2), remote(1, 1), at(0), &mut rng);
    assert_eq!(first.port(), 4193);
    assert_ne!(second.port(), 4193);
}

#[test]
fn a_linux_router_shows_one_port_to_all_as_long_as_one_host_uses_it() {
    let (mut nat, mut rng) = (nat(Dependence::AddressAndPort, Ports::Preserved), rng());
    for last in 1..9 {
        let external = nat.outbound(inner(1), remote(last, 1), at(0), &mut rng);
        assert_eq!(external, SocketAddr::new(EXTERNAL, 4193));
    }
    assert!(nat.is_stable_for(inner(1), at(1)));
    let other = nat.outbound(inner(2), remote(1, 1), at(1), &mut rng);
    assert_ne!(other.port(), 4193);
    assert!(!nat.is_stable_for(inner(1), at(1)));
    assert!(!nat.is_stable_for(inner(2), at(1)));
    assert!(nat.is_stable_for(inner(1), at(200)), "all have expired");
}

#[test]
fn an_answer_comes_back_until_the_mapping_expires_and_does_not_prolong_it() {
    let (mut nat, mut rng) = (nat(Dependence::Independent, Ports::Random), rng());
    let external = nat.outbound(inner(1), remote(1, 1), at(0), &mut rng);
    for seconds in [0, 60, 119] {
        let reached = nat.inbound(remote(1, 1), external.port(), at(seconds));
        assert_eq!(reached, Some(inner(1)));
    }
    assert_eq!(nat.inbound(remote(1, 1), external.port(), at(120)), None);
    let next = nat.outbound(inner(1), remote(1, 1), at(120), &mut rng);
    assert_ne!(next, external, "a new mapping has a port of its own");
    nat.forget();
    assert_eq!(nat.inbound(remote(1, 1), next.port(), at(120)), None);
}

#[derive(Clone, Debug)]
enum Step {
    Out(u8, u8, u16),
    In(u8, u16, u8),
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..3, 0u8..3, 1u16..3).prop_map(|(host, last, port)| Step::Out(host, last, port)),
        (0u8..3, 1u16..3, any::<u8>()).prop_map(|(last, port, which)| Step::In(last, port, which)),
        (1u64..50).prop_map(Step::Pass),
    ]
}

fn any_behaviour() -> impl Strategy<Value = NatBehaviour> {
    let dependence = || prop::sample::select(Dependence::ALL.to_vec());
    (dependence(), dependence(), any::<bool>()).prop_map(|(mapping, filtering, random)| {
        NatBehaviour {
            mapping,
            filtering,
            ports: if random {
                Ports::Random
            } else {
                Ports::Preserved
            },
            ..NatBehaviour::HOME
        }
    })
}

proptest! {
    /// Judged by a list of all that was ever sent, which knows no table.
    #[test]
    fn nothing_comes_in_that_the_behaviour_forbids(
        behaviour in any_behaviour(),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let (mut nat, mut rng) = (Nat::new(behaviour, EXTERNAL), rng());
        let mut sent: Vec<(Instant, SocketAddr, SocketAddr, SocketAddr)> = Vec::new();
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Pass(seconds) => now = now + Duration::from_secs(seconds),
                Step::Out(host, last, port) => {
                    let remote = remote(last, port);
                    let external = nat.outbound(inner(host), remote, now, &mut rng);
                    prop_assert_eq!(external.ip(), EXTERNAL);
                    // Same inner endpoint, remotes that count as one, nothing expired: same external.
                    let same = sent.iter().rev().find(|(_, from, to, _)| {
                        *from == inner(host)
                            && behaviour.mapping.mask(*to) == behaviour.mapping.mask(remote)
                    });
                    if let Some((when, .., before)) = same
                        && now < *when + behaviour.timeout
                    {
                        prop_assert_eq!(*before, external, "stable while refreshed");
                    }
                    // Nobody else has this endpoint towards this remote.
                    for (when, from, to, other) in &sent {
                        let shared = *other == external
                            && *from != inner(host)
                            && *to == remote
                            && now < *when + behaviour.timeout;
                        prop_assert!(!shared, "two hosts have one endpoint");
                    }
                    sent.push((now, inner(host), remote, external));
                }
                Step::In(last, port, which) => {
                    let from = remote(last, port);
                    let ports: Vec<u16> = sent.iter().map(|entry| entry.3.port()).collect();
                    let Some(port) = ports.get(usize::from(which) % ports.len().max(1)) else {
                        continue;
                    };
                    let allowed = |host: Option<SocketAddr>| {
                        sent.iter().any(|(when, inner, to, external)| {
                            host.is_none_or(|host| host == *inner)
                                && external.port() == *port
                                && behaviour.filtering.mask(*to) == behaviour.filtering.mask(from)
                                && now < *when + behaviour.timeout
                        })
                    };
                    match nat.inbound(from, *port, now) {
                        Some(host) => prop_assert!(allowed(Some(host)), "let in unasked"),
                        None => prop_assert!(!allowed(None), "kept out though allowed"),
                    }
                }
            }
        }
    }
}
