//! Measurements of what users feel.
//!
//! `MESH_BIN=target/release/mesh cargo run --release --package mesh-benches -- help`
//!
//! The inner loops of the data plane are measured by `cargo bench` and `cargo xtask instructions`
//! (`docs/performance.md`).
//!
//! Everything runs in namespaces on this machine, sharing its cores: compare figures of one run with each
//! other, not with another machine's.

#![expect(clippy::print_stdout, reason = "a program that reports figures")]

mod crowd;
mod cut_off;
mod first_reply;
mod introductions;
mod memory;
mod page;
mod peers;
mod processor;
mod profile;
mod recovery;
mod relay;
mod samples;
mod traffic;
mod upgrade;
mod yardsticks;

use std::path::PathBuf;

use clap::Parser;

/// Measures what users of mesh feel
#[derive(Parser)]
enum Command {
    /// How soon the first packet of a pair is answered
    FirstReply,
    /// How soon a member that was revoked is cut off
    CutOff,
    /// What an idle agent and the controller have in memory
    Memory,
    /// The mesh beside other overlays: throughput, processor time, round trips under load, memory
    Peers(peers::Args),
    /// Where the processor's time goes: flame graphs, and what a gigabyte costs by what is done
    Profile(profile::Args),
    /// Many peers of one agent: joining all at once, throughput, memory
    Crowd,
    /// How long an upgrade interrupts a connection
    Upgrade,
    /// How soon a pair is well again, whatever happened
    Recovery(recovery::Args),
    /// What a moon forwards
    Relay,
    /// How many introductions a moon bears
    Introductions,
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::FirstReply => first_reply::run(&program()?),
        Command::CutOff => cut_off::run(&program()?),
        Command::Memory => memory::run(&program()?),
        Command::Peers(args) => peers::run(&program()?, &args),
        Command::Profile(args) => profile::run(&program()?, &args),
        Command::Crowd => crowd::run(&program()?),
        Command::Upgrade => upgrade::run(&program()?),
        Command::Recovery(args) => recovery::run(&program()?, &args),
        Command::Relay => relay::run(),
        Command::Introductions => introductions::run(),
    }
}

/// The program under test, in namespaces that end with this process.
fn program() -> anyhow::Result<PathBuf> {
    mesh_lab::sandbox::enter()?;
    mesh_lab::program_under_test()
}
