//! Rules as written to rules as judged, and the tests that they must pass.

use std::collections::{BTreeMap, BTreeSet};

use mesh_types::MachineName;

use super::Resolver;
use crate::{
    inventory::{RuleTestText, RulesText, Spanned},
    report::Problem,
    roster::Member,
    rules::{Decision, Rule, RuleTest, Rules, Selector, Verdict},
};

impl Resolver<'_> {
    /// The network's rules; `None`: it has none.
    pub(super) fn rules(
        &mut self,
        tags: &BTreeMap<MachineName, BTreeSet<String>>,
        members: &BTreeMap<MachineName, Member>,
    ) -> Option<Rules> {
        let text = self.inventory.document.rules.as_ref()?;
        for (name, rule) in &text.accept {
            let whose = format!("rule `{}`", name.escape_debug());
            for selector in rule.from.iter().chain(&rule.to) {
                self.check_selector(selector, &whose, tags);
            }
            if rule.from.is_empty() || rule.to.is_empty() {
                let message = format!("{whose} accepts nothing: an end of it is empty");
                self.problems.push(
                    Problem::warning(rule.span.clone(), message)
                        .hint("say who is meant in `from` and `to`, or leave the rule out"),
                );
            }
        }
        if text.default == Verdict::Allow && !text.accept.is_empty() {
            self.problems.push(
                Problem::warning(
                    text.span.clone(),
                    "these rules forbid nothing: everyone reaches everyone anyhow",
                )
                .hint("say `default` = `deny`, and only what a rule accepts passes"),
            );
        }
        let rules = resolved(text);
        let kinds = kinds(&rules, members);
        for (text, test) in text.tests.iter().zip(&rules.tests) {
            for selector in [&text.from, &text.to] {
                self.check_selector(selector, "a test of rules", tags);
            }
            self.check_test(text, test, &rules, &kinds);
        }
        Some(rules)
    }

    fn check_selector(
        &mut self,
        selector: &Spanned<Selector>,
        whose: &str,
        tags: &BTreeMap<MachineName, BTreeSet<String>>,
    ) {
        match &selector.value {
            Selector::Tag(tag) => self.check_tag(tag, selector.span.clone(), whose, tags),
            Selector::Machine(name) if !tags.contains_key(name) => {
                self.unknown_machine(name.as_str(), selector.span.clone(), whose);
            }
            Selector::Machine(_) | Selector::Everyone | Selector::Guests | Selector::Role(_) => {}
        }
    }

    /// A test must hold between all whom it speaks of.
    fn check_test(
        &mut self,
        text: &RuleTestText,
        test: &RuleTest,
        rules: &Rules,
        kinds: &[Vec<&Member>],
    ) {
        let of = |selector: &Selector| -> Vec<&[&Member]> {
            let matched = kinds.iter().filter(|kind| selector.matches(kind[0]));
            matched.map(Vec::as_slice).collect()
        };
        let (froms, tos) = (of(&test.from), of(&test.to));
        for (selector, kinds) in [(&text.from, &froms), (&text.to, &tos)] {
            // A machine that is missing has been told of.
            if kinds.is_empty() && !matches!(selector.value, Selector::Machine(_)) {
                let message = format!("this test is of nobody: `{}`", selector.value);
                self.problems
                    .push(Problem::warning(selector.span.clone(), message));
            }
        }
        let failed = froms
            .iter()
            .flat_map(|froms| tos.iter().map(move |tos| (froms, tos)))
            .filter_map(|(froms, tos)| {
                // Of one kind, two that are not the same.
                let (from, to) = (froms[0], tos[0]);
                match from.name == to.name {
                    true => Some((from, *tos.get(1)?)),
                    false => Some((from, to)),
                }
            })
            .map(|(from, to)| (from, to, rules.decide(from, to, test.traffic())))
            .filter(|(_, _, decision)| decision.verdict() != test.expect)
            .min_by_key(|(from, to, _)| (&from.name, &to.name));
        let Some((from, to, decision)) = failed else {
            return;
        };
        let port = test.port.map(|port| format!(" {port}")).unwrap_or_default();
        let what = format!("`{}` on {}{port}", to.name, test.protocol);
        let (message, hint) = match decision {
            Decision::Accepted(rule) => (
                format!(
                    "`{}` is not to reach {what}, and rule `{}` lets it",
                    from.name,
                    rule.escape_debug()
                ),
                "narrow that rule, or mend the test",
            ),
            Decision::Default(Verdict::Allow) => (
                format!(
                    "`{}` is not to reach {what}, and the default lets it",
                    from.name
                ),
                "say `default` = `deny`, or mend the test",
            ),
            Decision::Default(Verdict::Deny) => (
                format!("`{}` is to reach {what}, and no rule lets it", from.name),
                "add a rule under `accept`, or mend the test",
            ),
        };
        self.problems
            .push(Problem::error(text.span.clone(), message).hint(hint));
    }
}

fn resolved(text: &RulesText) -> Rules {
    let plain = |selectors: &[Spanned<Selector>]| {
        let selectors: BTreeSet<_> = selectors.iter().map(|one| one.value.clone()).collect();
        selectors.into_iter().collect()
    };
    let accept = text.accept.iter().map(|(name, rule)| {
        let mut ports = rule.ports.clone();
        ports.sort_unstable();
        ports.dedup();
        let rule = Rule {
            from: plain(&rule.from),
            to: plain(&rule.to),
            protocol: rule.protocol,
            ports,
        };
        (name.clone(), rule)
    });
    Rules {
        default: text.default,
        accept: accept.collect(),
        tests: text.tests.iter().map(resolved_test).collect(),
    }
}

/// The members by what the rules say of them: those of one kind are to each selector the same. In a fleet of thousands
/// there are few kinds.
fn kinds<'m>(rules: &Rules, members: &'m BTreeMap<MachineName, Member>) -> Vec<Vec<&'m Member>> {
    let of_tests = rules.tests.iter().flat_map(|test| [&test.from, &test.to]);
    if rules.tests.is_empty() {
        return Vec::new();
    }
    let of_rules = rules.accept.values();
    let of_rules = of_rules.flat_map(|rule| rule.from.iter().chain(&rule.to));
    let selectors: BTreeSet<&Selector> = of_tests.chain(of_rules).collect();
    let mut kinds: BTreeMap<Vec<usize>, Vec<&Member>> = BTreeMap::new();
    for member in members.values() {
        let matching = selectors.iter().enumerate();
        let matching = matching.filter(|(_, selector)| selector.matches(member));
        let kind = matching.map(|(number, _)| number).collect();
        kinds.entry(kind).or_default().push(member);
    }
    kinds.into_values().collect()
}

fn resolved_test(text: &RuleTestText) -> RuleTest {
    RuleTest {
        from: text.from.value.clone(),
        to: text.to.value.clone(),
        protocol: text.protocol,
        port: text.port,
        expect: text.expect,
    }
}
