//! Marks of congestion (RFC 3168) go through the tunnel (RFC 6040): what a queue outside says arrives inside.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::process::Command;

use mesh_lab::Fleet;
use mesh_tests::{assert_reaches, running};

/// A queue that marks every datagram of the mesh whose sender takes marks.
const QUEUE: &str = "table inet marks {
    chain out {
        type filter hook output priority mangle
        udp dport 4193 ip ecn ect0 ip ecn set ce
        udp dport 4193 ip6 ecn ect0 ip6 ecn set ce
    }
}";

/// Counts what comes out of the tunnel.
const MEASURE: &str = "table inet measure {
    chain in {
        type filter hook input priority filter
        iifname mesh0 icmpv6 type echo-request counter
        iifname mesh0 icmpv6 type echo-request ip6 ecn ce counter
    }
}";

const ECHOES: u64 = 5;

/// Runs a line of shell on a machine; returns what it says.
fn on(fleet: &Fleet, name: &str, line: &str) -> String {
    let mut command = Command::new("sh");
    let output = fleet.run_on(name, command.args(["-ec", line])).unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// How many echoes came to cinnabar, and how many of them with a mark, after some with this traffic class.
fn echoes(fleet: &Fleet, class: u8) -> Vec<u64> {
    on(
        fleet,
        "cinnabar",
        &format!("nft -f - <<'END'\nflush ruleset\n{MEASURE}\nEND"),
    );
    let to = fleet.address("cinnabar").unwrap();
    let ping = format!("ping -6 -n -q -c {ECHOES} -i 0.2 -Q {class} {to}");
    on(fleet, "galena", &ping);
    let counted = on(fleet, "cinnabar", "nft list ruleset");
    let numbers = counted.split("counter packets ").skip(1);
    numbers
        .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_mark_that_a_queue_outside_makes_arrives_inside() {
    let Some(fleet) = running(&["cinnabar", "galena"]) else {
        return;
    };
    assert_reaches(&fleet, "galena", "cinnabar");
    on(&fleet, "galena", &format!("nft -f - <<'END'\n{QUEUE}\nEND"));
    // ECT(0), and a sender that takes no marks.
    assert_eq!(echoes(&fleet, 2), [ECHOES, ECHOES]);
    assert_eq!(echoes(&fleet, 0), [ECHOES, 0]);
}
