//! Replays the committed fuzz corpus, without a fuzzer.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test in its helpers"
)]

#[path = "../fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    reason = "a crate of its own to the fuzzer, a module here"
)]
mod targets;

use std::{fs, path::Path};

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // Named first, so that the one that panics is known.
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "no corpus in {}", folder.display());
}

#[test]
fn the_corpus_of_wireguard_messages_holds() {
    replay("wireguard", targets::wireguard);
}

#[test]
fn the_corpus_of_packets_between_agents_holds() {
    replay("tunnel", targets::tunnel);
}

#[test]
fn the_corpus_of_packets_of_programs_holds() {
    replay("packet", targets::packet);
}

#[test]
fn the_corpus_of_attacks_on_the_engine_holds() {
    replay("engine", targets::engine);
}

#[test]
fn the_corpus_of_handovers_holds() {
    replay("handover", targets::handover);
}

#[test]
fn the_corpus_of_frames_for_a_moon_holds() {
    replay("relay", targets::relay);
}

#[test]
fn the_corpus_of_routers_answers_holds() {
    replay("gateway", targets::gateway);
}

#[test]
fn the_corpus_of_large_packets_holds() {
    replay("offload", targets::offload);
}

#[test]
fn the_corpus_of_control_frames_holds() {
    replay("control", targets::control);
}

#[test]
fn the_corpus_of_questions_for_names_holds() {
    replay("names", targets::names);
}

#[test]
fn the_corpus_of_inventories_holds() {
    replay("inventory", targets::inventory);
}

#[test]
fn the_corpus_of_rosters_holds() {
    replay("roster", targets::roster);
}

#[test]
fn the_corpus_of_worlds_holds() {
    replay("world", targets::world);
}
