//! Peers of one agent, all in this process and on one thread.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant as Clock, SystemTime},
};

use anyhow::Context as _;
use mesh_benches::pair::{drain, ipv6};
use mesh_core::{
    Engine, EngineConfig, Now, PeerConfig, Protocol, Received, Remote, Stamp, WallTime,
};
use mesh_lab::Fleet;
use mesh_types::{AGENT_PORT, IdentitySeed, Instant, InternetSum, NetworkId, WireguardPublicKey};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rand::RngCore as _;

/// Where the crowd is: the second half of the block for benchmarks (RFC 2544), behind its machine.
const NETWORK: &str = "198.19.0.0/16";

/// How long a step waits for datagrams, at most.
const STEP: Duration = Duration::from_millis(5);

/// The most datagrams of one member that are taken before the next one's.
const TURN: usize = 64;

/// More than any datagram on links of 1500 bytes.
const DATAGRAM_BYTES_MAX: usize = 2048;

const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// All the members.
pub(super) struct Crowd {
    members: Vec<Member>,
    agent: Ipv6Addr,
    epoll: Epoll,
    began: Clock,
    delivered: u64,
}

struct Member {
    engine: Engine,
    socket: UdpSocket,
    address: Ipv6Addr,
    answered: bool,
}

/// The name of a member.
pub(super) fn name(number: u16) -> String {
    format!("member{number}")
}

/// Where a member is.
pub(super) fn endpoint(number: u16) -> SocketAddr {
    let [high, low] = (number + 1).to_be_bytes();
    (Ipv4Addr::new(198, 19, high, low), AGENT_PORT).into()
}

/// Lets `agent` reach the crowd by the machine `elsewhere`, which takes all of that network for its own.
pub(super) fn route_to(fleet: &mut Fleet, agent: &str, elsewhere: &str) -> anyhow::Result<()> {
    let by = fleet.lab().address(elsewhere)?.to_string();
    for (machine, arguments) in [
        (agent, ["add", NETWORK, "via", &by].as_slice()),
        (elsewhere, &["add", "local", NETWORK, "dev", "lo"]),
    ] {
        let mut command = Command::new("ip");
        command.arg("route").args(arguments);
        let output = fleet.run_on(machine, &mut command)?;
        let words = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "`ip route` failed: {words}");
    }
    Ok(())
}

impl Crowd {
    /// A member for each seed, which knows the agent and where it is.
    pub(super) fn new(
        fleet: &mut Fleet,
        agent: &str,
        elsewhere: &str,
        seeds: &[IdentitySeed],
    ) -> anyhow::Result<Self> {
        let text = |value: &serde_json::Value| {
            let text = value.as_str().context("an inventory without names");
            text.map(str::to_owned)
        };
        let network: NetworkId = text(&fleet.inventory()["network"]["id"])?.parse()?;
        let key = text(&fleet.inventory()["machines"][agent]["publicKey"])?;
        let key = key.parse::<mesh_types::PublicIdentity>()?.wireguard();
        let at = (fleet.lab().address(agent)?, AGENT_PORT).into();
        let mut crowd = Self {
            members: Vec::new(),
            agent: fleet.address(agent)?,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            began: Clock::now(),
            delivered: 0,
        };
        for (number, seed) in (0..).zip(seeds) {
            let address = network.address_of(&name(number).parse()?)?;
            let mut engine = Engine::new(config(&network, seed), crowd.now()?);
            engine.set_peers(vec![peer(key, crowd.agent)], crowd.now()?);
            engine.set_candidates(&key, vec![at], crowd.now()?);
            let socket = fleet.namespace(elsewhere)?.run(|| {
                let socket = UdpSocket::bind(endpoint(number)).context("cannot open a socket")?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })?;
            crowd
                .epoll
                .add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number.into()))?;
            crowd.members.push(Member {
                engine,
                socket,
                address,
                answered: false,
            });
        }
        Ok(crowd)
    }

    pub(super) fn addresses(&self) -> Vec<Ipv6Addr> {
        self.members.iter().map(|member| member.address).collect()
    }

    /// How many packets of programs have come to all of them.
    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn unanswered(&self) -> usize {
        let answered = |member: &&Member| !member.answered;
        self.members.iter().filter(answered).count()
    }

    pub(super) fn forget_answers(&mut self) {
        for member in &mut self.members {
            member.answered = false;
        }
    }

    /// Those without an answer ask the agent's machine for an echo.
    pub(super) fn ask(&mut self) -> anyhow::Result<()> {
        let now = self.now()?;
        for member in self.members.iter_mut().filter(|member| !member.answered) {
            let packet = echo_request(member.address, self.agent);
            member.engine.handle_packet(&packet, now)?;
            member.flush(now);
        }
        Ok(())
    }

    /// Takes what has come, and does what is due.
    pub(super) fn step(&mut self) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let timeout = EpollTimeout::try_from(STEP)?;
        let ready = self.epoll.wait(&mut events, timeout)?;
        let now = self.now()?;
        for event in &events[..ready] {
            let member = &mut self.members[usize::try_from(event.data())?];
            self.delivered += member.receive(now);
        }
        for member in &mut self.members {
            let is_due = |at: Instant| at <= now.instant;
            let attention = member.engine.forwarding().needs_attention();
            if attention || member.engine.poll_timeout().is_some_and(is_due) {
                member.engine.handle_timeout(now);
                member.flush(now);
            }
        }
        Ok(())
    }

    fn now(&self) -> anyhow::Result<Now> {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Now {
            instant: Instant::ZERO + Duration::from_secs(1) + self.began.elapsed(),
            wall: WallTime::from_millis(u64::try_from(wall.as_millis())?),
        })
    }
}

impl Member {
    /// Returns how many packets of programs came.
    fn receive(&mut self, now: Now) -> u64 {
        let mut delivered = 0;
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for _ in 0..TURN {
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier datagram met, such as a port that nobody listens at.
                Err(_) => continue,
            };
            let datagram = &mut buffer[..length];
            match self
                .engine
                .handle_datagram(Remote::Udp(from), datagram, now)
            {
                Received::Packet { packet, .. } if packet[6] == UDP => delivered += 1,
                Received::Packet { packet, .. } => {
                    self.answered |= packet[6] == ICMPV6 && packet.get(40) == Some(&ECHO_REPLY);
                }
                Received::Consumed | Received::Refused(_) => {}
            }
        }
        self.flush(now);
        delivered
    }

    fn flush(&mut self, now: Now) {
        for transmit in drain(&mut self.engine, now) {
            if let Remote::Udp(to) = transmit.to {
                // Lost, as it may be on any network.
                let _ = self.socket.send_to(&transmit.data, to);
            }
        }
    }
}

fn config(network: &NetworkId, seed: &IdentitySeed) -> EngineConfig {
    let mut random = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut random);
    EngineConfig {
        static_secret: seed.static_secret(),
        agent_address: network.prefix().agent_address(),
        seed: random,
        stamp_floor: Stamp::ZERO,
        large_packets: false,
    }
}

fn peer(key: WireguardPublicKey, address: Ipv6Addr) -> PeerConfig {
    PeerConfig {
        key,
        speaks_mesh: true,
        protocol: Protocol::MeshAes,
        allowed_ips: vec![IpAddr::from(address).into()],
        access: std::sync::Arc::default(),
        relay_only: false,
    }
}

fn echo_request(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut echo = [ECHO_REQUEST, 0, 0, 0, 0, 1, 0, 1];
    let checksum = InternetSum::default()
        .with(&from.octets())
        .with(&to.octets())
        .with_number(8)
        .with_number(ICMPV6.into())
        .with(&echo)
        .checksum();
    echo[2..4].copy_from_slice(&checksum);
    ipv6([from, to], ICMPV6, &echo)
}
