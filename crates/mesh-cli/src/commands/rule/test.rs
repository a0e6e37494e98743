//! `mesh rule test`.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use mesh_agent::rules::{Question, test};
use mesh_api::RuleTest;
use mesh_inventory::rules::Protocol;
use mesh_types::MachineName;

use crate::{
    client::{Daemon, block_on},
    commands::{inventory::load, status::AGENT_SOCKET},
    failure::{Exit, Failure},
    output,
};

/// Test whether one machine may begin to speak to another, and name the rule that decides
///
/// Answers by the roster in force, or by the inventory or roster that `--file` names. Ends with 0 if it may, with 1 if
/// not.
#[derive(clap::Args)]
#[command(after_help = "Example: mesh rule test stibnite cinnabar 22")]
pub(crate) struct Args {
    /// The machine that begins
    from: MachineName,
    /// The machine that it wants to reach
    to: MachineName,
    /// The port there; none for protocols without ports
    port: Option<u16>,
    /// The protocol: `tcp`, `udp`, `icmp` or a number
    #[arg(long, default_value = "tcp")]
    protocol: Protocol,
    /// Go by this inventory or roster instead of asking the agent; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    file: Option<PathBuf>,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = AGENT_SOCKET)]
    socket: PathBuf,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

/// How long the agent may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let question = Question {
        from: args.from,
        to: args.to,
        protocol: args.protocol,
        port: args.port,
    };
    let answer = match &args.file {
        Some(path) => {
            let file = load::either(path, None)?;
            test(file.parts(), &question).map_err(|error| Failure::new(Exit::Usage, error))?
        }
        None => {
            let daemon = Daemon::agent(&args.socket);
            block_on(daemon.get::<RuleTest>(&query(&question), LIMIT))?
        }
    };
    let text = if args.json {
        output::json(&answer)?
    } else {
        render(&answer)
    };
    output::answer(&text)?;
    Ok(match answer.allowed {
        true => Exit::Done,
        false => Exit::Refused,
    })
}

fn query(question: &Question) -> String {
    let Question {
        from,
        to,
        protocol,
        port,
    } = question;
    let port = port.map(|port| format!("&port={port}"));
    format!(
        "/v1/rules/test?from={from}&to={to}&protocol={protocol}{}",
        port.unwrap_or_default()
    )
}

fn render(answer: &RuleTest) -> String {
    let port = answer.port.map(|port| format!(" {port}"));
    let port = port.unwrap_or_default();
    let RuleTest {
        from, to, protocol, ..
    } = answer;
    let may = match answer.allowed {
        true => "allowed",
        false => "denied",
    };
    let by = match &answer.rule {
        Some(rule) => format!("by rule `{rule}`"),
        None => "by the default, as no rule accepts it".to_owned(),
    };
    let mut text = format!("{may}: {from} to {to} on {protocol}{port}, {by}\n");
    if answer.rule.is_none() && !answer.accepted.is_empty() {
        let _ = writeln!(text, "\nRules accept of {from} at {to}:");
        for accepted in &answer.accepted {
            let _ = writeln!(text, "  {} (`{}`)", accepted.traffic, accepted.rule);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use mesh_api::RuleAccepts;

    use super::*;

    fn answer(rule: Option<&str>) -> RuleTest {
        RuleTest {
            version: 1,
            from: "stibnite".parse().unwrap(),
            to: "cinnabar".parse().unwrap(),
            protocol: "tcp".to_owned(),
            port: Some(22),
            allowed: rule.is_some(),
            rule: rule.map(str::to_owned),
            accepted: vec![RuleAccepts {
                rule: "web".to_owned(),
                traffic: "tcp 80, 443".to_owned(),
            }],
        }
    }

    #[test]
    fn the_rule_that_decides_is_named_and_else_what_is_accepted() {
        insta::assert_snapshot!(render(&answer(Some("administer"))), @"allowed: stibnite to cinnabar on tcp 22, by rule `administer`");
        insta::assert_snapshot!(render(&answer(None)), @r"
        denied: stibnite to cinnabar on tcp 22, by the default, as no rule accepts it

        Rules accept of stibnite at cinnabar:
          tcp 80, 443 (`web`)
        ");
    }

    #[test]
    fn the_json_is_a_contract() {
        insta::assert_json_snapshot!(answer(None));
    }
}
