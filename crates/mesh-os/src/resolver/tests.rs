//! The whole on files alone: what is set, what is on record, and that nothing is left.

use std::fs;

use super::*;

pub(super) fn split() -> Split {
    let network: NetworkId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let address: Ipv6Addr = "fdc3:582e:db61:0:f785:d658:d2e9:df7d".parse().unwrap();
    Split {
        network,
        interface: "mesh-no-such".to_owned(),
        server: address,
        answering: true,
        domain: "mesh".to_owned(),
        reverse: vec!["1.6.b.d.e.2.8.5.3.c.d.f.ip6.arpa".to_owned()],
        names: vec![(
            address.into(),
            vec!["cinnabar.mesh".to_owned(), "kanban.mesh".to_owned()],
        )],
        probe: ("cinnabar.mesh".to_owned(), address.into()),
    }
}

/// A machine with libc alone, and this hosts file.
fn machine(hosts: &str) -> (tempfile::TempDir, Machine) {
    let root = tempfile::tempdir().unwrap();
    for dir in ["etc", "run", "var/run"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    fs::write(root.path().join("etc/hosts"), hosts).unwrap();
    let machine = Machine::with_files_in(root.path());
    (root, machine)
}

fn hosts_of(root: &tempfile::TempDir) -> String {
    fs::read_to_string(root.path().join("etc/hosts")).unwrap()
}

#[test]
fn what_is_set_is_on_record_and_undoing_leaves_no_trace() {
    let (root, machine) = machine("127.0.0.1 localhost\n");
    let applied = machine.apply(&split(), Choice::Hosts).unwrap();
    assert_eq!(applied.backend, Backend::Hosts);
    assert_eq!(machine.in_force(), [Backend::Hosts]);
    let set = hosts_of(&root);
    assert!(
        set.contains("\nfdc3:582e:db61:0:f785:d658:d2e9:df7d cinnabar.mesh kanban.mesh\n"),
        "{set}"
    );
    machine.apply(&split(), Choice::Hosts).unwrap();
    assert_eq!(hosts_of(&root), set);

    // The configuration is gone by now; the record is enough.
    assert_eq!(machine.undo(None).unwrap(), [Backend::Hosts]);
    assert_eq!(hosts_of(&root), "127.0.0.1 localhost\n");
    assert_eq!(machine.in_force(), []);
    assert_eq!(machine.undo(None).unwrap(), []);
}

#[test]
fn what_an_earlier_boot_left_is_found_by_its_marks() {
    let (root, machine) = machine("127.0.0.1 localhost\n");
    machine.apply(&split(), Choice::Hosts).unwrap();
    fs::remove_dir_all(Records::path(root.path()).parent().unwrap()).unwrap();
    let network = split().network;
    assert_eq!(machine.undo(Some(&network)).unwrap(), [Backend::Hosts]);
    assert_eq!(hosts_of(&root), "127.0.0.1 localhost\n");
}

#[test]
fn a_record_of_a_way_that_is_not_taken_any_more_is_undone() {
    let (root, machine) = machine("");
    etc_resolver::set(root.path(), &split()).unwrap();
    let _lock = record::lock(root.path()).unwrap();
    let old = Record::EtcResolver {
        network: split().network,
    };
    Records::of(old).write(root.path()).unwrap();
    drop(_lock);
    machine.apply(&split(), Choice::Hosts).unwrap();
    assert!(!root.path().join("etc/resolver").exists());
    assert_eq!(machine.in_force(), [Backend::Hosts]);
}

#[test]
fn without_a_way_nothing_is_changed_and_every_reason_is_told() {
    let (root, machine) = machine("a\n");
    let error = machine.apply(&split(), Choice::Resolvconf).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("resolvconf (it is not installed)")
            && text.contains("/etc/hosts (the configuration says `resolver = \"resolvconf\"`)"),
        "{text}"
    );
    assert_eq!(hosts_of(&root), "a\n");
}

#[test]
fn a_torn_record_is_no_obstacle() {
    let (root, machine) = machine("a\n");
    machine.apply(&split(), Choice::Hosts).unwrap();
    fs::write(Records::path(root.path()), "{\"version\":1,\"se").unwrap();
    machine.apply(&split(), Choice::Hosts).unwrap();
    machine.undo(Some(&split().network)).unwrap();
    assert_eq!(hosts_of(&root), "a\n");
}

#[test]
fn a_choice_is_written_as_the_configuration_has_it() {
    for text in ["auto", "resolved", "resolvconf", "hosts", "none"] {
        let choice: Choice = text.parse().unwrap();
        assert_eq!(choice.as_str(), text);
    }
    assert_eq!("Auto".parse::<Choice>(), Err(ParseChoiceError));
}
