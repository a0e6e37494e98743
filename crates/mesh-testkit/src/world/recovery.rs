//! How long it takes until a pair is well again, whatever happened: one measurement for each promise.

use std::time::Duration;

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Dependence, Families, Fleet, HostId, NatBehaviour, Ports, SiteId, Talk, Verdict};

/// Between two packets in each direction.
const TICK: Duration = Duration::from_millis(20);

/// How long a pair is looked at after something happened.
const LOOK: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// From the first packet of a pair that never spoke until one has come in each direction, less three
    /// round trips through the moon.
    FirstPacket,
    /// From the first packet until packets go without a moon.
    Direct,
    /// One side comes up at another site, under traffic.
    Move,
    /// One side wakes up, under traffic of the other.
    Wake,
    /// The NAT of one side forgets its mappings, under traffic.
    Rebind,
    /// The direct path becomes a black hole in one direction, under traffic.
    OneWay,
    /// The same in both directions.
    TwoWays,
    /// The moon that relays for a pair dies, under traffic.
    MoonDies,
    /// One side's agent starts where UDP is dropped, under traffic.
    UdpBlocked,
    /// One side's site begins to drop UDP, under traffic.
    UdpLost,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::FirstPacket,
        Self::Direct,
        Self::Move,
        Self::Wake,
        Self::Rebind,
        Self::OneWay,
        Self::TwoWays,
        Self::MoonDies,
        Self::UdpBlocked,
        Self::UdpLost,
    ];

    /// What happens, for people.
    pub const fn event(self) -> &'static str {
        match self {
            Self::FirstPacket => {
                "first packet of a pair that never spoke, through a relay, less 3 round trips"
            }
            Self::Direct => "direct path after the first packet, where there is one",
            Self::Move => "one side's address changes",
            Self::Wake => "one side wakes up",
            Self::Rebind => "NAT rebinds a live mapping",
            Self::OneWay => "one-way black hole of the direct path",
            Self::TwoWays => "two-way black hole of the direct path",
            Self::MoonDies => "the relay in use dies",
            Self::UdpBlocked => "UDP blocked from the start of one side's agent",
            Self::UdpLost => "UDP blocked in mid-session",
        }
    }

    /// What is promised of 99 in 100.
    pub const fn bound(self) -> Duration {
        match self {
            Self::FirstPacket => Duration::from_millis(50),
            Self::Direct | Self::Move | Self::Wake => Duration::from_secs(1),
            Self::Rebind | Self::OneWay | Self::TwoWays | Self::MoonDies | Self::UdpBlocked => {
                Duration::from_secs(2)
            }
            Self::UdpLost => Duration::from_secs(4),
        }
    }

    /// Measures it in the world of this seed. [`Duration::MAX`] if it did not happen in 10 seconds.
    pub fn measure(self, seed: u64) -> Duration {
        let mut pair = Pair::new(seed, self == Self::MoonDies);
        match self {
            Self::FirstPacket => {
                let reached = pair.talk(LOOK).reached(&pair.fleet);
                let round_trips = pair.round_trip * 3;
                reached.map_or(Duration::MAX, |time| time.saturating_sub(round_trips))
            }
            Self::UdpBlocked => {
                pair.start_without_udp();
                let reached = pair.talk(LOOK).reached(&pair.fleet);
                reached.unwrap_or(Duration::MAX)
            }
            Self::Direct => pair.talk(LOOK).direct(&pair.fleet).unwrap_or(Duration::MAX),
            Self::Move
            | Self::Wake
            | Self::Rebind
            | Self::OneWay
            | Self::TwoWays
            | Self::MoonDies
            | Self::UdpLost => {
                pair.talk(LOOK);
                self.happen(&mut pair);
                let talk = pair.talk(LOOK);
                match talk.reached(&pair.fleet) {
                    Some(_) => talk.longest_gap(&pair.fleet),
                    None => Duration::MAX,
                }
            }
        }
    }

    fn happen(self, pair: &mut Pair) {
        let (a, b) = (pair.a, pair.b);
        match self {
            Self::FirstPacket | Self::Direct | Self::UdpBlocked => {}
            Self::Move => {
                pair.fleet.underlay.detach(a);
                pair.fleet.notice(a);
                pair.talk_while_away();
                let site = pair.elsewhere;
                pair.fleet.attach(a, site, Families::V4);
                pair.fleet.notice(a);
            }
            Self::Wake => {
                pair.fleet.underlay.set_awake(a, false);
                pair.talk_while_away();
                pair.fleet.underlay.set_awake(a, true);
                pair.fleet.notice(a);
            }
            Self::Rebind => pair.fleet.underlay.gateway_mut(pair.home).forget(),
            Self::UdpLost => pair.fleet.underlay.gateway_mut(pair.home).blocks_udp = true,
            Self::OneWay => pair.fleet.underlay.sever(a, b),
            Self::TwoWays => {
                pair.fleet.underlay.sever(a, b);
                pair.fleet.underlay.sever(b, a);
            }
            Self::MoonDies => {
                let moon = pair.moon_in_use();
                pair.fleet.set_running(moon, false);
            }
        }
    }
}

/// Two nodes behind NATs of their own, with two moons.
struct Pair {
    fleet: Fleet,
    a: HostId,
    b: HostId,
    /// Where `a` is, and another site.
    home: SiteId,
    elsewhere: SiteId,
    /// Between them through a moon.
    round_trip: Duration,
    rng: ChaCha8Rng,
}

impl Pair {
    fn new(seed: u64, relayed: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut fleet = Fleet::new(seed);
        fleet.moon();
        fleet.moon();
        let behaviours = if relayed {
            [NatBehaviour::SYMMETRIC; 2]
        } else {
            direct_pair(&mut rng)
        };
        let mut uplinks = Duration::ZERO;
        let mut sites = behaviours.map(|behaviour| {
            let site = fleet.site(behaviour);
            let latency = Duration::from_micros(rng.gen_range(2_000..60_000));
            uplinks += latency;
            let gateway = fleet.underlay.gateway_mut(site);
            gateway.line.change(|way| way.quality.latency = latency);
            site
        });
        sites.shuffle(&mut rng);
        let elsewhere = fleet.site(NatBehaviour::HOME);
        let [a, b] = sites.map(|site| fleet.node(site, Families::V4));
        fleet.publish(&[]);
        // Moons are asked again every 20 s: measure at any point of that.
        let settle = rng.gen_range(5_000..30_000);
        fleet.run_for(Duration::from_millis(settle));
        if !relayed {
            assert_eq!(fleet.verdict(a, b), Verdict::Direct, "as it was made");
        }
        Self {
            fleet,
            a,
            b,
            home: sites[0],
            elsewhere,
            // Each end's host line and uplink, and the moon's line, there and back.
            round_trip: (uplinks + Duration::from_millis(4)) * 2,
            rng,
        }
    }

    /// Lets both send for some time.
    fn talk(&mut self, time: Duration) -> Talk {
        let mut talk = Talk::between(&self.fleet, self.a, self.b);
        talk.go_on(&mut self.fleet, TICK, time);
        talk
    }

    /// Kills one side's agent and starts it again when its site drops UDP.
    fn start_without_udp(&mut self) {
        self.fleet.set_running(self.a, false);
        self.fleet.underlay.gateway_mut(self.home).blocks_udp = true;
        let millis = self.rng.gen_range(100..10_000);
        self.fleet.run_for(Duration::from_millis(millis));
        self.fleet.set_running(self.a, true);
    }

    fn talk_while_away(&mut self) {
        let millis = self.rng.gen_range(100..10_000);
        self.talk(Duration::from_millis(millis));
    }

    fn moon_in_use(&self) -> HostId {
        let view = self.fleet.view(self.a, self.b);
        let moon = self
            .fleet
            .moons()
            .find(|moon| view.is_some_and(|(_, via)| self.fleet.is_relay(via, *moon)));
        moon.expect("a symmetric pair is relayed")
    }
}

/// Two NATs that let each other through.
fn direct_pair(rng: &mut ChaCha8Rng) -> [NatBehaviour; 2] {
    let mut any = || NatBehaviour {
        mapping: *Dependence::ALL.choose(rng).expect("three"),
        filtering: *Dependence::ALL.choose(rng).expect("three"),
        ports: if rng.gen_bool(0.5) {
            Ports::Preserved
        } else {
            Ports::Random
        },
        ..NatBehaviour::HOME
    };
    loop {
        let pair = [any(), any()];
        let sides = pair.map(super::reference::Side::of);
        if super::reference::punch(sides[0], sides[1]) == Verdict::Direct {
            return pair;
        }
    }
}
