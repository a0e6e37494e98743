//! Who may reach whom on what: rules that accept, and what holds where none does.
//!
//! Rules are judged by the machine that packets arrive at. This is the plain form, as the roster holds it, that answers
//! one question at a time; `mesh-core` has the one that packets are held against.

mod selector;
mod traffic;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use self::{
    selector::{ParseSelectorError, Selector},
    traffic::{ParsePortsError, ParseProtocolError, PortRange, Protocol, Traffic},
};
use crate::roster::Member;

/// The most rules, and the most tests of them, that a network has.
pub const RULES_MAX: usize = 10_000;

/// What a network's inventory says of who may reach whom. A network without this lets everyone reach everyone.
///
/// Beside these fields there may be none, as what a newer release says there may forbid something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// What holds where no rule accepts.
    #[serde(deserialize_with = "default_of_any_release")]
    pub default: Verdict,
    /// What is accepted, by the rules' names. Those that this release does not understand are left out, so that they
    /// accept nothing.
    #[serde(deserialize_with = "understood")]
    pub accept: BTreeMap<String, Rule>,
    /// What is to hold of them. Judged where rosters are made.
    #[serde(deserialize_with = "understood_tests")]
    pub tests: Vec<RuleTest>,
}

/// Whether packets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// They do.
    Allow,
    /// They do not.
    Deny,
}

/// Packets that are accepted. Answers to them pass by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Who sends them.
    pub from: Vec<Selector>,
    /// Who gets them, or has the subnet that they are for.
    pub to: Vec<Selector>,
    /// Of which protocol; `None`, and left out: of any, or, where there are ports, TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// To which ports; empty, and left out: to any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
}

/// An example of what the rules are to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTest {
    /// Each of these machines.
    pub from: Selector,
    /// To each of these.
    pub to: Selector,
    /// Of which protocol.
    pub protocol: Protocol,
    /// To which port; `None`, and left out: of a protocol that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What is to come of it.
    pub expect: Verdict,
}

/// What the rules say to one question, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'r> {
    /// A rule of this name accepts.
    Accepted(&'r str),
    /// No rule does.
    Default(Verdict),
}

impl Decision<'_> {
    /// Whether packets pass.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Accepted(_) => Verdict::Allow,
            Self::Default(verdict) => verdict,
        }
    }
}

impl Rules {
    /// Whether `from` may begin to speak to `to`: the first rule that accepts, in the order of their names, or the
    /// default.
    pub fn decide(&self, from: &Member, to: &Member, traffic: Traffic) -> Decision<'_> {
        self.accept
            .iter()
            .find(|(_, rule)| rule.is_between(from, to) && rule.accepts(traffic))
            .map_or(Decision::Default(self.default), |(name, _)| {
                Decision::Accepted(name)
            })
    }
}

impl Rule {
    /// What it accepts, in words: `tcp 22, 8000-8999`.
    pub fn traffic(&self) -> String {
        let protocols = match self.protocols() {
            None => return "everything".to_owned(),
            Some(protocols) => protocols.iter().map(ToString::to_string),
        };
        let protocols: Vec<_> = protocols.collect();
        let ports: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
        match ports.is_empty() {
            true => protocols.join(" and "),
            false => format!("{} {}", protocols.join(" and "), ports.join(", ")),
        }
    }

    /// Whether it speaks of packets from `from` to `to`.
    pub fn is_between(&self, from: &Member, to: &Member) -> bool {
        self.is_to(to) && self.is_from(from)
    }

    /// Whether `member` is one of those who send.
    pub fn is_from(&self, member: &Member) -> bool {
        self.from.iter().any(|selector| selector.matches(member))
    }

    /// Whether `member` is one of those who get.
    pub fn is_to(&self, member: &Member) -> bool {
        self.to.iter().any(|selector| selector.matches(member))
    }

    fn accepts(&self, traffic: Traffic) -> bool {
        self.protocols().is_none_or(|protocols| {
            protocols
                .iter()
                .any(|protocol| protocol.is(traffic.protocol))
        }) && (self.ports.is_empty()
            || traffic
                .port
                .is_some_and(|port| self.ports.iter().any(|range| range.contains(port))))
    }

    /// The protocols that it accepts; `None`: any.
    pub fn protocols(&self) -> Option<&[Protocol]> {
        match &self.protocol {
            Some(protocol) => Some(std::slice::from_ref(protocol)),
            None if self.ports.is_empty() => None,
            None => Some(&[Protocol::Tcp, Protocol::Udp]),
        }
    }
}

impl RuleTest {
    /// The question that it asks.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            protocol: self.protocol.number(),
            port: self.port,
        }
    }
}

/// A default that this release does not know is not one that lets through.
fn default_of_any_release<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Verdict, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(Verdict::deserialize(value).unwrap_or(Verdict::Deny))
}

fn understood<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Rule>, D::Error> {
    let rules = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let known = |(name, value)| Some((name, Rule::deserialize(value).ok()?));
    Ok(rules.into_iter().filter_map(known).collect())
}

fn understood_tests<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RuleTest>, D::Error> {
    let tests = Vec::<Value>::deserialize(deserializer)?;
    let known = |value| RuleTest::deserialize(value).ok();
    Ok(tests.into_iter().filter_map(known).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_newer_releases_say_accepts_nothing() {
        let rules: Rules = serde_json::from_value(json!({
            "default": "ask",
            "accept": {
                "known": { "from": ["*"], "to": ["tag:a"], "protocol": "tcp", "ports": ["22"] },
                "field": { "from": ["*"], "to": ["*"], "until": 7 },
                "selector": { "from": ["user:alice"], "to": ["*"] },
                "protocol": { "from": ["*"], "to": ["*"], "protocol": "quic" },
                "kind": 7,
            },
            "tests": [{ "from": "*", "to": "*", "protocol": "tcp", "expect": "maybe" }],
        }))
        .unwrap();
        assert_eq!(rules.default, Verdict::Deny);
        assert_eq!(rules.accept.keys().collect::<Vec<_>>(), ["known"]);
        assert_eq!(rules.tests, []);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = json!({
            "default": "deny",
            "accept": {
                "a": { "from": ["*", "guests"], "to": ["role:moon", "galena", "machine:guests"] },
                "b": { "from": ["tag:x y"], "to": ["galena"], "protocol": "47" },
                "c": { "from": ["galena"], "to": ["*"], "protocol": "udp", "ports": ["53", "60000-61000"] },
            },
            "tests": [
                { "from": "galena", "to": "*", "protocol": "udp", "port": 53, "expect": "allow" },
                { "from": "guests", "to": "*", "protocol": "icmp", "expect": "deny" },
            ],
        });
        let rules: Rules = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(rules.accept.len(), 3);
        assert_eq!(serde_json::to_value(&rules).unwrap(), written);
    }
}
