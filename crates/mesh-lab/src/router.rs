//! A router between a machine and the switch: the kernel's own NAT.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::namespace::Namespace;

/// What a router does with what passes (RFC 4787's words in brackets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// Translates and keeps the port where it can, so that all destinations see one mapping; lets in what
    /// comes from where something was sent (port-preserving, address- and port-dependent filtering).
    Masquerade,
    /// Translates to a random port for each destination (address- and port-dependent mapping).
    MasqueradeRandom,
}

/// The inner interface of a router.
pub(crate) const INNER: &str = "lan0";

/// Sets up forwarding, addresses and rules in the router's namespace, whose interfaces are there: `outer`
/// towards the switch, with its addresses, and [`INNER`] towards `machine`, whose interface is `outer`, too.
pub(crate) fn set_up(
    router: Router,
    namespace: &Namespace,
    machine: &Namespace,
    outer: &str,
    number: u8,
) -> anyhow::Result<()> {
    namespace.run(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward")?;
        feed(
            "ip",
            &["-batch", "-"],
            &format!("address add 10.0.{number}.1/24 dev {INNER}\nlink set {INNER} up\n"),
        )?;
        feed("nft", &["-f", "-"], &rules(router, outer))
    })?;
    machine.run(|| {
        let lines = format!(
            "address add 10.0.{number}.2/24 dev {outer}\nlink set {outer} up\nroute add default via 10.0.{number}.1\n"
        );
        feed("ip", &["-batch", "-"], &lines)
    })
}

/// What comes unasked is dropped, as routers do: a connection that the kernel began to track for it would
/// take the port from the machine behind.
fn rules(router: Router, outer: &str) -> String {
    let ports = match router {
        Router::Masquerade => "",
        Router::MasqueradeRandom => "fully-random",
    };
    format!(
        "table ip router {{
  chain translate {{ type nat hook postrouting priority srcnat; oifname {outer} masquerade {ports}; }}
  chain arrive {{
    type filter hook input priority filter;
    iifname {outer} meta l4proto udp drop;
  }}
  chain pass {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname {INNER} accept
  }}
}}
"
    )
}

fn feed(program: &str, arguments: &[&str], lines: &str) -> anyhow::Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{program}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let status = child.wait()?;
    ensure!(
        status.success(),
        "`{program}` failed ({status}) on:\n{lines}"
    );
    Ok(())
}
