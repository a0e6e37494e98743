//! What is promised of a pair's recovery, measured with real processes behind the kernel's own routers.

use std::{
    fmt, fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mesh_api::{PathKind, PeerStatus};
use nix::sys::signal::Signal;

use crate::{Families, Fleet, Lab, Router, SiteId, Talk, fleet::DAEMON_PATIENCE};

/// How long a pair is looked at after something happened: longer than any promise.
const LOOK: Duration = Duration::from_secs(5);

/// How long a machine is away that comes back.
const AWAY: Duration = Duration::from_secs(4);

/// The two that talk, and the moons that they know.
const PAIR: [&str; 2] = ["galena", "pyrite"];
const MOONS: [&str; 2] = ["cinnabar", "rosegold"];

/// Something that happens to a pair. No controller runs in any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// From the first packet of a pair that never spoke until one has come in each direction.
    FirstPacket,
    /// From the first packet until both send straight.
    Direct,
    /// One side moves to another site, by another interface.
    Move,
    /// One side's interface gets other addresses.
    Renumber,
    /// One side's default route moves to its other interface, by IPv4.
    SwitchV4,
    /// The same by IPv6, where there is no IPv4.
    SwitchV6,
    /// The same by both.
    SwitchBoth,
    /// One side's default route by IPv6 goes, and IPv4 is left.
    V6ToV4,
    /// One side's default routes go and come back.
    RouteBack,
    /// One side's interface is down for some seconds.
    LinkBack,
    /// One side stood still for some seconds, all its processes and clocks but the kernel's.
    Wake,
    /// The NAT of one side forgets its mappings and gives others.
    Rebind,
    /// The straight way becomes a black hole in one direction.
    OneWay,
    /// The same in both.
    TwoWays,
    /// The moon that relays for a pair dies.
    MoonDies,
    /// A router lets no UDP through when the agent starts.
    NoUdp,
    /// A router lets no UDP through any more.
    UdpLost,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::FirstPacket,
        Self::Direct,
        Self::Move,
        Self::Renumber,
        Self::SwitchV4,
        Self::SwitchV6,
        Self::SwitchBoth,
        Self::V6ToV4,
        Self::RouteBack,
        Self::LinkBack,
        Self::Wake,
        Self::Rebind,
        Self::OneWay,
        Self::TwoWays,
        Self::MoonDies,
        Self::NoUdp,
        Self::UdpLost,
    ];

    /// What happens, for people.
    pub const fn event(self) -> &'static str {
        match self {
            Self::FirstPacket => "first packet of a pair that never spoke, through a relay",
            Self::Direct => "direct path after the first packet, where there is one",
            Self::Move => "one side moves to another network",
            Self::Renumber => "one side's address changes",
            Self::SwitchV4 => "one side's default route changes its interface, IPv4",
            Self::SwitchV6 => "one side's default route changes its interface, IPv6",
            Self::SwitchBoth => "one side's default routes change their interface, both families",
            Self::V6ToV4 => "one side loses IPv6 and keeps IPv4",
            Self::RouteBack => "one side's default routes come back after 4 s",
            Self::LinkBack => "one side's interface comes back after 4 s",
            Self::Wake => "one side's agent goes on after it stood still for 4 s",
            Self::Rebind => "NAT rebinds a live mapping",
            Self::OneWay => "one-way black hole of the direct path",
            Self::TwoWays => "two-way black hole of the direct path",
            Self::MoonDies => "the relay in use dies",
            Self::NoUdp => "UDP blocked from the start: first reply after the agent's start",
            Self::UdpLost => "UDP blocked in mid-session",
        }
    }

    /// What is promised of 99 in 100.
    pub const fn bound(self) -> Duration {
        match self {
            // Round trips take no time here.
            Self::FirstPacket => Duration::from_millis(50),
            Self::Direct
            | Self::Move
            | Self::Renumber
            | Self::SwitchV4
            | Self::SwitchV6
            | Self::SwitchBoth
            | Self::V6ToV4
            | Self::RouteBack
            | Self::LinkBack
            | Self::Wake => Duration::from_secs(1),
            Self::Rebind | Self::OneWay | Self::TwoWays | Self::MoonDies | Self::NoUdp => {
                Duration::from_secs(2)
            }
            Self::UdpLost => Duration::from_secs(4),
        }
    }

    /// Whether the first of the pair has a second interface.
    const fn switches(self) -> bool {
        matches!(self, Self::SwitchV4 | Self::SwitchV6 | Self::SwitchBoth)
    }

    /// Pairs of routers, from the internet down to each machine, between which there is a direct path: those
    /// that [`Promise::Direct`] is measured with, round after round.
    pub const STRAIGHT: [[&'static [Router]; 2]; 9] = [
        [&[Router::Masquerade], &[Router::Masquerade]],
        [&[], &[Router::MasqueradeRandom]],
        [&[Router::Firewall], &[Router::Firewall]],
        [&[Router::Masquerade], &[Router::Firewall]],
        [&[Router::FirewallIpv6], &[Router::FirewallIpv6]],
        [&[Router::DualStack], &[Router::DualStack]],
        [
            &[Router::Masquerade, Router::Masquerade],
            &[Router::Masquerade],
        ],
        [&[Router::MasqueradeRandom, Router::Masquerade], &[]],
        [
            &[Router::Open, Router::MasqueradeUnfiltered],
            &[Router::Open, Router::MasqueradeUnfiltered],
        ],
    ];

    /// What is between each of the pair and the internet, from there down.
    const fn routers(self, round: usize) -> [&'static [Router]; 2] {
        match self {
            Self::Direct => Self::STRAIGHT[round % Self::STRAIGHT.len()],
            Self::MoonDies => [&[Router::MasqueradeRandom]; 2],
            Self::SwitchV6 => [&[Router::FirewallIpv6]; 2],
            Self::SwitchBoth | Self::V6ToV4 => [&[Router::Firewall]; 2],
            Self::RouteBack => [&[Router::DualStack]; 2],
            Self::FirstPacket
            | Self::Move
            | Self::Renumber
            | Self::SwitchV4
            | Self::LinkBack
            | Self::Wake
            | Self::Rebind
            | Self::OneWay
            | Self::TwoWays
            | Self::NoUdp
            | Self::UdpLost => [&[Router::Masquerade]; 2],
        }
    }

    /// Measures it once with the `mesh` program at `program`: the longest time in which nothing came in one
    /// of the directions, from the event on, or from when the machine is back. `round` chooses among the pairs
    /// of routers.
    ///
    /// # Errors
    ///
    /// It did not come to what is measured.
    pub fn measure(self, program: &Path, round: usize) -> anyhow::Result<Duration> {
        let mut pair = Pair::new(program, self, round)?;
        match self {
            Self::FirstPacket => {
                pair.start()?;
                pair.talk()?.reached(LOOK)
            }
            Self::Direct => {
                pair.start()?;
                let begin = Instant::now();
                let _talk = pair.talk()?;
                pair.wait_path(PathKind::Direct)?;
                Ok(begin.elapsed())
            }
            Self::NoUdp => {
                pair.fleet.lab.drop_udp(pair.homes[0])?;
                pair.fleet.start_agent(MOONS[0])?;
                pair.fleet.start_agent(PAIR[1])?;
                pair.reach(PAIR[1], MOONS[0])?;
                let begin = Instant::now();
                pair.fleet.start_agent(PAIR[0])?;
                pair.reach(PAIR[0], PAIR[1])?;
                Ok(begin.elapsed())
            }
            Self::MoonDies => {
                pair.start()?;
                let talk = pair.talk()?;
                talk.reached(LOOK)?;
                let galena = pair.peer(0)?;
                let moon = galena.relay.context("a pair that is not relayed")?;
                let since = Instant::now();
                pair.fleet.agent_process(moon.as_str())?.kill()?;
                Ok(talk.longest_gap(since, LOOK))
            }
            Self::Move
            | Self::Renumber
            | Self::SwitchV4
            | Self::SwitchV6
            | Self::SwitchBoth
            | Self::V6ToV4
            | Self::RouteBack
            | Self::LinkBack
            | Self::Wake
            | Self::Rebind
            | Self::OneWay
            | Self::TwoWays
            | Self::UdpLost => {
                pair.start()?;
                let talk = pair.talk()?;
                pair.wait_path(PathKind::Direct)?;
                let since = self.happen(&mut pair)?;
                let gap = talk.longest_gap(since, LOOK);
                if gap > self.bound() {
                    pair.explain();
                }
                Ok(gap)
            }
        }
    }

    /// Returns the moment from which on it counts.
    fn happen(self, pair: &mut Pair) -> anyhow::Result<Instant> {
        let [a, b] = PAIR;
        let elsewhere = pair.elsewhere;
        let lab = &mut pair.fleet.lab;
        let now = Instant::now();
        match self {
            Self::Move => lab.join(a, elsewhere)?,
            Self::Renumber => lab.renumber(a)?,
            Self::SwitchV4 => lab.route_by(a, "eth1", Families::V4)?,
            Self::SwitchV6 => lab.route_by(a, "eth1", Families::V6)?,
            Self::SwitchBoth => lab.route_by(a, "eth1", Families::Both)?,
            Self::V6ToV4 => lab.unroute(a, Families::V6)?,
            Self::RouteBack => {
                lab.unroute(a, Families::Both)?;
                std::thread::sleep(AWAY);
                let back = Instant::now();
                lab.route_by(a, "eth0", Families::Both)?;
                return Ok(back);
            }
            Self::LinkBack => {
                lab.take_down(a, "eth0")?;
                std::thread::sleep(AWAY);
                let back = Instant::now();
                lab.set_up(a, "eth0")?;
                return Ok(back);
            }
            Self::Wake => {
                let agent = pair.fleet.agent_process(a)?;
                agent.signal(Signal::SIGSTOP)?;
                std::thread::sleep(AWAY);
                let back = Instant::now();
                agent.signal(Signal::SIGCONT)?;
                return Ok(back);
            }
            Self::Rebind => lab.rebind(pair.homes[0])?,
            Self::OneWay => lab.sever(a, b)?,
            Self::TwoWays => {
                lab.sever(a, b)?;
                lab.sever(b, a)?;
            }
            Self::UdpLost => lab.drop_udp(pair.homes[0])?,
            Self::FirstPacket | Self::Direct | Self::MoonDies | Self::NoUdp => {}
        }
        Ok(now)
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.event())
    }
}

/// Two machines behind routers, and two moons, with nothing started.
struct Pair {
    fleet: Fleet,
    homes: [SiteId; 2],
    /// Where the first one may move to, and has its second interface.
    elsewhere: SiteId,
}

impl Pair {
    fn new(program: &Path, promise: Promise, round: usize) -> anyhow::Result<Self> {
        let routers = promise.routers(round);
        let mut fleet = Fleet::of(program, &[MOONS[0], MOONS[1], PAIR[0], PAIR[1]])?;
        fleet.set_moons(&MOONS)?;
        let lab = &mut fleet.lab;
        let mut homes = [Lab::INTERNET; 2];
        for i in [0, 1] {
            homes[i] = below(lab, routers[i])?;
            lab.join(PAIR[i], homes[i])?;
        }
        let elsewhere = below(lab, routers[0])?;
        if promise.switches() {
            lab.add_uplink(PAIR[0], "eth1", elsewhere)?;
        }
        for moon in MOONS {
            let path = fleet.files(moon)?.agent_config_path();
            let mut file = fs::File::options().append(true).open(path)?;
            file.write_all(b"relay_listen = \"[::]:443\"\n")?;
        }
        Ok(Self {
            fleet,
            homes,
            elsewhere,
        })
    }

    /// Prints what each of the pair tells of the other.
    #[expect(clippy::print_stderr, reason = "a figure alone says nothing of why")]
    fn explain(&self) {
        for (name, other) in [(PAIR[0], PAIR[1]), (PAIR[1], PAIR[0])] {
            match self.why(name, other) {
                Ok(story) => eprintln!("{name}: {story}"),
                Err(error) => eprintln!("{name} does not say why: {error:#}"),
            }
        }
    }

    fn why(&self, name: &str, other: &str) -> anyhow::Result<String> {
        let socket = self.fleet.files(name)?.agent_socket();
        let socket = socket.to_str().context("a path that is no text")?;
        let arguments = ["why", other, "--socket", socket];
        let output = self.fleet.mesh(name, &arguments)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts all agents, and waits until the moons relay for the pair, and for each other.
    fn start(&mut self) -> anyhow::Result<()> {
        for name in self.fleet.names() {
            self.fleet.spawn_agent(&name)?;
        }
        for name in self.fleet.names() {
            self.fleet
                .agent_process(&name)?
                .wait_ready(DAEMON_PATIENCE)?;
        }
        let others = u64::try_from(self.fleet.names().len() - 1)?;
        for moon in MOONS {
            self.fleet
                .wait_status(moon, DAEMON_PATIENCE, "relays for the pair", |status| {
                    let relaying = status.relaying.as_ref();
                    relaying.is_some_and(|relaying| relaying.clients >= others)
                })?;
        }
        Ok(())
    }

    fn talk(&self) -> anyhow::Result<Talk> {
        Talk::between(&self.fleet, PAIR[0], PAIR[1])
    }

    fn reach(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let answer = self.fleet.ping(from, to, DAEMON_PATIENCE)?;
        answer.with_context(|| format!("`{from}` does not reach `{to}`"))?;
        Ok(())
    }

    /// What one of the pair says of the other.
    fn peer(&self, of: usize) -> anyhow::Result<PeerStatus> {
        let mut peers = self.fleet.status(PAIR[of])?.peers.into_iter();
        peers
            .find(|peer| peer.name.as_str() == PAIR[1 - of])
            .context("a pair that does not know each other")
    }

    fn wait_path(&self, path: PathKind) -> anyhow::Result<()> {
        for of in [0, 1] {
            self.fleet
                .wait_status(PAIR[of], DAEMON_PATIENCE, "sends as it should", |status| {
                    status
                        .peers
                        .iter()
                        .any(|peer| peer.name.as_str() == PAIR[1 - of] && peer.path == Some(path))
                })?;
        }
        Ok(())
    }
}

/// A site below a chain of routers, the first of which is joined to the internet.
fn below(lab: &mut Lab, routers: &[Router]) -> anyhow::Result<SiteId> {
    let mut above = Lab::INTERNET;
    for router in routers {
        above = lab.site(*router, above)?;
    }
    Ok(above)
}
