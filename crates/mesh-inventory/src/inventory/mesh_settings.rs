//! The settings of the mesh instance's roles.

use std::collections::BTreeMap;

use mesh_types::{AGENT_PORT, CONTROLLER_PORT};
use serde_json::Value;

use super::{
    Instance, Spanned,
    fields::{Reader, quoted, suggestion},
};
use crate::{
    endpoint,
    report::Problem,
    roster::Role,
    syntax::{Datum, Node},
};

const SERVER: [&str; 3] = ["endpoints", "relay", "relayRateLimit"];
const PEER: [&str; 1] = ["relayOnly"];

/// Checks every settings object of the mesh instance, as it is written.
pub(crate) fn check_settings(instance: &Instance, problems: &mut Vec<Problem>) {
    let mut reader = Reader { problems };
    if let Some(settings) = &instance.settings {
        reader.fields(settings, "the settings of the mesh instance", &[], &[]);
    }
    for (name, assigned) in &instance.roles {
        let Some(role) = Role::named(name) else {
            let message = format!("the mesh has no role `{}`", name.escape_debug());
            let roles = Role::ALL.map(Role::name);
            let hint = match suggestion(name, roles.into_iter()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("its roles are {}", quoted(&roles)),
            };
            reader
                .problems
                .push(Problem::error(assigned.span.clone(), message).hint(hint));
            continue;
        };
        let layers = [&assigned.tags, &assigned.machines]
            .into_iter()
            .flat_map(|assignments| assignments.values())
            .filter_map(|assignment| assignment.settings.as_ref());
        for settings in assigned.settings.iter().chain(layers) {
            role_settings(role, name, settings, &mut reader);
        }
    }
}

/// The highest rate of a relay, in bytes a second: 1 TiB, far above any line, and a whole number in JSON.
const RATE_MAX: u64 = 1 << 40;

fn role_settings(role: Role, name: &str, settings: &Node, reader: &mut Reader<'_>) {
    let known: &[&str] = match role {
        Role::Controller | Role::Moon => &SERVER,
        Role::Peer => &PEER,
    };
    let fields = reader.fields(
        settings,
        format!("the settings of role `{name}`"),
        known,
        &[],
    );
    if let Some(node) = fields.get("endpoints") {
        for text in reader.texts(node, &fields.what("endpoints")) {
            check_endpoint(&text, reader.problems);
        }
    }
    for key in ["relay", "relayOnly"] {
        if let Some(node) = fields.get(key) {
            reader.truth(node, &fields.what(key));
        }
    }
    if let Some(node) = fields.get("relayRateLimit") {
        let good = match &node.datum {
            Datum::Number(number) => number.as_u64().is_some_and(is_rate),
            Datum::Text(text) => parse_rate(text).is_some(),
            Datum::Null | Datum::Bool(_) | Datum::List(_) | Datum::Map(_) => false,
        };
        if !good {
            let what = fields.what("relayRateLimit");
            reader.problems.push(Problem::error(
                node.span.clone(),
                format!("{what} must be bytes a second: a whole number, or text such as `10MiB`"),
            ));
        }
    }
}

/// Checks one endpoint's form; the controller's port in place of the agent's is a warning.
pub(crate) fn check_endpoint(text: &Spanned<String>, problems: &mut Vec<Problem>) {
    let span = text.span.clone();
    match endpoint::parse(&text.value) {
        Err(reason) => problems.push(Problem::error(span, format!("not an endpoint: {reason}"))),
        Ok((_, CONTROLLER_PORT)) => problems.push(
            Problem::warning(span, format!("port {CONTROLLER_PORT} is a controller's"))
                .hint(format!("an endpoint is where the machine's agent is reached: port {AGENT_PORT}, unless configured")),
        ),
        Ok(_) => {}
    }
}

/// The endpoints that merged settings of a controller or moon name.
pub(crate) fn endpoints_of(settings: &Value) -> impl Iterator<Item = &str> {
    settings
        .get("endpoints")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Whether a machine with these roles and merged settings relays: one of its roles that relay must not be
/// told otherwise. True of other machines too, which are never asked.
pub(crate) fn relay(roles: &BTreeMap<Role, Value>) -> bool {
    let mut told = relaying(roles)
        .map(|settings| settings.get("relay").and_then(Value::as_bool) != Some(false))
        .peekable();
    told.peek().is_none() || told.any(|relays| relays)
}

/// What it relays for one client, in bytes a second: the least that its roles' settings say.
pub(crate) fn relay_rate_limit(roles: &BTreeMap<Role, Value>) -> Option<u64> {
    relaying(roles)
        .filter_map(|settings| {
            let limit = settings.get("relayRateLimit")?;
            limit.as_str().map_or_else(|| limit.as_u64(), parse_rate)
        })
        .min()
}

/// Whether it is reached by relays alone.
pub(crate) fn relay_only(roles: &BTreeMap<Role, Value>) -> bool {
    let settings = roles.get(&Role::Peer);
    let told = settings.and_then(|settings| settings.get("relayOnly"));
    told.and_then(Value::as_bool) == Some(true)
}

fn relaying(roles: &BTreeMap<Role, Value>) -> impl Iterator<Item = &Value> {
    [Role::Controller, Role::Moon]
        .into_iter()
        .filter_map(|role| roles.get(&role))
}

/// Bytes a second, from a whole number or one with a unit such as `10MiB`; `None`: `text` is no such thing.
pub fn parse_rate(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let size = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    is_rate(size).then_some(size)
}

const fn is_rate(rate: u64) -> bool {
    rate > 0 && rate <= RATE_MAX
}
