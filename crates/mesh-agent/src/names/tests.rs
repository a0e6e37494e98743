use super::*;
use crate::testing::{Fleet, agent, name};

fn fleet() -> Fleet {
    let mut fleet = Fleet::new(&["cinnabar", "galena"]);
    let cinnabar = fleet.member_mut("cinnabar");
    cinnabar.ipv4 = Some("10.1.0.1".parse().unwrap());
    cinnabar.aliases = vec!["kanban".to_owned(), "*.apps".to_owned()];
    cinnabar.ssh_host_keys = vec![
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDVM0wBmSKsgpf16fE10MiWgVzS2cPsnkUVCCb5S4wk x"
            .to_owned(),
        "no key\n* ssh-rsa AAAA".to_owned(),
    ];
    fleet.member_mut("galena").enabled = false;
    fleet
}

#[test]
fn the_names_are_those_of_the_roster_with_their_addresses() {
    let roster = fleet().roster(7);
    let galena = &roster.members()[&name("galena")];
    let (_, names) = told(&roster, galena, "mesh0".to_owned()).unwrap();
    let known: Vec<_> = names.names.keys().map(String::as_str).collect();
    assert_eq!(known, ["cinnabar.mesh", "galena.mesh", "kanban.mesh"]);
    let cinnabar = &roster.members()[&name("cinnabar")];
    let addresses: [IpAddr; 2] = [cinnabar.address.into(), cinnabar.ipv4.unwrap().into()];
    assert_eq!(names.names["kanban.mesh"], addresses);
    assert_eq!(names.wildcards["*.apps.mesh"], addresses);
    assert_eq!((names.address, names.ipv4), (galena.address, None));
    assert_eq!((names.serial.get(), names.domain.as_str()), (7, "mesh"));
}

#[test]
fn only_what_ssh_takes_for_a_key_is_told() {
    let hosts = hosts(&fleet().roster(7));
    assert_eq!(hosts.hosts.len(), 2);
    let keys = &hosts.hosts[0].ssh_host_keys;
    assert_eq!(keys.len(), 1);
    assert!(keys[0].ends_with("S4wk"), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_names_goes_with_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let roster = fleet().roster(7);
    let galena = &roster.members()[&name("galena")];
    let (_, names) = told(&roster, galena, "mesh0".to_owned()).unwrap();
    let path = dir.path().join("names.json");
    std::fs::write(&path, "what a killed agent left").unwrap();

    let mut file = NamesFile::beside(&dir.path().join("agent.sock"));
    assert!(!path.exists());
    let bell = dir.path().join(mesh_api::NAMES_BELL);
    assert!(!bell.exists());
    file.keep(Some(&names));
    assert!(bell.exists());
    std::fs::remove_file(&bell).unwrap();
    let read = || serde_json::from_slice::<Names>(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(read(), names);
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    file.keep(Some(&names));
    assert_eq!(
        std::fs::metadata(&path).unwrap().modified().unwrap(),
        written
    );
    assert!(!bell.exists(), "nothing changed");
    let silent = Names {
        answering: false,
        ..names
    };
    file.keep(Some(&silent));
    assert!(!read().answering);
    assert!(bell.exists());
    std::fs::remove_file(&bell).unwrap();
    file.keep(None);
    assert!(!path.exists() && bell.exists());
    file.keep(Some(&silent));
    drop(file);
    assert!(!path.exists() && !bell.exists());
}

#[tokio::test]
async fn an_agent_without_a_place_in_the_mesh_says_why_it_does_not_answer() {
    let fleet = fleet();
    let dir = tempfile::tempdir().unwrap();
    let reason = |stored| {
        let agent = agent(&fleet, "galena", &[], stored, dir.path());
        Scene::of(&agent).err()
    };
    assert_eq!(reason(None).as_deref(), Some("no roster yet"));
    assert_eq!(reason(Some(7)).as_deref(), Some("no interface"));
}
