//! `rules` of the inventory: what may be written, and how it is read.

use std::{collections::BTreeMap, str::FromStr};

use schemars::JsonSchema;

use super::{
    Spanned,
    decode::check_label,
    fields::{Fields, Reader, quoted, suggestion},
};
use crate::{
    report::Problem,
    rules::{PortRange, Protocol, RULES_MAX, Selector, Verdict},
    syntax::{Datum, Entry, Node, Span},
};

pub(super) const RULES: [&str; 3] = ["default", "accept", "tests"];
pub(super) const RULE: [&str; 4] = ["from", "to", "protocol", "ports"];
pub(super) const RULE_TEST: [&str; 5] = ["from", "to", "protocol", "port", "expect"];

/// Who may reach whom on what. Answers to what is accepted pass by themselves.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Rules", deny_unknown_fields)]
pub(crate) struct RulesText {
    /// Where they stand.
    #[schemars(skip)]
    pub(crate) span: Span,
    /// What holds where no rule accepts.
    #[schemars(with = "Option<VerdictText>", extend("default" = "allow"))]
    pub(crate) default: Verdict,
    /// What is accepted, by names that people know it by.
    #[schemars(default)]
    pub(crate) accept: BTreeMap<String, RuleText>,
    /// Examples of what is to pass and what is not. One that fails keeps the inventory from becoming a roster.
    #[schemars(default)]
    pub(crate) tests: Vec<RuleTestText>,
}

/// Packets that are accepted.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Rule", deny_unknown_fields)]
pub(crate) struct RuleText {
    /// Where its name stands.
    #[schemars(skip)]
    pub(crate) span: Span,
    /// Who sends them: `*`, `guests`, machines' names, `tag:TAG`, `role:ROLE`.
    #[schemars(with = "Vec<String>")]
    pub(crate) from: Vec<Spanned<Selector>>,
    /// Who gets them, or has the subnet that they are for, in the same words.
    #[schemars(with = "Vec<String>")]
    pub(crate) to: Vec<Spanned<Selector>>,
    /// `tcp`, `udp`, `icmp` or a protocol's number; null: any, or, with ports, TCP and UDP.
    #[schemars(with = "Option<NumberOrText>")]
    pub(crate) protocol: Option<Protocol>,
    /// To which ports, such as `22` and `"8000-8999"`; empty: any.
    #[schemars(default, with = "Vec<NumberOrText>")]
    pub(crate) ports: Vec<PortRange>,
}

/// An example of what the rules are to do. It holds for each of `from` to each of `to`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "RuleTest", deny_unknown_fields)]
pub(crate) struct RuleTestText {
    /// Where it stands.
    #[schemars(skip)]
    pub(crate) span: Span,
    /// Who sends packets, in the words of a rule.
    #[schemars(with = "String")]
    pub(crate) from: Spanned<Selector>,
    /// Who would get them.
    #[schemars(with = "String")]
    pub(crate) to: Spanned<Selector>,
    /// Of which protocol.
    #[schemars(with = "Option<NumberOrText>", extend("default" = "tcp"))]
    pub(crate) protocol: Protocol,
    /// To which port; null: of a protocol that has none.
    pub(crate) port: Option<u16>,
    /// Whether they are to pass.
    #[schemars(with = "VerdictText")]
    pub(crate) expect: Verdict,
}

/// Whether packets pass.
#[derive(JsonSchema)]
#[schemars(rename = "Verdict", rename_all = "lowercase")]
#[expect(dead_code, reason = "described in the schema")]
enum VerdictText {
    /// They do.
    Allow,
    /// They do not.
    Deny,
}

/// A number, or text.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "described in the schema")]
enum NumberOrText {
    /// One number.
    Number(u16),
    /// A name or several numbers.
    Text(String),
}

pub(super) fn read(node: &Node, reader: &mut Reader<'_>) -> RulesText {
    let fields = reader.fields(node, "`rules`", &RULES, &[]);
    let default = verdict(reader, &fields, "default");
    let accept = fields
        .get("accept")
        .map_or(&[][..], |node| reader.object(node, &fields.what("accept")));
    too_many(reader, node, accept.len(), "rules");
    let accept = accept
        .iter()
        .take(RULES_MAX)
        .filter_map(|entry| Some((entry.key.clone(), rule(reader, entry)?)));
    let accept = accept.collect();
    let tests = fields
        .get("tests")
        .map_or(&[][..], |node| list(reader, node, &fields.what("tests")));
    too_many(reader, node, tests.len(), "tests of rules");
    let tests = tests
        .iter()
        .take(RULES_MAX)
        .filter_map(|node| test(reader, node));
    RulesText {
        span: node.span.start..node.span.start + 1,
        default: default.unwrap_or(Verdict::Allow),
        accept,
        tests: tests.collect(),
    }
}

fn too_many(reader: &mut Reader<'_>, node: &Node, count: usize, of_what: &str) {
    if count > RULES_MAX {
        let message = format!("{count} {of_what}; {RULES_MAX} is the most");
        reader.error(node.span.start..node.span.start + 1, message);
    }
}

fn rule(reader: &mut Reader<'_>, entry: &Entry) -> Option<RuleText> {
    check_label(reader, &entry.key, entry, "name of a rule");
    if !entry.key.is_ascii() {
        // Keys in a roster are.
        let message = format!(
            "the rule's name `{}` is not ASCII",
            entry.key.escape_debug()
        );
        reader.error(entry.key_span.clone(), message);
    }
    let whose = format!("rule `{}`", entry.key.escape_debug());
    let fields = reader.fields(&entry.value, whose, &RULE, &[]);
    let protocol = fields
        .get("protocol")
        .map(|node| number_or_text::<Protocol>(reader, node, &fields.what("protocol"), PROTOCOLS));
    let ports = fields
        .get("ports")
        .map_or(&[][..], |node| list(reader, node, &fields.what("ports")));
    let entry_of_ports = format!("an entry of {}", fields.what("ports"));
    let read_ports: Vec<PortRange> = ports
        .iter()
        .filter_map(|node| number_or_text(reader, node, &entry_of_ports, PORTS))
        .collect();
    // What is not understood may have been meant to narrow it.
    let is_narrow = read_ports.len() == ports.len() && protocol != Some(None);
    let protocol = protocol.flatten();
    if let (Some(protocol), Some(node), false) = (protocol, fields.get("ports"), ports.is_empty())
        && !protocol.has_ports()
    {
        let message = format!(
            "{} are of `{protocol}`, which has none",
            fields.what("ports")
        );
        reader.problems.push(
            Problem::error(node.span.clone(), message)
                .hint("leave them out, or make it two rules: `tcp` and `udp` have ports"),
        );
    }
    let mut ends = |key| {
        let Some(node) = fields.get(key) else {
            let message = format!("rule `{}` has no `{key}`", entry.key.escape_debug());
            let hint =
                "say who is meant: `*`, `guests`, a machine's name, `tag:TAG` or `role:ROLE`";
            reader
                .problems
                .push(Problem::error(entry.key_span.clone(), message).hint(hint));
            return Vec::new();
        };
        let what = fields.what(key);
        let texts = reader.texts(node, &what);
        let one = format!("an entry of {what}");
        texts
            .into_iter()
            .filter_map(|text| selector(reader, text, &one))
            .collect()
    };
    let (from, to) = (ends("from"), ends("to"));
    is_narrow.then(|| RuleText {
        span: entry.key_span.clone(),
        from,
        to,
        protocol,
        ports: read_ports,
    })
}

fn test(reader: &mut Reader<'_>, node: &Node) -> Option<RuleTestText> {
    let fields = reader.fields(node, "a test of rules", &RULE_TEST, &[]);
    let start = node.span.start..node.span.start + 1;
    let mut end = |key| {
        let Some(node) = fields.get(key) else {
            reader.error(start.clone(), format!("a test of rules has no `{key}`"));
            return None;
        };
        let what = fields.what(key);
        let text = reader.text(node, &what)?;
        selector(reader, text, &what)
    };
    let (from, to) = (end("from"), end("to"));
    let protocol = match fields.get("protocol") {
        Some(node) => number_or_text(reader, node, &fields.what("protocol"), PROTOCOLS),
        None => Some(Protocol::Tcp),
    };
    let port = match fields.get("port") {
        Some(node) => {
            number_or_text::<PortRange>(reader, node, &fields.what("port"), "a port").map(Some)
        }
        None => Some(None),
    };
    if let (Some(protocol), Some(port)) = (protocol, port)
        && protocol.has_ports() != port.is_some()
    {
        let message = match port {
            Some(_) => format!("a test of rules has a port, and `{protocol}` has none"),
            None => format!("a test of rules for `{protocol}` has no `port`"),
        };
        reader.error(start.clone(), message);
        return None;
    }
    if let Some(Some(range)) = port
        && range.first() != range.last()
    {
        reader.error(start, "a test of rules asks for one port".to_owned());
        return None;
    }
    let expect = verdict(reader, &fields, "expect");
    if fields.get("expect").is_none() {
        reader.problems.push(
            Problem::error(start, "a test of rules has no `expect`")
                .hint("say what is to come of it: `allow` or `deny`"),
        );
    }
    Some(RuleTestText {
        span: node.span.start..node.span.start + 1,
        from: from?,
        to: to?,
        protocol: protocol?,
        port: port?.map(PortRange::first),
        expect: expect?,
    })
}

const PROTOCOLS: &str = "`tcp`, `udp`, `icmp` or a protocol's number";
const PORTS: &str = "a port from 1 to 65535, or two of them as in `8000-8999`";

/// `allow` or `deny`; `None`: neither, or nothing is said.
fn verdict(reader: &mut Reader<'_>, fields: &Fields<'_>, key: &str) -> Option<Verdict> {
    const WORDS: [(&str, Verdict); 2] = [("allow", Verdict::Allow), ("deny", Verdict::Deny)];
    let what = fields.what(key);
    let text = reader.text(fields.get(key)?, &what)?;
    let word = WORDS.iter().find(|(word, _)| *word == text.value);
    if word.is_none() {
        let words = WORDS.map(|(word, _)| word);
        let hint = match suggestion(&text.value, words.into_iter()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("it takes {}", quoted(&words)),
        };
        let message = format!("{what} is `{}`", text.value.escape_debug());
        reader
            .problems
            .push(Problem::error(text.span, message).hint(hint));
    }
    word.map(|(_, verdict)| *verdict)
}

fn selector(
    reader: &mut Reader<'_>,
    text: Spanned<String>,
    what: &str,
) -> Option<Spanned<Selector>> {
    match text.value.parse() {
        Ok(value) => Some(Spanned {
            value,
            span: text.span,
        }),
        Err(error) => {
            let given = text.value.escape_debug();
            let message = format!("{what} is `{given}`, which says nobody: {error}");
            reader.error(text.span, message);
            None
        }
    }
}

/// What may be written as a number and as text.
fn number_or_text<T: FromStr>(
    reader: &mut Reader<'_>,
    node: &Node,
    what: &str,
    expected: &str,
) -> Option<T> {
    let value = match &node.datum {
        Datum::Text(text) => text.clone(),
        Datum::Number(number) => number.to_string(),
        Datum::Null | Datum::Bool(_) | Datum::List(_) | Datum::Map(_) => {
            reader.wrong_kind(node, what, expected);
            return None;
        }
    };
    let span = node.span.clone();
    let text = Spanned { value, span };
    reader
        .parse_text(text, what, expected)
        .map(|parsed| parsed.value)
}

fn list<'n>(reader: &mut Reader<'_>, node: &'n Node, what: &str) -> &'n [Node] {
    let Datum::List(items) = &node.datum else {
        reader.wrong_kind(node, what, "a list");
        return &[];
    };
    items
}
