use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Stdio,
    time::{Duration, Instant, SystemTime},
};

use mesh_core::{
    Engine, EngineConfig, Event, Handover, Now, PeerConfig, Protocol, Received, Stamp, WallTime,
};
use mesh_types::{IdentitySeed, NetworkId, WireguardPublicKey};

use crate::{OURS, THEIRS, icmp, namespace::Namespace};

/// An engine on a real socket, whose TUN is a program that answers pings.
pub(crate) struct Driver {
    engine: Engine,
    socket: UdpSocket,
    started: Instant,
    /// The reservation on "disk".
    stamps: Stamp,
    generation: u8,
    peer: Option<WireguardPublicKey>,
    /// The last of our echo requests, and the last one answered.
    sequence: u16,
    answered: Option<u16>,
    /// Whether each session so far was asked for by us.
    sessions: Vec<bool>,
}

impl Driver {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let started = Instant::now();
        Self {
            engine: engine(0, Stamp::ZERO, now(started)),
            socket: namespace.socket(),
            started,
            stamps: Stamp::ZERO,
            generation: 0,
            peer: None,
            sequence: 0,
            answered: None,
            sessions: Vec::new(),
        }
    }

    /// Forgets all but the disk and the socket's address, as a crash does.
    pub(crate) fn restart(&mut self) {
        self.generation += 1;
        self.engine = engine(self.generation, self.stamps, now(self.started));
    }

    /// Goes on in another engine with what this one hands over, as the next process does.
    pub(crate) fn hand_over(&mut self) {
        let peer = self.peer.expect("the peer is set first");
        let handover = self.engine.hand_over(now(self.started));
        self.restart();
        self.set_peer(peer);
        let handover = Handover::parse(&handover).unwrap();
        let taken = self.engine.take_over(handover, now(self.started)).unwrap();
        assert_eq!((taken.sessions, taken.dropped), (1, 0));
        self.drain();
    }

    pub(crate) fn public_key(&self) -> WireguardPublicKey {
        identity().public().wireguard()
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub(crate) fn set_peer(&mut self, key: WireguardPublicKey) {
        self.peer = Some(key);
        let config = PeerConfig {
            key,
            speaks_mesh: false,
            protocol: Protocol::Wireguard,
            allowed_ips: vec![IpAddr::V6(THEIRS).into()],
            access: std::sync::Arc::default(),
            relay_only: false,
        };
        self.engine.set_peers(vec![config], now(self.started));
        self.drain();
    }

    pub(crate) fn set_candidate(&mut self, endpoint: SocketAddr) {
        let key = self.peer.expect("the peer is set first");
        self.engine
            .set_candidates(&key, vec![endpoint], now(self.started));
        self.drain();
    }

    /// Who asked for each session so far: true if we did.
    pub(crate) fn sessions(&self) -> &[bool] {
        &self.sessions
    }

    /// Sends an echo request through the tunnel; whether it was answered in time.
    pub(crate) fn ping(&mut self, time: Duration) -> bool {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(&icmp::request(OURS, THEIRS, sequence));
        self.run_until(Instant::now() + time, |driver| {
            driver.answered == Some(sequence)
        })
    }

    /// Lets the other side's system ping us; whether it got an answer in time.
    pub(crate) fn is_pinged(&mut self, namespace: &Namespace, time: Duration) -> bool {
        let seconds = time.as_secs().to_string();
        let mut ping = namespace
            .command("ping")
            .args(["-6", "-c", "1", "-W", &seconds, &OURS.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut status = None;
        self.run_until(Instant::now() + time + Duration::from_secs(5), |_| {
            status = ping.try_wait().unwrap();
            status.is_some()
        });
        if status.is_none() {
            ping.kill().unwrap();
            ping.wait().unwrap();
        }
        status.is_some_and(|status| status.success())
    }

    /// Carries packets until something is so or the time is over; whether it is so.
    pub(crate) fn run_until(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        loop {
            if done(self) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            let clock = now(self.started);
            if self
                .engine
                .poll_timeout()
                .is_some_and(|at| at <= clock.instant)
                || self.engine.forwarding().needs_attention()
            {
                self.engine.handle_timeout(clock);
                self.drain();
            }
            self.receive(clock);
        }
    }

    fn send(&mut self, packet: &[u8]) {
        self.engine
            .handle_packet(packet, now(self.started))
            .unwrap();
        self.drain();
    }

    fn receive(&mut self, clock: Now) {
        // Short enough that a condition which no datagram announces is seen soon.
        let most = Duration::from_millis(20);
        let wait = self.engine.poll_timeout().map_or(most, |at| {
            at.saturating_since(clock.instant)
                .clamp(Duration::from_millis(1), most)
        });
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut room = [0; 2048];
        // A refusal by the other side's port shows up here too; the engine goes by silence alone.
        let Ok((length, from)) = self.socket.recv_from(&mut room) else {
            return;
        };
        let clock = now(self.started);
        let received = self
            .engine
            .handle_datagram(from.into(), &mut room[..length], clock);
        if let Received::Packet { packet, .. } = received {
            self.answered = icmp::answered(packet).or(self.answered);
            if let Some(reply) = icmp::reply(packet) {
                self.send(&reply);
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            if let Event::ReserveStamps { until } = event {
                self.stamps = until;
                self.engine.stamps_reserved(until, now(self.started));
            } else if let Event::SessionEstablished { initiator, .. } = event {
                self.sessions.push(initiator);
            }
        }
        while let Some(transmit) = self.engine.poll_transmit() {
            // Lost, if the other side is not there.
            let _ = self.socket.send_to(
                &transmit.data,
                transmit.to.udp().expect("no stream is ever opened"),
            );
        }
    }
}

fn now(started: Instant) -> Now {
    let micros = started.elapsed().as_micros();
    Now {
        instant: mesh_types::Instant::from_micros(u64::try_from(micros).unwrap()),
        wall: WallTime::from(SystemTime::now()),
    }
}

fn engine(generation: u8, stamp_floor: Stamp, now: Now) -> Engine {
    Engine::new(
        EngineConfig {
            static_secret: identity().static_secret(),
            agent_address: NetworkId::from_bytes([7; 16]).prefix().agent_address(),
            // A test's session keys are no secret.
            seed: [generation; 32],
            stamp_floor,
            large_packets: false,
        },
        now,
    )
}

fn identity() -> IdentitySeed {
    IdentitySeed::from_bytes([0x11; 32])
}
