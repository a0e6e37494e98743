use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::packet::protocol::{FRAGMENT, ICMP, ICMPV6, TCP, UDP};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An IP packet of either family that carries `payload`.
fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0];
            packet.extend(length(20 + payload.len()));
            packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(length(payload.len()));
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("two families"),
    }
}

fn ports(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut bytes = source.to_be_bytes().to_vec();
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 9]);
    bytes.push(flags);
    bytes.extend([0; 6]);
    bytes
}

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// This node, a peer that may reach its port 22 by TCP, and when.
struct Scene {
    guard: Guard,
    access: Access,
    us: IpAddr,
    peer: IpAddr,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        Self::of("fd00::1", "fd00::2")
    }

    fn of(us: &str, peer: &str) -> Self {
        let grant = Grant {
            rule: 3,
            protocol: Some(TCP),
            ports: Some(22..=22),
        };
        Self {
            guard: Guard::new(&[7; 32]),
            access: Access::of(&[grant], &Arc::default()),
            us: ip(us),
            peer: ip(peer),
            now: Instant::from_micros(1_000_000_000),
        }
    }

    fn comes(&self, protocol: u8, payload: &[u8]) -> Option<Passed> {
        self.comes_whole(&packet(self.peer, self.us, protocol, payload))
    }

    fn comes_whole(&self, packet: &[u8]) -> Option<Passed> {
        self.guard.admits(&self.access, &look(packet)?, self.now)
    }

    fn goes(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let packet = packet(self.us, self.peer, protocol, payload);
        if let Some(seen) = look(&packet) {
            self.guard.note_sent(&self.access, &seen, self.now);
        }
        packet
    }

    fn after(&mut self, time: Duration) {
        self.now = self.now + time;
    }
}

const ACCEPTED: Option<Passed> = Some(Passed::Accepted(3));
const FOLLOWS: Option<Passed> = Some(Passed::Follows);

#[test]
fn a_rule_lets_begin_and_answers_follow_in_both_families() {
    for (us, peer) in [("fd00::1", "fd00::2"), ("10.0.0.1", "10.0.0.2")] {
        let scene = Scene::of(us, peer);
        assert_eq!(scene.comes(TCP, &ports(40_000, 22, SYN)), ACCEPTED);
        assert_eq!(scene.comes(TCP, &ports(40_000, 23, SYN)), None);
        assert_eq!(scene.comes(UDP, &ports(40_000, 22, 0)), None);

        assert_eq!(scene.comes(TCP, &ports(443, 50_000, SYN_ACK)), None);
        scene.goes(TCP, &ports(50_000, 443, SYN));
        assert_eq!(scene.comes(TCP, &ports(443, 50_000, SYN_ACK)), FOLLOWS);
        assert_eq!(scene.comes(TCP, &ports(443, 50_000, ACK)), FOLLOWS);
        assert_eq!(
            scene.comes(TCP, &ports(443, 50_001, ACK)),
            None,
            "another port"
        );
        assert_eq!(
            scene.comes(TCP, &ports(443, 50_000, SYN)),
            None,
            "a connection of its own"
        );

        scene.goes(UDP, &ports(50_000, 53, 0));
        assert_eq!(scene.comes(UDP, &ports(53, 50_000, 0)), FOLLOWS);
        assert_eq!(
            scene.comes(TCP, &ports(53, 50_000, ACK)),
            None,
            "another protocol"
        );
    }
}

#[test]
fn an_echo_is_answered_and_not_asked_back() {
    for (us, peer, protocol, request, reply) in [
        ("fd00::1", "fd00::2", ICMPV6, 128, 129),
        ("10.0.0.1", "10.0.0.2", ICMP, 8, 0),
    ] {
        let scene = Scene::of(us, peer);
        let echo = |kind, id: u8| [kind, 0, 0, 0, 0, id, 0, 1];
        assert_eq!(scene.comes(protocol, &echo(reply, 7)), None);
        scene.goes(protocol, &echo(request, 7));
        assert_eq!(scene.comes(protocol, &echo(reply, 7)), FOLLOWS);
        assert_eq!(scene.comes(protocol, &echo(reply, 8)), None);
        assert_eq!(scene.comes(protocol, &echo(request, 7)), None);
    }
}

#[test]
fn an_error_passes_that_is_about_what_this_node_sent() {
    for (us, peer, protocol, kind) in [
        ("fd00::1", "fd00::2", ICMPV6, 1),
        ("fd00::1", "fd00::2", ICMPV6, 2),
        ("10.0.0.1", "10.0.0.2", ICMP, 3),
    ] {
        let scene = Scene::of(us, peer);
        let error = |about: &[u8]| [&[kind, 0, 0, 0, 0, 0, 0, 0], about].concat();
        let other = packet(scene.us, scene.peer, TCP, &ports(1, 2, SYN));
        assert_eq!(scene.comes(protocol, &error(&other)), None);
        let sent = scene.goes(TCP, &ports(50_000, 443, SYN));
        assert_eq!(scene.comes(protocol, &error(&sent)), FOLLOWS);
        // As much as a router must quote.
        assert_eq!(
            scene.comes(protocol, &error(&sent[..sent.len() - 12])),
            FOLLOWS
        );
        // About an answer of this node, which began nothing.
        assert_eq!(scene.comes(TCP, &ports(40_000, 22, SYN)), ACCEPTED);
        let answer = scene.goes(TCP, &ports(22, 40_000, SYN_ACK));
        assert_eq!(scene.comes(protocol, &error(&answer)), FOLLOWS);
        // From a port that the rule lets in anyhow, so that nothing was remembered.
        let asked = scene.goes(TCP, &ports(22, 443, SYN));
        assert_eq!(scene.comes(protocol, &error(&asked)), FOLLOWS);
        assert_eq!(scene.comes(protocol, &error(&[])), None);
    }
}

#[test]
fn what_a_rule_let_in_ends_with_the_rule() {
    let mut scene = Scene::new();
    assert_eq!(scene.comes(TCP, &ports(40_000, 22, SYN)), ACCEPTED);
    scene.goes(TCP, &ports(22, 40_000, SYN_ACK));
    scene.access = Access::of(&[], &Arc::default());
    scene.goes(TCP, &ports(22, 40_000, ACK));
    assert_eq!(scene.comes(TCP, &ports(40_000, 22, ACK)), None);
}

#[test]
fn a_flow_is_forgotten_after_its_silence() {
    for (protocol, lasts) in [
        (UDP, Duration::from_secs(5 * 60)),
        (TCP, Duration::from_secs(24 * 60 * 60)),
    ] {
        let mut scene = Scene::new();
        scene.goes(protocol, &ports(50_000, 443, SYN));
        for _ in 0..3 {
            // An answer renews it.
            scene.after(lasts);
            assert_eq!(scene.comes(protocol, &ports(443, 50_000, ACK)), FOLLOWS);
        }
        scene.after(lasts + Duration::from_secs(1));
        assert_eq!(scene.comes(protocol, &ports(443, 50_000, ACK)), None);
        // What this node sends on it makes it known again.
        scene.goes(protocol, &ports(50_000, 443, ACK));
        assert_eq!(scene.comes(protocol, &ports(443, 50_000, ACK)), FOLLOWS);
    }
}

#[test]
fn another_process_of_this_node_goes_on_with_its_flows() {
    let mut scene = Scene::new();
    scene.goes(TCP, &ports(50_000, 443, SYN));
    scene.comes(TCP, &ports(40_000, 22, SYN));
    let next = Guard::new(&[8; 32]);
    next.restore(&scene.guard.record());
    assert_eq!(next.record(), scene.guard.record());
    scene.guard = next;
    assert_eq!(scene.comes(TCP, &ports(443, 50_000, ACK)), FOLLOWS);
    scene.access = Access::of(&[], &Arc::default());
    scene.goes(TCP, &ports(22, 40_000, ACK));
    assert_eq!(
        scene.comes(TCP, &ports(40_000, 22, ACK)),
        None,
        "theirs, as before"
    );
}

#[test]
fn fragments_are_judged_by_the_first() {
    let scene = Scene::new();
    let fragment = |offset: u16, more: u16, payload: &[u8]| {
        let place = (offset | more).to_be_bytes();
        [&[TCP, 0, place[0], place[1], 0, 0, 0, 9], payload].concat()
    };
    let first = |to| fragment(0, 1, &ports(40_000, to, SYN));
    assert_eq!(scene.comes(FRAGMENT, &first(22)), ACCEPTED);
    assert_eq!(scene.comes(FRAGMENT, &first(23)), None);
    assert_eq!(scene.comes(FRAGMENT, &fragment(1232, 0, &[0; 8])), FOLLOWS);
    assert_eq!(
        scene.comes(FRAGMENT, &fragment(8, 0, &[0; 8])),
        None,
        "writes over the flags"
    );
    let short = fragment(0, 1, &ports(40_000, 22, SYN)[..8]);
    assert_eq!(scene.comes(FRAGMENT, &short), None, "hides the flags");

    let scene = Scene::of("10.0.0.1", "10.0.0.2");
    let mut later = packet(scene.peer, scene.us, TCP, &[0; 16]);
    for (offset, expected) in [(8_u16, None), (1232, FOLLOWS)] {
        later[6..8].copy_from_slice(&(offset / 8).to_be_bytes());
        assert_eq!(scene.comes_whole(&later), expected);
    }
}

#[test]
fn headers_in_between_are_looked_through() {
    let scene = Scene::new();
    let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0]; // hop by hop, then destination options
    payload.extend([TCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend(ports(40_000, 22, SYN));
    assert_eq!(scene.comes(0, &payload), ACCEPTED);
    // More of them than anybody sends.
    let endless = [60, 0, 0, 0, 0, 0, 0, 0].repeat(20);
    assert_eq!(scene.comes(60, &endless), None);
}

#[test]
fn so_many_flows_are_remembered_and_the_newest_stay() {
    let scene = Scene::new();
    let flows = 200_000_u32;
    let both = |number: u32| {
        let [_, high, one, other] = number.to_be_bytes();
        (u16::from_be_bytes([one, other]), 1000 + u16::from(high))
    };
    for number in 0..flows {
        let (source, destination) = both(number);
        scene.goes(UDP, &ports(source, destination, 0));
    }
    let known = |range: std::ops::Range<u32>| {
        let known = range.filter(|number| {
            let (source, destination) = both(*number);
            scene.comes(UDP, &ports(destination, source, 0)).is_some()
        });
        known.count()
    };
    let last = known(flows - 1000..flows);
    assert!(last > 950, "{last} of the last 1000");
    let all = known(0..flows);
    assert!(all <= 32_768, "{all}");
}

#[test]
fn a_peer_that_opens_many_connections_takes_no_place_of_ours() {
    let scene = Scene::new();
    for port in 0..1000 {
        scene.goes(UDP, &ports(port, 443, 0));
    }
    for high in 0..=u16::MAX {
        assert_eq!(scene.comes(TCP, &ports(high, 22, SYN)), ACCEPTED);
        // Answers to those of them that were forgotten, too.
        scene.goes(TCP, &ports(22, high ^ 0x8000, ACK));
    }
    for port in 0..1000 {
        assert_eq!(scene.comes(UDP, &ports(443, port, 0)), FOLLOWS, "{port}");
    }
}

/// What happens: a packet comes or goes, or time passes.
#[derive(Clone, Debug)]
enum Step {
    Comes(u8, u16, u16, u8),
    Goes(u8, u16, u16, u8),
    Passes(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let protocol = || prop::sample::select(vec![TCP, UDP]);
    let port = || 20u16..26;
    let flags = || prop::sample::select(vec![SYN, SYN_ACK, ACK]);
    prop_oneof![
        4 => (protocol(), port(), port(), flags()).prop_map(|(a, b, c, d)| Step::Comes(a, b, c, d)),
        4 => (protocol(), port(), port(), flags()).prop_map(|(a, b, c, d)| Step::Goes(a, b, c, d)),
        1 => prop::sample::select(vec![1, 100, 299, 301, 86_400]).prop_map(Step::Passes),
    ]
}

/// The rules in the plainest form: exact flows in maps, each with when it was last heard of.
#[derive(Default)]
struct Plain {
    ours: HashMap<(u8, u16, u16), u64>,
    theirs: HashMap<(u8, u16, u16), u64>,
    now: u64,
}

impl Plain {
    fn fresh(&self, flows: &HashMap<(u8, u16, u16), u64>, flow: (u8, u16, u16)) -> bool {
        let lasts = if flow.0 == TCP { 86_400 } else { 300 };
        flows
            .get(&flow)
            .is_some_and(|seen| self.now - seen <= lasts)
    }

    fn comes(&mut self, protocol: u8, source: u16, destination: u16, flags: u8) -> bool {
        let flow = (protocol, destination, source);
        let opens = protocol == TCP && flags == SYN;
        if !opens && self.fresh(&self.ours, flow) {
            self.ours.insert(flow, self.now);
            return true;
        }
        let accepted = protocol == TCP && destination == 22;
        if accepted {
            self.theirs.insert(flow, self.now);
        }
        accepted
    }

    fn goes(&mut self, protocol: u8, source: u16, destination: u16) {
        let flow = (protocol, source, destination);
        let is_accepted = protocol == TCP && source == 22;
        if !is_accepted && !self.fresh(&self.theirs, flow) {
            self.ours.insert(flow, self.now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_history_goes_as_in_the_plainest_form(steps in prop::collection::vec(step(), 0..60)) {
        let mut scene = Scene::new();
        let mut plain = Plain::default();
        for step in steps {
            match step {
                Step::Comes(protocol, source, destination, flags) => {
                    let passed = scene.comes(protocol, &ports(source, destination, flags));
                    let expected = plain.comes(protocol, source, destination, flags);
                    prop_assert_eq!(passed.is_some(), expected);
                }
                Step::Goes(protocol, source, destination, flags) => {
                    scene.goes(protocol, &ports(source, destination, flags));
                    plain.goes(protocol, source, destination);
                }
                Step::Passes(seconds) => {
                    scene.after(Duration::from_secs(seconds));
                    plain.now += seconds;
                }
            }
        }
    }

    #[test]
    fn no_packet_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), head in 0usize..4) {
        let scene = Scene::new();
        let starts: [&[u8]; 4] = [&[], &[0x45], &[0x60, 0, 0, 0, 0, 60, 0], &[0x60, 0, 0, 0, 0, 60, 58]];
        let packet = [starts[head], &bytes].concat();
        scene.comes_whole(&packet);
        if let Some(seen) = look(&packet) {
            scene.guard.note_sent(&scene.access, &seen, scene.now);
        }
    }
}
