use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const RTT: Duration = Duration::from_millis(50);

/// A way that carries packets of so many bytes inside, and who looks for that.
struct World {
    mtu: Mtu,
    via: Via,
    carries: u16,
    small_pass: bool,
    large: bool,
    warm: bool,
    now: Instant,
    /// Answers under way: when they come, and to what.
    answers: BTreeSet<(Instant, u16, Instant)>,
    sent: Vec<(Instant, u16)>,
}

/// Stands for a small echo.
const SMALL: u16 = 0;

impl World {
    fn new(via: &str, carries: u16) -> Self {
        let endpoint: std::net::SocketAddr = via.parse().unwrap();
        Self {
            mtu: Mtu::default(),
            via: endpoint.into(),
            carries,
            small_pass: true,
            large: true,
            warm: true,
            now: Instant::ZERO + Duration::from_secs(100),
            answers: BTreeSet::new(),
            sent: Vec::new(),
        }
    }

    fn facts(&self) -> MtuFacts {
        MtuFacts {
            warm: self.warm,
            large: self.large,
            patience: RTT + Duration::from_millis(100),
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.mtu.run(self.via, self.facts(), self.now);
            let small = due.small.then_some(SMALL);
            for size in due.sizes.into_iter().chain(small) {
                self.sent.push((self.now, size));
                let passes = match size {
                    SMALL => self.small_pass,
                    size => size <= self.carries,
                };
                if passes {
                    self.answers.insert((self.now + RTT, size, self.now));
                }
            }
            let next = self.mtu.due(self.facts());
            assert!(
                next.is_none_or(|at| at > self.now || at == Instant::ZERO),
                "no busy loop"
            );
            let answer = self.answers.first().map(|(at, ..)| *at);
            let next = next.map(|at| at.max(self.now + Duration::from_millis(1)));
            match next.into_iter().chain(answer).min().filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => break,
            }
            while let Some((at, size, sent)) = self.answers.first().copied()
                && at <= self.now
            {
                self.answers.pop_first();
                match size {
                    SMALL => self.mtu.small_answered(),
                    size => drop(self.mtu.answered(size, sent)),
                }
            }
        }
        self.now = end;
    }
}

const V4: &str = "192.0.2.1:4193";
const V6: &str = "[2001:db8::1]:4193";

#[test]
fn what_usual_networks_carry_is_known_after_a_round_trip() {
    for (via, outside, inside) in [
        (V4, 1500, 1440),
        (V6, 1500, 1420),
        (V4, 9000, 8940),
        (V6, 9000, 8920),
    ] {
        let headers = outside - inside;
        let mut world = World::new(via, outside - headers);
        world.run_for(RTT);
        assert_eq!(world.mtu.proven(), Some(inside));
    }
}

#[test]
fn a_narrow_network_is_known_after_two_round_trips_and_a_pause() {
    for (outside, inside) in [
        (1492, 1412),
        (1480, 1400),
        (1390, 1300),
        (1300, 1200),
        (1280, 1200),
        (600, 496),
    ] {
        let mut world = World::new(V6, outside - 80);
        world.run_for(RTT * 3 + Duration::from_millis(100));
        assert_eq!(world.mtu.proven(), Some(inside), "{outside}");
    }
}

#[test]
fn the_search_ends_and_larger_sizes_are_tried_again_after_ten_minutes() {
    let mut world = World::new(V6, 1400);
    world.run_for(Duration::from_secs(2));
    world.large = false;
    let sent = world.sent.len();
    world.run_for(Duration::from_secs(500));
    assert_eq!(world.sent.len(), sent);
    world.carries = 1420;
    world.large = true;
    world.run_for(Duration::from_secs(200));
    assert_eq!(world.mtu.proven(), Some(1420));
}

#[test]
fn nothing_is_sent_without_traffic() {
    let mut world = World::new(V6, 1420);
    (world.warm, world.large) = (false, false);
    world.run_for(Duration::from_secs(1000));
    assert!(world.sent.is_empty());
    world.warm = true;
    world.run_for(Duration::from_secs(1));
    world.warm = false;
    let sent = world.sent.len();
    world.run_for(Duration::from_secs(1000));
    assert_eq!(world.sent.len(), sent, "also when a size is proven");
}

#[test]
fn a_size_that_passes_no_more_is_left_within_two_seconds() {
    let mut world = World::new(V6, 1420);
    world.run_for(Duration::from_millis(5_250));
    assert_eq!(world.mtu.proven(), Some(1420));
    world.carries = 1380;
    let shrunk = world.now;
    while world.mtu.proven() == Some(1420) {
        world.run_for(Duration::from_millis(10));
    }
    let left = world.now.saturating_since(shrunk);
    assert!(left < Duration::from_millis(1200), "{left:?}");
    world.run_for(RTT + Duration::from_millis(10));
    assert_eq!(
        world.mtu.proven(),
        Some(1380),
        "what is left of it is found at once"
    );
}

#[test]
fn a_way_that_is_silent_altogether_says_nothing_about_sizes() {
    let mut world = World::new(V6, 1420);
    world.run_for(Duration::from_secs(5));
    (world.carries, world.small_pass) = (0, false);
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.mtu.proven(), Some(1420));
}

#[test]
fn what_a_way_carried_before_is_asked_for_when_it_is_taken_again() {
    let mut world = World::new(V6, 1420);
    world.run_for(Duration::from_millis(5_120));
    (world.large, world.carries) = (false, 1280);
    world.mtu.taken(world.now);
    world.run_for(Duration::from_millis(600));
    assert_eq!(world.mtu.proven(), Some(1280));
}

#[test]
fn answers_from_before_a_change_of_the_network_do_not_count() {
    let mut world = World::new(V6, 1420);
    world.run_for(Duration::from_millis(10));
    world.mtu.reset(world.now);
    (world.warm, world.large) = (false, false);
    world.run_for(RTT * 2);
    assert_eq!(world.mtu.proven(), None);
}

#[test]
fn a_check_costs_two_echoes_a_second() {
    let mut world = World::new(V6, 1420);
    world.run_for(Duration::from_secs(5));
    let sent = world.sent.len();
    world.run_for(Duration::from_secs(10));
    assert!((18..=21).contains(&(world.sent.len() - sent)));
    // The whole search, in bytes, on a usual network; what is larger the machine's own interface refuses.
    let search = world
        .sent
        .iter()
        .take_while(|(at, _)| *at < world.sent[0].0 + RTT * 20);
    let bytes: u32 = search
        .filter(|(_, size)| *size <= 1440)
        .map(|(_, size)| u32::from(*size))
        .sum();
    assert!(bytes < 6_000, "{bytes}");
}

proptest! {
    #[test]
    fn the_largest_of_the_usual_sizes_that_passes_is_found(
        carries in 516u16..9000,
        v6: bool,
    ) {
        let mut world = World::new(if v6 { V6 } else { V4 }, carries);
        world.run_for(Duration::from_secs(3));
        let largest = sizes(world.via, false).filter(|size| *size <= carries).max();
        prop_assert_eq!(world.mtu.proven(), largest);
    }
}
