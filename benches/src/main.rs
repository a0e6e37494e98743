//! Measurements of what users feel.
//!
//! `MESH_BIN=target/release/mesh cargo run --release --package mesh-benches -- first-reply|cut-off|memory|iperf|upgrade|recovery|relay|introductions`
//!
//! The inner loops of the data plane are measured by `cargo bench` and `cargo xtask instructions`
//! (`docs/performance.md`).
//!
//! Everything runs in namespaces on this machine, sharing its cores: compare figures of one run with each
//! other, not with another machine's.

#![expect(clippy::print_stdout, reason = "a program that reports figures")]

mod cut_off;
mod first_reply;
mod introductions;
mod iperf;
mod memory;
mod recovery;
mod relay;
mod samples;
mod upgrade;
mod wireguard_go;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let what = std::env::args().nth(1);
    match what.as_deref() {
        Some("relay") => return relay::run(),
        Some("introductions") => return introductions::run(),
        _ => {}
    }
    mesh_lab::sandbox::enter()?;
    let program = mesh_lab::program_under_test()?;
    match what.as_deref() {
        Some("first-reply") => first_reply::run(&program),
        Some("cut-off") => cut_off::run(&program),
        Some("memory") => memory::run(&program),
        Some("iperf") => {
            let others: Vec<_> = std::env::args_os().skip(2).map(Into::into).collect();
            iperf::run(&program, &others)
        }
        Some("upgrade") => upgrade::run(&program),
        Some("recovery") => recovery::run(&program),
        other => Err(anyhow::anyhow!(
            "unknown measurement `{}`",
            other.unwrap_or_default()
        ))
        .context("say one of `first-reply`, `cut-off`, `memory`, `iperf`, `upgrade`, `recovery`, `relay`, `introductions`"),
    }
}
