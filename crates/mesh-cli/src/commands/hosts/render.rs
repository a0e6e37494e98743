//! The forms of `mesh hosts`: a value in, text out.
//!
//! Names and keys come from a roster that anyone may have signed: what is no name is left out, so nothing
//! that is printed means more to its reader than it says.

use std::net::IpAddr;

use mesh_api::{Host, Hosts};
use mesh_types::MachineName;

/// Labels as machines' names are, joined by dots.
pub(super) fn is_name(text: &str) -> bool {
    text.split('.')
        .all(|label| label.parse::<MachineName>().is_ok())
}

/// Lines of `/etc/hosts`: an address, and the full names of who has it.
pub(super) fn hosts(hosts: &Hosts) -> String {
    let mut text = format!("# {} by roster {}\n", hosts.domain, hosts.serial);
    for host in &hosts.hosts {
        for address in addresses(host) {
            let names = names(host, &hosts.domain).join(" ");
            text += &format!("{address} {names}\n");
        }
    }
    text
}

/// Lines of `known_hosts`: names and addresses, and a key.
pub(super) fn ssh(hosts: &Hosts) -> String {
    let mut text = String::new();
    for host in &hosts.hosts {
        let names = known_as(host, &hosts.domain).join(",");
        for key in &host.ssh_host_keys {
            text += &format!("{names} {key}\n");
        }
    }
    text
}

/// A Nix expression in the forms of NixOS' and nix-darwin's options.
pub(super) fn nix(hosts: &Hosts) -> String {
    let list = |names: Vec<String>| -> String {
        let quoted = names.iter().map(|name| format!(" \"{name}\""));
        quoted.collect()
    };
    let mut text = format!(
        "# {} by roster {}\n{{\n  hosts = {{\n",
        hosts.domain, hosts.serial
    );
    for host in &hosts.hosts {
        for address in addresses(host) {
            let names = list(names(host, &hosts.domain));
            text += &format!("    \"{address}\" = [{names} ];\n");
        }
    }
    text += "  };\n  knownHosts = {\n";
    for host in &hosts.hosts {
        let names = list(known_as(host, &hosts.domain));
        for (index, key) in host.ssh_host_keys.iter().enumerate() {
            // A dot is in no machine's name, so no two entries are called the same.
            let suffix = match index {
                0 => String::new(),
                index => format!(".{}", index + 1),
            };
            text += &format!(
                "    \"{}{suffix}\" = {{\n      hostNames = [{names} ];\n      publicKey = \"{key}\";\n    }};\n",
                host.name
            );
        }
    }
    text + "  };\n}\n"
}

/// The machines that no line of `known_hosts` is for.
pub(super) fn keyless(hosts: &Hosts) -> Option<String> {
    let keyless = hosts
        .hosts
        .iter()
        .filter(|host| host.ssh_host_keys.is_empty());
    let names: Vec<_> = keyless.map(|host| format!("`{}`", host.name)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "without `sshHostKeys` in the inventory, and so left out: {}",
            names.join(", ")
        )
    })
}

/// The wildcards, which a hosts file cannot say.
pub(super) fn wildcards_left_out(hosts: &Hosts) -> Option<String> {
    let all = hosts.hosts.iter().flat_map(|host| &host.aliases);
    let names: Vec<_> = all
        .filter(|alias| wildcard(alias))
        .map(|alias| format!("`{alias}.{}`", hosts.domain))
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "only DNS can say a wildcard, and so left out: {}",
            names.join(", ")
        )
    })
}

fn addresses(host: &Host) -> impl Iterator<Item = IpAddr> {
    std::iter::once(IpAddr::V6(host.address)).chain(host.ipv4.map(IpAddr::V4))
}

fn names(host: &Host, domain: &str) -> Vec<String> {
    let aliases = host.aliases.iter().filter(|alias| is_name(alias));
    std::iter::once(host.name.as_str())
        .chain(aliases.map(String::as_str))
        .map(|name| format!("{name}.{domain}"))
        .collect()
}

/// What SSH may have been told to connect to; wildcards it knows as well.
fn known_as(host: &Host, domain: &str) -> Vec<String> {
    let wildcards = host.aliases.iter().filter(|alias| wildcard(alias));
    let mut known = vec![host.name.to_string()];
    known.extend(names(host, domain));
    known.extend(wildcards.map(|alias| format!("{alias}.{domain}")));
    known.extend(addresses(host).map(|address| address.to_string()));
    known
}

fn wildcard(alias: &str) -> bool {
    alias.strip_prefix("*.").is_some_and(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDVM0wBmSKsgpf16fE10MiWgVzS2cPsnkUVCCb5S4wk";

    fn fleet() -> Hosts {
        let host = |name: &str, last: u16| Host {
            name: name.parse().unwrap(),
            address: [0xfdc3, 0x582e, 0xdb61, 0, 0, 0, 0, last].into(),
            ipv4: None,
            enabled: true,
            aliases: vec![],
            ssh_host_keys: vec![],
        };
        Hosts {
            version: 1,
            serial: 7.try_into().unwrap(),
            domain: "mesh".to_owned(),
            hosts: vec![
                Host {
                    ipv4: Some([100, 64, 7, 1].into()),
                    aliases: ["kanban", "*.apps", "b\nad", "x\" ];"]
                        .map(str::to_owned)
                        .to_vec(),
                    ssh_host_keys: vec![KEY.to_owned(), KEY.replace("IIDV", "IIDW")],
                    ..host("cinnabar", 1)
                },
                Host {
                    enabled: false,
                    ..host("galena", 2)
                },
            ],
        }
    }

    #[test]
    fn every_form_says_the_same_of_a_fleet() {
        let fleet = fleet();
        insta::assert_snapshot!("hosts", hosts(&fleet));
        insta::assert_snapshot!("ssh", ssh(&fleet));
        insta::assert_snapshot!("nix", nix(&fleet));
        let json = serde_json::to_string_pretty(&fleet).unwrap();
        insta::assert_snapshot!("json", json);
    }

    #[test]
    fn what_is_left_out_is_named() {
        let fleet = fleet();
        let note = keyless(&fleet).unwrap();
        assert!(note.ends_with("left out: `galena`"), "{note}");
        let note = wildcards_left_out(&fleet).unwrap();
        assert!(note.ends_with("left out: `*.apps.mesh`"), "{note}");
    }

    #[test]
    fn a_domain_is_labels() {
        assert!(is_name("mesh") && is_name("mesh.example"));
        for bad in ["", "a b", "a..b", "a\" ];", "A"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
