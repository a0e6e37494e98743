use std::{collections::BTreeSet, fs, net::IpAddr};

use mesh_inventory::roster::Roster;

use super::*;
use crate::testing::{Fleet, network};

const CINNABAR: &str = "cinnabar";

fn roster() -> (Fleet, Roster) {
    let fleet = Fleet::new(&[CINNABAR, "galena"]);
    let roster = fleet.roster(7);
    (fleet, roster)
}

fn config(fleet: &Fleet, more: &str) -> Config {
    let text = format!(
        "network = \"{}\"\nsigners = [\"{}\"]\ncontrollers = []\n{more}\n",
        network(),
        fleet.signer()
    );
    Config::parse(&text, Path::new("agent.toml")).unwrap()
}

/// What an honest agent on cinnabar writes.
fn honest(roster: &Roster) -> Names {
    let own = network().address_of(&CINNABAR.parse().unwrap()).unwrap();
    let galena = network().address_of(&"galena".parse().unwrap()).unwrap();
    let domain = roster.network().domain.clone();
    Names {
        version: mesh_api::VERSION,
        network: network(),
        serial: roster.head().serial,
        interface: "mesh0".to_owned(),
        address: own,
        ipv4: None,
        prefix: network().prefix().net(),
        pool: None,
        answering: true,
        names: [
            (format!("cinnabar.{domain}"), vec![own.into()]),
            (format!("aaa.{domain}"), vec![own.into()]),
            (format!("galena.{domain}"), vec![galena.into()]),
        ]
        .into(),
        wildcards: [].into(),
        domain,
    }
}

/// What a compromised agent changes.
type Lie = Box<dyn Fn(&mut Names)>;

fn local(names: &Names) -> BTreeSet<IpAddr> {
    [names.address.into()].into()
}

#[test]
fn an_honest_agents_names_become_what_is_asked() {
    let (fleet, roster) = roster();
    let names = honest(&roster);
    let split = check(&names, &config(&fleet, ""), &roster, &local(&names)).unwrap();
    assert_eq!(split.server, names.address);
    assert_eq!(split.reverse.len(), 1);
    assert!(
        split.reverse[0].ends_with(".d.f.ip6.arpa"),
        "{:?}",
        split.reverse
    );
    let domain = &names.domain;
    assert_eq!(split.probe.0, format!("cinnabar.{domain}"));
    let own = split
        .names
        .iter()
        .find(|(address, _)| *address == IpAddr::V6(names.address));
    // The machine's own name is before the alias.
    assert_eq!(
        own.unwrap().1,
        [format!("cinnabar.{domain}"), format!("aaa.{domain}")]
    );
}

#[test]
fn a_compromised_agent_cannot_have_anything_else_asked() {
    let (fleet, roster) = roster();
    let honest = honest(&roster);
    let config = config(&fleet, "");
    let lies: Vec<(&str, Lie)> = vec![
        (
            "the root zone",
            Box::new(|names| names.domain = String::new()),
        ),
        (
            "another domain",
            Box::new(|names| names.domain = "example.com".into()),
        ),
        (
            "the domain above",
            Box::new(|names| names.domain = "arpa".into()),
        ),
        (
            "another network",
            Box::new(|names| names.network = "ff".repeat(16).parse().unwrap()),
        ),
        (
            "everything's reverse",
            Box::new(|names| names.prefix = "::/0".parse().unwrap()),
        ),
        (
            "a pool",
            Box::new(|names| names.pool = Some("0.0.0.0/0".parse().unwrap())),
        ),
        (
            "another interface",
            Box::new(|names| names.interface = "eth0".into()),
        ),
        (
            "another server",
            Box::new(|names| names.address = "2001:db8::1".parse().unwrap()),
        ),
        (
            "another member as server",
            Box::new(|names| {
                names.address = network().address_of(&"galena".parse().unwrap()).unwrap();
            }),
        ),
        (
            "a name of others",
            Box::new(|names| {
                names
                    .names
                    .insert("bank.example".into(), vec![names.address.into()]);
            }),
        ),
        (
            "a name that only ends alike",
            Box::new(|names| {
                names
                    .names
                    .insert(format!("bank{}", names.domain), vec![names.address.into()]);
            }),
        ),
        (
            "the domain itself",
            Box::new(|names| {
                names
                    .names
                    .insert(names.domain.clone(), vec![names.address.into()]);
            }),
        ),
        (
            "a line of its own",
            Box::new(|names| {
                names.names.insert(
                    format!("x\n1.2.3.4 bank.{}", names.domain),
                    vec![names.address.into()],
                );
            }),
        ),
        (
            "a comment",
            Box::new(|names| {
                names
                    .names
                    .insert(format!("#.{}", names.domain), vec![names.address.into()]);
            }),
        ),
        (
            "a long name",
            Box::new(|names| {
                names.names.insert(
                    format!("{}{}", "a.".repeat(200), names.domain),
                    vec![names.address.into()],
                );
            }),
        ),
        (
            "an address outside",
            Box::new(|names| {
                names.names.insert(
                    format!("x.{}", names.domain),
                    vec!["2001:db8::1".parse().unwrap()],
                );
            }),
        ),
        (
            "an IPv4 address without a pool",
            Box::new(|names| {
                names.names.insert(
                    format!("x.{}", names.domain),
                    vec!["127.0.0.1".parse().unwrap()],
                );
            }),
        ),
        (
            "the agents' own address",
            Box::new(|names| {
                let agents = network().prefix().agent_address();
                names
                    .names
                    .insert(format!("x.{}", names.domain), vec![agents.into()]);
            }),
        ),
        (
            "too many addresses",
            Box::new(|names| {
                names.names.insert(
                    format!("x.{}", names.domain),
                    vec![names.address.into(); 17],
                );
            }),
        ),
        ("another format", Box::new(|names| names.version = 99)),
    ];
    for (what, lie) in lies {
        let mut names = honest.clone();
        lie(&mut names);
        let checked = check(&names, &config, &roster, &local(&honest));
        assert!(checked.is_err(), "{what}: {checked:?}");
    }
}

#[test]
fn a_file_that_is_a_link_is_not_followed_and_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let (secret, path) = (dir.path().join("secret"), dir.path().join(NAMES_FILE));
    fs::write(&secret, "\"hunter2\"").unwrap();
    std::os::unix::fs::symlink(&secret, &path).unwrap();
    let error = read_names(&path).unwrap_err();
    assert!(!crate::chain(&error).contains("hunter2"), "{error}");
    assert!(matches!(error, ResolverError::Read(_)), "{error}");
    fs::remove_file(&path).unwrap();
    assert_eq!(read_names(&path).unwrap(), None);
    fs::rename(&secret, &path).unwrap();
    let error = read_names(&path).unwrap_err();
    assert!(!crate::chain(&error).contains("hunter2"), "{error}");
}

#[test]
fn without_an_agent_what_is_left_of_it_goes() {
    let root = tempfile::tempdir().unwrap();
    for dir in ["etc", "run", "var/run"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    let (fleet, _) = roster();
    let hosts = root.path().join("etc/hosts");
    fs::write(
        &hosts,
        format!(
            "a\n# BEGIN mesh {0} mesh\nfdc3::1 x.mesh\n# END mesh {0}\n",
            network()
        ),
    )
    .unwrap();
    let config = config(
        &fleet,
        &format!(
            "socket = \"{}\"",
            root.path().join("run/agent.sock").display()
        ),
    );
    let machine = Machine::with_files_in(root.path());
    let bell = root.path().join("run").join(NAMES_BELL);
    fs::write(&bell, "").unwrap();
    let outcome = apply(&config, &machine, false).unwrap();
    assert!(!bell.exists(), "what rings from now on is news");
    let expected = Outcome::Nothing {
        reason: "the agent has no names",
        undone: vec![Backend::Hosts],
    };
    assert_eq!(outcome, expected);
    assert_eq!(fs::read_to_string(&hosts).unwrap(), "a\n");
    // One that cannot be silenced keeps nobody from the rest.
    fs::create_dir(&bell).unwrap();
    assert!(apply(&config, &machine, false).is_ok());
}

#[test]
fn names_without_a_roster_that_vouches_for_them_are_not_believed() {
    let root = tempfile::tempdir().unwrap();
    let (fleet, roster) = roster();
    let config = config(
        &fleet,
        &format!(
            "socket = \"{0}/agent.sock\"\nstate_dir = \"{0}\"",
            root.path().display()
        ),
    );
    let names = serde_json::to_vec(&honest(&roster)).unwrap();
    fs::write(root.path().join(NAMES_FILE), names).unwrap();
    let machine = Machine::with_files_in(root.path());
    let error = apply(&config, &machine, false).unwrap_err();
    assert!(matches!(error, ResolverError::Roster(_)), "{error}");
}
