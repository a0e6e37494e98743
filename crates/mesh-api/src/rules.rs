//! What is said of rules.

use std::net::IpAddr;

use mesh_types::{MachineName, Serial};
use serde::{Deserialize, Serialize};

/// What `GET /v1/status` says of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesStatus {
    /// Whether packets pass that no rule accepts.
    pub default_allows: bool,
    /// How many rules there are.
    pub rules: u64,
    /// How many packets this machine did not let through since its agent started.
    pub denied_packets: u64,
}

/// `GET /v1/rules` on the agent's socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Serial of the roster that has them.
    pub serial: Serial,
    /// Whether packets pass that no rule accepts; true where the roster has no rules.
    pub default_allows: bool,
    /// The rules in the order of their names.
    pub rules: Vec<RuleReport>,
    /// How many packets this machine did not let through since its agent started.
    pub denied_packets: u64,
    /// What they were, the latest first; so many and no more.
    pub denied: Vec<Denied>,
}

/// A rule, and what it did here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// Its name.
    pub name: String,
    /// Who may begin, as the inventory says it.
    pub from: Vec<String>,
    /// To reach whom.
    pub to: Vec<String>,
    /// On which protocol: `tcp`, `udp`, `icmp` or a number; `None`: any.
    pub protocol: Option<String>,
    /// On which ports, such as `22` and `8000-8999`; empty: any.
    pub ports: Vec<String>,
    /// Whether it lets anybody reach this machine.
    pub here: bool,
    /// How many packets it let through here since the agent started; answers to what this machine began are not among
    /// them.
    pub packets: u64,
}

/// Packets that this machine did not let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Whose they were; `None`: of an address that is no member's own.
    pub name: Option<MachineName>,
    /// Their source.
    pub source: IpAddr,
    /// `tcp`, `udp`, `icmp` or a number.
    pub protocol: String,
    /// The port that they were for; `None`: of a protocol that has none.
    pub port: Option<u16>,
    /// How many, since the first of them.
    pub packets: u64,
    /// How long ago the last one was, in seconds.
    pub last_seconds: u64,
}

/// `GET /v1/rules/test?from=NAME&to=NAME&protocol=tcp&port=22` on the agent's socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTest {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Who would begin.
    pub from: MachineName,
    /// To reach whom.
    pub to: MachineName,
    /// `tcp`, `udp`, `icmp` or a number.
    pub protocol: String,
    /// The port; `None`: of a protocol that has none.
    pub port: Option<u16>,
    /// Whether the packets pass.
    pub allowed: bool,
    /// The rule that decides; `None`: the default does.
    pub rule: Option<String>,
    /// What rules accept between the two, in the order of the rules' names.
    pub accepted: Vec<RuleAccepts>,
}

/// What a rule accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleAccepts {
    /// The rule's name.
    pub rule: String,
    /// What, in words, such as `tcp 22, 8000-8999`.
    pub traffic: String,
}
