//! What the fuzz targets do with their bytes. `mesh-tests` replays the committed corpus through the same
//! functions, so nothing found once comes back.
//!
//! ```text
//! cd tests/fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run engine
//! ```

use std::{
    collections::BTreeSet,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use mesh_core::{
    Cut, Forwarded, Gateway, GatewayAsk, Handover, PortMapper, RelayLimits, RelayServer, Remote,
    clamp_segments, cut, is_public, judge_any,
    names::{self, NameTable, NamedHost, NamesConfig, Transport, UDP_BYTES_MAX},
    prohibited, too_big,
};
use mesh_testkit::Network;
use mesh_types::{Instant, MachineName, NetworkId, Serial, WireguardPublicKey};
use mesh_wire::{
    control::{FrameHeader, HEADER_BYTES, Notice, Reply, Request, decode_message},
    reflect::{Heard, ReflectRequest},
    relay::{self, MemberTag},
    tunnel,
    wireguard::{self, CookieReply, Initiation, Message, Response},
};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// Parses WireGuard's messages; what is parsed is emitted as it was.
pub fn wireguard(bytes: &[u8]) {
    match Message::parse(bytes) {
        Ok(Message::Initiation(message)) => {
            assert_eq!(Initiation::parse(message).emit(), *message);
        }
        Ok(Message::Response(message)) => assert_eq!(Response::parse(message).emit(), *message),
        Ok(Message::CookieReply(message)) => {
            assert_eq!(CookieReply::parse(message).emit(), *message);
        }
        Ok(Message::Data(header)) => {
            assert_eq!(header.emit(), bytes[..wireguard::DATA_HEADER_BYTES]);
        }
        Err(_) => {}
    }
}

/// Parses a packet between agents; what is understood means the same when it is emitted.
pub fn tunnel(bytes: &[u8]) {
    let address = Network::agent_address();
    if let Ok(message) = tunnel::parse(bytes, address) {
        let emitted = tunnel::emit(message.clone(), address);
        assert_eq!(tunnel::parse(&emitted, address), Ok(message));
    }
    let _ = tunnel::concerns_agents(bytes, address);
}

/// Cuts what a TUN device might give in one read, ten bytes of its header first, and joins it again.
pub fn offload(bytes: &[u8]) {
    mesh_os::tun::cut_and_join(bytes);
}

/// Does to a program's packet what a way of some size asks for: after four bytes of sizes comes the packet.
pub fn packet(bytes: &[u8]) {
    let Some(([fit_high, fit_low, mtu_high, mtu_low], packet)) = bytes.split_first_chunk() else {
        return;
    };
    let fit = u16::from_be_bytes([*fit_high, *fit_low]);
    let mtu = u16::from_be_bytes([*mtu_high, *mtu_low]);
    let mut clamped = packet.to_vec();
    clamp_segments(&mut clamped, || mtu);
    assert_eq!(clamped.len(), packet.len());
    let once = clamped.clone();
    clamp_segments(&mut clamped, || mtu);
    assert_eq!(clamped, once, "what is lowered is low enough");
    if let Cut::Pieces(pieces) = cut(packet, fit, mtu, 1) {
        assert!(pieces.iter().all(|piece| piece.len() <= fit.into()));
    }
    for answer in [too_big(packet, mtu), prohibited(packet)]
        .into_iter()
        .flatten()
    {
        assert!(answer.len() <= 1280);
        assert_eq!(too_big(&answer, mtu), None, "an error is not answered");
        judge_any(&answer);
    }
    judge_any(packet);
}

/// Lets a router answer a port mapper, which must not ask without end or believe in private addresses.
///
/// The first byte of a step: the lowest two bits say whether an answer by PCP and NAT-PMP, one of SSDP, one by
/// HTTP (200, or a refusal) or time follows; the others how long it is, or the time passes.
pub fn gateway(mut bytes: &[u8]) {
    let gateway = Gateway {
        address: [192, 168, 1, 1].into(),
        local: [192, 168, 1, 5].into(),
    };
    let mut mapper = PortMapper::new([0; 12], 4193);
    let mut now = Instant::from_micros(1);
    let start = now;
    mapper.set_gateway(Ok(gateway), now);
    let (mut asks, mut waiting) = (0, None);
    while let Some((&step, rest)) = bytes.split_first() {
        let argument = step >> 2;
        let length = if step & 3 == 3 {
            0
        } else {
            usize::from(argument) * 16
        };
        let (answer, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        let from = |port| SocketAddrV4::new(gateway.address, port);
        match step & 3 {
            0 => mapper.handle_datagram(from(5351), answer, now),
            1 => mapper.handle_datagram(from(1900), answer, now),
            2 => {
                if let Some(id) = waiting.take() {
                    let status = if argument & 1 == 0 { 200 } else { 500 };
                    mapper.handle_http(id, Ok((status, answer)), now);
                }
            }
            _ => {
                now = now + Duration::from_millis(1 << (argument / 2).min(20));
                mapper.handle_timeout(now);
                assert!(
                    mapper.poll_timeout().is_none_or(|at| at > now),
                    "a busy loop"
                );
            }
        }
        while let Some(ask) = mapper.poll_ask() {
            asks += 1;
            match ask {
                GatewayAsk::Datagram { .. } => {}
                GatewayAsk::Http { id, url, .. } => {
                    assert_eq!(*url.host.ip(), gateway.address);
                    waiting = Some(id);
                }
            }
        }
        if let Some(external) = mapper.external() {
            assert!(is_public(*external.ip()) && external.port() > 0);
        }
    }
    let seconds = now.saturating_since(start).as_secs();
    assert!(
        asks <= 100 * (1 + seconds / 10),
        "{asks} questions in {seconds} s"
    );
}

/// Parses a frame of the control channel, as each kind of message.
pub fn control(bytes: &[u8]) {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return;
    };
    let Ok(header) = FrameHeader::parse(*header) else {
        return;
    };
    let message = &rest[..header.message_bytes().min(rest.len())];
    let _ = decode_message::<Request>(message);
    let _ = decode_message::<Reply>(message);
    let _ = decode_message::<Notice>(message);
}

/// Answers a DNS question, and refuses it.
pub fn names(bytes: &[u8]) {
    let network = NetworkId::from_bytes(std::array::from_fn(|index| index as u8));
    let name: MachineName = "cinnabar".parse().expect("a name");
    let config = NamesConfig {
        domain: "mesh",
        prefix: network.prefix().net(),
        pool: "100.64.7.0/24".parse().ok(),
        serial: Serial::FIRST,
        server: &name,
    };
    let address = network.address_of(&name).expect("an address");
    let host = NamedHost {
        name: &name,
        addresses: vec![address.into(), [100, 64, 7, 1].into()],
        aliases: &["kanban".to_owned(), "*.apps".to_owned()],
    };
    let table = NameTable::new(&config, [host]).expect("a domain");
    for transport in [Transport::Udp, Transport::Tcp] {
        let reply = names::answer(&table, bytes, transport);
        if let Some(reply) = &reply {
            assert_eq!(reply[..2], bytes[..2], "the question's id");
            assert_eq!(reply[2] & 0x80, 0x80, "a response");
            assert_eq!(reply[3] & 0x80, 0, "no recursion");
            assert!(transport == Transport::Tcp || reply.len() <= usize::from(UDP_BYTES_MAX));
        }
        let refusal = names::refuse(bytes, transport);
        assert_eq!(refusal.is_some(), reply.is_some());
        assert!(refusal.is_none_or(|refusal| refusal.len() <= bytes.len()));
    }
}

/// Reads and resolves an inventory.
pub fn inventory(bytes: &[u8]) {
    mesh_inventory::fuzz::inventory(bytes);
}

/// Reads a roster, a signer and a list of allowed signers.
pub fn roster(bytes: &[u8]) {
    mesh_inventory::fuzz::roster(bytes);
}

/// Lets an attacker loose on two engines that have a session: `bytes` is a row of actions, each an
/// opcode, an operand, a length and so many bytes. Whatever was done, the two still reach each other.
pub fn engine(bytes: &[u8]) {
    let mut network = Network::pair(1);
    network.trace = Some(Vec::new());
    assert!(network.reaches(0, 1, Duration::from_millis(100)));
    assert!(network.reaches(1, 0, Duration::from_millis(100)));
    let seen = network.trace.take().expect("set above");
    let attacker = SocketAddr::from(([203, 0, 113, 66], 666));
    let mut rest = bytes;
    while let [opcode, operand, length, tail @ ..] = rest {
        let (argument, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let node = usize::from(operand & 1);
        let pick = usize::from(operand >> 1);
        match opcode % 6 {
            0 => network.inject(node, attacker, argument.to_vec()),
            1 => {
                // A datagram that was seen, changed.
                let mut datagram = seen[pick % seen.len()].1.data.clone();
                for (byte, change) in datagram.iter_mut().zip(argument) {
                    *byte ^= change;
                }
                network.inject(node, attacker, datagram);
            }
            2 => {
                // A datagram that was seen, cut or lengthened.
                let mut datagram = seen[pick % seen.len()].1.data.clone();
                datagram.resize(usize::from(*length) * 2, 0);
                network.inject(node, attacker, datagram);
            }
            3 => inside(&mut network, node, argument),
            4 => network.run_for(Duration::from_millis(
                u64::from(*operand) * u64::from(*length),
            )),
            _ => network.send_packet(node, argument),
        }
    }
    network.send(0, 1);
    network.send(1, 0);
    network.run_for(Duration::from_secs(10));
    assert!(network.reaches(0, 1, Duration::from_secs(1)));
    assert!(network.reaches(1, 0, Duration::from_secs(1)));
}

/// A peer that turned bad: anything at all, sealed in its session.
fn inside(network: &mut Network, node: usize, packet: &[u8]) {
    let cover = mesh_testkit::packets::ipv6(
        network.nodes[node].address,
        network.nodes[1 - node].address,
        &[],
    );
    let Some(route) = network.nodes[node].forwarding.route(&cover) else {
        return;
    };
    let mut frame = vec![0; wireguard::data_message_bytes(packet.len())];
    frame[wireguard::DATA_HEADER_BYTES..][..packet.len()].copy_from_slice(packet);
    let now = network.now.instant;
    if route.seal(&mut frame, packet.len(), now).is_ok() {
        let from = network.nodes[node].endpoint;
        network.inject(1 - node, from, frame);
    }
}

/// Lets members and strangers loose on a moon: `bytes` is a row of actions, each an opcode, two operands, a
/// length and so many bytes. A frame goes only to where the receiver's token came back from, and nobody else
/// gets more bytes than he sent.
pub fn relay(bytes: &[u8]) {
    const MEMBERS: u8 = 4;
    let server = RelayServer::new(RelayLimits::default());
    let key = |member: u8| WireguardPublicKey::try_from([member % MEMBERS + 2; 32].as_slice());
    let key = |member| key(member).expect("32 bytes that are no low point");
    let remote = |number: u8| Remote::Udp(SocketAddr::from(([203, 0, 113, number % 8], 4193)));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut now = Instant::ZERO;
    let mut given: Vec<(Remote, u64)> = Vec::new();
    let mut proven: BTreeSet<Remote> = BTreeSet::new();
    let mut rest = bytes;
    while let [opcode, a, b, length, tail @ ..] = rest {
        let (argument, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let (from, any) = (remote(*b), given.get(usize::from(opcode / 6)).copied());
        let token = any.map_or(0, |(_, token)| token);
        match opcode % 6 {
            0 | 1 => {
                let renew = Duration::from_secs(argument.len() as u64);
                let granted = server.grant(&key(*a), from, token, renew, &mut rng, now);
                if let Ok(granted) = granted {
                    given.push((from, granted.token));
                }
                proven.extend(any.filter(|any| any.0 == from).map(|any| any.0));
            }
            2 => {
                let member = MemberTag::of(key(*a).as_bytes());
                let header = relay::Header { token, member };
                let frame = [header.emit().as_slice(), argument].concat();
                proven.extend(any.filter(|any| any.0 == from).map(|any| any.0));
                relayed(&server, from, frame, now, &proven);
                let id = u64::from(*a);
                reflected(&server, from, &ReflectRequest { token, id }.emit(), now);
            }
            3 => {
                reflected(&server, from, argument, now);
                let _ = Heard::parse(argument);
                relayed(&server, from, argument.to_vec(), now, &proven);
            }
            4 => server.set_members((0..MEMBERS).filter(|member| a >> member & 1 == 1).map(key)),
            _ => {
                now = now + Duration::from_millis(u64::from(*a) * u64::from(*b));
                server.expire(now);
            }
        }
        assert!(server.view().clients <= usize::from(MEMBERS));
    }
}

/// Whoever asks where he is seen gets no more than he sent, and only there.
fn reflected(server: &RelayServer, from: Remote, request: &[u8], now: Instant) {
    let Some(answer) = server.reflect(from, request, now) else {
        return;
    };
    assert!(answer.len() <= request.len(), "an answer that is longer");
    match Heard::parse(&answer) {
        Some(Heard::Reflection(reflection)) => assert_eq!(Remote::Udp(reflection.observed), from),
        other => panic!("{other:?}"),
    }
}

fn relayed(
    server: &RelayServer,
    from: Remote,
    mut frame: Vec<u8>,
    now: Instant,
    proven: &BTreeSet<Remote>,
) {
    let before = frame.clone();
    match server.forward(from, &mut frame, now) {
        Forwarded::To(remote) => {
            assert!(proven.contains(&remote), "{remote} has shown nothing");
            assert_eq!(frame.len(), before.len());
            assert_eq!(frame[relay::HEADER_BYTES..], before[relay::HEADER_BYTES..]);
        }
        Forwarded::Answer(notice) => {
            assert!(notice.len() <= before.len(), "an answer that is longer");
            assert_eq!(frame, before);
        }
        Forwarded::Dropped(_) | Forwarded::NotOurs => assert_eq!(frame, before),
    }
}

/// Starts an engine with what claims to be another process's sessions: `bytes` as they are, and as changes
/// to a true handover, each an offset in two bytes, a length and so many bytes. Whatever it took for true,
/// it goes on working.
pub fn handover(bytes: &[u8]) {
    start_with(|_| bytes.to_vec());
    start_with(|mut handover| {
        let mut rest = bytes;
        while let [high, low, length, tail @ ..] = rest {
            let (change, tail) = tail.split_at(usize::from(*length).min(tail.len()));
            rest = tail;
            let offset = usize::from(u16::from_be_bytes([*high, *low]));
            for (to, from) in handover.iter_mut().skip(offset).zip(change) {
                *to = *from;
            }
        }
        handover
    });
}

fn start_with(change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let mut network = Network::pair(1);
    assert!(network.reaches(0, 1, Duration::from_millis(100)));
    assert!(network.reaches(1, 0, Duration::from_millis(100)));
    let changed = change(network.hand_over(1));
    let Ok(handover) = Handover::parse(&changed) else {
        return;
    };
    let _ = network.take_over_from(1, handover);
    network.tell_endpoint(1, 0);
    for _ in 0..20 {
        network.send(0, 1);
        network.send(1, 0);
        network.run_for(Duration::from_secs(11));
    }
}

/// Lets a world run its course: `bytes` say what is in it and what happens there.
pub fn world(bytes: &[u8]) {
    /// More would take longer than a fuzzer waits for.
    const CHANGES: usize = 40;
    if let Err(failure) = mesh_testkit::world::run_bytes(1, bytes, CHANGES) {
        panic!("{failure}");
    }
}
