//! Which moons a node keeps a session with, where there are many.
//!
//! | of more than [`FEW`] moons | which |
//! |---|---|
//! | those at home | the first [`HOMES`] of the member's ranking that answer: everyone finds them by the roster alone |
//! | those nearby | the [`NEAR`] of the shortest round trip; another takes a place by a fifth and 2 ms |
//! | those on demand | of peers that this node talks to: their homes, and the ones nearby that they told |
//!
//! All moons' round trips are measured one after the other by a handshake each ([`Survey`]), of at most
//! [`SURVEY_MAX`] moons.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use blake2::{Blake2s256, Digest as _};
use mesh_types::Instant;

/// The bytes of a member's public key.
type Id = [u8; 32];

/// So many moons are all kept: there is nothing to choose or to find.
const FEW: usize = 4;

/// Homes of a member: one may die.
const HOMES: usize = 2;

/// A member's ranking is looked at no further than this: homes that do not answer are passed over.
pub(crate) const RANKING: usize = 4;

/// Nearby moons that are kept: the nearest, and one ready to take its place.
const NEAR: usize = 2;

/// Moons kept for others' sake at a time: those of the peers that were wanted last.
const ON_DEMAND_MAX: usize = 12;

/// Moons that are measured: the first of this node's ranking, so that each node looks at some of its own.
const SURVEY_MAX: usize = 32;

/// Between two surveys: moons seldom move, and those that are kept are measured all the time.
const SURVEY_EVERY: Duration = Duration::from_secs(3600);

/// Between two measurements, and how long an answer may take.
const TRIAL_EVERY: Duration = Duration::from_millis(100);
const TRIAL: Duration = Duration::from_secs(2);

/// What the weight of a moon for a member is a hash of.
const CONTEXT: &[u8] = b"mesh-home-moon-v1\n";

/// The moons of the roster, and what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    known: BTreeSet<Id>,
    /// This node's ranking, as far as it is measured.
    ranking: Vec<Id>,
    near: Vec<Id>,
    /// Those that this node keeps for its own sake.
    kept: BTreeSet<Id>,
    rtts: BTreeMap<Id, Duration>,
    /// Those that did not answer when they were asked.
    silent: BTreeSet<Id>,
    /// Counts the rosters, so that rankings of others are made anew.
    epoch: u64,
    /// The choice is to be made again.
    stale: bool,
    survey: Survey,
}

/// The measurement of all moons.
#[derive(Debug, Default)]
struct Survey {
    /// Those to come, the last first.
    queue: Vec<Id>,
    /// Who is measured, and since when.
    trial: Option<(Id, Instant)>,
    /// When the next one is, or the next survey.
    next: Instant,
}

/// What [`Choice::run`] wants done about a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// Shake hands with it.
    Begin(Id),
    /// It took too long.
    GiveUp(Id),
}

/// The first of `moons` in `member`'s ranking: those of the highest weight, which anyone computes alike (highest
/// random weight, Thaler and Ravishankar 1998). A moon that comes or goes changes nothing among the others.
pub(crate) fn ranking(member: &Id, moons: impl IntoIterator<Item = Id>, length: usize) -> Vec<Id> {
    let weight = |moon: &Id| {
        let hash = Blake2s256::new()
            .chain_update(CONTEXT)
            .chain_update(member)
            .chain_update(moon);
        <[u8; 32]>::from(hash.finalize())
    };
    let others = moons.into_iter().filter(|moon| moon != member);
    let mut ranked: Vec<_> = others.map(|moon| (weight(&moon), moon)).collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    let ranked = ranked.into_iter().map(|(_, moon)| moon);
    ranked.take(length).collect()
}

impl Choice {
    /// Takes the moons of another roster.
    pub(crate) fn set_known(&mut self, own: &Id, known: BTreeSet<Id>, now: Instant) {
        if self.known == known {
            return;
        }
        self.known = known;
        self.epoch += 1;
        self.ranking = ranking(own, self.known.iter().copied(), SURVEY_MAX);
        self.rtts.retain(|moon, _| self.known.contains(moon));
        self.silent.retain(|moon| self.known.contains(moon));
        self.stale = true;
        self.measure_again(now);
    }

    /// Whether there are so many that a choice is made.
    pub(crate) fn is_many(&self) -> bool {
        self.known.len() > FEW
    }

    /// Whether a member is one of them.
    pub(crate) fn is_known(&self, member: &Id) -> bool {
        self.known.contains(member)
    }

    /// Whether it has become another, at least in part; not said twice.
    pub(crate) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// What it depends on has changed.
    pub(crate) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// The round trip to a moon was measured.
    pub(crate) fn measured(&mut self, moon: &Id, rtt: Duration, now: Instant) {
        if !self.known.contains(moon) {
            return;
        }
        // RFC 6298's smoothing.
        let before = self.rtts.get(moon).copied();
        let smoothed = before.map_or(rtt, |before| (before * 7 + rtt) / 8);
        self.rtts.insert(*moon, smoothed);
        self.stale |= before != Some(smoothed) || self.silent.contains(moon);
        self.silent.remove(moon);
        if self.survey.trial.is_some_and(|(trial, _)| trial == *moon) {
            self.survey.end_trial(now);
        }
    }

    /// A moon that is asked does not answer.
    pub(crate) fn lost(&mut self, moon: &Id) {
        self.stale |= self.silent.insert(*moon);
        self.rtts.remove(moon);
    }

    /// This node is elsewhere: everything is measured again.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        self.silent.clear();
        self.measure_again(now);
    }

    /// The moons to be asked, `others` being those of peers that are wanted, the one wanted last first.
    pub(crate) fn choose(&mut self, others: impl IntoIterator<Item = Vec<Id>>) -> BTreeSet<Id> {
        if !self.is_many() {
            self.kept.clone_from(&self.known);
            return self.known.clone();
        }
        self.choose_near();
        self.kept = self.homes(&self.ranking).into_iter().collect();
        self.kept.extend(&self.near);
        let mut chosen = self.kept.clone();
        let most = chosen.len() + ON_DEMAND_MAX;
        for moon in others.into_iter().flatten() {
            if chosen.len() < most && self.known.contains(&moon) {
                chosen.insert(moon);
            }
        }
        chosen
    }

    /// Those that this node keeps for its own sake.
    pub(crate) const fn kept(&self) -> &BTreeSet<Id> {
        &self.kept
    }

    /// The moons nearby, the nearest first.
    pub(crate) fn near(&self) -> &[Id] {
        &self.near
    }

    /// Those of a ranking at which its member is found: the first two that answer, and the ones before them, which
    /// may do so again.
    pub(crate) fn homes(&self, ranking: &[Id]) -> Vec<Id> {
        let mut homes = Vec::new();
        let mut answer = 0;
        for moon in ranking.iter().take(RANKING) {
            if answer == HOMES {
                break;
            }
            answer += usize::from(!self.silent.contains(moon));
            homes.push(*moon);
        }
        homes
    }

    /// The ranking of a member, with the number of the roster that it is of.
    pub(crate) fn ranking_of(&self, member: &Id) -> (u64, Vec<Id>) {
        let ranking = ranking(member, self.known.iter().copied(), RANKING);
        (self.epoch, ranking)
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Does what is due.
    pub(crate) fn run(&mut self, now: Instant) -> Option<Trial> {
        if !self.is_many() {
            return None;
        }
        if let Some((moon, since)) = self.survey.trial {
            if now < since + TRIAL {
                return None;
            }
            self.survey.end_trial(now);
            self.stale |= self.rtts.remove(&moon).is_some();
            return Some(Trial::GiveUp(moon));
        }
        if now < self.survey.next {
            return None;
        }
        let Some(moon) = self.survey.queue.pop() else {
            self.measure_again(now);
            return None;
        };
        self.survey.trial = Some((moon, now));
        if self.survey.queue.is_empty() {
            self.survey.next = now + SURVEY_EVERY;
        }
        Some(Trial::Begin(moon))
    }

    /// When [`Choice::run`] has something to do next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let trial = self.survey.trial.map(|(_, since)| since + TRIAL);
        self.is_many().then(|| trial.unwrap_or(self.survey.next))
    }

    fn measure_again(&mut self, now: Instant) {
        self.survey.queue = self.ranking.iter().rev().copied().collect();
        self.survey.next = now + TRIAL_EVERY;
    }

    fn choose_near(&mut self) {
        let rtts = &self.rtts;
        self.near.retain(|moon| rtts.contains_key(moon));
        let mut measured: Vec<_> = rtts.iter().map(|(moon, rtt)| (*rtt, *moon)).collect();
        measured.sort_unstable();
        for (rtt, moon) in measured {
            if self.near.contains(&moon) {
                continue;
            }
            if self.near.len() < NEAR {
                self.near.push(moon);
                continue;
            }
            let worst = self.near.iter_mut().max_by_key(|near| rtts[*near]);
            if let Some(worst) = worst
                && rtt + (rtts[worst] / 5).max(Duration::from_millis(2)) < rtts[worst]
            {
                *worst = moon;
            }
        }
        self.near.sort_unstable_by_key(|moon| (rtts[moon], *moon));
    }
}

impl Survey {
    fn end_trial(&mut self, now: Instant) {
        self.trial = None;
        self.next = self.next.max(now + TRIAL_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn moon(number: u8) -> Id {
        [number; 32]
    }

    const OWN: Id = [0xff; 32];

    fn many(count: u8) -> Choice {
        let mut choice = Choice::default();
        let known = (0..count).map(moon).collect();
        choice.set_known(&OWN, known, Instant::ZERO);
        choice
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn up_to_four_moons_are_all_kept_and_none_is_measured() {
        let mut choice = many(4);
        assert_eq!(choice.choose([]).len(), 4);
        assert_eq!(choice.due(), None);
    }

    #[test]
    fn the_ranking_has_its_golden_order() {
        let ranked = ranking(&OWN, (0..30).map(moon), 4);
        let numbers: Vec<u8> = ranked.iter().map(|moon| moon[0]).collect();
        assert_eq!(numbers, GOLDEN);
    }

    /// A promise between releases: who computes another order looks for members where they are not.
    const GOLDEN: [u8; 4] = [0, 10, 25, 1];

    #[test]
    fn a_moon_that_goes_moves_only_the_members_at_home_there() {
        let members = (0_u16..400).map(|number| {
            let mut id = [7; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            id
        });
        let mut at_home = [0_u32; 30];
        for member in members {
            let before = ranking(&member, (0..30).map(moon), 2);
            for home in &before {
                at_home[usize::from(home[0])] += 1;
            }
            let after = ranking(&member, (1..30).map(moon), 2);
            let kept = before.iter().filter(|home| after.contains(home)).count();
            assert_eq!(kept, if before.contains(&moon(0)) { 1 } else { 2 });
        }
        // 800 in 30 places: 27 each, if nobody is preferred.
        assert!(
            at_home.iter().all(|count| (10..=50).contains(count)),
            "{at_home:?}"
        );
    }

    #[test]
    fn the_nearest_are_kept_beside_those_at_home_and_do_not_alternate() {
        let mut choice = many(30);
        let homes = choice.choose([]);
        assert_eq!(homes.len(), 2);
        let far: Vec<Id> = (0..30).map(moon).filter(|id| !homes.contains(id)).collect();
        for (id, rtt) in [(far[0], 40), (far[1], 30), (far[2], 29)] {
            choice.measured(&id, millis(rtt), at(0));
        }
        assert!(choice.choose([]).is_superset(&[far[1], far[2]].into()));
        assert_eq!(choice.near(), [far[2], far[1]]);
        // Nearer than one of them, but not by a fifth.
        choice.measured(&far[3], millis(26), at(0));
        choice.choose([]);
        assert_eq!(choice.near(), [far[2], far[1]]);
        choice.measured(&far[4], millis(10), at(0));
        choice.choose([]);
        assert_eq!(choice.near(), [far[4], far[2]]);
        // One that is gone makes room at once.
        choice.lost(&far[4]);
        choice.choose([]);
        assert_eq!(choice.near(), [far[3], far[2]]);
    }

    #[test]
    fn a_home_that_does_not_answer_is_kept_and_another_with_it() {
        let mut choice = many(30);
        let first = choice.ranking[0];
        choice.lost(&first);
        assert!(choice.take_stale());
        let ranked: BTreeSet<Id> = choice.ranking[..3].iter().copied().collect();
        assert_eq!(choice.choose([]), ranked);
        choice.measured(&first, millis(90), at(0));
        assert!(!choice.choose([]).contains(&choice.ranking[2].clone()));
    }

    #[test]
    fn what_is_kept_for_others_is_bounded_and_goes_to_those_wanted_last() {
        let mut choice = many(30);
        let all: Vec<Vec<Id>> = (0..30).map(|number| vec![moon(number)]).collect();
        let chosen = choice.choose(all);
        assert_eq!(chosen.len(), 2 + ON_DEMAND_MAX);
        assert!((0..12).all(|number| chosen.contains(&moon(number))));
    }

    #[test]
    fn each_moon_is_measured_once_an_hour_one_at_a_time() {
        let mut choice = many(200);
        let mut now = Instant::ZERO;
        let mut begun = Vec::new();
        while let Some(due) = choice.due().filter(|due| *due < at(3_600_000)) {
            assert!(due > now, "a busy loop at {due:?}");
            now = due;
            if let Some(Trial::Begin(id)) = choice.run(now) {
                begun.push(id);
                // Every other one answers.
                if begun.len() % 2 == 0 {
                    choice.measured(&id, millis(20), now + millis(20));
                }
            }
        }
        assert_eq!(begun, choice.ranking);
        assert_eq!(begun.len(), SURVEY_MAX);
    }
}
