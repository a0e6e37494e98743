//! `mesh rule list`.

use std::{path::PathBuf, time::Duration};

use mesh_api::{Denied, RuleReport, Rules};

use crate::{
    client::{Daemon, block_on},
    commands::status::AGENT_SOCKET,
    failure::{Exit, Failure},
    human, output,
};

/// List the rules, and what they did on this machine
///
/// PACKETS is what a rule let in here since the agent started, answers to what this machine began not among them; `-`
/// where the rule lets nobody reach this machine. Below stands what was not let in, the latest first.
#[derive(clap::Args)]
pub(crate) struct Args {
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
    let daemon = Daemon::agent(&args.socket);
    let rules: Rules = block_on(daemon.get("/v1/rules", LIMIT))?;
    let text = if args.json {
        output::json(&rules)?
    } else {
        render(&rules)
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

fn render(rules: &Rules) -> String {
    let others = match rules.default_allows {
        true => "allowed",
        false => "denied",
    };
    if rules.rules.is_empty() {
        return format!(
            "no rules (roster {}); everything is {others}\n{}",
            rules.serial,
            denied(rules)
        );
    }
    let row = |rule: &RuleReport| {
        let protocol = match (&rule.protocol, rule.ports.is_empty()) {
            (Some(protocol), _) => protocol.as_str(),
            (None, true) => "any",
            (None, false) => "tcp, udp",
        };
        vec![
            rule.name.clone(),
            rule.from.join(", "),
            rule.to.join(", "),
            protocol.to_owned(),
            match rule.ports.is_empty() {
                true => "-".to_owned(),
                false => rule.ports.join(", "),
            },
            match rule.here {
                true => rule.packets.to_string(),
                false => "-".to_owned(),
            },
        ]
    };
    let rows: Vec<_> = rules.rules.iter().map(row).collect();
    let columns = ["RULE", "FROM", "TO", "PROTOCOL", "PORTS", "PACKETS"];
    format!(
        "{}\neverything else is {others}\n{}",
        human::table(&columns, &rows),
        denied(rules)
    )
}

fn denied(rules: &Rules) -> String {
    if rules.denied.is_empty() {
        return String::new();
    }
    let row = |denied: &Denied| {
        vec![
            denied
                .name
                .as_ref()
                .map_or("-".to_owned(), ToString::to_string),
            denied.source.to_string(),
            denied.protocol.clone(),
            denied.port.map_or("-".to_owned(), |port| port.to_string()),
            denied.packets.to_string(),
            format!("{} ago", human::age(denied.last_seconds)),
        ]
    };
    let rows: Vec<_> = rules.denied.iter().map(row).collect();
    let columns = ["DENIED", "SOURCE", "PROTOCOL", "PORT", "PACKETS", "LAST"];
    format!("\n{}", human::table(&columns, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let rule = |name: &str, protocol: Option<&str>, ports: &[&str], here| RuleReport {
            name: name.to_owned(),
            from: vec!["tag:laptop".to_owned(), "guests".to_owned()],
            to: vec!["cinnabar".to_owned()],
            protocol: protocol.map(str::to_owned),
            ports: ports.iter().map(|port| (*port).to_owned()).collect(),
            here,
            packets: 17,
        };
        Rules {
            version: 1,
            serial: "7".parse().unwrap(),
            default_allows: false,
            rules: vec![
                rule("administer", Some("tcp"), &["22", "8000-8999"], true),
                rule("ping", Some("icmp"), &[], true),
                rule("resolve", None, &["53"], false),
                rule("trusted", None, &[], false),
            ],
            denied_packets: 3,
            denied: vec![Denied {
                name: Some("pixel".parse().unwrap()),
                source: "fd00::7".parse().unwrap(),
                protocol: "tcp".to_owned(),
                port: Some(23),
                packets: 3,
                last_seconds: 125,
            }],
        }
    }

    #[test]
    fn rules_are_a_table_and_so_is_what_they_deny() {
        insta::assert_snapshot!(render(&rules()));
    }

    #[test]
    fn without_rules_it_says_what_holds() {
        let none = Rules {
            default_allows: true,
            rules: Vec::new(),
            denied: Vec::new(),
            ..rules()
        };
        assert_eq!(
            render(&none),
            "no rules (roster 7); everything is allowed\n"
        );
    }

    #[test]
    fn the_json_is_a_contract() {
        insta::assert_json_snapshot!(rules());
    }
}
