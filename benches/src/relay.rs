//! What a moon's frames and clients cost: nanoseconds a forwarded frame, bytes a client.
//!
//! ```text
//! cargo run --release --package mesh-benches -- relay
//! ```

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant as Clock},
};

use anyhow::Context as _;
use mesh_core::{Forwarded, RelayLimits, RelayServer, Remote};
use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::relay::{Header, MemberTag};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

/// The size that the limits are made for.
const CLIENTS: u32 = 10_000;
/// Two a microsecond, so that all rounds are over before a client would have to ask again.
const FRAMES: u32 = 2_000_000;
const ROUNDS: usize = 5;

/// A client, as the moon knows it.
struct Client {
    remote: Remote,
    token: u64,
    tag: MemberTag,
}

pub(crate) fn run() -> anyhow::Result<()> {
    let mut rng = ChaCha20Rng::seed_from_u64(4193);
    let keys: Vec<WireguardPublicKey> = (0..CLIENTS)
        .map(|_| {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            WireguardPublicKey::try_from(bytes.as_slice()).context("a key")
        })
        .collect::<anyhow::Result<_>>()?;
    // So that the vectors below are not counted.
    let mut clients = Vec::with_capacity(keys.len());
    let before = resident_bytes()?;
    let unlimited = RelayLimits {
        client_bytes_per_second: u64::MAX / 1_000_000_000,
        total_bytes_per_second: u64::MAX / 1_000_000_000,
        ..RelayLimits::default()
    };
    let server = RelayServer::new(unlimited);
    server.set_members(keys.iter().copied());
    for (number, key) in (1..).zip(&keys) {
        let remote = Remote::Udp(SocketAddr::from((Ipv4Addr::from(number), 4193)));
        let now = Instant::ZERO;
        let token = server
            .grant(key, remote, 0, Duration::ZERO, &mut rng, now)
            .map_err(|reason| anyhow::anyhow!("refused: {reason:?}"))?
            .token;
        let _ = server.grant(key, remote, token, Duration::ZERO, &mut rng, now);
        clients.push(Client {
            remote,
            token,
            tag: MemberTag::of(key.as_bytes()),
        });
    }
    let bytes = resident_bytes()?.saturating_sub(before);
    println!(
        "{CLIENTS} clients: {} bytes each",
        bytes / u64::from(CLIENTS)
    );
    let expiring = Clock::now();
    server.expire(Instant::ZERO);
    println!("a look for expired clients: {:?}", expiring.elapsed());
    let mut now = Instant::ZERO;
    for (what, pairs) in [("one pair", 1), ("all of them", clients.len())] {
        let nanos = median((0..ROUNDS).map(|_| forward(&server, &clients, pairs, &mut now)));
        println!("a forwarded frame, {what} talking: {nanos} ns");
    }
    Ok(())
}

/// Nanoseconds a frame, sent around among the first clients.
fn forward(server: &RelayServer, clients: &[Client], pairs: usize, now: &mut Instant) -> u128 {
    let mut frame = [0; 1_300];
    let mut at = 0;
    let begin = Clock::now();
    for number in 0..FRAMES {
        let sender = &clients[at];
        // A stride without a common factor, so that no order of memory helps.
        at = (at + 7_919) % pairs;
        let receiver = &clients[(at + 1) % clients.len()];
        let header = Header {
            token: sender.token,
            member: receiver.tag,
        };
        frame[..20].copy_from_slice(&header.emit());
        if number % 2 == 0 {
            *now = *now + Duration::from_micros(1);
        }
        let forwarded = server.forward(sender.remote, &mut frame, *now);
        assert_eq!(black_box(forwarded), Forwarded::To(receiver.remote));
    }
    begin.elapsed().as_nanos() / u128::from(FRAMES)
}

fn median(samples: impl Iterator<Item = u128>) -> u128 {
    let mut samples: Vec<u128> = samples.collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("Anonymous:"))
        .context("no `Anonymous` in /proc/self/smaps_rollup")?;
    let kib = line.split_whitespace().nth(1).context("no number")?;
    Ok(kib.parse::<u64>()? * 1024)
}
