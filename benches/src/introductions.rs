//! What an introduction costs the engine: true ones, repeated ones, and such that are none.
//!
//! ```text
//! cargo run --release --package mesh-benches -- introductions
//! ```

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant as Clock},
};

use anyhow::Context as _;
use mesh_benches::pair::{AGENTS, Pair, drain};
use mesh_core::{Protocol, Received, Remote};
use mesh_wire::{
    tunnel::{self, TunnelMessage},
    wireguard::{DATA_HEADER_BYTES, INITIATION_BYTES, data_message_bytes},
};

/// Introductions of a round, and of a second in the last column: what a flood is taken to be.
const INTRODUCTIONS: u32 = 100_000;
const ROUNDS: usize = 5;

/// Endpoints in one: as many as are taken.
const ENDPOINTS: u32 = 16;

/// The time between two.
const EACH: Duration = Duration::from_micros(10);

pub(crate) fn run() -> anyhow::Result<()> {
    println!(
        "ns an introduction of {ENDPOINTS} endpoints, and of a core for {INTRODUCTIONS} a second:"
    );
    let print = |what: &str, nanos: u128| {
        let percent = nanos * u128::from(INTRODUCTIONS) / 10_000_000;
        println!("{nanos:>7} ns {percent:>4} %  {what}");
    };
    let told = |pair: &mut Pair, number| {
        let key = pair.ends[1].key;
        let now = pair.now;
        let told = &mut pair.ends[0].engine;
        told.set_candidates(&key, endpoints(number), now);
        told.probe(&key, now);
    };
    print("by a controller, other endpoints each time", measure(told)?);
    let repeated = |pair: &mut Pair, _| told(pair, 0);
    print("by a controller, the same again", measure(repeated)?);
    print(
        "by the peer in its session, other endpoints each time",
        measure_said(|number| number, as_it_is)?,
    );
    print(
        "by the peer in its session, the same again",
        measure_said(|_| 0, as_it_is)?,
    );
    let forge = |_: u32, datagram: &mut Vec<u8>| {
        if let Some(last) = datagram.last_mut() {
            *last ^= 1;
        }
    };
    print(
        "forged, with the index of the session",
        measure_said(|number| number, forge)?,
    );
    let mut first = None;
    let replay = move |_: u32, datagram: &mut Vec<u8>| {
        first
            .get_or_insert_with(|| datagram.clone())
            .clone_into(datagram);
    };
    print(
        "one of the peer's, replayed",
        measure_said(|number| number, replay)?,
    );
    let handshake = |_: u32, datagram: &mut Vec<u8>| {
        datagram.resize(INITIATION_BYTES, 7);
        datagram.truncate(INITIATION_BYTES);
        datagram[..4].copy_from_slice(&[1, 0, 0, 0]);
    };
    print(
        "a handshake of a stranger's",
        measure_said(|number| number, handshake)?,
    );
    Ok(())
}

fn as_it_is(_: u32, _: &mut Vec<u8>) {}

/// Nanoseconds an introduction, the engine's own work after each included.
fn measure(mut introduce: impl FnMut(&mut Pair, u32)) -> anyhow::Result<u128> {
    let round = || {
        let mut pair = Pair::new(Protocol::Wireguard)?;
        let begin = Clock::now();
        for number in 0..INTRODUCTIONS {
            introduce(&mut pair, number);
            run_timers(&mut pair);
        }
        Ok(begin.elapsed().as_nanos() / u128::from(INTRODUCTIONS))
    };
    median(round)
}

/// The same for datagrams that the peer, or somebody in its name, sends: of which number each is, and what
/// somebody changes on the way. Making them is not counted.
fn measure_said(
    number_of: impl Fn(u32) -> u32,
    mut change: impl FnMut(u32, &mut Vec<u8>),
) -> anyhow::Result<u128> {
    let round = || {
        let mut pair = Pair::new(Protocol::Wireguard)?;
        let mut datagrams = Vec::new();
        for number in 0..INTRODUCTIONS {
            let mut datagram = said(&pair, number_of(number))?;
            change(number, &mut datagram);
            datagrams.push(datagram);
        }
        let from = Remote::Udp(pair.ends[1].at);
        let begin = Clock::now();
        for mut datagram in datagrams {
            let now = pair.now;
            let received = pair.ends[0]
                .engine
                .handle_datagram(from, &mut datagram, now);
            anyhow::ensure!(!matches!(black_box(received), Received::Packet { .. }));
            run_timers(&mut pair);
        }
        Ok(begin.elapsed().as_nanos() / u128::from(INTRODUCTIONS))
    };
    median(round)
}

fn median(mut round: impl FnMut() -> anyhow::Result<u128>) -> anyhow::Result<u128> {
    let mut rounds = (0..ROUNDS)
        .map(|_| round())
        .collect::<anyhow::Result<Vec<_>>>()?;
    rounds.sort_unstable();
    Ok(rounds[ROUNDS / 2])
}

/// Third parties, other ones with every number.
fn endpoints(number: u32) -> Vec<SocketAddr> {
    let first = number.wrapping_mul(ENDPOINTS);
    (first..first + ENDPOINTS)
        .map(|host| SocketAddr::from((Ipv4Addr::from(0x0800_0000 + host), 4193)))
        .collect()
}

/// Lets time go on for the one that is told; what it sends goes nowhere.
fn run_timers(pair: &mut Pair) {
    pair.now.instant = pair.now.instant + EACH;
    let engine = &mut pair.ends[0].engine;
    if engine
        .poll_timeout()
        .is_some_and(|at| at <= pair.now.instant)
    {
        engine.handle_timeout(pair.now);
    }
    black_box(drain(engine, pair.now));
}

/// The other one says in the session where it is.
fn said(pair: &Pair, number: u32) -> anyhow::Result<Vec<u8>> {
    let message = TunnelMessage::Candidates {
        tell_yours: false,
        endpoints: endpoints(number),
    };
    let packet_bytes = tunnel::emit(message, AGENTS);
    let mut datagram = vec![0; data_message_bytes(packet_bytes.len())];
    datagram[DATA_HEADER_BYTES..][..packet_bytes.len()].copy_from_slice(&packet_bytes);
    let sealed = pair
        .route(1)?
        .seal(&mut datagram, packet_bytes.len(), pair.now.instant);
    sealed.context("a session that can be used")?;
    Ok(datagram)
}
