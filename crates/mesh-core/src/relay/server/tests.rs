use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::AtomicBool,
};

use mesh_wire::relay::HEADER_BYTES;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::{Carrier, StreamId};

/// Limits that are never reached.
const FREE: RelayLimits = RelayLimits {
    clients_max: 100,
    client_bytes_per_second: 1_000_000_000_000,
    total_bytes_per_second: 1_000_000_000_000,
};

const MESSAGE: &[u8] = b"sealed";

fn key(member: u8) -> WireguardPublicKey {
    // A point of the curve is not asked for; the low ones that are refused have other ends.
    let mut bytes = [9; 32];
    bytes[0] = member;
    WireguardPublicKey::try_from(bytes.as_slice()).unwrap()
}

fn tag(member: u8) -> MemberTag {
    MemberTag::of(key(member).as_bytes())
}

fn remote(number: u8) -> Remote {
    if number.is_multiple_of(4) {
        return Remote::Stream(StreamId {
            carrier: Carrier::Tls,
            number: u64::from(number),
        });
    }
    Remote::Udp(SocketAddr::from((Ipv4Addr::new(203, 0, 113, number), 4193)))
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn frame(token: u64, member: MemberTag) -> Vec<u8> {
    [Header { token, member }.emit().as_slice(), MESSAGE].concat()
}

/// A moon with its randomness.
struct Moon {
    server: RelayServer,
    rng: ChaCha20Rng,
}

impl Moon {
    fn new(limits: RelayLimits, members: impl IntoIterator<Item = u8>) -> Self {
        let server = RelayServer::new(limits);
        server.set_members(members.into_iter().map(key));
        Self {
            server,
            rng: ChaCha20Rng::seed_from_u64(1),
        }
    }

    fn ask(
        &mut self,
        member: u8,
        from: Remote,
        id: u64,
        now: Instant,
    ) -> Result<u64, RelayRefused> {
        let renew = Duration::ZERO;
        self.server
            .grant(&key(member), from, id, renew, &mut self.rng, now)
            .map(|granted| granted.token)
    }

    /// Asks for a token and shows that it came.
    fn join(&mut self, member: u8, from: Remote, now: Instant) -> u64 {
        let token = self.ask(member, from, 0, now).unwrap();
        assert_eq!(self.ask(member, from, token, now), Ok(token));
        token
    }

    fn send(&self, from: Remote, token: u64, to: u8, now: Instant) -> Forwarded {
        self.server.forward(from, &mut frame(token, tag(to)), now)
    }
}

fn notice(notice: Notice, token: u64, member: u8) -> Forwarded {
    let member = tag(member);
    Forwarded::Answer(emit_notice(notice, Header { token, member }))
}

#[test]
fn a_frame_goes_to_the_receiver_with_the_receivers_token_and_the_senders_tag() {
    let mut moon = Moon::new(FREE, [1, 2]);
    let (a, b) = (
        moon.join(1, remote(1), at(0)),
        moon.join(2, remote(2), at(0)),
    );
    let mut datagram = frame(a, tag(2));
    let forwarded = moon.server.forward(remote(1), &mut datagram, at(1));
    assert_eq!(forwarded, Forwarded::To(remote(2)));
    assert_eq!(datagram, frame(b, tag(1)));
    let view = moon.server.view();
    assert_eq!((view.clients, view.relayed_frames), (2, 1));
    assert_eq!(view.relayed_bytes, (HEADER_BYTES + MESSAGE.len()) as u64);
}

#[test]
fn a_first_frame_proves_the_address_too() {
    let mut moon = Moon::new(FREE, [1, 2]);
    let a = moon.ask(1, remote(1), 7, at(0)).unwrap();
    let b = moon.ask(2, remote(2), 7, at(0)).unwrap();
    assert_eq!(
        moon.send(remote(1), a, 2, at(0)),
        notice(Notice::NotHere, a, 2)
    );
    assert_eq!(moon.send(remote(2), b, 1, at(0)), Forwarded::To(remote(1)));
    assert_eq!(moon.send(remote(1), a, 2, at(0)), Forwarded::To(remote(2)));
}

#[test]
fn a_client_that_moves_is_reached_at_the_old_address_until_the_new_one_is_proven() {
    let mut moon = Moon::new(FREE, [1, 2]);
    let (a, b) = (
        moon.join(1, remote(1), at(0)),
        moon.join(2, remote(2), at(0)),
    );
    let new = moon.ask(2, remote(3), 0, at(1)).unwrap();
    assert_ne!(new, b);
    assert_eq!(moon.send(remote(1), a, 2, at(1)), Forwarded::To(remote(2)));
    // The new token from a third address proves nothing, nor does the old one from the new address.
    assert_eq!(
        moon.send(remote(5), new, 1, at(1)),
        notice(Notice::UnknownToken, new, 1)
    );
    assert_eq!(
        moon.send(remote(3), b, 1, at(1)),
        notice(Notice::UnknownToken, b, 1)
    );
    assert_eq!(moon.send(remote(1), a, 2, at(1)), Forwarded::To(remote(2)));
    assert_eq!(
        moon.send(remote(3), new, 1, at(1)),
        Forwarded::To(remote(1))
    );
    assert_eq!(moon.send(remote(1), a, 2, at(1)), Forwarded::To(remote(3)));
    assert_eq!(
        moon.send(remote(2), b, 1, at(1)),
        notice(Notice::UnknownToken, b, 1)
    );
}

#[test]
fn asking_again_keeps_the_session_and_silence_ends_it() {
    let mut moon = Moon::new(FREE, [1, 2]);
    let (a, b) = (
        moon.join(1, remote(1), at(0)),
        moon.join(2, remote(2), at(0)),
    );
    assert_eq!(moon.ask(1, remote(1), a, at(59)), Ok(a));
    assert_eq!(moon.send(remote(1), a, 2, at(59)), Forwarded::To(remote(2)));
    assert_eq!(
        moon.send(remote(1), a, 2, at(60)),
        notice(Notice::NotHere, a, 2)
    );
    assert_eq!(
        moon.send(remote(2), b, 1, at(60)),
        notice(Notice::UnknownToken, b, 1)
    );
    moon.server.expire(at(60));
    assert_eq!(moon.server.view().clients, 1);
    assert_eq!(tokens(&moon.server), 1);
}

#[test]
fn requests_from_elsewhere_do_not_keep_an_address_that_was_left() {
    let mut moon = Moon::new(FREE, [1, 2]);
    let a = moon.join(1, remote(1), at(0));
    moon.join(2, remote(2), at(0));
    for seconds in [20, 40, 59] {
        moon.ask(1, remote(1), a, at(seconds)).unwrap();
        moon.ask(2, remote(3), 0, at(seconds)).unwrap();
    }
    assert_eq!(
        moon.send(remote(1), a, 2, at(61)),
        notice(Notice::NotHere, a, 2)
    );
}

#[test]
fn a_member_that_is_removed_neither_sends_nor_receives_and_gets_no_token() {
    let mut moon = Moon::new(FREE, [1, 2, 3]);
    let tokens_before: Vec<_> = (1..=3)
        .map(|member| moon.join(member, remote(member), at(0)))
        .collect();
    moon.server.set_members([1, 3].map(key));
    assert_eq!(
        moon.send(remote(1), tokens_before[0], 2, at(0)),
        notice(Notice::NotAllowed, tokens_before[0], 2)
    );
    assert_eq!(
        moon.send(remote(2), tokens_before[1], 1, at(0)),
        notice(Notice::UnknownToken, tokens_before[1], 1)
    );
    assert_eq!(moon.ask(2, remote(2), 0, at(0)), Err(RelayRefused::NoMoon));
    assert_eq!(
        moon.send(remote(1), tokens_before[0], 3, at(0)),
        Forwarded::To(remote(3))
    );
    assert_eq!((moon.server.view().clients, tokens(&moon.server)), (2, 2));
}

#[test]
fn members_whose_keys_begin_alike_are_nobody() {
    let mut twin = *key(2).as_bytes();
    twin[31] ^= 1;
    let twin = WireguardPublicKey::try_from(twin.as_slice()).unwrap();
    let mut moon = Moon::new(FREE, [1, 2]);
    let (a, b) = (
        moon.join(1, remote(1), at(0)),
        moon.join(2, remote(2), at(0)),
    );
    moon.server.set_members([key(1), key(2), twin]);
    assert_eq!(
        moon.send(remote(1), a, 2, at(0)),
        notice(Notice::NotAllowed, a, 2)
    );
    assert_eq!(
        moon.send(remote(2), b, 1, at(0)),
        notice(Notice::UnknownToken, b, 1)
    );
    assert_eq!(moon.ask(2, remote(2), 0, at(0)), Err(RelayRefused::NoMoon));
}

#[test]
fn a_full_moon_refuses_until_a_client_is_gone() {
    let limits = RelayLimits {
        clients_max: 2,
        ..FREE
    };
    let mut moon = Moon::new(limits, 1..=3);
    moon.join(1, remote(1), at(0));
    let b = moon.join(2, remote(2), at(30));
    assert_eq!(moon.ask(3, remote(3), 0, at(59)), Err(RelayRefused::Full));
    assert_eq!(moon.ask(2, remote(2), b, at(59)), Ok(b));
    assert!(moon.ask(3, remote(3), 0, at(61)).is_ok());
    assert_eq!(moon.server.view().clients, 2);
}

#[test]
fn a_client_over_its_rate_is_cut_and_the_others_are_not() {
    let limits = RelayLimits {
        client_bytes_per_second: 1_000_000,
        ..FREE
    };
    let mut moon = Moon::new(limits, 1..=2);
    let (a, b) = (
        moon.join(1, remote(1), at(0)),
        moon.join(2, remote(2), at(0)),
    );
    let cost = frame(a, tag(2)).len() as u64 + UNDERLAY_BYTES;
    let mut carried = 0;
    for micros in (0..1_000_000).step_by(50) {
        let now = at(1) + Duration::from_micros(micros);
        match moon.send(remote(1), a, 2, now) {
            Forwarded::To(_) => carried += cost,
            other @ (Forwarded::Answer(_) | Forwarded::Dropped(_) | Forwarded::NotOurs) => {
                assert_eq!(other, Forwarded::Dropped(RelayDropped::OverRate));
            }
        }
        if micros % 1_000 == 0 {
            assert_eq!(moon.send(remote(2), b, 1, now), Forwarded::To(remote(1)));
        }
    }
    assert!(
        (1_250_000..1_250_000 + 2 * cost).contains(&carried),
        "{carried}"
    );
    // A new session is no way around it.
    let moved = moon.join(1, remote(5), at(2));
    assert_eq!(
        moon.send(remote(5), moved, 2, at(2)),
        Forwarded::Dropped(RelayDropped::OverRate)
    );
}

#[test]
fn greedy_clients_leave_a_modest_one_its_share() {
    let limits = RelayLimits {
        total_bytes_per_second: 1_000_000,
        ..FREE
    };
    let mut moon = Moon::new(limits, 1..=4);
    let given: Vec<_> = (1..=4)
        .map(|member| moon.join(member, remote(member), at(0)))
        .collect();
    let mut refused = 0;
    for micros in (0..1_000_000).step_by(100) {
        let now = at(1) + Duration::from_micros(micros);
        for greedy in 1..=3_u8 {
            let sent = moon.send(remote(greedy), given[usize::from(greedy) - 1], 4, now);
            refused += u32::from(sent == Forwarded::Dropped(RelayDropped::OverShare));
        }
        if micros % 1_000 == 0 {
            assert_eq!(
                moon.send(remote(4), given[3], 1, now),
                Forwarded::To(remote(1))
            );
        }
    }
    assert!(refused > 10_000, "{refused}");
}

#[test]
fn what_is_no_frame_towards_a_moon_is_left_alone() {
    let moon = Moon::new(FREE, [1]);
    let header = Header {
        token: 1,
        member: tag(1),
    };
    for datagram in [
        vec![],
        vec![4, 0, 0, 0],
        emit_notice(Notice::NotHere, header).to_vec(),
    ] {
        let mut changed = datagram.clone();
        assert_eq!(
            moon.server.forward(remote(1), &mut changed, at(0)),
            Forwarded::NotOurs
        );
        assert_eq!(changed, datagram);
    }
    let mut empty = header.emit();
    assert_eq!(
        moon.server.forward(remote(1), &mut empty, at(0)),
        Forwarded::Dropped(RelayDropped::Malformed)
    );
}

#[test]
fn no_frame_passes_to_or_from_a_member_once_it_is_removed() {
    let mut moon = Moon::new(FREE, 1..=3);
    let given: Vec<_> = (1..=3)
        .map(|member| moon.join(member, remote(member), at(0)))
        .collect();
    let server = &moon.server;
    for round in 0..200 {
        let removed = AtomicBool::new(false);
        let mut rng = ChaCha20Rng::seed_from_u64(round);
        std::thread::scope(|scope| {
            for (member, other) in [(2, 1), (1, 2)] {
                let (removed, given) = (&removed, &given);
                scope.spawn(move || {
                    let mut after = false;
                    while !after {
                        after = removed.load(Ordering::SeqCst);
                        let token = given[usize::from(member) - 1];
                        let mut datagram = frame(token, tag(other));
                        let sent = server.forward(remote(member), &mut datagram, at(1));
                        assert!(!(after && matches!(sent, Forwarded::To(_))));
                    }
                });
            }
            // One that asks all the time is removed like the others.
            let asking = scope.spawn(|| {
                while !removed.load(Ordering::SeqCst) {
                    let _ = server.grant(&key(2), remote(2), 0, Duration::ZERO, &mut rng, at(1));
                }
            });
            server.set_members([1, 3].map(key));
            removed.store(true, Ordering::SeqCst);
            asking.join().unwrap();
        });
        assert_eq!((server.view().clients, tokens(server)), (2, 2));
        server.set_members([1, 2, 3].map(key));
    }
}

#[test]
fn a_member_costs_a_few_hundred_bytes() {
    let client = size_of::<Client>() + 2 * size_of::<usize>();
    assert!(client <= 256, "{client}");
}

/// Tokens that are kept.
fn tokens(server: &RelayServer) -> usize {
    server
        .tokens
        .iter()
        .map(|shard| shard.read().unwrap().len())
        .sum()
}

const MEMBERS: u8 = 5;
const REMOTES: u8 = 7;

/// What happens to a moon.
#[derive(Clone, Debug)]
enum Step {
    /// A member asks; `with` picks the id among the tokens that it was ever given.
    Ask {
        member: u8,
        from: u8,
        with: usize,
    },
    /// Somebody sends a frame with a token that was ever given to anybody, or a made-up one.
    Send {
        from: u8,
        with: usize,
        made_up: bool,
        to: u8,
    },
    /// Somebody sends anything.
    Bytes {
        from: u8,
        bytes: Vec<u8>,
    },
    /// The roster changes: a bit for each member.
    Roster(u8),
    Wait {
        seconds: u64,
    },
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let member = || 0..MEMBERS;
    let from = || 0..REMOTES;
    prop_oneof![
        6 => (member(), from(), any::<usize>())
            .prop_map(|(member, from, with)| Step::Ask { member, from, with }),
        8 => (from(), any::<usize>(), prop::bool::weighted(0.05), member())
            .prop_map(|(from, with, made_up, to)| Step::Send { from, with, made_up, to }),
        1 => (from(), prop::collection::vec(prop_oneof![Just(0x20), Just(0), any::<u8>()], 0..40))
            .prop_map(|(from, bytes)| Step::Bytes { from, bytes }),
        1 => any::<u8>().prop_map(Step::Roster),
        2 => (1..40_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Expire),
    ]
}

/// What the model knows of a member.
#[derive(Default)]
struct Known {
    proven: Option<(u8, u64, u64)>,
    claimed: Option<(u8, u64, u64)>,
}

/// The rules of `docs/relay.md` in the plainest form: who is where, said in (remote, token, second asked).
#[derive(Default)]
struct Model {
    members: BTreeMap<u8, Known>,
    second: u64,
    /// Bytes from and to a remote that nobody has proven.
    unproven: BTreeMap<u8, (usize, usize)>,
}

impl Model {
    fn set_members(&mut self, mask: u8) {
        self.members.retain(|member, _| mask & (1 << member) != 0);
        for member in (0..MEMBERS).filter(|member| mask & (1 << member) != 0) {
            self.members.entry(member).or_default();
        }
    }

    fn tidy(&mut self) {
        for known in self.members.values_mut() {
            for place in [&mut known.proven, &mut known.claimed] {
                *place = place.filter(|(_, _, asked)| self.second - asked < 60);
            }
        }
    }

    /// Whose frame this is, if anybody's; it proves the address.
    fn sender(&mut self, from: u8, token: u64) -> Option<u8> {
        let here = |place: &Option<(u8, u64, u64)>| {
            place.is_some_and(|(at, its, _)| (at, its) == (from, token))
        };
        for (member, known) in &mut self.members {
            if here(&known.claimed) {
                known.proven = known.claimed.take();
            }
            if here(&known.proven) {
                return Some(*member);
            }
        }
        None
    }

    fn send(&mut self, from: u8, token: u64, to: u8) -> Result<(u8, u8, u64), Notice> {
        let sender = self.sender(from, token).ok_or(Notice::UnknownToken)?;
        let receiver = self.members.get(&to).ok_or(Notice::NotAllowed)?;
        let (at, its, _) = receiver.proven.ok_or(Notice::NotHere)?;
        Ok((sender, at, its))
    }

    fn ask(&mut self, member: u8, from: u8, id: u64, given: u64) {
        let known = self.members.get_mut(&member).unwrap();
        let place = [&mut known.proven, &mut known.claimed]
            .into_iter()
            .flatten()
            .find(|(at, ..)| *at == from);
        match place {
            Some((_, token, asked)) => {
                assert_eq!(given, *token, "the same token for the same address");
                *asked = self.second;
            }
            None => known.claimed = Some((from, given, self.second)),
        }
        if given == id {
            self.sender(from, id);
        }
    }

    fn is_proven(&self, remote: u8) -> bool {
        self.members
            .values()
            .any(|known| known.proven.is_some_and(|(at, ..)| at == remote))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_moon_does_what_the_model_says(steps in prop::collection::vec(step(), 1..120)) {
        let mut moon = Moon::new(FREE, 0..MEMBERS);
        let mut model = Model::default();
        model.set_members(u8::MAX);
        let mut given: Vec<(u8, u64)> = Vec::new();
        for step in steps {
            let now = at(model.second);
            model.tidy();
            match step {
                Step::Ask { member, from, with } => {
                    let own: Vec<u64> = given.iter().filter(|(whose, _)| *whose == member).map(|(_, token)| *token).collect();
                    let id = if own.is_empty() { 0 } else { own[with % own.len()] };
                    let answer = moon.ask(member, remote(from), id, now);
                    if model.members.contains_key(&member) {
                        let token = answer.expect("a member");
                        model.ask(member, from, id, token);
                        given.push((member, token));
                    } else {
                        prop_assert_eq!(answer, Err(RelayRefused::NoMoon));
                    }
                }
                Step::Send { from, with, made_up, to } => {
                    let known = (!made_up && !given.is_empty()).then(|| given[with % given.len()].1);
                    let token = known.unwrap_or(with as u64);
                    let mut datagram = frame(token, tag(to));
                    let forwarded = moon.server.forward(remote(from), &mut datagram, now);
                    let expected = model.send(from, token, to);
                    // A frame that proves its address came from there.
                    let counts = model.unproven.entry(from).or_default();
                    counts.0 += datagram.len();
                    match expected {
                        Ok((sender, at, its)) => {
                            prop_assert_eq!(forwarded, Forwarded::To(remote(at)));
                            prop_assert_eq!(&datagram, &frame(its, tag(sender)));
                            prop_assert!(model.is_proven(at));
                        }
                        Err(why) => {
                            prop_assert_eq!(&datagram, &frame(token, tag(to)));
                            if forwarded != Forwarded::Dropped(RelayDropped::Unanswered) {
                                prop_assert_eq!(forwarded, notice(why, token, to));
                                counts.1 += HEADER_BYTES;
                            }
                        }
                    }
                }
                Step::Bytes { from, bytes } => {
                    let mut datagram = bytes.clone();
                    let forwarded = moon.server.forward(remote(from), &mut datagram, now);
                    prop_assert!(!matches!(forwarded, Forwarded::To(_)));
                    prop_assert_eq!(&datagram, &bytes);
                    let counts = model.unproven.entry(from).or_default();
                    counts.0 += bytes.len();
                    if let Forwarded::Answer(notice) = forwarded {
                        counts.1 += notice.len();
                    }
                }
                Step::Roster(mask) => {
                    moon.server.set_members((0..MEMBERS).filter(|member| mask & (1 << member) != 0).map(key));
                    model.set_members(mask);
                }
                Step::Wait { seconds } => model.second += seconds,
                Step::Expire => {
                    moon.server.expire(now);
                    let places = |known: &Known| usize::from(known.proven.is_some()) + usize::from(known.claimed.is_some());
                    let all: Vec<usize> = model.members.values().map(places).collect();
                    prop_assert_eq!(tokens(&moon.server), all.iter().sum::<usize>());
                    prop_assert_eq!(moon.server.view().clients, all.iter().filter(|number| **number > 0).count());
                }
            }
            prop_assert!(tokens(&moon.server) <= 2 * usize::from(MEMBERS));
            for (remote, (came, went)) in &model.unproven {
                prop_assert!(went <= came, "{remote}: {went} for {came}");
            }
        }
    }
}
