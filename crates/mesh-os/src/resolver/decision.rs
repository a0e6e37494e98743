//! Which way this machine has: a pure function over facts.

use std::net::IpAddr;

use super::{Backend, Choice};

/// The first release of openresolv that keeps the domains of a private entry out of the search list
/// (`-p` given twice, resolvconf(8)).
const OPENRESOLV_MIN: (u32, u32) = (3, 16);

/// What the decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The system.
    pub platform: Platform,
    /// Whether systemd-resolved has its name on the system's bus.
    pub resolved_runs: bool,
    /// What libc asks for hosts, in this order, such as `files`, `resolve`, `dns` (nsswitch.conf(5)).
    pub nss: Vec<String>,
    /// The servers in `/etc/resolv.conf`, which libc's `dns` asks.
    pub servers: Vec<IpAddr>,
    /// Whether `/etc/resolv.conf` is what resolvconf makes.
    pub resolvconf_rules: bool,
    /// The program `resolvconf`.
    pub resolvconf: Resolvconf,
    /// The hosts file.
    pub hosts: Hosts,
}

/// A kind of system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Linux.
    Linux,
    /// macOS.
    Macos,
}

/// What the program `resolvconf` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolvconf {
    /// There is none.
    Absent,
    /// systemd-resolved's own, under another name.
    Resolvectl,
    /// openresolv.
    Openresolv {
        /// Major and minor number of its release.
        version: (u32, u32),
        /// The local server that it configures, such as `dnsmasq`; `None`: it writes for libc alone.
        subscriber: Option<String>,
    },
    /// Debian's, or one that is not known.
    Other,
}

/// What can be done with the hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// It can be replaced.
    Writable,
    /// It cannot.
    Closed {
        /// Why, and what to do.
        reason: String,
    },
}

/// A way that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The way.
    pub backend: Backend,
    /// Why not, and where there is one, the next step.
    pub reason: String,
}

/// The ways of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Those to try, the best first.
    pub usable: Vec<Backend>,
    /// The others.
    pub passed: Vec<Passed>,
}

/// Says which ways to take, in which order, and why no other. `answering`: the agent answers on port 53.
pub fn decide(choice: Choice, answering: bool, facts: &Facts) -> Decision {
    let ways: &[Backend] = match facts.platform {
        Platform::Linux => &[Backend::Resolved, Backend::Resolvconf, Backend::Hosts],
        Platform::Macos => &[Backend::EtcResolver, Backend::Hosts],
    };
    let mut decision = Decision {
        usable: Vec::new(),
        passed: Vec::new(),
    };
    for backend in ways.iter().copied() {
        let verdict = is_chosen(choice, backend).and_then(|()| match backend {
            Backend::Hosts => hosts(facts),
            Backend::Resolved | Backend::Resolvconf | Backend::EtcResolver if !answering => {
                Err("the agent does not answer on port 53; `mesh status` says why".to_owned())
            }
            Backend::Resolved => resolved(facts),
            Backend::Resolvconf => resolvconf(facts),
            Backend::EtcResolver => Ok(()),
        });
        match verdict {
            Ok(()) => decision.usable.push(backend),
            Err(reason) => decision.passed.push(Passed { backend, reason }),
        }
    }
    decision
}

fn is_chosen(choice: Choice, backend: Backend) -> Result<(), String> {
    let chosen = match choice {
        Choice::Auto => true,
        Choice::Resolved => backend == Backend::Resolved,
        Choice::Resolvconf => backend == Backend::Resolvconf,
        Choice::Hosts => backend == Backend::Hosts,
        Choice::None => false,
    };
    if chosen {
        return Ok(());
    }
    Err(format!(
        "the configuration says `resolver = \"{}\"`",
        choice.as_str()
    ))
}

fn resolved(facts: &Facts) -> Result<(), String> {
    if !facts.resolved_runs {
        return Err("it does not run".to_owned());
    }
    let has_module = facts.nss.iter().any(|service| service == "resolve");
    let asks_dns = facts.nss.iter().any(|service| service == "dns");
    let first_is_stub = facts.servers.first().is_some_and(is_stub);
    if has_module || (asks_dns && first_is_stub) {
        return Ok(());
    }
    Err(
        "programs do not ask it: `/etc/resolv.conf` does not name its address 127.0.0.53, and \
         `/etc/nsswitch.conf` has no `resolve`; link `/etc/resolv.conf` to `/run/systemd/resolve/stub-resolv.conf`, \
         or install its module for libc"
            .to_owned(),
    )
}

fn resolvconf(facts: &Facts) -> Result<(), String> {
    let subscriber = match &facts.resolvconf {
        Resolvconf::Absent => return Err("it is not installed".to_owned()),
        Resolvconf::Resolvectl => {
            return Err("it is systemd-resolved under another name".to_owned());
        }
        Resolvconf::Other => {
            return Err(
                "this one, unlike openresolv, cannot ask a server for one domain alone".to_owned(),
            );
        }
        Resolvconf::Openresolv { version, .. } if *version < OPENRESOLV_MIN => {
            return Err(format!(
                "openresolv {}.{} puts the domains into everybody's search list; {}.{} and later need not",
                version.0, version.1, OPENRESOLV_MIN.0, OPENRESOLV_MIN.1
            ));
        }
        Resolvconf::Openresolv { subscriber, .. } => subscriber,
    };
    if !facts.resolvconf_rules {
        return Err("it does not make `/etc/resolv.conf`".to_owned());
    }
    let Some(subscriber) = subscriber else {
        return Err(
            "`/etc/resolvconf.conf` names no local server (such as dnsmasq or unbound), and libc \
             alone cannot ask a server for one domain"
                .to_owned(),
        );
    };
    let asks_local = |server: &IpAddr| server.is_loopback() && !is_stub(server);
    if facts.servers.is_empty() || !facts.servers.iter().all(asks_local) {
        return Err(format!(
            "`/etc/resolv.conf` does not name {subscriber} alone; `name_servers=127.0.0.1` in \
             `/etc/resolvconf.conf` does that"
        ));
    }
    Ok(())
}

fn hosts(facts: &Facts) -> Result<(), String> {
    if facts.platform == Platform::Linux && !facts.nss.iter().any(|service| service == "files") {
        return Err("`hosts:` in `/etc/nsswitch.conf` does not name `files`".to_owned());
    }
    match &facts.hosts {
        Hosts::Writable => Ok(()),
        Hosts::Closed { reason } => Err(reason.clone()),
    }
}

/// The addresses of systemd-resolved's listeners (systemd-resolved.service(8)).
fn is_stub(server: &IpAddr) -> bool {
    [[127, 0, 0, 53], [127, 0, 0, 54]]
        .iter()
        .any(|stub| *server == IpAddr::from(*stub))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with libc alone.
    fn plain() -> Facts {
        Facts {
            platform: Platform::Linux,
            resolved_runs: false,
            nss: vec!["files".to_owned(), "dns".to_owned()],
            servers: vec!["192.0.2.1".parse().unwrap()],
            resolvconf_rules: false,
            resolvconf: Resolvconf::Absent,
            hosts: Hosts::Writable,
        }
    }

    fn stub() -> Vec<IpAddr> {
        vec!["127.0.0.53".parse().unwrap()]
    }

    fn nss(services: &[&str]) -> Vec<String> {
        services.iter().map(|&service| service.to_owned()).collect()
    }

    fn openresolv(version: (u32, u32), subscriber: Option<&str>) -> Facts {
        Facts {
            servers: vec!["127.0.0.1".parse().unwrap()],
            resolvconf_rules: true,
            resolvconf: Resolvconf::Openresolv {
                version,
                subscriber: subscriber.map(str::to_owned),
            },
            ..plain()
        }
    }

    #[test]
    fn each_kind_of_machine_has_its_way() {
        use Backend::{EtcResolver, Hosts as HostsFile, Resolvconf as Resolv, Resolved};
        let closed = Hosts::Closed {
            reason: "it is in the Nix store".to_owned(),
        };
        let table: [(&str, Facts, bool, &[Backend]); 15] = [
            ("libc alone", plain(), true, &[HostsFile]),
            (
                "resolved by its stub",
                Facts {
                    resolved_runs: true,
                    servers: stub(),
                    ..plain()
                },
                true,
                &[Resolved, HostsFile],
            ),
            (
                "resolved by its module, resolv.conf being another's",
                Facts {
                    resolved_runs: true,
                    nss: nss(&["files", "resolve", "dns"]),
                    ..plain()
                },
                true,
                &[Resolved, HostsFile],
            ),
            (
                "resolved that nobody asks",
                Facts {
                    resolved_runs: true,
                    ..plain()
                },
                true,
                &[HostsFile],
            ),
            (
                "the stub's address without anybody there",
                Facts {
                    servers: stub(),
                    ..plain()
                },
                true,
                &[HostsFile],
            ),
            (
                "resolved, and no answers on port 53",
                Facts {
                    resolved_runs: true,
                    servers: stub(),
                    ..plain()
                },
                false,
                &[HostsFile],
            ),
            (
                "NixOS with resolved",
                Facts {
                    resolved_runs: true,
                    servers: stub(),
                    nss: nss(&["mymachines", "resolve", "files", "myhostname", "dns"]),
                    hosts: closed.clone(),
                    ..plain()
                },
                true,
                &[Resolved],
            ),
            (
                "openresolv with dnsmasq",
                openresolv((3, 17), Some("dnsmasq")),
                true,
                &[Resolv, HostsFile],
            ),
            (
                "openresolv of Debian 12",
                openresolv((3, 12), Some("dnsmasq")),
                true,
                &[HostsFile],
            ),
            (
                "openresolv for libc alone",
                openresolv((3, 17), None),
                true,
                &[HostsFile],
            ),
            (
                "openresolv whose server is not asked",
                Facts {
                    servers: vec!["192.0.2.1".parse().unwrap()],
                    ..openresolv((3, 17), Some("unbound"))
                },
                true,
                &[HostsFile],
            ),
            (
                "openresolv installed, resolv.conf being another's",
                Facts {
                    resolvconf_rules: false,
                    ..openresolv((3, 17), Some("unbound"))
                },
                true,
                &[HostsFile],
            ),
            (
                "Debian's resolvconf",
                Facts {
                    resolvconf: Resolvconf::Other,
                    ..openresolv((3, 17), None)
                },
                true,
                &[HostsFile],
            ),
            (
                "a hosts file that cannot be written",
                Facts {
                    hosts: closed,
                    ..plain()
                },
                true,
                &[],
            ),
            (
                "a Mac",
                Facts {
                    platform: Platform::Macos,
                    nss: Vec::new(),
                    ..plain()
                },
                true,
                &[EtcResolver, HostsFile],
            ),
        ];
        for (what, facts, answering, expected) in table {
            let decision = decide(Choice::Auto, answering, &facts);
            assert_eq!(decision.usable, expected, "{what}: {decision:?}");
            assert!(
                decision
                    .passed
                    .iter()
                    .all(|passed| !passed.reason.is_empty()),
                "{what}"
            );
        }
    }

    #[test]
    fn a_choice_leaves_one_way_or_none() {
        let facts = Facts {
            resolved_runs: true,
            servers: stub(),
            ..plain()
        };
        let usable = |choice| decide(choice, true, &facts).usable;
        assert_eq!(usable(Choice::Resolved), [Backend::Resolved]);
        assert_eq!(usable(Choice::Hosts), [Backend::Hosts]);
        assert_eq!(usable(Choice::Resolvconf), []);
        assert_eq!(usable(Choice::None), []);
        let passed = decide(Choice::Hosts, true, &facts).passed;
        assert_eq!(
            passed[0].reason,
            "the configuration says `resolver = \"hosts\"`"
        );
    }

    #[test]
    fn libc_without_files_reads_no_hosts_file() {
        let facts = Facts {
            nss: nss(&["dns"]),
            ..plain()
        };
        assert_eq!(decide(Choice::Auto, true, &facts).usable, []);
    }
}
