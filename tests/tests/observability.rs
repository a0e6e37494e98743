//! Metrics of running daemons, judged by Prometheus' own tool, and the rules and the dashboard that read them.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use mesh_lab::Fleet;
use mesh_tests::{assert_reaches, fleet, start};
use serde_json::json;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observability")
}

/// What is answered at `/metrics` on a machine's loopback.
fn scrape(fleet: &Fleet, name: &str, port: u16) -> String {
    let namespace = fleet.namespace(name).unwrap();
    let answer = namespace.run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// `promtool` with something on its stdin; `None`: it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<()> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {output:?}\n{input}"
    );
    Some(())
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("mesh_") && *word != "mesh_");
    names.map(str::to_owned).collect()
}

#[test]
fn the_daemons_say_what_the_page_lists_and_prometheus_takes_it() {
    let Some(mut fleet) = fleet(&["cinnabar", "galena", "pyrite"]) else {
        return;
    };
    fleet
        .edit_inventory(|inventory| {
            inventory["rules"] = json!({
                "default": "deny",
                "accept": { "ping": { "from": ["*"], "to": ["*"], "protocol": "icmp" } },
            });
        })
        .unwrap();
    let add = |path: PathBuf, line: &str| {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    };
    for name in ["cinnabar", "galena"] {
        let config = fleet.files(name).unwrap().agent_config_path();
        add(config, "metrics_listen = \"127.0.0.1:9193\"\n");
    }
    let config = fleet.files("cinnabar").unwrap().controller_config_path();
    add(config, "http_listen = \"127.0.0.1:4195\"\n");
    start(&mut fleet);
    assert_reaches(&fleet, "galena", "pyrite");

    let texts = [
        scrape(&fleet, "galena", 9193),
        scrape(&fleet, "cinnabar", 9193),
        scrape(&fleet, "cinnabar", 4195),
    ];
    let [galena, moon, controller] = &texts;
    assert!(galena.contains("mesh_agent_admitted 1\n"), "{galena}");
    assert!(
        galena.contains("mesh_peer_unreachable{peer=\"pyrite\"} 0\n"),
        "{galena}"
    );
    assert!(
        galena.contains("mesh_rule_packets_total{rule=\"ping\"} "),
        "{galena}"
    );
    assert!(moon.contains("mesh_moon_clients "), "{moon}");
    let online = "mesh_controller_machine_online{machine=\"galena\"} 1\n";
    assert!(controller.contains(online), "{controller}");

    let page = fs::read_to_string(docs().join("README.md")).unwrap();
    let listed = names(&page);
    for text in &texts {
        let said = text.lines().filter(|line| !line.starts_with('#'));
        let said = said.map(|line| line.split([' ', '{']).next().unwrap().to_owned());
        for name in said.collect::<BTreeSet<_>>() {
            // The page shortens a row of counters.
            let short = name.replace("mesh_controller_", "…");
            assert!(listed.contains(&name) || page.contains(&short), "{name}");
        }
        promtool(&["check", "metrics"], text);
    }
}

#[test]
fn alarms_and_dashboard_ask_for_what_the_page_lists() {
    let read = |file: &str| fs::read_to_string(docs().join(file)).unwrap();
    let listed = names(&read("README.md"));
    for file in ["alerts.yml", "dashboard.json"] {
        let asked: Vec<_> = names(&read(file)).difference(&listed).cloned().collect();
        assert!(asked.is_empty(), "{file}: {asked:?}");
    }
    let _: serde_json::Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let alerts = docs().join("alerts.yml");
    promtool(&["check", "rules", alerts.to_str().unwrap()], "");
}
