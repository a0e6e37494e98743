//! A moon that was started anew looks for the clients that it had: whom, how often, and how many at a time.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_core::{
    Engine, EngineConfig, Event, Forwarded, Now, PeerConfig, Protocol, RelayLimits, RelayServer,
    Remote, Stamp, WallTime,
};
use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::{
    relay::{Header, MemberTag},
    wireguard::INITIATION_BYTES,
};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use x25519_dalek::StaticSecret;

const CLIENTS: u32 = 1_000;

/// Of `docs/relay.md`: clients that are looked for in a tenth of a second, and handshakes with each.
const AT_ONCE: usize = 25;
const HANDSHAKES: usize = 3;
const STEP: Duration = Duration::from_millis(100);

struct Moon {
    engine: Engine,
    server: Arc<RelayServer>,
    members: Vec<WireguardPublicKey>,
    rng: ChaCha20Rng,
    now: Now,
    need_endpoints: usize,
}

fn at(client: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + client), 4193))
}

fn random_key(rng: &mut ChaCha20Rng) -> WireguardPublicKey {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    WireguardPublicKey::try_from(bytes.as_slice()).unwrap()
}

impl Moon {
    /// One with so many members, none of whom it has heard of.
    fn new(members: u32) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let now = Now {
            instant: Instant::from_micros(1_000_000),
            wall: WallTime::from_millis(1_700_000_000_000),
        };
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let config = EngineConfig {
            static_secret: StaticSecret::random_from_rng(&mut rng),
            agent_address: "fd00::1".parse().unwrap(),
            seed,
            stamp_floor: Stamp::ZERO,
            large_packets: true,
        };
        let mut engine = Engine::new(config, now);
        let members: Vec<_> = (0..members).map(|_| random_key(&mut rng)).collect();
        let peer = |key: &WireguardPublicKey| PeerConfig {
            key: *key,
            speaks_mesh: true,
            protocol: Protocol::Wireguard,
            allowed_ips: Vec::new(),
            access: Arc::default(),
            relay_only: false,
        };
        engine.set_peers(members.iter().map(peer).collect(), now);
        let server = Arc::new(RelayServer::new(RelayLimits::default()));
        server.set_members(members.iter().copied());
        engine.set_relay_server(Some(Arc::clone(&server)));
        let mut moon = Self {
            engine,
            server,
            members,
            rng,
            now,
            need_endpoints: 0,
        };
        moon.drain();
        moon
    }

    fn recall_all(&mut self) {
        let clients: Vec<_> = (0..)
            .zip(&self.members)
            .map(|(i, key)| (*key, at(i)))
            .collect();
        self.engine.recall_clients(clients, self.now);
    }

    /// Where handshakes went.
    fn drain(&mut self) -> Vec<SocketAddr> {
        while let Some(event) = self.engine.poll_event() {
            if let Event::ReserveStamps { until } = event {
                self.engine.stamps_reserved(until, self.now);
            } else if let Event::NeedEndpoints { .. } = event {
                self.need_endpoints += 1;
            }
        }
        let mut sent = Vec::new();
        while let Some(transmit) = self.engine.poll_transmit() {
            assert_eq!(
                transmit.data.len(),
                INITIATION_BYTES,
                "a handshake, and nothing else"
            );
            sent.push(transmit.to.udp().unwrap());
        }
        assert!(self.engine.poll_opener().is_none());
        sent
    }

    /// Where handshakes go in so much time, as the timers want it.
    fn run_for(&mut self, time: Duration) -> Vec<SocketAddr> {
        let end = self.now.instant + time;
        let mut sent = self.drain();
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) {
            self.now.instant = self.now.instant.max(due);
            self.engine.handle_timeout(self.now);
            sent.extend(self.drain());
            assert!(self.engine.poll_timeout().is_none_or(|next| next > due));
        }
        self.now.instant = end;
        sent
    }

    /// The last member is a client, and sends a frame to another one; where handshakes go then.
    fn frame_to(&mut self, client: u32) -> Vec<SocketAddr> {
        let sender = self.members[self.members.len() - 1];
        let from = Remote::Udp(at(0x00ff_0000));
        let now = self.now.instant;
        let renew = Duration::from_secs(150);
        let granted = self
            .server
            .grant(&sender, from, 0, renew, &mut self.rng, now);
        let token = granted.unwrap().token;
        let client = self.members[usize::try_from(client).unwrap()];
        let member = MemberTag::of(client.as_bytes());
        let mut frame = [Header { token, member }.emit().as_slice(), b"handshake"].concat();
        let forwarded = self.server.forward(from, &mut frame, now);
        assert!(matches!(forwarded, Forwarded::Answer(_)), "not here");
        if self.engine.forwarding().needs_attention() {
            self.engine.handle_timeout(self.now);
        }
        self.drain()
    }
}

#[test]
fn a_thousand_clients_are_looked_for_at_a_pace_and_given_up_after_three_handshakes() {
    let mut moon = Moon::new(CLIENTS);
    moon.recall_all();
    let mut sent: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for step in 0..3_100 {
        let now = moon.run_for(STEP);
        // The first handshakes of some, the second of others, and the third.
        assert!(
            now.len() <= 2 * HANDSHAKES * AT_ONCE,
            "{} at once",
            now.len()
        );
        assert!(now.is_empty() || step < 400 + 40, "{step}");
        for to in now {
            *sent.entry(to).or_default() += 1;
        }
    }
    let expected = (0..CLIENTS).map(|client| (at(client), HANDSHAKES));
    assert_eq!(sent, expected.collect());
    assert_eq!(moon.need_endpoints, 0, "no controller is asked for them");
    assert!(
        moon.engine.clients(moon.now.instant).is_empty(),
        "and nobody is remembered"
    );
}

#[test]
fn who_is_sent_a_frame_is_looked_for_at_once_and_no_oftener() {
    let mut moon = Moon::new(CLIENTS);
    moon.recall_all();
    moon.run_for(Duration::ZERO);
    // Not among the first by the order of keys.
    let mut by_key: Vec<_> = (0..).zip(moon.members.clone()).collect();
    by_key.sort_unstable_by_key(|(_, key)| *key.as_bytes());
    let sought: u32 = by_key[900].0;
    assert_eq!(moon.frame_to(sought), [at(sought)]);
    for _ in 0..10 {
        assert_eq!(moon.frame_to(sought), [], "once");
    }
    let sent = moon.run_for(Duration::from_secs(60));
    let to = |sent: &[SocketAddr], client| sent.iter().filter(|to| **to == at(client)).count();
    assert_eq!(1 + to(&sent, sought), HANDSHAKES, "that was its turn");
    // Who has had its turn is looked for once more, and no more.
    let other: u32 = by_key[901].0;
    assert_eq!(to(&sent, other), HANDSHAKES);
    assert_eq!(moon.frame_to(other), [at(other)]);
    let sent = moon.run_for(Duration::from_secs(10));
    assert_eq!(1 + to(&sent, other), HANDSHAKES);
    for client in [sought, other] {
        assert_eq!(moon.frame_to(client), []);
    }
}

#[test]
fn a_frame_does_not_repeat_a_handshake_that_has_just_been_sent() {
    let mut moon = Moon::new(2);
    moon.recall_all();
    let mut sent = moon.run_for(Duration::from_millis(10));
    sent.sort_unstable();
    assert_eq!(sent, [at(0), at(1)]);
    // A client takes none so soon after another one, and its answer to that one would come too late.
    assert_eq!(moon.frame_to(0), []);
    assert_eq!(
        moon.run_for(Duration::from_secs(30)).len(),
        2 * (HANDSHAKES - 1)
    );
}

#[test]
fn frames_for_clients_that_nobody_expects_bring_no_handshakes() {
    let mut moon = Moon::new(10);
    assert_eq!(moon.frame_to(3), []);
    moon.recall_all();
    moon.run_for(Duration::from_secs(301));
    assert_eq!(moon.frame_to(3), [], "long after the start");
}

#[test]
fn only_members_are_looked_for_and_only_by_a_moon() {
    let mut moon = Moon::new(2);
    let stranger = random_key(&mut moon.rng);
    let clients = [(stranger, at(7)), (moon.members[1], at(1))];
    moon.engine.recall_clients(clients, moon.now);
    assert_eq!(moon.run_for(STEP), [at(1)]);

    let mut node = Moon::new(2);
    node.engine.set_relay_server(None);
    node.recall_all();
    assert_eq!(node.run_for(Duration::from_secs(10)), []);
}

#[test]
fn without_a_network_nobody_is_looked_for_until_there_is_one() {
    let mut moon = Moon::new(2);
    moon.engine.set_own_endpoints(Vec::new(), moon.now);
    moon.recall_all();
    assert_eq!(moon.run_for(Duration::from_secs(20)), []);
    assert_eq!(
        moon.engine.clients(moon.now.instant).len(),
        2,
        "still remembered"
    );
    moon.engine.set_own_endpoints(vec![at(9)], moon.now);
    let mut sent = moon.run_for(STEP);
    sent.sort_unstable();
    assert_eq!(sent, [at(0), at(1)]);
}
