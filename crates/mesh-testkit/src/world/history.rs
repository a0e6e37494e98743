mod patience;

use std::{collections::BTreeSet, fmt, time::Duration};

use arbitrary::{Result, Unstructured};
use mesh_core::{Reach, Reason};
use mesh_types::Instant;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::patience::{
    IDLE, IDLE_CONNECTED, IDLE_PER_MOON, IDLE_UNCONNECTED, INTRODUCED, INTRODUCED_LATE, Patience,
    ROSTER_TAKEN, SEARCH_MAX,
};
use super::{Change, Fleet, HostId, Talk, Underlay, Verdict, shape::Shape};

/// The first seed of a wide world: one with controllers, and with all kinds of changes.
pub const WIDE_FROM: u64 = 1 << 32;

/// Bytes that suffice for a world and for each change after it.
const WORLD_BYTES: usize = 256;
const CHANGE_BYTES: usize = 24;

/// Between two packets in each direction while a pair is looked at closely, and later on.
const TICK: Duration = Duration::from_millis(100);
const SLOW_TICK: Duration = Duration::from_secs(2);

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// After how many changes.
    pub step: usize,
    /// What was seen.
    pub what: String,
    /// All that had happened.
    pub changes: Vec<Change>,
}

impl Failure {
    /// A check that is made at every step did not hold; the panic said which.
    pub(super) fn panicked() -> Self {
        Self {
            step: 0,
            what: "panicked; what it said is above".to_owned(),
            changes: Vec::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after {} changes: {}", self.step, self.what)?;
        for change in self.changes.iter().rev().take(20).rev() {
            writeln!(f, "  {change:?}")?;
        }
        Ok(())
    }
}

/// What was seen in a history in which all went well.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Changes and looks at a pair.
    pub transitions: usize,
    /// Virtual time.
    pub time: Duration,
    /// How long it took until a pair was direct, of those that could be.
    pub direct: Vec<Duration>,
    /// How long it took until a pair had heard of each other, of those that a moon was there for.
    pub reached: Vec<Duration>,
    /// How long it took until a pair was direct, of those that only a controller was there for.
    pub introduced: Vec<Duration>,
}

impl Summary {
    /// Adds what another history saw.
    pub fn add(&mut self, other: Self) {
        self.transitions += other.transitions;
        self.time += other.time;
        self.direct.extend(other.direct);
        self.reached.extend(other.reached);
        self.introduced.extend(other.introduced);
    }
}

/// A world, and one thing after another that happens to it.
///
/// Made of bytes, so that a seed, a fuzzer and a committed case are all the same.
pub struct History {
    fleet: Fleet,
    shape: Shape,
    changes: Vec<Change>,
    summary: Summary,
    /// When something last happened that may change paths.
    disturbed: Instant,
    /// Pairs that spoke since both processes started.
    met: BTreeSet<(HostId, HostId)>,
}

/// Lets a seed's history run for so many changes.
///
/// # Errors
///
/// [`Failure`]: an invariant did not hold. Those that are checked at every step panic.
pub fn run_seed(seed: u64, changes: usize) -> std::result::Result<Summary, Failure> {
    let mut bytes = vec![0; WORLD_BYTES + CHANGE_BYTES * changes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    run_bytes(seed, &bytes, changes)
}

/// Lets the history that `bytes` tell run, up to so many changes.
///
/// # Errors
///
/// As [`run_seed`].
pub fn run_bytes(seed: u64, bytes: &[u8], changes: usize) -> std::result::Result<Summary, Failure> {
    let mut bytes = Unstructured::new(bytes);
    let Ok(mut history) = History::begin(seed, &mut bytes) else {
        return Ok(Summary::default());
    };
    while history.changes.len() < changes && !bytes.is_empty() {
        match history.step(&mut bytes) {
            Ok(Ok(())) => {}
            Ok(Err(what)) => {
                return Err(Failure {
                    step: history.changes.len(),
                    what,
                    changes: std::mem::take(&mut history.changes),
                });
            }
            // Too few bytes are left for another step.
            Err(_) => break,
        }
    }
    Ok(std::mem::take(&mut history.summary))
}

impl History {
    fn begin(seed: u64, bytes: &mut Unstructured<'_>) -> Result<Self> {
        let mut fleet = Fleet::new(seed);
        let shape = Shape::make(&mut fleet, seed >= WIDE_FROM, bytes)?;
        fleet.publish(&[]);
        fleet.run_for(Duration::from_secs(30));
        Ok(Self {
            fleet,
            shape,
            changes: Vec::new(),
            summary: Summary::default(),
            disturbed: Instant::ZERO,
            met: BTreeSet::new(),
        })
    }

    /// Something happens, and then a pair may be looked at.
    fn step(&mut self, bytes: &mut Unstructured<'_>) -> Result<std::result::Result<(), String>> {
        let change = Change::make(&self.fleet, &self.shape, bytes)?;
        self.changes.push(change);
        self.summary.transitions += 1;
        let before = self.fleet.now().instant;
        self.apply(change);
        if change == Change::Pass(IDLE)
            && let Err(what) = self.expect_silence()
        {
            return Ok(Err(what));
        }
        let mut outcome = self.expect_rosters();
        if outcome.is_ok()
            && bytes.ratio(1, 2)?
            && let Some((a, b)) = self.pair(bytes)?
        {
            self.summary.transitions += 1;
            outcome = self.look_at(a, b);
        }
        self.summary.time += self.fleet.now().instant.saturating_since(before);
        Ok(outcome)
    }

    fn apply(&mut self, change: Change) {
        change.apply(&mut self.fleet);
        if change.disturbs() {
            self.disturbed = self.fleet.now().instant;
        }
        if let Change::Run(host, _) = change {
            self.met.retain(|(a, b)| *a != host && *b != host);
        }
        if let Change::Member(host, _) = change {
            self.met.retain(|(a, b)| *a != host && *b != host);
        }
    }

    /// Two machines, which reach each other if such are easily found.
    fn pair(&self, bytes: &mut Unstructured<'_>) -> Result<Option<(HostId, HostId)>> {
        let mut found = None;
        for _ in 0..4 {
            let a = *bytes.choose(&self.shape.nodes)?;
            let b = self.shape.machine(bytes)?;
            if a != b {
                found = Some((a.min(b), a.max(b)));
                if self.fleet.is_introduced(a, b) && self.fleet.share_a_moon(a, b) {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// A pair sends to each other.
    fn look_at(&mut self, a: HostId, b: HostId) -> std::result::Result<(), String> {
        let fleet = &mut self.fleet;
        fleet.forget_arrived();
        let calm = fleet.is_calm(&self.shape.sites);
        let began = fleet.now().instant;
        let disturbed = self.disturbed.max(fleet.roster_taken());
        let settled = began.saturating_since(disturbed) >= Duration::from_secs(60);
        // A moon has a session with everyone already, and may have been looking at an old port since.
        let with_moon = fleet.is_moon(a) || fleet.is_moon(b);
        let fresh = settled && !with_moon && self.met.insert((a, b));
        let patience = match (fresh, calm) {
            (true, true) => Patience::FRESH,
            (true, false) => Patience::FRESH_IN_RAIN,
            (false, true) => Patience::DISTURBED,
            (false, false) => Patience::DISTURBED_IN_RAIN,
        };
        let must_reach = |fleet: &Fleet| fleet.is_introduced(a, b) && fleet.share_a_moon(a, b);
        let served = settled && fleet.is_served(a) && fleet.is_served(b);
        let by_udp = fleet.share_a_moon_by_udp(a, b);
        let until_dialled = |patience: Patience| match by_udp {
            true => patience,
            false => patience.until_dialled(),
        };
        let mut patience = until_dialled(patience);
        let is_to_be_reached = must_reach(fleet);
        let mut talk = Talk::between(fleet, a, b);
        talk.go_on(fleet, TICK, Duration::from_secs(1));
        if !is_to_be_reached {
            return self.expect_introduced(a, b, talk, served && calm);
        }
        while talk.reached(fleet).is_none() && talk.lasts(fleet) < patience.reach {
            talk.go_on(fleet, TICK, TICK);
            if fleet.roster_taken() > began {
                let disturbed = match calm {
                    true => Patience::DISTURBED,
                    false => Patience::DISTURBED_IN_RAIN,
                };
                let after = fleet.roster_taken().saturating_since(began);
                patience = until_dialled(disturbed).after(after);
            }
        }
        if !must_reach(fleet) {
            return Ok(());
        }
        let Some(reached) = talk.reached(fleet).filter(|time| *time <= patience.reach) else {
            let seen = talk.reached(fleet);
            return Err(self.complaint("reached", a, b, seen, patience.reach));
        };
        self.summary.reached.push(reached);
        if self.fleet.verdict(a, b) == Verdict::Direct {
            self.expect_direct(a, b, talk, patience)?;
        } else {
            // Past the end of a search, so that there is something to be said.
            talk.go_on(&mut self.fleet, SLOW_TICK, SEARCH_MAX);
        }
        self.expect_reasons(a, b, calm)
    }

    /// A pair without a moon is direct by what a controller tells, if addresses suffice for that.
    fn expect_introduced(
        &mut self,
        a: HostId,
        b: HostId,
        mut talk: Talk,
        fresh: bool,
    ) -> std::result::Result<(), String> {
        let fleet = &mut self.fleet;
        let is_possible = |fleet: &Fleet| {
            fleet.is_introduced(a, b)
                && fleet.share_a_controller(a, b)
                && fleet.verdict_by_addresses(a, b) == Verdict::Direct
        };
        if !is_possible(fleet) {
            return Ok(());
        }
        let bound = match (fresh, fleet.is_calm(&self.shape.sites)) {
            (true, _) => INTRODUCED,
            (false, true) => INTRODUCED_LATE,
            (false, false) => INTRODUCED_LATE * 2,
        };
        while talk.direct(fleet).is_none() && talk.lasts(fleet) < bound {
            talk.go_on(fleet, TICK, TICK);
        }
        let direct = talk.direct(fleet).filter(|time| *time <= bound);
        if direct.is_none() && is_possible(fleet) {
            let seen = talk.direct(fleet);
            return Err(self.complaint("introduced", a, b, seen, bound));
        }
        self.summary.introduced.extend(direct);
        Ok(())
    }

    /// Who could have had the newest roster from a controller for long has it.
    fn expect_rosters(&self) -> std::result::Result<(), String> {
        let fleet = &self.fleet;
        let bound = match fleet.is_calm(&self.shape.sites) {
            true => ROSTER_TAKEN,
            false => 2 * ROSTER_TAKEN,
        };
        if fleet.now().instant.saturating_since(self.disturbed) < bound {
            return Ok(());
        }
        let mut late = fleet
            .hosts()
            .filter(|host| !fleet.is_up_to_date(*host) && fleet.reaches_the_newest_roster(*host));
        match late.next() {
            Some(host) => Err(format!(
                "{host:?} does not have the newest roster after {bound:?}, connected: {}",
                fleet.is_served(host)
            )),
            None => Ok(()),
        }
    }

    /// What each of a pair that has just been talking says of the other is so, as far as the world knows.
    fn expect_reasons(&self, a: HostId, b: HostId, calm: bool) -> std::result::Result<(), String> {
        if !self.fleet.is_introduced(a, b) {
            return Ok(());
        }
        for (host, other) in [(a, b), (b, a)] {
            let Some(reason) = self.fleet.reason(host, other) else {
                return Err(format!("{host:?} has no reason for {other:?}"));
            };
            if let Some(what) = self.contradiction(host, other, reason, calm) {
                let complaint = self.complaint(what, a, b, None, Duration::ZERO);
                return Err(format!(
                    "{host:?} says {reason:?} of {other:?}: {complaint}"
                ));
            }
        }
        Ok(())
    }

    fn contradiction(
        &self,
        host: HostId,
        other: HostId,
        reason: Reason,
        calm: bool,
    ) -> Option<&'static str> {
        let now = self.fleet.now().instant;
        let verdict = self.fleet.verdict(host, other);
        let relayed = self
            .fleet
            .view(host, other)
            .and_then(|(_, via)| via)
            .is_some_and(|via| via.is_relay());
        let wrong = [
            (
                (reason.reach() == Reach::Relayed && !relayed)
                    || (reason.reach() == Reach::Straight && relayed),
                "of another way than packets take",
            ),
            (
                matches!(reason, Reason::Searching { since }
                    if now.saturating_since(since) >= SEARCH_MAX),
                "searching for longer than a search lasts",
            ),
            (
                matches!(reason, Reason::BothNatsVary { .. }) && verdict == Verdict::Direct,
                "telling of NATs where there is a way",
            ),
            (
                matches!(reason, Reason::NoNetwork { .. })
                    && !self.fleet.underlay.endpoints(host).is_empty(),
                "without a network that is there",
            ),
            // Both have just heard from each other.
            (
                calm && !matches!(reason.reach(), Reach::Straight | Reach::Relayed),
                "of who has just been talking",
            ),
        ];
        let (_, what) = wrong.into_iter().find(|(is_wrong, _)| *is_wrong)?;
        Some(what)
    }

    fn expect_direct(
        &mut self,
        a: HostId,
        b: HostId,
        mut talk: Talk,
        patience: Patience,
    ) -> std::result::Result<(), String> {
        let fleet = &mut self.fleet;
        while talk.direct(fleet).is_none() && talk.lasts(fleet) < patience.direct {
            let tick = match talk.lasts(fleet) < Duration::from_secs(5) {
                true => TICK,
                false => SLOW_TICK,
            };
            talk.go_on(fleet, tick, tick);
        }
        // Mappings that expired meanwhile may have changed what is possible.
        let direct = talk.direct(fleet).filter(|time| *time <= patience.direct);
        let is_possible = fleet.is_introduced(a, b) && fleet.verdict(a, b) == Verdict::Direct;
        if direct.is_none() && is_possible {
            let seen = talk.direct(fleet);
            return Err(self.complaint("direct", a, b, seen, patience.direct));
        }
        self.summary.direct.extend(direct);
        Ok(())
    }

    /// Nobody has said anything for long.
    fn expect_silence(&mut self) -> std::result::Result<(), String> {
        let before = std::mem::take(&mut self.fleet.traffic);
        self.fleet.take_said_to_controllers();
        self.fleet.run_for(Duration::from_secs(60));
        let said = self.fleet.take_said_to_controllers();
        let (connected, others) = self.fleet.lines();
        let said_max = connected * IDLE_CONNECTED + others * IDLE_UNCONNECTED;
        if said > u64::try_from(said_max).unwrap_or(u64::MAX) {
            return Err(format!(
                "{said} messages with controllers in a silent minute, {connected} connected and {others} not"
            ));
        }
        let seen = self.fleet.traffic.clone();
        let machines = self.fleet.hosts().count();
        let per_moon = match self.fleet.is_calm(&self.shape.sites) {
            true => IDLE_PER_MOON,
            false => 2 * IDLE_PER_MOON,
        };
        let budget = machines * self.shape.moons.len() * per_moon;
        if !seen.strays.is_empty() || !seen.between.is_empty() {
            let mut what = format!("not silent: {seen:?} after {before:?}\n");
            for (a, b) in seen.between.keys().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
                what += &format!("  {a:?} sees {b:?} {:?}\n", self.fleet.view(a, b));
                what += &self.ways(a, b);
            }
            return Err(what);
        }
        if seen.with_moons > u64::try_from(budget).unwrap_or(u64::MAX) {
            return Err(format!(
                "{} datagrams with moons in a silent minute, more than {budget}: {:?}",
                seen.with_moons, seen.with_moons_by
            ));
        }
        Ok(())
    }

    fn ways(&self, host: HostId, other: HostId) -> String {
        let now = self.fleet.now().instant;
        let mut lines = format!("  ways of {host:?} to {other:?}\n");
        for path in self.fleet.paths(host, other) {
            let answered = path.answered.map(|at| now.saturating_since(at));
            lines += &format!(
                "    {:?} {:?}, rtt {:?}, answered {answered:?} ago, {} unanswered{}\n",
                path.via,
                path.origin,
                path.rtt,
                path.unanswered,
                if path.selected { ", selected" } else { "" },
            );
        }
        for event in self.fleet.story(host, other).history {
            let ago = now.saturating_since(event.at);
            lines += &format!("    {ago:?} ago {:?}, {} times\n", event.what, event.times);
        }
        lines
    }

    /// What is between a host and the internet.
    fn gateways(&self, host: HostId) -> String {
        let underlay = &self.fleet.underlay;
        let mut lines = String::new();
        for mut site in underlay.sites_of(host) {
            while site != Underlay::INTERNET {
                let gateway = underlay.gateway(site);
                lines += &format!(
                    "  {host:?} behind {site:?}: {}, {}, UDP blocked: {}, loss {} %\n",
                    gateway.v4,
                    gateway.v6,
                    gateway.blocks_udp,
                    gateway.line.up.quality.loss_percent
                );
                site = underlay.parent(site);
            }
        }
        lines
    }

    fn moons_of(&self, host: HostId) -> String {
        let mut lines = format!(
            "  {host:?} asks moons, who relay for it: {:?}\n",
            self.fleet.moons_of(host)
        );
        for moon in self.fleet.moons() {
            lines += &format!(
                "  {host:?} and moon {moon:?}, {}: {:?}, {:?}\n",
                if self.fleet.share_a_moon(host, moon) {
                    "reachable"
                } else {
                    "unreachable"
                },
                self.fleet.view(host, moon),
                self.fleet.view(moon, host),
            );
            if self.fleet.share_a_moon(host, moon) {
                lines += &self.ways(host, moon);
                lines += &self.ways(moon, host);
            }
        }
        lines
    }

    fn complaint(
        &self,
        what: &str,
        a: HostId,
        b: HostId,
        seen: Option<Duration>,
        bound: Duration,
    ) -> String {
        let fleet = &self.fleet;
        format!(
            "not {what} within {bound:?} but {seen:?}: {a:?} and {b:?}, {:?}, they see {:?} and {:?}, at {:?} and {:?}\n{}{}{}{}{}{}",
            fleet.verdict(a, b),
            fleet.view(a, b),
            fleet.view(b, a),
            fleet.underlay.endpoints(a),
            fleet.underlay.endpoints(b),
            self.gateways(a),
            self.gateways(b),
            self.ways(a, b),
            self.ways(b, a),
            self.moons_of(a),
            self.moons_of(b),
        )
    }
}

impl Drop for History {
    #[expect(clippy::print_stderr, reason = "what led to a panic is lost otherwise")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {} changes, the last of which:", self.changes.len());
            for change in self.changes.iter().rev().take(20).rev() {
                eprintln!("  {change:?}");
            }
        }
    }
}
