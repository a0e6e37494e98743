//! `mesh ping`.

use std::{path::PathBuf, time::Duration};

use mesh_api::Ping;
use mesh_types::MachineName;
use serde::Serialize;

use super::status::AGENT_SOCKET;
use crate::{
    client::{self, Daemon},
    failure::{Exit, Failure},
    human, output,
};

/// Time between the starts of two pings, as `ping` has it.
const PERIOD: Duration = Duration::from_secs(1);

/// What the agent may take beyond a ping's own time.
const GRACE: Duration = Duration::from_secs(5);

/// Measure the round trip to a peer inside the tunnel
///
/// The peer's agent answers, so firewalls play no part. Exits with 1 if no ping was answered.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The peer's name
    name: MachineName,
    /// How many pings
    #[arg(short = 'c', long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// How long to wait for each answer, in seconds
    #[arg(short = 'W', long, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = AGENT_SOCKET)]
    socket: PathBuf,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// The answer with `--json`.
#[derive(Serialize)]
struct Summary {
    version: u32,
    name: MachineName,
    sent: usize,
    answered: usize,
    /// Of the answered ones.
    rtt_micros_min: Option<u64>,
    rtt_micros_mean: Option<u64>,
    rtt_micros_max: Option<u64>,
    pings: Vec<Ping>,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let pings = client::block_on(ping(&args))?;
    let summary = Summary::new(args.name, pings);
    let text = if args.json {
        let json = serde_json::to_string_pretty(&summary).map_err(anyhow::Error::from)?;
        format!("{json}\n")
    } else {
        totals(&summary)
    };
    output::answer(&text)?;
    Ok(match summary.answered {
        0 => Exit::Refused,
        1.. => Exit::Done,
    })
}

async fn ping(args: &Args) -> Result<Vec<Ping>, Failure> {
    let daemon = Daemon::agent(&args.socket);
    let limit = Duration::from_secs(args.timeout);
    let question = format!(
        "/v1/ping?name={}&timeout_millis={}",
        args.name,
        limit.as_millis()
    );
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pings = Vec::new();
    for _ in 0..args.count {
        ticks.tick().await;
        let ping: Ping = daemon.post(&question, limit + GRACE).await?;
        if !args.json {
            output::answer(&line(&ping))?;
        }
        pings.push(ping);
    }
    Ok(pings)
}

fn line(ping: &Ping) -> String {
    match ping.rtt_micros {
        Some(micros) => format!(
            "{} ({}): {} {}\n",
            ping.name,
            ping.address,
            human::micros(micros),
            human::path(ping.path, ping.endpoint, ping.relay.as_ref())
        ),
        None => format!(
            "{} ({}): {}\n",
            ping.name,
            ping.address,
            ping.reason.as_deref().unwrap_or("no answer")
        ),
    }
}

fn totals(summary: &Summary) -> String {
    let Summary { sent, answered, .. } = summary;
    let mut text = format!("{answered} of {sent} answered");
    if let (Some(min), Some(mean), Some(max)) = (
        summary.rtt_micros_min,
        summary.rtt_micros_mean,
        summary.rtt_micros_max,
    ) {
        let [min, mean, max] = [min, mean, max].map(human::micros);
        text.push_str(&format!(", round trip {min} to {max}, {mean} on average"));
    }
    text.push('\n');
    text
}

impl Summary {
    fn new(name: MachineName, pings: Vec<Ping>) -> Self {
        let times: Vec<u64> = pings.iter().filter_map(|ping| ping.rtt_micros).collect();
        let count = u64::try_from(times.len()).unwrap_or(u64::MAX);
        Self {
            version: mesh_api::VERSION,
            name,
            sent: pings.len(),
            answered: times.len(),
            rtt_micros_min: times.iter().min().copied(),
            rtt_micros_mean: times.iter().sum::<u64>().checked_div(count),
            rtt_micros_max: times.iter().max().copied(),
            pings,
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::PathKind;

    use super::*;

    fn answered(micros: u64) -> Ping {
        Ping {
            version: mesh_api::VERSION,
            name: "galena".parse().unwrap(),
            address: "fdc3:582e:db61::2".parse().unwrap(),
            rtt_micros: Some(micros),
            path: Some(PathKind::Direct),
            endpoint: Some("192.0.2.7:4193".parse().unwrap()),
            relay: None,
            reason: None,
        }
    }

    fn unanswered() -> Ping {
        Ping {
            rtt_micros: None,
            path: None,
            endpoint: None,
            relay: None,
            reason: Some("no endpoint known".to_owned()),
            ..answered(0)
        }
    }

    #[test]
    fn a_reply_shows_its_path_and_silence_its_reason() {
        assert_eq!(
            line(&answered(1_234)),
            "galena (fdc3:582e:db61::2): 1.2 ms direct 192.0.2.7:4193\n"
        );
        assert_eq!(
            line(&unanswered()),
            "galena (fdc3:582e:db61::2): no endpoint known\n"
        );
    }

    #[test]
    fn the_last_line_sums_up() {
        let name = || "galena".parse().unwrap();
        let some = Summary::new(name(), vec![answered(1_000), unanswered(), answered(3_000)]);
        assert_eq!(
            totals(&some),
            "2 of 3 answered, round trip 1.0 ms to 3.0 ms, 2.0 ms on average\n"
        );
        let none = Summary::new(name(), vec![unanswered()]);
        assert_eq!(totals(&none), "0 of 1 answered\n");
        insta::assert_snapshot!(serde_json::to_string_pretty(&some).unwrap());
    }
}
