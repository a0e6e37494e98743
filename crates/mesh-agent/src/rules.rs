//! The roster's rules as this machine goes by them: what each peer may reach here, what was let through and what was not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_api::{Denied, RuleAccepts, RuleReport, RuleTest, RulesStatus, VERSION};
use mesh_core::{Access, AnswerRate, Asked, Grant, PeerConfig, RuleCounts};
use mesh_inventory::{
    Parts,
    roster::{Member, Roster},
    rules::{Decision, PortRange, Protocol, Rule, Rules, Traffic, Verdict},
};
use mesh_os::clock;
use mesh_types::{Instant, MachineName, PublicIdentity};
use serde::Deserialize;

use crate::view;

/// The most kinds of denied packets that are told apart; of more the one gives way that is not seen for longest.
const DENIED_MAX: usize = 64;

/// What this machine goes by.
#[derive(Debug, Default)]
pub(crate) struct Rulebook {
    denied_packets: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The rules' names, in the order of their numbers.
    names: Vec<String>,
    counts: Arc<RuleCounts>,
    denied: Vec<Denial>,
    answers: AnswerRate,
}

#[derive(Debug)]
struct Denial {
    asked: Asked,
    packets: u64,
    last: Instant,
}

impl Rulebook {
    /// Says of each of `peers` what it may reach here, by the rules of their roster.
    pub(crate) fn apply(
        &self,
        roster: &Roster,
        own: &PublicIdentity,
        peers: &mut [(MachineName, PeerConfig)],
    ) {
        let own = roster.member_by_node_id(&own.node_id());
        let rules = roster.network().rules.as_ref();
        let (Some(own), Some(rules)) = (own, rules) else {
            self.lock().count(&[]);
            return;
        };
        let names: Vec<_> = rules.accept.keys().map(String::as_str).collect();
        let counts = self.lock().count(&names);
        if rules.default == Verdict::Allow {
            return;
        }
        let here: Vec<_> = (0..)
            .zip(rules.accept.values())
            .filter(|(_, rule)| rule.is_to(own))
            .collect();
        // Those whom the same rules let in share one.
        let mut known: BTreeMap<Vec<usize>, Arc<Access>> = BTreeMap::new();
        for (name, peer) in peers {
            let Some(member) = roster.members().get(name) else {
                continue;
            };
            let of_peer = here.iter().filter(|(_, rule)| rule.is_from(member));
            let of_peer: Vec<_> = of_peer.collect();
            let numbers = of_peer.iter().map(|(number, _)| *number).collect();
            let access = known.entry(numbers).or_insert_with(|| {
                let grants = of_peer
                    .iter()
                    .flat_map(|(number, rule)| grants(*number, rule));
                Arc::new(Access::of(&grants.collect::<Vec<_>>(), &counts))
            });
            peer.access = Arc::clone(access);
        }
    }

    /// Notes a packet that was not let through. Returns whether its sender is to be told.
    pub(crate) fn note_denied(&self, asked: Option<Asked>, now: Instant) -> bool {
        self.denied_packets.fetch_add(1, Ordering::Relaxed);
        // Data threads do not wait for one another. What a flood loses here is counted above.
        let (Some(asked), Ok(mut state)) = (asked, self.state.try_lock()) else {
            return false;
        };
        match state.denied.iter_mut().find(|denial| denial.asked == asked) {
            Some(denial) => {
                denial.packets += 1;
                denial.last = now;
            }
            None => {
                if state.denied.len() >= DENIED_MAX {
                    let oldest = (0..)
                        .zip(&state.denied)
                        .min_by_key(|(_, denial)| denial.last);
                    let oldest = oldest.map(|(place, _)| place).unwrap_or_default();
                    state.denied.swap_remove(oldest);
                }
                state.denied.push(Denial {
                    asked,
                    packets: 1,
                    last: now,
                });
            }
        }
        state.answers.allow(now)
    }

    /// What `mesh status` says; `None`: there are no rules.
    pub(crate) fn status(&self, roster: &Roster) -> Option<RulesStatus> {
        let rules = roster.network().rules.as_ref()?;
        Some(RulesStatus {
            default_allows: rules.default == Verdict::Allow,
            rules: u64::try_from(rules.accept.len()).unwrap_or(u64::MAX),
            denied_packets: self.denied_packets.load(Ordering::Relaxed),
        })
    }

    /// Every rule, and what it did here.
    pub(crate) fn report(&self, roster: &Roster, own: &PublicIdentity) -> mesh_api::Rules {
        let own = roster.member_by_node_id(&own.node_id());
        let rules = roster.network().rules.as_ref();
        let state = self.lock();
        let names = state.names.iter().cloned();
        let counts: BTreeMap<String, u64> = names.zip(state.counts.read()).collect();
        let one = |(name, rule): (&String, &Rule)| RuleReport {
            name: name.clone(),
            from: rule.from.iter().map(ToString::to_string).collect(),
            to: rule.to.iter().map(ToString::to_string).collect(),
            protocol: rule.protocol.map(|protocol| protocol.to_string()),
            ports: rule.ports.iter().map(ToString::to_string).collect(),
            here: own.is_some_and(|own| rule.is_to(own)),
            packets: counts.get(name).copied().unwrap_or_default(),
        };
        let now = clock::now();
        let mut denied: Vec<_> = state.denied.iter().collect();
        denied.sort_by_key(|denial| std::cmp::Reverse(denial.last));
        let denied = denied.into_iter().map(|denial| Denied {
            name: name_at(roster, denial.asked),
            source: denial.asked.source,
            protocol: protocol(denial.asked.protocol),
            port: denial.asked.port,
            packets: denial.packets,
            last_seconds: now.saturating_since(denial.last).as_secs(),
        });
        mesh_api::Rules {
            version: VERSION,
            serial: roster.head().serial,
            default_allows: rules.is_none_or(|rules| rules.default == Verdict::Allow),
            rules: rules
                .map(|rules| rules.accept.iter().map(one).collect())
                .unwrap_or_default(),
            denied_packets: self.denied_packets.load(Ordering::Relaxed),
            denied: denied.collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The panic hook ends the process, so nobody meets a poisoned lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts by other rules from here on; those of the same name go on.
    fn count(&mut self, names: &[&str]) -> Arc<RuleCounts> {
        if self.names != names {
            let counted = self.names.drain(..).zip(self.counts.read());
            let counted: BTreeMap<String, u64> = counted.collect();
            let before = |name: &&str| counted.get(*name).copied().unwrap_or_default();
            self.counts = Arc::new(RuleCounts::new(names.iter().map(before)));
            self.names = names.iter().map(|name| (*name).to_owned()).collect();
        }
        Arc::clone(&self.counts)
    }
}

/// What a rule accepts, as the data plane takes it.
fn grants(rule: usize, text: &Rule) -> Vec<Grant> {
    let range = |range: &PortRange| range.first()..=range.last();
    let numbers: Vec<Option<u8>> = match text.protocols() {
        None => vec![None],
        Some(protocols) => {
            let numbers = protocols.iter().flat_map(|protocol| protocol.numbers());
            numbers.map(|number| Some(*number)).collect()
        }
    };
    let ports: Vec<_> = match text.ports.as_slice() {
        [] => vec![None],
        ports => ports.iter().map(|ports| Some(range(ports))).collect(),
    };
    numbers
        .into_iter()
        .flat_map(|protocol| {
            ports.iter().map(move |ports| Grant {
                rule,
                protocol,
                ports: ports.clone(),
            })
        })
        .collect()
}

/// Who has an address, its own or one behind it.
fn name_at(roster: &Roster, asked: Asked) -> Option<MachineName> {
    let source = asked.source;
    let has = |member: &&Member| {
        source == member.address
            || member.ipv4.is_some_and(|ipv4| source == ipv4)
            || member.routes.iter().any(|route| route.contains(&source))
    };
    let member = roster.members().values().find(has)?;
    Some(member.name.clone())
}

/// A protocol as rules name it.
fn protocol(number: u8) -> String {
    let named = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    let named = named.into_iter().find(|protocol| protocol.is(number));
    named.unwrap_or(Protocol::Other(number)).to_string()
}

/// Whether one machine may reach another.
#[derive(Clone, Debug, Deserialize)]
pub struct Question {
    /// The one that would begin.
    pub from: MachineName,
    /// The other.
    pub to: MachineName,
    /// On which protocol.
    pub protocol: Protocol,
    /// The port; `None`: of a protocol that has none.
    pub port: Option<u16>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// A machine that is none.
    #[error("there is no machine `{name}`{}", .meant.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    NoMachine {
        /// What was given.
        name: MachineName,
        /// What was probably meant.
        meant: Option<MachineName>,
    },
    /// TCP and UDP have ports.
    #[error("say which port: `{0}` has ports")]
    NoPort(Protocol),
    /// Others have none.
    #[error("leave the port out: `{0}` has none")]
    Portless(Protocol),
    /// A machine reaches itself without the mesh.
    #[error("`{0}` reaches itself without the mesh")]
    Same(MachineName),
}

/// What the rules of a roster or a resolved inventory say.
///
/// # Errors
///
/// [`QuestionError`] if the question is none.
pub fn test(parts: Parts<'_>, question: &Question) -> Result<RuleTest, QuestionError> {
    let member = |name: &MachineName| {
        parts
            .members
            .get(name)
            .ok_or_else(|| QuestionError::NoMachine {
                name: name.clone(),
                meant: view::nearest(name, parts.members.keys()).cloned(),
            })
    };
    let (from, to) = (member(&question.from)?, member(&question.to)?);
    if from.name == to.name {
        return Err(QuestionError::Same(from.name.clone()));
    }
    let protocol = question.protocol;
    match (protocol.has_ports(), question.port) {
        (true, None) => return Err(QuestionError::NoPort(protocol)),
        (false, Some(_)) => return Err(QuestionError::Portless(protocol)),
        (true, Some(_)) | (false, None) => {}
    }
    let traffic = Traffic {
        protocol: protocol.number(),
        port: question.port,
    };
    let decision = parts.network.decide(from, to, traffic);
    Ok(RuleTest {
        version: VERSION,
        from: from.name.clone(),
        to: to.name.clone(),
        protocol: protocol.to_string(),
        port: question.port,
        allowed: decision.verdict() == Verdict::Allow,
        rule: match decision {
            Decision::Accepted(rule) => Some(rule.to_owned()),
            Decision::Default(_) => None,
        },
        accepted: accepted(parts.network.rules.as_ref(), from, to),
    })
}

fn accepted(rules: Option<&Rules>, from: &Member, to: &Member) -> Vec<RuleAccepts> {
    let rules = rules.into_iter().flat_map(|rules| &rules.accept);
    let between = rules.filter(|(_, rule)| rule.is_between(from, to));
    between
        .map(|(name, rule)| RuleAccepts {
            rule: name.clone(),
            traffic: rule.traffic(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{Fleet, name};

    fn rules(value: serde_json::Value) -> Rules {
        serde_json::from_value(value).unwrap()
    }

    fn question(from: &str, to: &str, protocol: &str, port: Option<u16>) -> Question {
        Question {
            from: name(from),
            to: name(to),
            protocol: protocol.parse().unwrap(),
            port,
        }
    }

    /// Galena administers cinnabar, and everyone resolves there.
    fn fleet() -> Fleet {
        let mut fleet = Fleet::new(&["cinnabar", "galena", "pyrite", "rosegold"]);
        fleet.rules = Some(rules(json!({
            "default": "deny",
            "accept": {
                "administer": { "from": ["galena"], "to": ["role:controller"], "protocol": "tcp", "ports": ["22", "8000-8999"] },
                "ping": { "from": ["*"], "to": ["*"], "protocol": "icmp" },
                "resolve": { "from": ["*"], "to": ["cinnabar"], "ports": ["53"] },
            },
            "tests": [],
        })));
        fleet
    }

    #[test]
    fn a_question_is_answered_with_the_rule_that_decides() {
        let roster = fleet().roster(1);
        let ask = |question| test(roster.parts(), &question);
        let answer = ask(question("galena", "cinnabar", "tcp", Some(8080))).unwrap();
        assert_eq!(
            (answer.allowed, answer.rule.as_deref()),
            (true, Some("administer"))
        );
        let answer = ask(question("pyrite", "cinnabar", "tcp", Some(22))).unwrap();
        assert_eq!((answer.allowed, answer.rule), (false, None));
        let accepted = answer.accepted.iter();
        let accepted: Vec<_> = accepted.map(|one| one.traffic.as_str()).collect();
        assert_eq!(accepted, ["icmp", "tcp and udp 53"]);
        assert!(
            ask(question("pyrite", "galena", "icmp", None))
                .unwrap()
                .allowed
        );
        for (wrong, said) in [
            (
                question("pyrit", "galena", "icmp", None),
                "there is no machine `pyrit`; did you mean `pyrite`?",
            ),
            (
                question("pyrite", "pyrite", "icmp", None),
                "`pyrite` reaches itself without the mesh",
            ),
            (
                question("pyrite", "galena", "udp", None),
                "say which port: `udp` has ports",
            ),
            (
                question("pyrite", "galena", "icmp", Some(1)),
                "leave the port out: `icmp` has none",
            ),
        ] {
            assert_eq!(ask(wrong).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn those_whom_the_same_rules_let_in_share_what_they_may_reach() {
        let mut fleet = fleet();
        let own = fleet.seed_of("cinnabar").public();
        let roster = fleet.roster(1);
        let book = Rulebook::default();
        let access = |roster: &Roster| {
            let mut peers = crate::peers::of_roster(roster, &own);
            book.apply(roster, &own, &mut peers);
            let peers = peers.into_iter();
            peers
                .map(|(name, peer)| (name.to_string(), peer.access))
                .collect::<BTreeMap<_, _>>()
        };
        let with_rules = access(&roster);
        assert!(Arc::ptr_eq(&with_rules["pyrite"], &with_rules["rosegold"]));
        assert_ne!(with_rules["pyrite"], with_rules["galena"]);
        assert_ne!(*with_rules["pyrite"], Access::default());
        fleet.rules.as_mut().unwrap().default = Verdict::Allow;
        let open = access(&fleet.roster(2));
        assert_eq!(*open["pyrite"], Access::default());
    }

    fn selector() -> impl Strategy<Value = &'static str> {
        let all = vec![
            "*",
            "guests",
            "galena",
            "cinnabar",
            "role:peer",
            "role:controller",
            "tag:a",
        ];
        prop::sample::select(all)
    }

    fn rule() -> impl Strategy<Value = serde_json::Value> {
        let ends = || prop::collection::vec(selector(), 0..3);
        let protocol = prop::sample::select(vec![
            None,
            Some("tcp"),
            Some("udp"),
            Some("icmp"),
            Some("47"),
        ]);
        let ports = prop::collection::vec((1u16..12, 0u16..4), 0..3);
        (ends(), ends(), protocol, ports).prop_map(|(from, to, protocol, ports)| {
            let has_ports = !matches!(protocol, Some("icmp" | "47"));
            let ports = ports.into_iter().filter(|_| has_ports);
            let ports = ports.map(|(first, more)| format!("{first}-{}", first + more));
            let ports: Vec<_> = ports.collect();
            match protocol {
                Some(protocol) => {
                    json!({ "from": from, "to": to, "protocol": protocol, "ports": ports })
                }
                None => json!({ "from": from, "to": to, "ports": ports }),
            }
        })
    }

    proptest! {
        #[test]
        fn packets_are_held_against_what_a_question_is_answered_by(
            rules_of in prop::collection::btree_map("[a-h]", rule(), 0..8),
        ) {
            let mut fleet = Fleet::new(&["cinnabar", "galena", "pyrite"]);
            fleet.member_mut("galena").tags = vec!["a".to_owned()];
            fleet.rules = Some(rules(json!({ "default": "deny", "accept": rules_of, "tests": [] })));
            let roster = fleet.roster(1);
            let own = fleet.seed_of("cinnabar").public();
            let mut peers = crate::peers::of_roster(&roster, &own);
            Rulebook::default().apply(&roster, &own, &mut peers);
            let network = roster.network();
            let names: Vec<_> = network.rules.iter().flat_map(|rules| rules.accept.keys()).collect();
            for (name, peer) in peers {
                let (from, to) = (&roster.members()[&name], &roster.members()["cinnabar"]);
                for protocol in [1, 6, 17, 47, 58, 99] {
                    for port in 0..16 {
                        let port = matches!(protocol, 6 | 17).then_some(port);
                        let decision = network.decide(from, to, Traffic { protocol, port });
                        let rule = peer.access.rule(protocol, port).map(|rule| names[rule].as_str());
                        let expected = match decision {
                            Decision::Accepted(rule) => Some(rule),
                            Decision::Default(_) => None,
                        };
                        prop_assert_eq!(rule, expected, "{:?}", (name.as_str(), protocol, port));
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_denied_is_told_the_latest_first_and_so_much_of_it() {
        let fleet = fleet();
        let book = Rulebook::default();
        let galena = fleet.members[&name("galena")].address;
        let asked = |port| Asked {
            source: galena.into(),
            protocol: 6,
            port: Some(port),
        };
        let mut told = 0;
        for port in 0..200 {
            told +=
                u32::from(book.note_denied(Some(asked(port)), Instant::from_micros(port.into())));
        }
        book.note_denied(Some(asked(199)), Instant::from_micros(200));
        book.note_denied(None, Instant::from_micros(200));
        assert!((1..200).contains(&told), "{told}");
        let own = fleet.seed_of("cinnabar").public();
        let report = book.report(&fleet.roster(1), &own);
        assert_eq!(report.denied_packets, 202);
        assert_eq!(report.denied.len(), DENIED_MAX);
        let first = &report.denied[0];
        assert_eq!(first.name, Some(name("galena")));
        assert_eq!((first.port, first.packets), (Some(199), 2));
        let here: Vec<_> = report.rules.iter().map(|rule| rule.here).collect();
        assert_eq!(here, [true, true, true]);
    }

    #[test]
    fn counts_go_on_under_another_roster() {
        let mut state = State::default();
        state.count(&["a", "b"]);
        state.counts = Arc::new(RuleCounts::new([1, 2]));
        assert_eq!(state.count(&["b", "c"]).read(), [2, 0]);
        assert_eq!(state.count(&["b", "c"]).read(), [2, 0]);
    }
}
