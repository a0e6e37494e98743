//! Looks at the machine.

use std::{fs, io::Read as _, net::IpAddr, path::Path};

use super::{
    decision::{Facts, Hosts, Platform},
    hosts, resolvconf,
};

/// The most that is read of a configuration file; they have a few lines.
const BYTES_MAX: u64 = 1 << 16;

/// What libc does without a line for hosts (nsswitch.conf(5)).
const NSS_DEFAULT: [&str; 2] = ["files", "dns"];

/// Gathers what is known of the machine whose files are below `root`. What runs is asked only where that is
/// this machine.
pub(super) fn gather(root: &Path) -> Facts {
    let resolv_conf = read(&root.join("etc/resolv.conf"));
    let is_this = root == Path::new("/");
    Facts {
        platform: platform(),
        resolved_runs: is_this && resolved_runs(),
        nss: nss_of_hosts(&read(&root.join("etc/nsswitch.conf"))),
        servers: servers(&resolv_conf),
        resolvconf_rules: resolvconf::made(&resolv_conf),
        resolvconf: resolvconf::find(root),
        hosts: match hosts::check(root) {
            Ok(()) => Hosts::Writable,
            Err(error) => Hosts::Closed {
                reason: mesh_types::chain(&error),
            },
        },
    }
}

fn platform() -> Platform {
    if cfg!(target_os = "macos") {
        Platform::Macos
    } else {
        Platform::Linux
    }
}

#[cfg(target_os = "linux")]
fn resolved_runs() -> bool {
    super::resolved::runs()
}

#[cfg(not(target_os = "linux"))]
fn resolved_runs() -> bool {
    false
}

/// A file's text; nothing where it cannot be read.
pub(super) fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // What was read until an error counts, as it does for libc.
        let _ = file.take(BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The servers of a resolv.conf(5).
pub(super) fn servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| {
            let word = rest.split_ascii_whitespace().next()?;
            // Without the zone of a link-local address.
            let address = word.split_once('%').map_or(word, |(address, _)| address);
            address.parse().ok()
        })
        .collect()
}

/// The services of the line `hosts:` of an nsswitch.conf(5), without what to do after each.
fn nss_of_hosts(text: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        line.trim_start().strip_prefix("hosts:")
    });
    let Some(line) = line else {
        return NSS_DEFAULT.map(str::to_owned).to_vec();
    };
    let mut services = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('[') {
        services.extend(before.split_ascii_whitespace());
        rest = after.split_once(']').map_or("", |(_, after)| after);
    }
    services.extend(rest.split_ascii_whitespace());
    services.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libc_asks_is_read_as_libc_does() {
        let of = |text| nss_of_hosts(text).join(" ");
        assert_eq!(of("hosts: files dns"), "files dns");
        assert_eq!(
            of(
                "passwd: files\nhosts:\tfiles mdns4_minimal [NOTFOUND=return] resolve[!UNAVAIL=return]dns # x\n"
            ),
            "files mdns4_minimal resolve dns"
        );
        assert_eq!(of("#hosts: dns\n"), "files dns");
        assert_eq!(of(""), "files dns");
        assert_eq!(of("hosts: dns [oh"), "dns");
    }

    #[test]
    fn servers_are_read_as_libc_does() {
        let text = "# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver\tfe80::1%eth0\nnameserver x\nnameservers 1.2.3.4\noptions edns0\n";
        let expected: Vec<IpAddr> = vec!["127.0.0.53".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(servers(text), expected);
    }
}
