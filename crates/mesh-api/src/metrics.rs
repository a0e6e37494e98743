//! What the daemons say as Prometheus reads it (text format 0.0.4). `docs/observability/README.md` lists it.

use std::fmt::{Display, Write as _};

use crate::{ControllerReport, PathKind, PeerState, RosterStatus, Rules, Status};

/// The media type of the text.
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes families one after the other.
#[derive(Default)]
struct Text(String);

/// What a number does.
#[derive(Clone, Copy)]
enum Kind {
    /// It goes up and down.
    Gauge,
    /// It goes up, and back to zero when the daemon starts.
    Counter,
}

impl Text {
    /// Writes a family with its samples, each with its labels; nothing where there are none.
    fn family<'a, N: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, N)>,
    ) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let mut is_first = true;
        for (labels, value) in samples {
            if std::mem::take(&mut is_first) {
                // Writing to a string does not fail.
                let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            }
            let labels: Vec<_> = labels
                .into_iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let _ = match labels.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
            };
        }
    }

    fn gauge<N: Display>(&mut self, name: &str, help: &str, value: N) {
        self.family(name, Kind::Gauge, help, [(Vec::new(), value)]);
    }

    fn counter<N: Display>(&mut self, name: &str, help: &str, value: N) {
        self.family(name, Kind::Counter, help, [(Vec::new(), value)]);
    }

    fn roster(&mut self, prefix: &str, roster: Option<&RosterStatus>) {
        let Some(roster) = roster else { return };
        let name = |what: &str| format!("{prefix}_roster_{what}");
        self.gauge(
            &name("serial"),
            "Serial of the roster in force.",
            roster.serial,
        );
        self.gauge(
            &name("members"),
            "Members of the roster in force.",
            roster.members,
        );
        self.gauge(
            &name("age_seconds"),
            "Seconds since the roster in force was signed.",
            roster.age_seconds,
        );
    }
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

fn number(is_so: bool) -> u8 {
    u8::from(is_so)
}

/// What an agent says.
pub fn agent_metrics(status: &Status, rules: Option<&Rules>) -> String {
    use Kind::{Counter, Gauge};
    let mut text = Text::default();
    let node = &status.node;
    let name = node.name.as_ref().map_or("", |name| name.as_str());
    let labels = vec![
        ("machine", name),
        ("network", node.network.as_str()),
        ("release", node.release.as_str()),
    ];
    text.family(
        "mesh_agent_info",
        Gauge,
        "The agent; always 1.",
        [(labels, 1)],
    );
    text.gauge(
        "mesh_agent_admitted",
        "Whether this machine is admitted.",
        number(node.admitted),
    );
    text.gauge(
        "mesh_agent_warnings",
        "What is odd although it works, as `mesh status` says it.",
        status.warnings.len(),
    );
    text.roster("mesh", status.roster.as_ref());
    let controllers = status.controllers.iter().map(|controller| {
        let labels = vec![("endpoint", controller.endpoint.as_str())];
        (labels, number(controller.connected))
    });
    text.family(
        "mesh_controller_connected",
        Gauge,
        "Whether the agent is connected to a controller.",
        controllers,
    );
    let peers = || {
        status
            .peers
            .iter()
            .map(|peer| (vec![("peer", peer.name.as_str())], peer))
    };
    text.family(
        "mesh_peer_reason",
        Gauge,
        "The state of a peer and its reason; always 1.",
        peers().map(|(mut labels, peer)| {
            labels.extend([
                ("state", peer.state.name()),
                ("reason", peer.reason_code.as_str()),
            ]);
            (labels, 1)
        }),
    );
    text.family(
        "mesh_peer_unreachable",
        Gauge,
        "Whether a peer was tried and does not answer.",
        peers().map(|(labels, peer)| (labels, number(peer.state == PeerState::Unreachable))),
    );
    text.family(
        "mesh_peer_relayed",
        Gauge,
        "Whether a peer is reached through a moon; nothing where it is not reached.",
        peers()
            .filter_map(|(labels, peer)| Some((labels, number(peer.path? == PathKind::Relayed)))),
    );
    text.family(
        "mesh_peer_round_trip_seconds",
        Gauge,
        "The last round trip inside the tunnel.",
        peers().filter_map(|(labels, peer)| Some((labels, seconds(peer.rtt_micros?)))),
    );
    text.family(
        "mesh_peer_handshake_age_seconds",
        Gauge,
        "Seconds since the last handshake with a peer.",
        peers().filter_map(|(labels, peer)| Some((labels, peer.last_handshake_seconds?))),
    );
    text.family(
        "mesh_peer_mtu_bytes",
        Gauge,
        "The largest packet that goes to a peer whole.",
        peers().filter_map(|(labels, peer)| Some((labels, peer.mtu?))),
    );
    text.family(
        "mesh_peer_received_bytes_total",
        Counter,
        "Bytes received from a peer.",
        peers().map(|(labels, peer)| (labels, peer.rx_bytes)),
    );
    text.family(
        "mesh_peer_sent_bytes_total",
        Counter,
        "Bytes sent to a peer.",
        peers().map(|(labels, peer)| (labels, peer.tx_bytes)),
    );
    if let Some(relaying) = &status.relaying {
        text.gauge(
            "mesh_moon_clients",
            "Members that this moon relays for.",
            relaying.clients,
        );
        for (name, help, value) in [
            (
                "mesh_moon_frames_total",
                "Frames that this moon sent on.",
                relaying.relayed_frames,
            ),
            (
                "mesh_moon_bytes_total",
                "Bytes of the frames that this moon sent on.",
                relaying.relayed_bytes,
            ),
            (
                "mesh_moon_limited_frames_total",
                "Frames dropped for a client's rate or share.",
                relaying.limited_frames,
            ),
            (
                "mesh_moon_notices_total",
                "Frames answered with the reason why they were not sent on.",
                relaying.notices,
            ),
        ] {
            text.counter(name, help, value);
        }
    }
    if let Some(rules) = rules {
        text.counter(
            "mesh_rules_denied_packets_total",
            "Packets that no rule let in.",
            rules.denied_packets,
        );
        let here = rules.rules.iter().filter(|rule| rule.here);
        text.family(
            "mesh_rule_packets_total",
            Counter,
            "Packets that a rule let in.",
            here.map(|rule| (vec![("rule", rule.name.as_str())], rule.packets)),
        );
    }
    text.0
}

/// What a controller says.
pub fn controller_metrics(report: &ControllerReport) -> String {
    use Kind::Gauge;
    let mut text = Text::default();
    let labels = vec![
        ("network", report.network.as_str()),
        ("mode", report.mode.as_str()),
        ("release", report.release.as_str()),
    ];
    text.family(
        "mesh_controller_info",
        Gauge,
        "The controller; always 1.",
        [(labels, 1)],
    );
    text.roster("mesh_controller", report.roster.as_ref());
    let machines = || {
        let machines = report.machines.iter();
        machines.map(|machine| (vec![("machine", machine.name.as_str())], machine))
    };
    text.family(
        "mesh_controller_machine_online",
        Gauge,
        "Whether a machine that is switched on and has a key is connected.",
        machines()
            .filter(|(_, machine)| machine.enabled && machine.keyed)
            .map(|(labels, machine)| (labels, number(machine.online))),
    );
    text.family(
        "mesh_controller_machine_roster_serial",
        Gauge,
        "Serial of the roster that a machine holds.",
        machines().filter_map(|(labels, machine)| Some((labels, machine.serial?))),
    );
    text.gauge(
        "mesh_controller_pending_keys",
        "Keys that asked to join and are in no roster.",
        report.pending,
    );
    let problems = report.problems.iter();
    text.family(
        "mesh_controller_problem",
        Gauge,
        "Something that is wrong; always 1.",
        problems.map(|problem| (vec![("what", problem.what.as_str())], 1)),
    );
    let counters = &report.counters;
    for (what, help, value) in [
        (
            "admitted",
            "Connections that were admitted.",
            counters.admitted,
        ),
        (
            "refused",
            "Connections that were refused.",
            counters.refused,
        ),
        ("removed", "Machines that were cut off.", counters.removed),
        ("rosters", "Rosters that came into force.", counters.rosters),
        (
            "rosters_refused",
            "Rosters that were refused.",
            counters.rosters_refused,
        ),
        (
            "introductions",
            "Pairs that were introduced.",
            counters.introductions,
        ),
        (
            "rate_limited",
            "Questions and pushes that came too often.",
            counters.rate_limited,
        ),
    ] {
        text.counter(&format!("mesh_controller_{what}_total"), help, value);
    }
    text.0
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_head_once_and_labels_are_escaped() {
        let mut text = Text::default();
        let samples = [
            (vec![("a", "x\"y\\z\n")], 1),
            (vec![("a", "b"), ("c", "d")], 2),
        ];
        text.family("m", Kind::Counter, "What it is.", samples);
        text.family(
            "none",
            Kind::Gauge,
            "Nothing.",
            [(); 0].map(|()| (Vec::new(), 0)),
        );
        let expected = "# HELP m What it is.\n# TYPE m counter\nm{a=\"x\\\"y\\\\z\\n\"} 1\nm{a=\"b\",c=\"d\"} 2\n";
        assert_eq!(text.0, expected);
        assert_eq!(seconds(1_000_042), "1.000042");
    }
}
