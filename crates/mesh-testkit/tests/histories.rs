//! Random histories of random worlds: machines move, sleep and die, NATs forget, lines break, and every
//! pair that is looked at finds its way.
//!
//! A million transitions, as `cargo xtask test --all` does, or these histories:
//! ```text
//! TRANSITIONS=1000000 cargo test -p mesh-testkit --test histories -- --nocapture
//! HISTORIES=1000..2000 CHANGES=200 cargo test -p mesh-testkit --test histories -- --nocapture
//! ```
//! A seed that fails goes into `histories.txt` with what it found.

use std::str::FromStr;

use mesh_testkit::world::{Campaign, WIDE_FROM};

/// With nothing said: a second.
const TRANSITIONS: usize = 1_000;

/// Long enough for a world to be in a state that nobody thought of.
const CHANGES: usize = 100;

#[test]
fn the_committed_histories_go_well() {
    let histories: Vec<(u64, usize)> = include_str!("histories.txt")
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut number = || words.next().expect("a seed and a number of changes");
            (number().parse().unwrap(), number().parse().unwrap())
        })
        .collect();
    let campaign = Campaign::run(histories, usize::MAX, |line| println!("{line}"));
    assert!(campaign.failures.is_empty(), "{campaign}");
}

#[test]
fn whatever_happens_every_pair_finds_its_way() {
    let changes = setting("CHANGES").unwrap_or(CHANGES);
    let histories = std::env::var("HISTORIES").ok();
    let (numbers, transitions) = match &histories {
        Some(range) => {
            let (first, last) = range.split_once("..").expect("a range");
            (first.parse().unwrap()..last.parse().unwrap(), usize::MAX)
        }
        None => (0..u64::MAX, setting("TRANSITIONS").unwrap_or(TRANSITIONS)),
    };
    // Left to itself, worlds of both kinds in turns.
    let seed = |number: u64| match (&histories, number % 2) {
        (Some(_), _) => number,
        (None, 0) => number / 2,
        (None, _) => WIDE_FROM + number / 2,
    };
    let histories = numbers.map(|number| (seed(number), changes));
    let campaign = Campaign::run(histories, transitions, |line| println!("{line}"));
    println!("{campaign}");
    assert_eq!(campaign.failures.len(), 0, "histories went wrong");
}

fn setting<T: FromStr<Err: std::fmt::Debug>>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}
