//! Random histories of random worlds: machines move, sleep and die, NATs forget, lines break, and every
//! pair that is looked at finds its way.
//!
//! More of them, on all cores:
//! ```text
//! HISTORIES=1000..2000 CHANGES=200 cargo test --profile simulation -p mesh-testkit --test histories -- --nocapture
//! ```
//! A seed that fails goes into `histories.txt` with what it found.

use mesh_testkit::world::Campaign;

/// Without `HISTORIES` and `CHANGES`: a few seconds without optimisation.
const HISTORIES: &str = "0..8";
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
    let campaign = Campaign::run(&histories);
    assert!(campaign.failures.is_empty(), "{campaign}");
}

#[test]
fn whatever_happens_every_pair_finds_its_way() {
    let range = std::env::var("HISTORIES").unwrap_or_else(|_| HISTORIES.to_owned());
    let (first, last) = range.split_once("..").expect("a range");
    let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
    let changes = std::env::var("CHANGES").map_or(CHANGES, |changes| changes.parse().unwrap());
    let histories = Vec::from_iter((first..last).map(|seed| (seed, changes)));
    let campaign = Campaign::run(&histories);
    println!("{campaign}");
    assert_eq!(campaign.failures.len(), 0, "histories went wrong");
}
